"""The verb on the machine that the tests run on, whatever that is: exit code 0, words or JSON."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from tests.doctor.trees import ORIN
from trt_blendmask import __version__, cli


def test_json_says_what_this_machine_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["schema"] == 1
    assert values["version"] == __version__
    assert values["python"]["version"] == platform.python_version()
    assert values["system"]["architecture"] == platform.machine()
    assert values["system"]["cores"] >= 1
    assert 0 < values["system"]["memory_free_bytes"] <= values["system"]["memory_bytes"]
    for library in ("onnxruntime", "opencv", "pyav"):
        assert values[library]["problem"] == ""
        assert values[library]["version"]
    assert "CPUExecutionProvider" in values["onnxruntime"]["features"]["providers"]
    has_gpu = not values["driver"]["problem"]
    assert has_gpu == ("no-gpu" not in {finding["code"] for finding in values["findings"]})


def test_words(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ORIN.plant(tmp_path)
    monkeypatch.setattr("trt_blendmask.doctor.Machine", lambda: machine)
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for label in ("system", "memory", "disk", "Python", "JetPack", "GPU", "driver", "TensorRT", "OpenCV", "PyAV"):
        assert f"\n{label} " in f"\n{out}"
    assert "\033" not in out
