"""The verb: exit codes, JSON of one form for every kind, words that fit and cannot harm a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tests.inspect.artefacts import artefacts
from trt_blendmask import cli
from trt_blendmask.inspect import inspect

KEYS = [
    "schema", "path", "kind", "summary", "bytes", "sha256", "inputs", "outputs", "macs", "macs_by_precision", "parts",
    "weights", "spec", "details", "notes", "next",
]  # fmt: skip
ALL = ("raw", "model", "plugin", "aot", "fp16", "int8", "trunk", "tail", "table", "cache", "engine", "passport")


@pytest.mark.parametrize("name", [*ALL, "checkpoint"])
def test_json_has_one_form(name: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(files[name]), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values) == KEYS
    assert values["bytes"] == files[name].stat().st_size
    assert values["macs"] == sum(sum(part["macs"].values()) for part in values["parts"])


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["int8", "engine", "table", "checkpoint"])
def test_words_fit(name: str, width: int, files: dict[str, Path]) -> None:
    for line in inspect(files[name]).lines(width):
        assert len(line) <= width or max(map(len, line.split())) > 30  # a path, a hash: not to be broken


def test_piped_words_are_one_fact_per_line(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(files["int8"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("operators ") for line in lines) == 1
    assert not any(line.startswith("   ") and not line.strip()[0].isalnum() for line in lines)
    assert lines[-1] == f"Next: trt-blendmask build {files['int8']}"


def test_names_in_a_file_cannot_write_over_the_terminal(files: dict[str, Path], tmp_path: Path) -> None:
    model, evil = onnx.load(files["tail"]), "\033[2J\n\r"
    model.producer_name = evil
    model.graph.node[0].op_type = f"{evil}op"
    model.graph.node.append(onnx.helper.make_node("Identity", ["boxes"], [f"{evil}out"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info(f"{evil}out", 1, [1, 12, 4]))
    path = tmp_path / f"{evil}.onnx"
    onnx.save(model, path)
    found = inspect(path)
    assert any(evil in spec.name for spec in found.outputs)
    for width in (0, 80):
        assert all(line.isprintable() for line in found.lines(width))
    assert json.dumps(found.as_dict()).isprintable()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.onnx", b"\x08\x08\x12\x02xx\x3a\x05", 65),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64), 65),
        ("a.pth", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", 77),
        ("", b"", 66),
    ],
)
def test_exit_codes(name: str, content: bytes, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    assert cli.main(["inspect", str(tmp_path / (name or "none"))]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error[{code}]: ")
    assert shown.err.count("\n") == 1


def test_artefacts_for_the_fuzzer_are_what_they_say(tmp_path: Path) -> None:
    made = artefacts(tmp_path)
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    kinds = {name: inspect(tmp_path / name).kind for name in made}
    assert kinds == {"model.engine": "engine", "model.engine.json": "passport", "table.json": "calibration-table"}
