"""Controls, sensors, the address and the numbers, without a server."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from trt_blendmask.errors import InputMissingError, UsageError
from trt_blendmask.runtime.board import read_board
from trt_blendmask.runtime.controls import Controls, Settings
from trt_blendmask.runtime.preview.address import Serving
from trt_blendmask.runtime.preview.metrics import metrics
from trt_blendmask.runtime.preview.state import HISTORY_S, PreviewState

from .conftest import FakeSource, result


def test_settings_keep_scores_and_classes() -> None:
    found = result(classes=(0, 1, 1)).detections  # scores 0.9, 0.6, 0.3
    assert Settings(score=0.5).keep(found).classes.tolist() == [0, 1]
    assert Settings(classes=('bo"lt',)).keep(found).scores.tolist() == pytest.approx([0.6, 0.3])
    assert len(Settings(classes=()).keep(found)) == 0
    assert len(Settings().keep(found)) == 3


@pytest.mark.parametrize(
    "wishes",
    [
        {"score": 1.1},
        {"score": math.nan},
        {"score": True},
        {"score": "0.5"},
        {"opacity": -0.01},
        {"paused": 1},
        {"classes": ["screw"]},
        {"classes": "nut"},
        {"classes": [["nut"]]},
        {"Score": 0.5},
    ],
)
def test_controls_change_all_or_nothing(wishes: dict[str, object]) -> None:
    controls = Controls()
    controls.class_names = ("nut",)
    before = controls.settings
    with pytest.raises(UsageError):
        controls.change({"recording": False} | wishes)
    assert controls.settings is before


def test_a_pause_ends() -> None:
    controls = Controls()
    assert controls.wait_while_paused(0)
    controls.change({"paused": True})
    assert not controls.wait_while_paused(0.01)
    controls.change({"paused": False})
    assert controls.wait_while_paused(0)


def test_sensors_of_a_jetson(tmp_path: Path) -> None:
    files = {
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        "class/thermal/thermal_zone0/temp": "48250",
        "class/thermal/thermal_zone1/type": "cv0-thermal",
        "class/thermal/thermal_zone1/temp": "-256000",
        "class/thermal/thermal_zone2/type": "broken",
        "class/hwmon/hwmon1/name": "ina3221",
        "class/hwmon/hwmon1/in1_label": "VDD_IN",
        "class/hwmon/hwmon1/in1_input": "5000",
        "class/hwmon/hwmon1/curr1_input": "1500",
        "class/hwmon/hwmon1/in2_label": "NC",
        "class/hwmon/hwmon1/in2_input": "nan?",
        "class/hwmon/hwmon2/name": "rapl",
        "class/hwmon/hwmon2/power1_input": "12500000",
    }
    for name, text in files.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    board = read_board(tmp_path)
    assert board.celsius == {"cpu": 48.25}
    assert board.watts == {"VDD_IN": 7.5, "rapl": 12.5}
    assert read_board(tmp_path / "nothing").celsius == {}


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Serving.parse("8080") == Serving("127.0.0.1", 8080)
    assert Serving.parse("[::1]:80").host == "::1"
    monkeypatch.setenv("OUR_TOKEN", "correct-horse")
    with_token = Serving.parse("8080", "env:OUR_TOKEN")
    assert (with_token.host, with_token.token) == ("0.0.0.0", "correct-horse")
    assert "horse" not in repr(with_token)
    for text in ("", "x", "65536", "1:2:x", ":-1", "8080 ", "²"):
        with pytest.raises(UsageError, match="HOST"):
            Serving.parse(text)
    for host in ("0.0.0.0", "[::]", "192.168.1.5", "edge.example", ""):
        with pytest.raises(UsageError, match="token") if host else monkeypatch.context():
            Serving.parse(f"{host}:8080")
    with pytest.raises(
        InputMissingError, match=r"Expected the token .* NOT_THERE, but it is not set: export NOT_THERE="
    ):
        Serving.parse("8080", "env:NOT_THERE")
    for token in ("short", "with a blank", "ünïcödé-token"):
        with pytest.raises(UsageError, match="token"):
            Serving.parse("8080", token)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8080", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:8080", True),
        ("192.168.7.7:8080", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("localhost.evil.example", False),
        ("", False),
        ("[", False),
        ("127.1", False),
    ],
)
def test_hosts(host: str, ours: bool) -> None:
    assert Serving("127.0.0.1", 80).answers_to(host) is ours


def test_numbers_of_the_last_minutes() -> None:
    now = [1000.25]
    state = PreviewState(lambda: now[0])
    assert state.summary()["latency_ms"] == {"p50": None, "p99": None, "plot": []}
    latencies = []
    for i in range(100):  # 10 a second, for ten seconds
        one = result(i, classes=(0, 1) if i < 50 else (1,))
        object.__setattr__(one.frame, "captured_s", now[0] - (i + 1) / 1e3)
        state.show(one)
        latencies.append(float(i + 1))
        now[0] += 0.1
    summary = state.summary()
    assert summary["fps"] == pytest.approx(10, abs=0.5)
    assert summary["frames"] == 100
    assert summary["latency_ms"]["p50"] == pytest.approx(np.percentile(latencies, 50), abs=1)
    assert summary["latency_ms"]["p99"] == pytest.approx(np.percentile(latencies, 99), abs=1)
    assert summary["classes"] == {'bo"lt': 100, "nut": 50}
    assert summary["stage_ms"]["network"] == pytest.approx(5)
    now[0] += HISTORY_S - 5  # the nuts were in the first half
    assert set(state.summary()["classes"]) == {'bo"lt'}
    assert state.summary()["fps"] == 0
    assert state.summary()["latency_ms"]["p50"] is None


@pytest.mark.parametrize("began_s", [1000.0, 1000.5, 1000.97])
def test_frames_per_second_from_the_first_moment_on(began_s: float) -> None:
    now = [began_s]
    state = PreviewState(lambda: now[0])
    for index in range(250):
        now[0] = began_s + index / 25
        state.show(result(index))
        if index >= 10:
            assert state.summary()["fps"] == pytest.approx(25, rel=0.11)


def test_memory_is_bounded_and_taking_a_result_is_quick() -> None:
    now = [0.0]
    state = PreviewState(lambda: now[0])
    one = result()
    for i in range(5000):
        now[0] = i * 0.5
        state.show(one)
    assert len(state._seconds) == HISTORY_S
    began = time.perf_counter()
    for _ in range(1000):
        state.show(one)
    assert (time.perf_counter() - began) / 1000 < 2e-3


def test_metrics_are_prometheus() -> None:
    state = PreviewState()
    state.watch(FakeSource(), lambda: 3)  # type: ignore[arg-type]
    for i in range(7):
        state.show(result(i))
    text = metrics([state], {"source_lost": 2}, read_board(Path("/nowhere")), 1)
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines[r'trt_blendmask_frames_total{source="cam\n"}'] == "7"
    assert lines[r'trt_blendmask_detections_total{source="cam\n",class="bo\"lt"}'] == "14"
    assert lines['trt_blendmask_events_total{kind="source_lost"}'] == "2"
    assert lines[r'trt_blendmask_frames_dropped_total{source="cam\n"}'] == "3"
    buckets = [float(lines[key]) for key in lines if "_bucket" in key]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 7 == float(lines[r'trt_blendmask_frame_latency_seconds_count{source="cam\n"}'])
    assert float(lines[r'trt_blendmask_frame_latency_seconds_sum{source="cam\n"}']) > 7 * 0.02
