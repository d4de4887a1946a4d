"""The layers of an engine as TensorRT-RTX's builder lists them in its verbose log, which needs no GPU, as JSON.

    python -m tests.rtx.layer_information MODEL OUT.json.xz

The inspector itself takes only opened engines, and TensorRT-RTX opens those only where there is a GPU. The builder's
list is the inspector's in its other form (LayerInformationFormat.ONELINE): the same fields with the same names, without
quotation marks. What had some shows by what it is: whole numbers and lists of them had none, all else is text.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

_FIELD = re.compile(r"(?:^|, )([A-Z][A-Za-z/ -]*): ")


def layer_information(model: Path) -> dict[str, Any]:
    """What the inspector would tell of the engine of `model`, built in detail."""
    import tensorrt_rtx as trt

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.texts: list[str] = []

        def log(self, _severity: Any, text: str) -> None:
            self.texts.append(text)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.read_bytes())
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None
    return parsed(next(text for text in log.texts if text.startswith("Layers:")))


def parsed(listing: str) -> dict[str, Any]:
    """The JSON of a listing in one line for each layer."""
    head, *sections = re.split(r"^(Layers|I/O Tensors|Engine Metadata):\n", listing, flags=re.M)
    assert not head
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    rows = {name: [_fields(line.strip()) for line in text.split("\n") if line.strip()] for name, text in found.items()}
    return {"Layers": rows["Layers"], "I/O Tensors": rows.get("I/O Tensors", [])}


def _fields(text: str) -> dict[str, Any]:
    """ "Name: a, Inputs: [ { Name: b } ]" as a dict."""
    marks = [match for match in _FIELD.finditer(text) if _depth(text[: match.start()]) == 0]
    ends = [*(match.start() for match in marks[1:]), len(text)]
    return {match[1]: _value(text[match.end() : end].strip()) for match, end in zip(marks, ends, strict=True)}


def _value(text: str) -> Any:
    if text.startswith("[ {"):
        return [_fields(row.strip()) for row in _rows(text[1:-1])]
    if re.fullmatch(r"\[[-\d, ]*\]|-?\d+|true|false", text):
        return json.loads(text)
    return text


def _rows(text: str) -> list[str]:
    """What is within the outermost braces."""
    rows, begin = [], -1
    for index, character in enumerate(text):
        depth = _depth(text[: index + 1]) if character in "{}" else -1
        if character == "{" and depth == 1:
            begin = index + 1
        elif character == "}" and depth == 0:
            rows.append(text[begin:index])
    return rows


def _depth(text: str) -> int:
    return sum(text.count(mark) for mark in "[{") - sum(text.count(mark) for mark in "]}")


if __name__ == "__main__":
    content = json.dumps(layer_information(Path(sys.argv[1])), indent=1).encode()
    Path(sys.argv[2]).write_bytes(lzma.compress(content, preset=9))
