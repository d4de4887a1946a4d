"""Feeds damaged and hostile files to export, surgery, predict and inspect: `drive.py --seed 1 --cases 2000`.

Each must end within 10 s and 1 GB, touch nothing outside its output, and say what is wrong in one sentence.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ["OPENCV_LOG_LEVEL"] = "SILENT"  # as the command line sets it, before OpenCV is loaded

from tests.conftest import reference_folder  # noqa: E402
from tests.fuzz.cases import all_cases, make_seeds  # noqa: E402
from tests.fuzz.sandbox import Outcome, run_all  # noqa: E402

WARM = (
    "onnx.inliner",
    "onnx.version_converter",
    "yaml",
    "trt_blendmask.export.assemble",
    "trt_blendmask.inspect.onnx_file",
    "trt_blendmask.runtime.predict",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the random files (default: 1)")
    parser.add_argument("--cases", type=int, default=2000, help="how many in all (default: 2000)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at a time (default: all cores)")
    parser.add_argument("--only", type=int, metavar="I", help="one case, by its number")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to leave the files of failing cases")
    parser.add_argument("-v", "--verbose", action="store_true", help="say how every case went")
    args = parser.parse_args()
    for module in WARM:  # so that each child begins with everything loaded
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="trt_blendmask_fuzz_") as name:
        made, rooms = Path(name, "seeds"), Path(name, "rooms")
        made.mkdir()
        seeds = make_seeds(reference_folder(), made)
        cases = enumerate(all_cases(seeds, args.seed, args.cases))
        chosen = ((number, case) for number, case in cases if args.only in (None, number))
        return _report(run_all(chosen, rooms, args.jobs), args)


def _report(outcomes: Iterator[Outcome], args: argparse.Namespace) -> int:
    started, codes, failed = time.monotonic(), Counter[int](), 0
    longest = largest = 0.0
    for outcome in outcomes:
        codes[outcome.code] += 1
        longest, largest = max(longest, outcome.cpu_s), max(largest, outcome.rss_mb)
        if outcome.faults or args.verbose:
            print(
                f"#{outcome.number} {outcome.case.name}: {outcome.code}, {outcome.cpu_s:.1f} s, {outcome.rss_mb:.0f} MB"
            )
            print(f"  {outcome.stderr[:400].rstrip()}" if args.verbose else "", end="\n" if args.verbose else "")
        for fault in outcome.faults:
            print(f"  {fault}", flush=True)
        if outcome.faults:
            failed += 1
            _keep(outcome, args.keep)
    ends = ", ".join(f"{count} x {code}" for code, count in sorted(codes.items()))
    print(f"{codes.total()} cases in {time.monotonic() - started:.0f} s: exit codes {ends}")
    print(f"longest {longest:.1f} s of processor time, largest {largest:.0f} MB; {failed} failed")
    if failed:
        print(f"Again: python tests/fuzz/drive.py --seed {args.seed} --cases {args.cases} --only NUMBER --keep DIR")
    return 1 if failed else 0


def _keep(outcome: Outcome, folder: Path | None) -> None:
    if folder is not None:
        place = folder / str(outcome.number)
        place.mkdir(parents=True, exist_ok=True)
        for name, data in outcome.case.files.items():
            (place / name).write_bytes(data)
        (place / "command").write_text(f"{shlex.join(outcome.case.argv)}\n{outcome.stderr}")


if __name__ == "__main__":
    sys.exit(main())
