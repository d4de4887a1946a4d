"""What a source's text means, and that no secret in it is ever shown."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest

from trt_blendmask import cli
from trt_blendmask.errors import InputMissingError, TrtBlendMaskError, UsageError
from trt_blendmask.redact import redacted, without_secrets
from trt_blendmask.runtime.sources.grammar import parse

# Every spelling of these words below is a secret: a password, a user, a token.
SECRETS = ("s3cret", "Hunter2", "adm1n", "eyJhbGciOi", "qX7rT9bLm2Kd", "t0ken")
ADDRESSES = [
    f"{scheme}://{rest}"
    for scheme in ("rtsp", "rtsps", "http", "https")
    for rest in (
        "adm1n:s3cret@127.0.0.1:9/cam",
        "adm1n:s3cret@127.0.0.1:9",
        "adm1n@127.0.0.1:9/Streaming/Channels/101",
        ":s3cret@127.0.0.1:9/x",
        "adm1n:s3cret@Hunter2@127.0.0.1:9/x",
        "adm1n:s3%2Fs3cret@127.0.0.1:9/x",
        "127.0.0.1:9/cam?user=adm1n&password=s3cret&channel=1",
        "127.0.0.1:9/cam?USR=adm1n;PWD=s3cret",
        "127.0.0.1:9/user=adm1n_password=s3cret_channel=1_stream=0.sdp?real_stream",
        "127.0.0.1:9/adm1n/s3cret/1.ts",
        "127.0.0.1:9/live/adm1n/s3cret/stream.m3u8?token=t0ken",
        "127.0.0.1:9/qX7rT9bLm2Kd?enableSrtp",
        "127.0.0.1:9/x?jwt=eyJhbGciOi.J9.s3cret#t0ken",
        "127.0.0.1:9/x#access_token=t0ken",
        "adm1n:s3cret@[::1]:9/x?auth=t0ken",
    )
] + [
    "rtsp://adm1n:s3/cret/s3cret@127.0.0.1:9/x",
    "rtsp://adm1n:s3?s3cret@127.0.0.1:9/x",
    "rtsp://adm1n:#s3cret@127.0.0.1:9/x",
    "rtsp://adm1n:s3cret 1@127.0.0.1:9/x",
    "rtsp:/adm1n:s3cret@127.0.0.1:9/x",
    "rtsp:adm1n:s3cret@127.0.0.1:9/x",
    "adm1n:s3cret@127.0.0.1:9/x",
    "RTSP://adm1n:s3cret@127.0.0.1:9/x",
    "rtps://adm1n:s3cret@127.0.0.1:9/x",
    "rtmp://adm1n:s3cret@127.0.0.1:9/x",
    "mqtt://adm1n:s3cret@127.0.0.1:9/belt/1",
    "mqtts://adm1n:s3/cret@127.0.0.1:9/belt?qos=1&token=t0ken",
    "MQTT://adm1n:s3cret@Hunter2@127.0.0.1:9/belt",
    "mqtt://adm1n:s3cret@127.0.0.1:9",
    "rtsp://adm1n:s3cret@127.0.0.1:9/x?transprot=udp",
    "rtsp://adm1n:s3cret@127.0.0.1:9/x?transport=s3cret1",
    "gst:rtspsrc location=rtsp://adm1n:s3cret@127.0.0.1:9/x user-pw=Hunter2 ! decodebin",
]


def texts(address: str) -> str:
    """All that parsing says about it."""
    try:
        parsed = parse(address)
        return f"{parsed.name} {parsed}"
    except TrtBlendMaskError as error:
        return str(error)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_secret_is_shown(address: str) -> None:
    shown = texts(address)
    assert len(ADDRESSES) >= 50
    assert not [secret for secret in SECRETS if secret.lower() in shown.lower()], shown


# But for the paths of pages: those of the web are no secrets.
@pytest.mark.parametrize("address", [one for one in ADDRESSES if not one.startswith("http") or set(one) & set("@?#")])
def test_no_secret_is_shown_where_nobody_expected_an_address(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (
        [address, "model.onnx"],
        ["model.onnx", "a.mp4", "--score", address],
        ["model.onnx", "a.mp4", "--scroe", address],
        ["model.onnx", "a.mp4", "--save", address],
        ["model.onnx", "a.mp4", "--json", address],
        ["model.onnx", "a.mp4", "--frames", address],
        ["model.onnx", "a.mp4", "--mqtt", address],
        ["model.onnx", "a.mp4", "--serve", address],
    ):
        with contextlib.suppress(SystemExit):
            assert cli.main(["run", *words]) != 0
        shown = "".join(capsys.readouterr())
        assert not [secret for secret in SECRETS if secret.lower() in shown.lower()], shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["rtsp:///path"], "Expected rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH, got 'rtsp://***'. In a password, write"),
        (["http://a b/c"], "Expected http://[USER:PASSWORD@]HOST[:PORT]/PATH, got 'http://***'. In a password, write"),
        (["a.mp4", "--mqtt", "host/t"], "Expected mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC, got '***://***'. Write"),
        (
            ["a.mp4", "--mqtt", "mqtt://h:0/t"],
            "Expected mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC, got 'mqtt://***'.",
        ),
        (["a.mp4", "--mqtt", "mqtt://broker"], "after 'mqtt://broker/': add one, as in mqtt://broker/belt/1"),
    ],
)
def test_our_own_words_are_not_taken_for_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], shown: str
) -> None:
    model = SimpleNamespace(abreast=1, how="", close=lambda: None, spec=SimpleNamespace(class_names=()))
    monkeypatch.setattr("trt_blendmask.runtime.pipeline.load", lambda *_: contextlib.nullcontext(model))
    assert cli.main(["run", "model.onnx", *words]) == 2
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtt://h:1883/belt/1", "mqtt://h:1883/belt/1"),
        ("mqtts://[::1]/a/b", "mqtts://[::1]/a/b"),
        ("mqtt://adm1n:s3cret@h/belt/1", "mqtt://h/.../1"),
        ("mqtt:/adm1n:s3cret@h/belt/1", "mqtt://h/.../1"),
        ("mqtt://adm1n:s3cret/x", "mqtt://***"),
        ("mqtt://h/a/b?user=adm1n&pw=s3cret", "mqtt://h/.../b?***"),
        ("rtsp://[USER:PASSWORD@]adm1n:s3cret@HOST/x", "rtsp://HOST/x"),
        ("mqtt[s]://[USER:PASSWORD@]adm1n:s3cret@h/x", "***@h/x"),
        ("rtsp://[USER:PASSWORD@]HOST[:PORT]/s3cret", "rtsp://***"),
    ],
)
def test_topics_are_shown_and_no_secret_beside_them(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(f"got '{text}'") == f"got '{shown}'"


def run(address: str, *more: str) -> None:
    try:
        cli.main(["run", "model.onnx", address, "--no-wait", *more])
    except Exception:  # --debug
        traceback.print_exc()


def test_no_secret_is_shown_by_the_command_whatever_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The network is left out: what is tried here is how the source is opened, refused, and told of."""
    model = SimpleNamespace(abreast=1, how="", close=lambda: None, spec=SimpleNamespace(class_names=()))
    monkeypatch.setattr("trt_blendmask.runtime.pipeline.load", lambda *_: contextlib.nullcontext(model))
    for number, address in enumerate(a for a in ADDRESSES if not a.startswith(("https", "rtsps"))):
        run(address, "--json", str(tmp_path / "out.jsonl"), *(["--debug"] if number % 2 else []))
    shown = "".join(capfd.readouterr())
    assert shown.count("connection refused") >= 25
    assert not [secret for secret in SECRETS if secret.lower() in shown.lower()]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:p@cam:554/Streaming/Channels/101", "rtsp://cam:554/.../101"),
        ("rtsp://cam/cam/realmonitor?channel=1&subtype=0", "rtsp://cam/.../realmonitor?channel=1&subtype=0"),
        ("rtsp://cam/h264Preview_01_main", "rtsp://cam/h264Preview_01_main"),
        ("rtsp://cam", "rtsp://cam"),
        ("http://cam/video.mjpg?user=a", "http://cam/video.mjpg?***"),
    ],
)
def test_cameras_can_still_be_told_apart(url: str, shown: str) -> None:
    assert redacted(url) == parse(url).name == shown


