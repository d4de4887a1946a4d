"""Pictures through the network into the histograms, with what was collected kept whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from trt_blendmask.calibrate.network import Network
from trt_blendmask.calibrate.pictures import Picture, Pictures
from trt_blendmask.calibrate.store import Observations
from trt_blendmask.errors import DataError
from trt_blendmask.runtime.progress import StageClock
from trt_blendmask.structures import F32

SAVE_EVERY_S = 30.0


@dataclass
class Tally:
    """What became of the pictures: hashes of those in the histograms, and how many were left out, and why."""

    used: set[str] = field(default_factory=set)
    unreadable: int = 0
    blank: int = 0
    copies: int = 0

    def left_out(self) -> str:
        """In words; empty where none was."""
        counts = {"cannot be read": self.unreadable, "show one colour only": self.blank, "are copies": self.copies}
        return ", ".join(f"{n} {why}" for why, n in counts.items() if n)


def collect(
    pictures: Pictures,
    chosen: list[int],
    network: Network,
    observations: Observations,
    keep: Path,
    clock: StageClock,
    tick: Callable[[], None],
) -> Tally:
    """Count the activations of the `chosen` pictures that `observations` has not seen; `keep` is where it is saved.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was collected is saved, and the message says how to go on.
        DataError: an activation is NaN or infinite. OutputError: `keep` cannot be written.
    """
    tally = Tally()
    observations.save(keep)  # a place that cannot be written is found before the work, not after it
    # A thread of its own counts, so that the network can go on with the next picture and Ctrl-C, which reaches the main
    # thread only, never leaves a picture counted by halves.
    with ThreadPoolExecutor(1) as counter:
        counting = _Counting(observations, keep, clock, counter)
        try:
            _run(pictures.read(set(chosen)), network, counting, tally, tick)
        except KeyboardInterrupt:
            counting.finish()
            observations.save(keep)
            raise KeyboardInterrupt(
                f"Stopped by Ctrl-C after {len(observations.seen)} of {len(chosen)} pictures, which '{keep}' keeps: "
                "type the same command to go on."
            ) from None
        finally:
            if not observations.seen:
                keep.unlink(missing_ok=True)
    if observations.seen:
        observations.save(keep)
    return tally


class _Counting:
    """Counts the activations of one picture while those of the next are computed."""

    def __init__(self, observations: Observations, keep: Path, clock: StageClock, thread: ThreadPoolExecutor) -> None:
        self.observations, self.clock = observations, clock
        self._keep, self._thread = keep, thread
        self._saved = time.monotonic()
        self._pending: Future[None] | None = None

    def count(self, picture: Picture, activations: dict[str, F32]) -> None:
        self.finish()
        self._pending = self._thread.submit(self._count, picture, activations)

    def finish(self) -> None:
        """Wait for the last picture.

        Raises:
            DataError: one of its values is no number.
        """
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _count(self, picture: Picture, activations: dict[str, F32]) -> None:
        with self.clock.measure("observe"):
            for name in list(activations):
                self._add(name, activations.pop(name), picture)
            self.observations.seen.add(picture.sha256)
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.observations.save(self._keep)
            self._saved = time.monotonic()

    def _add(self, name: str, values: F32, picture: Picture) -> None:
        try:
            self.observations.by_tensor[name].add(values)
        except ValueError as error:
            raise DataError(
                f"Expected numbers in the activation '{name}', but some are {error} for '{picture.name}': the weights "
                "are damaged or too large. Export the checkpoint again: trt-blendmask export --help"
            ) from error


def _run(
    pictures: Iterator[Picture], network: Network, counting: _Counting, tally: Tally, tick: Callable[[], None]
) -> None:
    clock = counting.clock
    for picture in _timed(pictures, clock):
        if _is_usable(picture, tally) and picture.sha256 not in counting.observations.seen:
            assert picture.image is not None
            with clock.measure("letterbox"):
                images, box = network.letterbox(picture.image)
            with clock.measure("network"):
                activations = network.activations(images, box)
            counting.count(picture, activations)
        tick()
    counting.finish()


def _timed(pictures: Iterator[Picture], clock: StageClock) -> Iterator[Picture]:
    while True:
        with clock.measure("decode"):
            picture = next(pictures, None)
        if picture is None:
            return
        yield picture


def _is_usable(picture: Picture, tally: Tally) -> bool:
    if picture.image is None:
        tally.unreadable += 1
    elif picture.is_blank:
        tally.blank += 1
    elif picture.sha256 in tally.used:
        tally.copies += 1
    else:
        tally.used.add(picture.sha256)
        return True
    return False
