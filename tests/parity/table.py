"""Prints how far everything is from AdelaiDet's numbers: `python tests/parity/table.py`; exit code 1 on a fail.

All cases that the reference folder holds are taken; TRT_BLENDMASK_REFERENCE names another one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import onnx  # noqa: E402

from tests.conftest import reference_folder  # noqa: E402
from tests.parity import networks, steps  # noqa: E402
from tests.parity.measure import BOUNDS, Row  # noqa: E402

Check = Callable[[Path], Row]  # of an empty folder to work in
GOLDEN = ROOT / "tests" / "golden" / "conveyor_heads.npz"


def checks(reference: Path) -> Iterator[tuple[str, Check]]:
    """Name and comparison of every case."""
    yield "bundled conveyor", partial(steps.bundled_heads, GOLDEN)
    for checkpoint in sorted((reference / "end_to_end").glob("*/*.pth")):
        kind = checkpoint.stem.removeprefix("model_")
        pictures = sorted(checkpoint.parent.glob("img*.npz"))
        for picture in pictures if kind == "plain" else pictures[:1]:
            name = f"{checkpoint.parent.name} {kind} {picture.stem}"
            yield name, partial(networks.from_checkpoint, checkpoint, picture)
    for picture in sorted((reference / "end_to_end").glob("*/img*.npz")):
        image = np.load(picture)["image_original"]
        checkpoint = picture.parent / "model_plain.pth"
        if image.shape[0] % 32 == image.shape[1] % 32 == 0 and checkpoint.exists():
            yield f"{picture.parent.name} {picture.stem}, CLI", partial(networks.by_command_line, checkpoint, picture)
    yield from _onnx_checks(reference)
    for case in sorted((reference / "blender").glob("*.npz")):
        yield f"blend {case.stem}", lambda _, case=case: steps.blending(case)
    for case in sorted((reference / "detections").glob("*.npz")):
        for nms in ("matrix", "op"):
            yield f"select {case.stem}, {nms}", lambda _, case=case, nms=nms: steps.selection(case, nms)
    for case in sorted((reference / "paste").glob("*.npz")):
        yield f"paste {case.stem}", lambda _, case=case: steps.pasting(case)


def _onnx_checks(reference: Path) -> Iterator[tuple[str, Check]]:
    for raw in sorted((reference / "onnx").glob("*_legacy.onnx")):
        dims = onnx.load(raw).graph.input[0].type.tensor_type.shape.dim
        size = [d.dim_value for d in dims][2:]
        variants = itertools.cycle((("sparse", "matrix"), ("dense", "op")))
        for picture in sorted((reference / "end_to_end" / raw.stem.removesuffix("_legacy")).glob("img*.npz")):
            if [-(-side // 32) * 32 for side in np.load(picture)["image"].shape[:2]] == size:
                top, nms = next(variants)
                check = partial(networks.from_raw_head, raw, picture, top, nms)
                yield f"{raw.stem} {picture.stem}, {top}, {nms}", check
    for raw in sorted((reference / "onnx").glob("*_e2e_*.onnx")):
        model, _, kind = raw.stem.partition("_e2e_")
        expected = raw.with_name(f"{model}_e2e_expected.npz")
        yield raw.stem, partial(networks.from_whole_graph, raw, expected, kind.split("_")[0])
    for raw in sorted((reference / "onnx").glob("tail_only_*.onnx")):
        number = raw.stem.removeprefix("tail_only_").split("_")[0]
        for case in (reference / "blender").glob(f"{number}_*.npz"):
            yield raw.stem, partial(networks.from_tail, raw, case)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="every tensor")
    args = parser.parse_args()
    started, failed, count = time.monotonic(), 0, 0
    print(f"{'':40}{'n':>4}" + "".join(f"{column:>8}" for column in BOUNDS))
    print(f"{'bound':44}" + "".join(f"{_spelled(bound):>8}" for bound in BOUNDS.values()))
    for name, check in checks(reference_folder()):
        with tempfile.TemporaryDirectory() as folder:
            try:
                row, fault = check(Path(folder)), ""
            except Exception as error:
                row, fault = Row({}), f"{type(error).__name__}: {error}".splitlines()[0][:150]
        cells = "".join(f"{_spelled(row.errors[c]) if c in row.errors else '':>8}" for c in BOUNDS)
        verdict = "FAIL" if row.failed or fault else "pass"
        print(f"{name[:39]:40}{row.objects or '':>4}{cells}  {verdict}", flush=True)
        if fault:
            print(f"    {fault}")
        for tensor, error in row.details.items() if args.verbose else ():
            print(f"    {tensor:38}{_spelled(error):>8}")
        failed, count = failed + (verdict == "FAIL"), count + 1
    print(f"{count - failed} of {count} pass, in {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def _spelled(error: float) -> str:
    return f"{error:.0f}" if error == int(error) and abs(error) < 1e6 else f"{error:.1e}"


if __name__ == "__main__":
    sys.exit(main())