@pytest.mark.parametrize(
    ("text", "kind", "target", "options"),
    [
        ("0", "v4l2", "/dev/video0", {}),
        ("2?size=640x480", "v4l2", "/dev/video2", {"size": "640x480"}),
        ("v4l2:///dev/video0?size=1280x720&fps=30&format=mjpg", "v4l2", "/dev/video0",
         {"size": "1280x720", "fps": "30", "format": "mjpg"}),
        ("/dev/v4l/by-id/usb-Cam-index0", "v4l2", "/dev/v4l/by-id/usb-Cam-index0", {}),
        ("csi://0?size=1920x1080&flip=2", "csi", "0", {"size": "1920x1080", "flip": "2"}),
        ("gst:videotestsrc ! videoconvert", "gst", "videotestsrc ! videoconvert", {}),
        ("rtsp://u:p%40@h:554/a?channel=1&transport=udp&x=%2F", "rtsp", "rtsp://u:p%40@h:554/a?channel=1&x=%2F",
         {"transport": "udp"}),
        ("https://h/a.m3u8?x=1", "http", "https://h/a.m3u8?x=1", {}),
        ("-", "stdin", "-", {}),
        ("synthetic:conveyor?fps=30&seed=1", "synthetic", "synthetic:conveyor", {"fps": "30", "seed": "1"}),
        ("frames/*.png", "pictures", "frames/*.png", {}),
        ("frame?.png", "pictures", "frame?.png", {}),
        ("0?fps=30", "v4l2", "/dev/video0", {"fps": "30"}),
        ("/dev/video0?fps=30", "v4l2", "/dev/video0", {"fps": "30"}),
        ("a.JPG", "pictures", "a.JPG", {}),
        ("concat:a.ts|b.ts", "video", "concat:a.ts|b.ts", {}),
        ("belt.mp4", "video", "belt.mp4", {}),
        ("12:30.mp4", "video", "12:30.mp4", {}),
    ],
)  # fmt: skip
def test_one_grammar(text: str, kind: str, target: str, options: dict[str, str]) -> None:
    address = parse(text)
    assert (address.kind, address.target, address.options) == (kind, target, options)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("v4l2:///dev/video0?sise=1x1", "Did you mean size"),
        ("csi://0?frames=3", "got the option 'frames'"),
        ("synthetic:conveyor?sed=3", "Did you mean seed"),
        ("rtsp://h/a?transprot=udp", "Did you mean transport"),
        ("rtsp://h/a?transport=sctp", "another transport than tcp and udp"),
        ("rtps://h/a", "Did you mean rtsp"),
        ("exec://ls", "A source is"),
        ("v4l2://video0", "Expected v4l2:///dev/video0"),
        ("csi://front", "Expected csi://0"),
        ("gst:", "Expected a GStreamer pipeline"),
        ("rtsp:///path", "Expected rtsp://"),
        ("http://a b/c", "Expected http://"),
    ],
)
def test_what_is_not_taken_is_refused_with_the_nearest(text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        parse(text)


def test_an_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA", "rtsp://adm1n:s3cret@cam/1")
    assert parse("env:CAMERA").target == "rtsp://adm1n:s3cret@cam/1"
    assert parse("env:CAMERA").name == "rtsp://cam/1"
    with pytest.raises(InputMissingError, match="variable NO_CAMERA, but it is not set: export NO_CAMERA="):
        parse("env:NO_CAMERA")
