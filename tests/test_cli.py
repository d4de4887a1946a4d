"""The command as a user types it: help that is quick, exit codes, one sentence instead of a traceback."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trt_blendmask import cli
from trt_blendmask.console import Console
from trt_blendmask.errors import (
    DataError,
    InputMissingError,
    NotTrustedError,
    OutputError,
    SourceUnavailableError,
    TrtBlendMaskError,
    UsageError,
)
from trt_blendmask.runtime.pipeline import RunReport

VERBS = ("export", "surgery", "calibrate", "quantize", "build", "predict", "run", "profile", "compare", "eval")
VERBS += ("inspect", "doctor", "demo", "zoo")
HEAVY = ("numpy", "onnx", "onnx_graphsurgeon", "onnxruntime", "cv2", "av", "yaml", "rich", "torch", "tensorrt")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "trt_blendmask", *words], capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    probe = """
import sys
from trt_blendmask import cli
try:
    cli.main(["run", "--help"])
except SystemExit:
    print("LOADED", *sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split("LOADED")[1].split())
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples_and_exit_codes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    examples = text.split("examples:")[1].split("exit codes:")[0]
    assert examples.count(f"trt-blendmask {verb}") >= 1
    assert "65 bad data" in text


def test_the_examples_in_the_help_parse() -> None:
    for verb in VERBS:
        text = command(verb, "--help").stdout
        for line in re.findall(r"^  trt-blendmask (.*)$", text.split("examples:")[1], re.MULTILINE):
            args = cli.make_parser().parse_args(shlex.split(line))
            assert callable(args.verb)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["export", "a.pth", "--config", "a.yaml", "--opts"],
        ["zoo", "push"],
        ["export", "a.pth", "--config", "a.yaml", "--input-size", "512"],
        ["export", "a.pth", "--config", "a.yaml", "--batch", "0"],
        ["surgery", "a.onnx", "--score-threshold", "1.5"],
        ["surgery", "a.onnx", "--score-threshold", "nan"],
        ["run", "m.onnx", "v.mp4", "--max-frames", "-1"],
        ["predict", "m.onnx", "-o", "d"],
    ],
)
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error[2]: ")
    assert error.count("\n") == 1
    assert " --help\n" in error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("told"), 2),
        (DataError("told"), 65),
        (InputMissingError("told"), 66),
        (SourceUnavailableError("told"), 69),
        (TrtBlendMaskError("told"), 70),
        (RuntimeError("told"), 70),
        (OutputError("told"), 74),
        (OSError(28, "told"), 74),
        (NotTrustedError("told"), 77),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_output: Path, _console: Console) -> None:
        raise error

    monkeypatch.setattr("trt_blendmask.demo.demo", fail)
    assert cli.main(["demo"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error[{code}]: ")
    assert shown.err.count("\n") == 1
    assert "\033" not in shown.err
    if not isinstance(error, KeyboardInterrupt):
        assert "told" in shown.err
        with pytest.raises(type(error)):
            cli.main(["demo", "--debug"])


@pytest.mark.parametrize("words", [["-v", "demo"], ["demo", "-v"], ["-q", "demo"], ["demo", "-q"], ["demo"]])
def test_verbosity_is_taken_before_and_after_the_verb(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("trt_blendmask.demo.demo", lambda _output, console: seen.append(console.verbosity))
    assert cli.main(words) == 0
    assert seen == [1 if "-v" in words else -1 if "-q" in words else 0]


def test_missing_files_in_a_real_process(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    for words in (
        ["export", absent, "--config", absent],
        ["surgery", absent],
        ["predict", absent, absent, "-o", str(tmp_path / "d")],
        ["run", absent, absent],
    ):
        result = command(*words)
        assert result.returncode == 66, result.stderr
        assert result.stderr.startswith("error[66]: ")
        assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [".", "/"])
@pytest.mark.parametrize("words", ["quantize MODEL --precision fp16", "build MODEL", "run MODEL a.mp4 --device gpu"])
def test_a_folder_is_no_model(words: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no suffix to make the default output's name of."""
    assert cli.main([model if word == "MODEL" else word for word in words.split()]) == 66
    assert "it is a folder" in capsys.readouterr().err


def test_a_message_stays_one_line_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    Console().error(66, "no 'a\nb\x1b[31m\udcff ü'")
    assert capsys.readouterr().err == "error[66]: no 'a\\nb\\x1b[31m\\udcff ü'\n"


@pytest.mark.parametrize(
    ("environment", "shown"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_only_on_a_terminal_that_has_it(
    environment: dict[str, str], shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    if "NO_COLOR" not in environment:
        monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Console().error(66, "told")
    assert ("\033[1;31m" in capsys.readouterr().err) == shown


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_do_no_harm(closed: str) -> None:
    line = f"exec '{sys.executable}' -m trt_blendmask surgery /absent.onnx {closed}"
    assert subprocess.run(["sh", "-c", line], capture_output=True, check=False).returncode == 66


def test_an_output_that_is_full_is_told_once() -> None:
    code = (
        "from trt_blendmask import cli, demo; demo.demo = lambda _, console: console.say('x'); exit(cli.main(['demo']))"
    )
    line = f"exec '{sys.executable}' -c \"{code}\" > /dev/full"
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert result.returncode == 74
    assert "No space left" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "code"), [("SIGHUP", 0), ("SIGTERM", 130), ("SIGINT", 130)])
def test_a_second_signal_ends_at_once_but_a_terminal_hangs_up_twice(name: str, code: int) -> None:
    script = f"""
import os, signal
from trt_blendmask.runtime.stop import StopSignals
signal.signal(signal.{name}, signal.default_int_handler)
with StopSignals() as stop:
    for _ in range(2):
        os.kill(os.getpid(), signal.{name})
    assert stop.asked
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    code = f"""
import sys, time
from trt_blendmask import cli, demo
from trt_blendmask.files import atomic_output
def work(_output, console):
    with atomic_output({str(tmp_path / "a.bin")!r}) as temporary:
        console.say("ready")
        time.sleep(30)
demo.demo = work
sys.exit(cli.main(["demo"]))
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(20) == 130
        assert process.stderr.read().startswith("error[130]: Stopped by Ctrl-C")
    assert list(tmp_path.iterdir()) == []


AMID_IMPORTS = """
class Finder:
    def find_spec(self, name, *_):
        if name == "trt_blendmask.cli.zoo":
            interrupt()
sys.meta_path.insert(0, Finder())
"""
AS_ALL_IS_DONE = """
from trt_blendmask import cli
cli.flush_output = interrupt
"""
AS_PYTHON_IS_TAKEN_DOWN = """
class Library:
    def __del__(self, interrupt=interrupt):
        interrupt()
kept = Library()
"""


@pytest.mark.parametrize(("moment", "code"), [(AMID_IMPORTS, 130), (AS_ALL_IS_DONE, 0), (AS_PYTHON_IS_TAKEN_DOWN, 0)])
def test_ctrl_c_outside_of_the_work(moment: str, code: int) -> None:
    script = "import os, signal, sys\ndef interrupt():\n    os.kill(os.getpid(), signal.SIGINT)\n" + moment
    script += "from trt_blendmask.__main__ import entry\nentry()"
    result = subprocess.run([sys.executable, "-c", script, "zoo"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (code, "error[130]: Stopped by Ctrl-C.\n" if code else "")
    assert ("550_R_50" in result.stdout) == (code == 0)


LIBRARY = """
import os, signal, threading, time
os.kill(os.getpid(), signal.SIGINT)
if {twice}:
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
time.sleep({seconds})
print("imported", flush=True)
"""


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_amid_an_import_waits_for_its_end(tmp_path: Path, twice: bool) -> None:
    """NumPy or OpenCV would be left half made: the program crashed, or ended with an ImportError and 70. Who asks twice
    waits for nothing."""
    (tmp_path / "library.py").write_text(LIBRARY.format(twice=twice, seconds=60 if twice else 0.3))
    script = f"""
import sys, time
from trt_blendmask import cli, demo
def work(_output, console):
    sys.path.insert(0, {str(tmp_path)!r})
    import library
    time.sleep(60)
demo.demo = work
sys.exit(cli.main(["demo"]))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=40)
    assert (result.returncode, result.stdout) == (130, "" if twice else "imported\n")
    assert result.stderr == "" if twice else result.stderr.startswith("error[130]: Stopped by Ctrl-C")


def test_a_host_program_keeps_its_signals(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    assert cli.main(["zoo"]) == 0
    assert [signal.getsignal(number) for number in numbers] == before
    capsys.readouterr()


def test_ctrl_c_when_nobody_reads_any_more() -> None:
    script = "import os, signal, sys\ndef interrupt():\n    os.kill(os.getpid(), signal.SIGINT)\n" + AMID_IMPORTS
    script += "from trt_blendmask.__main__ import entry\nentry()"
    for closing in ("2>&-", "2>/dev/full"):
        command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} zoo {closing}"
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (130, "")


def test_a_run_that_was_stopped_has_done_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = RunReport(3, 0, 1.0, {}, 0, True, ())
    monkeypatch.setattr("trt_blendmask.runtime.pipeline.run", lambda *_args, **_options: report)
    assert cli.main(["run", "model.onnx", "clip.mp4"]) == 0
    assert "stopped early" in capsys.readouterr().out


def test_the_next_command_can_be_typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report = SimpleNamespace(ignored_keys=(), output=Path("my files/raw.onnx"), summary=lambda: "done")
    monkeypatch.setattr("trt_blendmask.export.export_onnx", lambda *_: report)
    config = SimpleNamespace(unused_options=())
    monkeypatch.setattr("trt_blendmask.export.read_config", lambda *_: config)
    assert cli.main(["export", "a.pth", "--config", "a.yaml"]) == 0
    typed = shlex.split(capsys.readouterr().out.split("Next: ")[1])
    assert typed == ["trt-blendmask", "surgery", "my files/raw.onnx", "-o", "model.onnx"]
