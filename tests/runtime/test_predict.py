"""`predict`: what is written for pictures, and what is not when one of them is bad."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.conftest import ROOT
from trt_blendmask.errors import DataError, InputMissingError, OutputError, UsageError
from trt_blendmask.runtime.images import declared_wh, natural_key, read_image
from trt_blendmask.runtime.predict import predict

Maker = Callable[..., Path]


@pytest.fixture
def picture(tmp_path: Path) -> Maker:
    def make(name: str = "a.png", hw: tuple[int, int] = (128, 192)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        image = np.full((*hw, 3), 60, np.uint8)
        image[:10, :20] = 250
        cv2.imwrite(str(path), image)
        return path

    return make


def test_overlays_and_results(stub_model: Maker, picture: Maker, tmp_path: Path) -> None:
    first, second, out = picture("one/a.png"), picture("two/a.jpg", (64, 96)), tmp_path / "out"
    report = predict(stub_model(), [first, second], out)
    assert {p.name for p in out.iterdir()} == {"a.png", "a_2.png", "results.json"}
    assert cv2.imread(str(out / "a.png")).shape == (128, 192, 3)
    assert cv2.imread(str(out / "a_2.png")).shape == (64, 96, 3)
    assert np.abs(cv2.imread(str(out / "a.png")).astype(int) - cv2.imread(str(first))).max() > 50
    results = json.loads((out / "results.json").read_text())
    assert [r["file_name"] for r in results] == ["a.png"] * 3 + ["a.jpg"] * 3
    assert results[0]["bbox"] == [16, 16, 64, 64]
    assert (results[0]["category_id"], results[0]["category_name"]) == (2, "bolt")
    assert results[0]["segmentation"]["size"] == [128, 192]
    area = int(coco_mask.area(results[0]["segmentation"]))
    assert 31 * 31 < area <= 32 * 32  # the four inner cells of eight, each 8 pixels wide, with rounded corners
    assert (report.images, report.detections) == (2, 6)
    assert "2 pictures" in report.summary()


def test_score_json_and_paste(stub_model: Maker, picture: Maker, tmp_path: Path) -> None:
    model, image, results = stub_model(), picture(), {}
    for paste in ("exact", "reference"):
        file = tmp_path / "deep" / f"{paste}.json"
        predict(model, [image], tmp_path / "out", file, 0.25, paste)
        results[paste] = json.loads(file.read_text())
    assert [len(r) for r in results.values()] == [3, 3]
    same = [a == b for a, b in zip(results["exact"], results["reference"], strict=True)]
    assert same == [True, False, False]  # only the two over the border differ
    predict(model, [image], tmp_path / "out", tmp_path / "some.json", 0.5)
    assert len(json.loads((tmp_path / "some.json").read_text())) == 2


def test_a_picture_is_never_overwritten(stub_model: Maker, picture: Maker, tmp_path: Path) -> None:
    image = picture()
    before = image.read_bytes()
    predict(stub_model(), [image], tmp_path)
    assert image.read_bytes() == before
    assert (tmp_path / "a_2.png").exists()


def test_missing_pictures_stop_before_any_work(stub_model: Maker, picture: Maker, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputMissingError, match=r"Expected a picture at .*none\.png"):
        predict(stub_model(), [picture(), tmp_path / "none.png"], out)
    with pytest.raises(UsageError, match="at least one picture"):
        predict(stub_model(), [], out)
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b"words", b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe0\x00"])
def test_a_bad_picture_leaves_nothing_half(stub_model: Maker, picture: Maker, tmp_path: Path, content: bytes) -> None:
    bad, out = tmp_path / "bad.png", tmp_path / "out"
    bad.write_bytes(content)
    with pytest.raises(DataError, match=r"Expected a picture.*bad\.png"):
        predict(stub_model(), [picture(), bad], out)
    assert not (out / "results.json").exists()
    assert all(cv2.imread(str(p)) is not None for p in out.glob("*")) if out.exists() else True


def test_unwritable_folder(stub_model: Maker, picture: Maker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write"):
        predict(stub_model(), [picture()], tmp_path / "file" / "out")


def test_orientation_of_a_phone(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :40] = 255
    content = cv2.imencode(".jpg", image)[1].tobytes()
    tags = struct.pack("<HHI", 0x4949, 42, 8) + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)  # turn clockwise
    exif = b"Exif\0\0" + tags
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])
    upright = read_image(path)
    assert upright.shape == (80, 40, 3)
    assert upright[:30].mean() > 250
    assert upright[50:].mean() < 5


def test_a_bomb_is_seen_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60000, 60000, 8, 2, 0, 0, 0) + b"0" * 9
    )
    with pytest.raises(DataError, match="60000 x 60000"):
        read_image(path)


@pytest.mark.parametrize("claimed", [1 << 31, (1 << 31) - 1, 5000])
def test_a_chunk_longer_than_the_file_is_never_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: int
) -> None:
    content = cv2.imencode(".png", np.zeros((33, 57, 3), np.uint8))[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(content + b"what some tools leave behind the end")
    assert read_image(path).shape == (33, 57, 3)
    data = content.find(b"IDAT")
    path.write_bytes(content[: data - 4] + struct.pack(">I", claimed) + content[data:])
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)


def test_a_jpeg_bomb_is_seen_as_libjpeg_sees_it(tmp_path: Path) -> None:
    content = cv2.imencode(".jpg", np.zeros((33, 57, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    frame = content.find(b"\xff\xc2")
    sized = content[: frame + 5] + struct.pack(">HH", 9000, 9000) + content[frame + 9 :]
    scan = sized.find(b"\xff\xda")
    large = sized.replace(struct.pack(">HH", 9000, 9000), struct.pack(">HH", 60000, 60000))
    path = tmp_path / "bomb.jpg"
    for data, words in (
        (large.replace(b"\xff\xc2", b"\0\1\xff\xff\xc2"), "60000 x 60000"),  # padding before and in the marker
        (sized[:scan] + sized[scan:-2] * 50, "in [0-9]+ scans"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=words):
            read_image(path)


def test_formats_nobody_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 3\n" + bytes(100))
    with pytest.raises(DataError, match="of a kind that is not read"):
        read_image(path)


def test_libraries_do_not_speak_on_the_terminal(stub_model: Maker, tmp_path: Path) -> None:
    content = bytearray(cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1].tobytes())
    content[content.find(b"IDAT") + 8] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    command = [sys.executable, "-m", "trt_blendmask", "predict", str(stub_model()), "a.png", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 65
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"error[65]: Expected a picture")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".ppm"])
def test_sizes_in_headers(suffix: str) -> None:
    content = cv2.imencode(suffix, np.zeros((33, 57, 3), np.uint8))[1].tobytes()
    assert declared_wh(content) == (57, 33)
    for end in range(0, 40):
        declared_wh(content[:end])  # never an exception


def test_natural_order() -> None:
    names = ["f10.png", "f9.png", "F1.png", "e.png", "10/f2.png", "9/f3.png"]
    ordered = [str(p) for p in sorted(map(Path, names), key=natural_key)]
    assert ordered == ["9/f3.png", "10/f2.png", "e.png", "F1.png", "f9.png", "f10.png"]


def test_results_overwrite_neither_model_nor_picture_nor_overlay(
    stub_model: Maker, picture: Maker, tmp_path: Path
) -> None:
    model, image = stub_model(), picture()
    for json_file in (model, image, tmp_path / "out" / "a.png"):
        with pytest.raises(UsageError, match="would overwrite"):
            predict(model, [image], tmp_path / "out", json_file)
    assert not (tmp_path / "out").exists()


def test_names_that_are_not_utf8(stub_model: Maker, picture: Maker, tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff")
    image = picture("a.png").rename(tmp_path / f"{name}.png")
    predict(stub_model(), [image], tmp_path / name)
    assert json.loads((tmp_path / name / "results.json").read_text())[0]["file_name"] == f"{name}.png"
    assert (tmp_path / name / f"{name}.png").stat().st_size > 0


def test_other_ways_to_draw_are_refused_before_any_work(stub_model: Maker, picture: Maker, tmp_path: Path) -> None:
    for paste, colour_by in (("round", "class"), ("exact", "size")):
        with pytest.raises(UsageError, match=r"^Expected (a paste|colours)"):
            predict(stub_model(), [picture()], tmp_path / "out", paste=paste, colour_by=colour_by)
    assert not (tmp_path / "out").exists()
