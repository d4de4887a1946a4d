"""Render synthetic conveyor scenes: images with COCO annotations, or a video of the moving belt."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.coco import run_lengths
from trt_blendmask.errors import OutputError, TrtBlendMaskError, UsageError
from trt_blendmask.files import atomic_output, cannot_write
from trt_blendmask.paste import Patch
from trt_blendmask.runtime.recording.video import VideoFile
from trt_blendmask.synthetic import CLASS_NAMES, Conveyor, Scene, render_scene

EXAMPLES = """examples:
  scenes.py --seed 1 --count 500 --out scenes                 500 PNG images and scenes/annotations.json
  scenes.py --seed 1 --count 20000 --out train --jpeg 95      smaller files
  scenes.py --seed 7 --video belt.mp4 --seconds 10            10 s of the moving belt, H.264
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 2 usage, 74 output refused, 130 Ctrl-C)."""
    options = _parser().parse_args(arguments)
    try:
        size = _checked(options)
        if options.video is not None:
            write_video(options.video, options.seed, options.seconds, options.fps, size)
        else:
            write_scenes(options.out, options.seed, options.count, size, options.jpeg)
    except TrtBlendMaskError as error:
        print(f"scenes.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("scenes.py: stopped by Ctrl-C, nothing was written.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scenes.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0, help="which set of scenes (default 0)")
    parser.add_argument("--count", type=int, default=None, metavar="N", help="number of scenes")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new or empty folder for the scenes")
    parser.add_argument("--size", metavar="WxH", help="pixels (default 512x288, video 1024x576)")
    parser.add_argument("--jpeg", type=int, metavar="Q", help="JPEG of quality Q (1-100) instead of PNG")
    parser.add_argument("--video", type=Path, metavar="F.mp4", help="a video of the moving belt instead")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the video (default 10)")
    parser.add_argument("--fps", type=float, default=25.0, help="frames a second (default 25)")
    return parser


def _checked(options: argparse.Namespace) -> tuple[int, int]:
    """The frame size; raises UsageError with the first thing that is wrong."""
    if (options.out is None) == (options.video is None):
        raise UsageError("Expected either --out DIR or --video F.mp4; see --help for examples.")
    if options.seed < 0:
        raise UsageError(f"Expected --seed of at least 0, got {options.seed}.")
    if options.out is not None and (options.count is None or options.count < 1):
        raise UsageError(f"Expected --count of at least 1, got {options.count}; add --count 10.")
    if options.jpeg is not None and not 1 <= options.jpeg <= 100:
        raise UsageError(f"Expected --jpeg between 1 and 100, got {options.jpeg}.")
    text = options.size or ("512x288" if options.video is None else "1024x576")
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"Expected --size WxH such as 1024x576, got '{text}'.")
    size = (int(width), int(height))
    if not (64 <= size[0] <= 8192 and 36 <= size[1] <= 8192):
        raise UsageError(f"Expected --size from 64x36 to 8192x8192, got '{text}'.")
    if options.video is not None:
        _check_video(options, size)
    return size


def _check_video(options: argparse.Namespace, size: tuple[int, int]) -> None:
    if options.video.suffix.lower() != ".mp4":
        raise UsageError(f"Expected --video to end in .mp4, got '{options.video}'.")
    if size[0] % 2 or size[1] % 2:
        raise UsageError(f"Expected an even --size for yuv420p video, got {size[0]}x{size[1]}.")
    if not 1 <= options.fps <= 240:
        raise UsageError(f"Expected --fps between 1 and 240, got {options.fps}.")
    if not 1 / options.fps <= options.seconds <= 3600:
        raise UsageError(f"Expected --seconds from one frame to 3600, got {options.seconds}.")


def rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """COCO run lengths, uncompressed: ``mask`` bool [H,W] down the columns, zeros first."""
    height, width = mask.shape
    return {"counts": run_lengths(Patch(0, 0, mask), (width, height)).tolist(), "size": [height, width]}


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotation records of one scene; category ids are class ids plus one."""
    frame_hw = scene.image.shape[:2]
    records = []
    for number, instance in enumerate(scene.instances):
        x1, y1, x2, y2 = instance.box
        records.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": instance.class_id + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": int(instance.mask.sum()),
                "iscrowd": 0,
                "segmentation": rle(instance.full_mask(frame_hw)),
            }
        )
    return records


def write_scenes(out: Path, seed: int, count: int, size: tuple[int, int], jpeg: int | None) -> None:
    """Write ``out/images`` and ``out/annotations.json``; the folder appears only when all is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"Expected a new or empty folder for --out, got '{out}'. Choose another.")
    target = out.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        _fill(building, seed, count, size, jpeg)
        building.chmod(0o755)
        if target.is_dir():
            target.rmdir()
        building.replace(target)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print(f"{count} scenes of {size[0]}x{size[1]} in {out}")


def _fill(folder: Path, seed: int, count: int, size: tuple[int, int], jpeg: int | None) -> None:
    (folder / "images").mkdir()
    suffix = ".png" if jpeg is None else ".jpg"
    flags = [] if jpeg is None else [cv2.IMWRITE_JPEG_QUALITY, jpeg]
    images: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for index in range(count):
        scene = render_scene(seed, index, size)
        name = f"{index:06d}{suffix}"
        (folder / "images" / name).write_bytes(cv2.imencode(suffix, scene.image, flags)[1].tobytes())
        images.append({"id": index + 1, "file_name": f"images/{name}", "width": size[0], "height": size[1]})
        records.extend(coco_annotations(scene, index + 1, len(records) + 1))
    document = {
        "info": {"description": f"synthetic conveyor scenes, seed {seed}", "version": "1"},
        "images": images,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASS_NAMES)],
        "annotations": records,
    }
    with atomic_output(folder / "annotations.json") as path:
        path.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")


def write_video(path: Path, seed: int, seconds: float, fps: float, size: tuple[int, int]) -> None:
    """Render the moving belt to H.264."""
    belt = Conveyor(seed, size, fps)
    frames = max(1, round(seconds * fps))
    with atomic_output(path) as temporary, closing(VideoFile(temporary, fps, size)) as video:
        for n in range(frames):
            video.write(belt.frame(n).image, n / fps)
    print(f"{frames} frames of {size[0]}x{size[1]} at {fps:g} a second in {path}")


if __name__ == "__main__":
    sys.exit(main())
