"""Names of outputs that are refused before any work: over an input, on a source to be deleted, an address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trt_blendmask import cli
from trt_blendmask.errors import UsageError
from trt_blendmask.runtime.pipeline import run
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


@pytest.mark.parametrize("name", ["*.png", "x[1]", "clip.mp4"])
def test_pictures_beside_a_source_that_they_cannot_overwrite(name: str, tmp_path: Path) -> None:
    (tmp_path / "x[1]").mkdir()
    Recording(frames=tmp_path).check("model.onnx", tmp_path / name)


def test_a_source_that_would_be_deleted_to_make_room_is_refused(stub_model: Maker, clip: Maker, out: Path) -> None:
    source = clip().rename(out / "belt-20260101T000000Z.mp4")
    keep = Recording(out / "belt.mp4", segment_s=600.0, keep_bytes=10**9)
    link = out / "link.mp4"
    link.symlink_to(source)
    for path in (source, link):
        with pytest.raises(UsageError, match=r"is a segment of the recording .* which --keep deletes"):
            run(stub_model(), path, recording=keep)
    Recording(out / "belt.mp4", segment_s=600.0).check("model.onnx", source)  # nothing is deleted
    Recording(out / "other.mp4", segment_s=600.0, keep_bytes=1).check("model.onnx", source)
    Recording(out / "new" / "belt.mp4", segment_s=600.0, keep_bytes=1).check("model.onnx", source)
    second = [part for part in keep.parts(2) if part.save == out / "belt-2.mp4"]
    with pytest.raises(UsageError, match="is a segment"):
        second[0].check("model.onnx", source.rename(out / "belt-2-20260101T000000Z.mp4"))


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
