"""Options: their help says the same thing in the same form, and their values mean what a user means."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from trt_blendmask import cli

(VERBS,) = (action.choices for action in cli.make_parser()._actions if isinstance(action.choices, dict))
ACTIONS = [action for verb in VERBS.values() for action in verb._actions]
_NONE = ("", 0, (), argparse.SUPPRESS)


def refusal(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command that ends with 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_a_default_is_told_in_one_form_and_is_the_default(verb: str) -> None:
    for action in VERBS[verb]._actions:
        text = VERBS[verb]._get_formatter()._expand_help(action) if action.help else ""
        told = re.findall(r"\(default: ([^)]+)\)", text)
        assert text.count("default") == len(told), text
        if isinstance(action.default, (str, int, float, tuple, Path)) and action.default not in _NONE:
            (shown,) = told
            read = action.type if callable(action.type) else str
            assert action.default in (read(shown.split(", ")[0]), read(shown)), text


def test_a_metavar_means_one_thing() -> None:
    assert {action.metavar for action in ACTIONS if action.dest in ("score", "score_threshold")} == {"SCORE"}
    assert {action.metavar for action in ACTIONS if action.dest == "source"} == {"SOURCE"}
    assert {"S", "T"}.isdisjoint(str(action.metavar) for action in ACTIONS)


@pytest.mark.parametrize("option", ["run --stale", "run --watchdog", "run --segment", "profile --duration"])
def test_a_time_is_seconds_or_has_its_unit(option: str) -> None:
    verb, name = option.split()
    times = {"3": 3.0, "3s": 3.0, "3000ms": 3.0, "1.5": 1.5, ".1m": 6.0, "1h": 3600.0}
    for text, seconds in times.items():
        args = cli.make_parser().parse_args([verb, "model.onnx", *(["0"] if verb == "run" else []), name, text])
        assert getattr(args, name[2:]) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "words",
    [
        "run MODEL 0 --stale 0",
        "run MODEL 0 --stale 50ms",
        "run MODEL 0 --watchdog 2h",
        "run MODEL 0 --segment 500ms",
        "run MODEL 0 --segment 25h",
        "run MODEL 0 --stale 3x",
        "run MODEL 0 --stale nan",
        "profile MODEL --warmup 0x",
        "profile MODEL --warmup -1",
        "profile MODEL --duration 0",
    ],
)
def test_a_time_out_of_bounds_tells_them(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"expected (a time from \w+ to \w+, as|one argument)", refusal(words, capsys))


@pytest.mark.parametrize("text", ["0", "0s", "0ms"])
def test_a_warmup_may_be_none(text: str) -> None:
    assert cli.make_parser().parse_args(["profile", "model.onnx", "--warmup", text]).warmup == 0


@pytest.mark.parametrize("text", ["50", "0.05", "5."])
def test_a_deadline_needs_its_unit(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(f"run model.onnx 0 --deadline {text}", capsys)
    assert f"expected a time with its unit, as {text}ms or {text}s" in said
    assert cli.make_parser().parse_args(["run", "model.onnx", "0", "--deadline", "50ms"]).deadline == 0.05


@pytest.mark.parametrize(
    "words",
    [
        "profile MODEL -o -",
        "profile MODEL --json -",
        "profile MODEL --trtexec-json -",
        "compare MODEL MODEL --images DIR -o -",
        "eval MODEL --annotations F --images DIR -o -",
        "predict MODEL a.png -o out --json -",
        "run MODEL 0 --frames -",
        "export CKPT -o -",
        "quantize MODEL --precision fp16 -o -",
    ],
)
def test_only_lines_of_a_run_go_to_standard_output(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere a file named '-' would be written."""
    assert "got '-'" in refusal(words, capsys)
    assert cli.make_parser().parse_args(["run", "model.onnx", "0", "--json", "-"]).json == Path("-")
