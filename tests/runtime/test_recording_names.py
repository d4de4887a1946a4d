"""Names of outputs that are refused before any work: over an input, on a source to be deleted, an address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trt_blendmask import cli
from trt_blendmask.errors import UsageError
from trt_blendmask.evaluate import evaluate
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.predict import predict
from trt_blendmask.runtime.recording import Recording

Maker = Callable[..., Path]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_recordings_over_their_source_are_refused(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    source, before = clip(), clip().read_bytes()
    same = Recording(frames=tmp_path / "x", json=tmp_path / "x")
    for recording in (Recording(save=source), Recording(json=source), same):
        with pytest.raises(UsageError, match="would overwrite"):
            run(stub_model(), source, recording=recording)
    with pytest.raises(UsageError, match="would overwrite"):
        run(stub_model(), tmp_path, recording=Recording(frames=tmp_path))
    for name in ("*.jpg", "*", "*.*", "0*.[jp]*", "*jpg", "00[0-9.]*pg", "*.?pg"):
        with pytest.raises(UsageError, match="would overwrite"):
            run(stub_model(), tmp_path / name, recording=Recording(frames=tmp_path))
    assert source.read_bytes() == before


def test_recordings_over_a_model_or_a_passport_are_refused(stub_model: Maker, tmp_path: Path) -> None:
    small, engine = stub_model("small.onnx"), stub_model("big.engine")
    for model, fallback, output in (
        (stub_model(), small, small),
        (engine, None, engine.with_name("big.engine.json")),
        (stub_model(), engine, engine.with_name("big.engine.json")),
    ):
        options = RunOptions(deadline_s=fallback and 0.05, fallback=fallback)
        with pytest.raises(UsageError, match="would overwrite"):
            run(model, "synthetic:conveyor?live=1&seconds=1", json=output, options=options)
    assert small.read_bytes() == stub_model().read_bytes()
    with pytest.raises(UsageError, match="would overwrite"):
        predict(engine, [tmp_path / "model.onnx"], tmp_path / "out", json=engine.with_name("big.engine.json"))
    plan = tmp_path / "eval"  # an engine by its first bytes; eval.json is its passport
    plan.write_bytes(b"\0trt")
    with pytest.raises(UsageError, match="would overwrite"):
        evaluate([plan], tmp_path / "annotations.json", tmp_path, tmp_path)


def test_recordings_into_a_folder_of_a_pattern_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/b", "[c]"):
        (tmp_path / name).mkdir(parents=True)
    for pattern, folder in (
        ("a/?/*.jpg", "a/b"),
        ("*/b/*.jp?", "a/b"),
        ("**/*.jpg", "a/b"),
        ("**/*.jpg", "."),
        ("a/**/x?.jpg", "a"),
        ("[c]/*", "[c]"),
        ("?.jpg", "."),
    ):
        with pytest.raises(UsageError, match="would overwrite"):
            Recording(frames=Path(folder)).check(["model.onnx"], pattern)
        Recording(frames=Path("a/new")).check(["model.onnx"], pattern)
    for source in ("0?size=640x480", "/dev/video0?fps=30", "synthetic:conveyor?seed=1", "http://cam/x?a=1.jpg"):
        Recording(frames=Path()).check(["model.onnx"], source)


@pytest.mark.parametrize("name", ["*.png", "x[1]", "clip.mp4"])
def test_pictures_beside_a_source_that_they_cannot_overwrite(name: str, tmp_path: Path) -> None:
    (tmp_path / "x[1]").mkdir()
    Recording(frames=tmp_path).check(["model.onnx"], tmp_path / name)


def test_a_source_that_would_be_deleted_to_make_room_is_refused(stub_model: Maker, clip: Maker, out: Path) -> None:
    source = clip().rename(out / "belt-20260101T000000Z.mp4")
    keep = Recording(out / "belt.mp4", segment_s=600.0, keep_bytes=10**9)
    link = out / "link.mp4"
    link.symlink_to(source)
    for path in (source, link):
        with pytest.raises(UsageError, match=r"is a segment of the recording .* which --keep deletes"):
            run(stub_model(), path, recording=keep)
    Recording(out / "belt.mp4", segment_s=600.0).check(["model.onnx"], source)  # nothing is deleted
    Recording(out / "other.mp4", segment_s=600.0, keep_bytes=1).check(["model.onnx"], source)
    Recording(out / "new" / "belt.mp4", segment_s=600.0, keep_bytes=1).check(["model.onnx"], source)
    second = [part for part in keep.parts(2) if part.save == out / "belt-2.mp4"]
    with pytest.raises(UsageError, match="is a segment"):
        second[0].check(["model.onnx"], source.rename(out / "belt-2-20260101T000000Z.mp4"))


def test_what_is_kept_is_kept_of_all_sources_together() -> None:
    keep = Recording(Path("belt.mp4"), segment_s=600.0, keep_bytes=20_000_000_001)
    assert [part.keep_bytes for part in keep.parts(4)] == [5_000_000_000] * 4
    assert [part.keep_bytes for part in keep.parts(1)] == [20_000_000_001]
    assert [part.keep_bytes for part in Recording(Path("belt.mp4")).parts(2)] == [None, None]


@pytest.mark.parametrize("option", ["--json", "--frames", "--save"])
@pytest.mark.parametrize(
    "address", ["mqtt://adm1n:s3cret@broker/belt.mp4", "rtsp://cam/x.mp4", "RTSP:/adm1n:s3cret@c/x.mkv"]
)
def test_an_address_is_no_name_of_an_output(
    option: str, address: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(out)
    assert cli.main(["run", "model.onnx", "belt.mp4", option, address]) == 2
    shown = "".join(capsys.readouterr())
    scheme = address.partition(":")[0]
    assert f"got an address that begins with '{scheme}:': a broker is named with --mqtt, a camera as SOURCE." in shown
    assert "s3cret" not in shown
    assert not list(out.iterdir())
