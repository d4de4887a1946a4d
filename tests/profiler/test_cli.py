"""`trt-blendmask profile` from the command line: the files it writes, and what it says of what it cannot do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.profiler.made_up import ROOF
from tests.profiler.made_up import report as made_up
from tests.quick_model import quick_model
from trt_blendmask.cli import main
from trt_blendmask.profiler import measure, steps
from trt_blendmask.profiler.layers import onnxruntime
from trt_blendmask.profiler.report import read_report
from trt_blendmask.runtime.sources import open_source

QUICK = ("--duration", "50ms", "--warmup", "10ms", "--no-pipeline")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for k, frame in zip(range(2), open_source("synthetic:conveyor?size=512x288"), strict=False):
        cv2.imwrite(str(folder / f"{k}.png"), frame.image)
    return folder


@pytest.fixture(autouse=True)
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_model_twice(pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "measure_roof", lambda: replace(ROOF, gmacs_per_s={"FP32": 1e-3}))  # tests of its own
    monkeypatch.setattr(onnxruntime, "recording_cost", lambda _threads: onnxruntime.RecordingCost(8.0, 0.5))  # likewise
    monkeypatch.setattr(onnxruntime, "_MOST_EVENTS", 0)  # the fewest runs
    model = str(quick_model((96, 160)))
    words = ["profile", model, model, "--images", str(pictures), *QUICK, "--percentiles", "50,75", "--per-layer"]
    assert main([*words, "-o", "new/p.html", "--json", "p.json", "--trtexec-json", "t"]) == 0
    said = capsys.readouterr().out
    assert "p75" in said
    assert "Wrote new/p.html and p.json" in said
    report = read_report(Path("p.json"))
    assert report.percentiles == (50.0, 75.0)
    assert report.source.startswith("2 pictures of")
    for one in report.models:
        assert one.precision == "FP32"
        assert one.macs is not None
        assert one.macs > 1e8
        assert one.input_hw == (96, 160)
        assert all(host >= network for host, network in zip(one.times["host"], one.times["network"], strict=True))
        assert one.throughput is not None
        assert one.layers is not None
        assert one.layers.layers
        assert one.layers.roof is not None
        assert one.layers.roof.gmacs_per_s["FP32"] > 1  # raised to the fastest layer
    assert len({str(one.layers and one.layers.roof) for one in report.models}) == 1
    assert report.models[1].agreement is not None
    assert report.models[1].agreement["f1"] == report.models[1].agreement["mask_iou"] == 1
    page = Path("new/p.html").read_text()
    assert "(1)" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    first = Path("t") / report.models[0].label
    assert {file.name for file in first.iterdir()} == {"times.json", "profile.json", "layers.json"}
    assert main(["profile", "--from-trtexec", *map(str, first.iterdir()), "--json", "t.json"]) == 0
    assert read_report(Path("t.json")).models[0].layers is not None
    assert main(["profile", "--diff", "p.json", "p.json", "-o", "d.html", "--json", "d.json"]) == 0
    assert all(not one["differs"] for one in json.loads(Path("d.json").read_text())["models"])
    assert Path("d.html").exists()


def test_pictures_that_cannot_be_read_are_told(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder := Path("pictures")).mkdir()
    (folder / "good.png").write_bytes((pictures / "0.png").read_bytes())
    (folder / "bad.png").write_text("no picture")
    words = ["profile", str(quick_model((96, 160))), "--images", str(folder), "--no-pipeline"]
    assert main([*words, "--duration", "50ms", "--warmup", "0"]) == 0
    said = capsys.readouterr().out
    assert "Mind: 1 picture cannot be read and was left out." in said
    assert "On 1 picture of pictures" in said
    assert "1 picture cannot be read" in Path("profile.html").read_text()


def answer(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """What measuring would give."""
    monkeypatch.setattr(measure, "profile", lambda *_: replace(made_up(), **changes))


def test_ctrl_c_leaves_the_files(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer(monkeypatch, stopped=True)
    assert main(["profile", "model.onnx", "--json", "p.json"]) == 130
    assert "Stopped by Ctrl-C; profile.html is of what was measured" in capsys.readouterr().err
    assert read_report(Path("p.json")).stopped
    assert "Ctrl-C" in Path("profile.html").read_text()


def test_a_wrong_model_is_said_at_the_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = replace(made_up().models[1], times={}, error="its F1 is 0.1. To time it all the same, type --force")
    answer(monkeypatch, models=(made_up().models[0], wrong))
    assert main(["profile", "model.onnx"]) == 65
    error = capsys.readouterr().err
    assert error.startswith("error[65]")
    assert error.count("\n") == 1
    assert error.endswith("type --force.\n")
    assert Path("profile.html").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "profile model.onnx"),
        (["nope.onnx"], 66, "no such file"),
        (["junk.json"], 65, "Expected an ONNX model"),
        (["MODEL", "--images", "nope"], 66, "no such file"),
        (["MODEL", "--images", "junk"], 65, "none of 1 can be read"),
        (["MODEL", "--images", "empty"], 66, "there are none"),
        (["MODEL", "--source", "nope.mp4"], 66, "no such file"),
        (["MODEL", "--source", "junk.json"], 65, "Expected a video"),
        (["MODEL", "--device", "gpu"], 2, "trt-blendmask build"),
        (["MODEL", "-o", "empty"], 74, "the folder 'empty'"),
        (["MODEL", "--json", "/proc/nope.json"], 74, "Cannot write"),
        (["MODEL", "-o", "MODEL"], 2, "overwrite"),
        (["MODEL", "-o", "."], 74, "the folder '.'"),
        (["a.engine", "--json", "a.engine.json"], 2, "overwrite"),
        (["MODEL", "-o", "a", "--json", "./a"], 2, "overwrite"),
        (["--diff", "nope.json", "junk.json"], 66, "no such file"),
        (["--diff", "junk.json", "junk.json"], 65, "Cannot read 'junk.json'"),
        (["--diff", "junk.json", "junk.json", "-o", "junk.json"], 2, "overwrite"),
        (["--from-trtexec", "junk.json"], 65, "trtexec"),
        (["--from-trtexec", "nope.json"], 66, "no such file"),
        (["--from-trtexec", "junk.json", "--images", "junk"], 2, "without --images"),
        (["--diff", "junk.json", "junk.json", "--per-layer"], 2, "without --per-layer"),
        (["--diff", "junk.json", "junk.json", "--trtexec-json", "t"], 2, "without --trtexec-json"),
        (["MODEL", "--trtexec-json", "junk.json"], 74, "Cannot write"),
        (["MODEL", "--source", "rtsp://u:secret@127.0.0.1:9/x"], 69, "127.0.0.1"),
    ],
)
def test_bad_input(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("junk").mkdir()
    Path("junk/a.png").write_text("no picture")
    Path("empty").mkdir()
    Path("junk.json").write_text("{}")
    before = sorted(Path().iterdir())
    model = str(quick_model((96, 160)))
    assert main(["profile", *(model if word == "MODEL" else word for word in words), *QUICK]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith(f"error[{code}]: ")
    assert error.count("\n") == 1
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    "words",
    [
        ["--percentiles", "0"],
        ["--percentiles", "100"],
        ["--percentiles", "a"],
        ["--percentiles", "nan"],
        ["--duration", "0s"],
        ["--duration", "-1s"],
        ["--warmup", "2h"],
        ["--random", "--images", "x"],
        ["--diff", "a.json"],
        ["--diff", "a.json", "b.json", "c.json"],
        ["--from-trtexec"],
    ],
)
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["profile", *(["m.onnx"] if words[0].startswith("--d") and "diff" not in words[0] else []), *words])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error[2]: ")


SECRET = "rtsp://admin:secret@10.0.0.5/main"


@pytest.mark.parametrize("typed", [["--source", SECRET], [f"--source={SECRET}"], [f"--s={SECRET}"], ["--sou", SECRET]])
def test_no_password_in_the_files(monkeypatch: pytest.MonkeyPatch, typed: list[str]) -> None:
    monkeypatch.setattr(
        measure, "profile", lambda _models, _options, command, _tick: replace(made_up(), command=command)
    )
    assert main(["profile", "model.onnx", *typed]) == 0
    page = Path("profile.html").read_text()
    assert "secret" not in page
    assert "10.0.0.5" in page


def test_what_files_hold_does_not_write_over_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = replace(made_up(), warnings=("a class \x1b[2Jcat",))
    monkeypatch.setattr(measure, "profile", lambda *_: report)
    assert main(["profile", "model.onnx"]) == 0
    seen = capsys.readouterr().out
    assert "\\x1b[2Jcat" in seen
    assert "\x1b" not in seen


def test_a_short_source_leaves_the_other_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera is called 0."""
    words = ["profile", "model0.onnx", "--source", "0", "--duration", "10s"]
    monkeypatch.setattr(
        measure, "profile", lambda _models, _options, command, _tick: replace(made_up(), command=command)
    )
    assert main([*words, "--json", "p.json"]) == 0
    command = read_report(Path("p.json")).command
    assert command.startswith("trt-blendmask profile model0.onnx --source ")
    assert command.endswith(" --duration 10s --json p.json")  # and not what runs this test


def test_noise_needs_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "look_round", lambda _machine: made_up().environment)  # asks other processes
    model = str(quick_model((96, 160)))
    assert main(["profile", model, "--random", *QUICK[:-1], "--json", "p.json"]) == 0
    report = read_report(Path("p.json"))
    assert "noise" in report.warnings[0]
    assert report.pipeline == ()
    assert np.median(report.models[0].times["host"]) > 0
