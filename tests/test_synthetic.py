"""The synthetic conveyor scenes: deterministic, exactly annotated, varied; their command line writes COCO."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.runtime.test_recording_video import boxes_of
from trt_blendmask.synthetic import CLASS_NAMES, Conveyor, Scene, render_scene

ROOT = Path(__file__).resolve().parents[1]
SCENES = ROOT / "samples" / "conveyor" / "scenes.py"
FRAME_HW = (288, 512)


def digest(scene: Scene) -> str:
    """One hash over the picture and every annotation."""
    state = hashlib.sha256(scene.image.tobytes())
    for instance in scene.instances:
        state.update(repr((instance.class_id, instance.box)).encode())
        state.update(np.packbits(instance.mask).tobytes())
    return state.hexdigest()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(11, index) for index in range(40)]


def test_class_names() -> None:
    assert CLASS_NAMES == (
        "hex nut", "washer", "bolt", "gear", "bracket",
        "spring", "O-ring", "bearing", "pin", "wing nut",
    )  # fmt: skip


def test_same_arguments_same_bytes_and_others_differ(scenes: list[Scene]) -> None:
    assert digest(render_scene(11, 3)) == digest(scenes[3])
    assert digest(render_scene(11, 4)) != digest(scenes[3])
    assert digest(render_scene(12, 3)) != digest(scenes[3])


def test_another_process_agrees(scenes: list[Scene]) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_synthetic import digest\n"
        "from trt_blendmask.synthetic import Conveyor, render_scene\n"
        "render_scene(5, 0)\n"  # what was drawn before must not matter
        "print(digest(render_scene(11, 3)), digest(Conveyor(2, (512, 288)).frame(9)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(scenes[3]), digest(Conveyor(2, (512, 288)).frame(9))]


def test_global_random_state_is_neither_read_nor_changed(scenes: list[Scene]) -> None:
    np.random.seed(1)
    cv2.setRNGSeed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    first = digest(render_scene(11, 3))
    after = np.random.get_state()[1]  # type: ignore[index]
    np.random.seed(2)
    cv2.setRNGSeed(2)
    assert first == digest(render_scene(11, 3)) == digest(scenes[3])
    assert np.array_equal(before, after)


def test_pictures_are_pictures(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.shape == (*FRAME_HW, 3)
        assert scene.image.dtype == np.uint8
        assert 12 < scene.image.mean() < 240
        assert (scene.image == 255).mean() < 0.02
        assert (scene.image == 0).mean() < 0.02


def test_masks_are_disjoint_tight_and_inside(scenes: list[Scene]) -> None:
    for scene in scenes:
        times_covered = np.zeros(FRAME_HW, np.int32)
        for instance in scene.instances:
            x1, y1, x2, y2 = instance.box
            assert all(float(c).is_integer() for c in instance.box)
            assert 0 <= x1 < x2 <= 512
            assert 0 <= y1 < y2 <= 288
            assert instance.mask.dtype == np.bool_
            assert instance.mask.shape == (y2 - y1, x2 - x1)
            for edge in (instance.mask[0], instance.mask[-1], instance.mask[:, 0], instance.mask[:, -1]):
                assert edge.any(), "the box is not tight"
            full = instance.full_mask(FRAME_HW)
            assert full.sum() == instance.mask.sum() >= 24
            times_covered += full
        assert times_covered.max() <= 1
        assert 4 <= len(scene.instances) <= 16


def test_masks_lie_on_the_parts() -> None:
    """Parts stand out from the belt where the mask says, and not half a part beside it."""
    inside, shifted = [], []
    for index in range(8):
        scene = render_scene(23, index)
        grey = cv2.cvtColor(scene.image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        slope = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        for instance in scene.instances:
            full = instance.full_mask(FRAME_HW).astype(np.uint8)
            outline = cv2.morphologyEx(full, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
            inside.append(float(slope[outline].mean()))
            shifted.append(float(slope[np.roll(outline, (4, 4), (0, 1))].mean()))
    assert np.mean(inside) > 1.5 * np.mean(shifted)


def test_every_class_occurs_in_many_sizes(scenes: list[Scene]) -> None:
    found = [instance for scene in scenes for instance in scene.instances]
    assert {instance.class_id for instance in found} == set(range(len(CLASS_NAMES)))
    longest = np.array([max(i.box[2] - i.box[0], i.box[3] - i.box[1]) for i in found])
    assert longest.min() <= 18
    assert longest.max() >= 130
    share = [float(((longest >= a) & (longest < b)).mean()) for a, b in ((24, 48), (48, 96), (96, 200))]
    assert 0.08 < share[0] < 0.30
    assert 0.32 < share[1] < 0.60
    assert 0.20 < share[2] < 0.50


def test_holes_are_not_part_of_the_mask(scenes: list[Scene]) -> None:
    rings = {CLASS_NAMES.index(name) for name in ("washer", "O-ring", "hex nut", "bearing")}
    holes = [
        bool(i.mask[(i.mask.shape[0] - 1) // 2, (i.mask.shape[1] - 1) // 2])
        for scene in scenes
        for i in scene.instances
        if i.class_id in rings and abs(i.mask.shape[0] / i.mask.shape[1] - 1) < 0.2
    ]
    assert len(holes) > 30
    assert np.mean(holes) < 0.1


def test_size_scales_the_scene() -> None:
    scene = render_scene(11, 0, (256, 144))
    assert scene.image.shape == (144, 256, 3)
    assert render_scene(11, 0, (333, 201)).image.shape == (201, 333, 3)
    for bad in ((32, 288), (512, 8)):
        with pytest.raises(ValueError, match="expected a frame of at least"):
            render_scene(11, 0, bad)
    with pytest.raises(ValueError, match="seed and index"):
        render_scene(-1, 0)


def test_conveyor_random_access_equals_sequential_and_parts_move() -> None:
    frame_wh = (256, 144)
    forward = Conveyor(4, frame_wh)
    sequence = [forward.frame(n) for n in range(30)]
    for n in (29, 7, 0, 18):
        assert digest(Conveyor(4, frame_wh).frame(n)) == digest(sequence[n])
    assert digest(forward.frame(3)) == digest(sequence[3])
    assert digest(Conveyor(5, frame_wh).frame(3)) != digest(sequence[3])
    # Parts wholly inside travel to the right: follow the nearest of the same class.
    steps = []
    for before, after in zip(sequence[:20], sequence[5:25], strict=True):
        for a in before.instances:
            moved = [
                b.box[0] - a.box[0]
                for b in after.instances
                if b.class_id == a.class_id and b.mask.shape == a.mask.shape and a.box[0] > 0
            ]
            steps += [d for d in moved if abs(d) < 60]
    assert len(steps) > 10
    assert 3 < np.median(steps) < 20
    with pytest.raises(ValueError, match="frame number"):
        forward.frame(-1)


def test_fps_changes_the_sampling_of_time_only() -> None:
    slow, fast = Conveyor(4, (256, 144), fps=10), Conveyor(4, (256, 144), fps=30)
    a, b = slow.frame(5), fast.frame(15)
    assert [i.box for i in a.instances] == [i.box for i in b.instances]


def test_command_writes_coco_that_pycocotools_reads(tmp_path: Path) -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    coco = pytest.importorskip("pycocotools.coco")
    out = tmp_path / "set"
    done = command(str(SCENES), "--seed", "11", "--count", "3", "--out", str(out))
    assert done.returncode == 0, done.stderr
    truth = coco.COCO(str(out / "annotations.json"))
    assert [truth.cats[k + 1]["name"] for k in range(10)] == list(CLASS_NAMES)
    assert sorted(truth.imgs) == [1, 2, 3]
    for image_id, record in truth.imgs.items():
        scene = render_scene(11, image_id - 1)
        assert np.array_equal(cv2.imread(str(out / record["file_name"])), scene.image)
        found = truth.loadAnns(truth.getAnnIds(imgIds=[image_id]))
        assert len(found) == len(scene.instances)
        for annotation, instance in zip(found, scene.instances, strict=True):
            packed = truth.annToRLE(annotation)
            assert np.array_equal(truth.annToMask(annotation) > 0, instance.full_mask(FRAME_HW))
            assert annotation["area"] == mask_tools.area(packed) == instance.mask.sum()
            assert annotation["bbox"] == list(mask_tools.toBbox(packed))
            assert annotation["category_id"] == instance.class_id + 1


def test_command_writes_a_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "belt.mp4"
    done = command(str(SCENES), "--seed", "4", "--video", str(path), "--seconds", "0.4", "--size", "256x144")
    assert done.returncode == 0, done.stderr
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 25.0
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(stream)]
    assert len(frames) == 10
    drawn = Conveyor(4, (256, 144)).frame(9).image.astype(np.float32)
    assert np.abs(frames[9] - drawn).mean() < 12
    assert boxes_of(path) == ["ftyp", "free", "mdat", "moov"], "it is no ordinary file"
    assert [file.name for file in tmp_path.iterdir()] == ["belt.mp4"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "either --out DIR or --video"),
        (["--out", "x"], 2, "--count"),
        (["--out", "x", "--count", "0"], 2, "--count"),
        (["--out", "x", "--count", "1", "--size", "9by9"], 2, "--size"),
        (["--out", "x", "--count", "1", "--seed", "-1"], 2, "--seed"),
        (["--out", "x", "--count", "1", "--jpeg", "0"], 2, "--jpeg"),
        (["--video", "x.avi"], 2, ".mp4"),
        (["--video", "x.mp4", "--size", "65x41"], 2, "even"),
        (["--video", "x.mp4", "--seconds", "0"], 2, "--seconds"),
        (["--video", "x.mp4", "--fps", "nan"], 2, "--fps"),
        (["--out", "full", "--count", "1"], 74, "empty folder"),
    ],
)
def test_command_refuses_in_a_sentence(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(SCENES.parent))
    import scenes as tool

    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    assert tool.main(arguments) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_failed_rendering_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCENES.parent))
    import scenes as tool

    def broken(*_: object) -> Scene:
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "render_scene", broken)
    assert tool.main(["--out", str(tmp_path / "set"), "--count", "2"]) == 130
    assert list(tmp_path.iterdir()) == []


def test_run_lengths_of_known_masks() -> None:
    sys.path.insert(0, str(SCENES.parent))
    try:
        from scenes import rle
    finally:
        sys.path.pop(0)
    corner = np.array([[1, 0], [1, 1]], bool)
    assert rle(corner) == {"counts": [0, 2, 1, 1], "size": [2, 2]}
    assert rle(np.zeros((2, 3), bool)) == {"counts": [6], "size": [2, 3]}
    assert rle(np.ones((2, 3), bool))["counts"] == [0, 6]
    assert json.loads(json.dumps(rle(corner)))["size"] == [2, 2]
