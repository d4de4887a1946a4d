"""Timing models in turn, A B C and again in another order, so that drift and other processes hit all alike."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from trt_blendmask.backends import Session
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.errors import SourceUnavailableError, TrtBlendMaskError
from trt_blendmask.profiler.differences import noise_of
from trt_blendmask.profiler.report import Throughput
from trt_blendmask.runtime.model import Model
from trt_blendmask.structures import U8

ROUNDS = 30  # wished for: the more, the better noise is known
MIN_ROUNDS = 10  # however slow a model is
_LONGEST_TURN_S = 1.0  # of long measurements, which have more rounds then: the machine changes in a minute
QUIET = 0.04  # noise with which a difference of 10 % is found; where there is more, the turns go on,
LONGER = 10  # but for no more than so many times as long
_MOST_IN_FLIGHT = 4  # as `run` has at most


@dataclass
class Runner:
    """A model while it is timed.

    Attributes:
        session: what runs the network of `model`.
        times, rounds: see `ModelProfile`. turns: (begin, end) of each turn, by `time.perf_counter`.
        throughput: measured in the time `in_flight`, likewise.
        error: why it dropped out, "" while it runs.
    """

    label: str
    model: Model
    session: Session
    times: dict[str, list[float]] = field(default_factory=dict)
    rounds: dict[str, list[int]] = field(default_factory=dict)
    turns: list[tuple[float, float]] = field(default_factory=list)
    throughput: Throughput | None = None
    in_flight: tuple[float, float] | None = None
    error: str = ""

    def warm_up(self, images: Sequence[U8], seconds: float) -> float:
        """Run for so long, two frames at least; what the fastest took, in seconds."""
        fastest, began, count = float("inf"), time.perf_counter(), 0
        while count < 2 or time.perf_counter() - began < seconds:
            first = time.perf_counter()
            self._frame(images[count % len(images)])
            fastest = min(fastest, time.perf_counter() - first)
            count += 1
        return fastest

    def turn(self, images: Sequence[U8], first: int, count: int, number: int) -> None:
        """Time `count` frames from `images[first]` on; of several a further one goes before: its caches are cold."""
        if count > 1:
            self._frame(images[(first - 1) % len(images)])
        began = time.perf_counter()
        for k in range(first, first + count):
            for key, ms in self._frame(images[k % len(images)]).items():
                self.times.setdefault(key, []).append(ms)
                self.rounds.setdefault(key, []).append(number)
        self.turns.append((began, time.perf_counter()))

    def _frame(self, image: U8) -> dict[str, float]:
        """Milliseconds by key of `ModelProfile.times`; those of a GPU come from frames of their own."""
        began = time.perf_counter()
        images, box = self.model.letterbox(image)
        handed = time.perf_counter()
        outputs = self.model.infer(images)
        back = time.perf_counter()
        self.model.collect(outputs, box)
        found = {"host": 1e3 * (time.perf_counter() - began), "network": 1e3 * (back - handed)}
        if isinstance(self.session, TensorRtSession):
            seen = self.session.times()
            parts = (seen.frame, seen.upload, seen.compute, seen.download, seen.launch)
            found |= zip(("gpu", "h2d", "compute", "d2h", "enqueue"), parts, strict=True)
        return found


def take_turns(
    runners: Sequence[Runner], images: Sequence[U8], duration: float, warmup: float, tick: Callable[[str, float], None]
) -> None:
    """Time all for about `duration` seconds each, in rounds of random order; one that fails drops out with its error.

    While the noise is above `QUIET`, again for as long, up to `LONGER` times.

    Args:
        warmup: seconds of each before. tick: told what is being done, and what share of it is.
    """
    counts, turn_s = {}, min(duration / ROUNDS, _LONGEST_TURN_S)
    for runner in runners:
        with dropping(runner):
            counts[runner.label] = max(1, round(turn_s / max(1e-6, runner.warm_up(images, warmup))))
    chance, order, began, number = random.Random(0), list(runners), time.perf_counter(), 0
    goal, words = duration, "timing in turns"
    while left := [runner for runner in order if not runner.error]:
        spent = (time.perf_counter() - began) / len(left)
        if number >= MIN_ROUNDS and spent >= goal:
            noise = max(_noise(runner) for runner in left)
            if noise <= QUIET or spent >= LONGER * duration:
                return
            goal = spent + duration  # and no look before: who looks all the time finds a lucky moment
            words = f"timing for longer, as the noise is {noise:.0%}"
        order.reverse()  # there and back: who was first is last, so that steady drift cancels out
        if number % 2 == 0:
            chance.shuffle(order)
        for runner in [runner for runner in order if not runner.error]:
            with dropping(runner):
                runner.turn(images, number, counts[runner.label], number)
        number += 1
        tick(words, min(1.0, spent / goal, number / MIN_ROUNDS))


def _noise(runner: Runner) -> float:
    return noise_of(runner, "gpu" if "gpu" in runner.times else "network") or 0.0


def measure_throughput(runner: Runner, images: Sequence[U8], seconds: float) -> None:
    """Frames per second with several in flight, each thread with a twin of its own; into `runner.throughput`."""
    with dropping(runner):
        models = [runner.model]
        with suppress(SourceUnavailableError):  # no memory on the GPU for one more
            while len(models) < min(max(2, runner.model.abreast), _MOST_IN_FLIGHT):
                models.append(runner.model.twin())
        began = time.perf_counter()
        runner.throughput = _throughput(models, images, seconds)
        runner.in_flight = (began, time.perf_counter())


def _throughput(models: list[Model], images: Sequence[U8], seconds: float) -> Throughput:
    stop, began, counts = threading.Event(), time.perf_counter(), [0] * len(models)

    def work(place: int) -> None:
        while not stop.is_set() and (counts[place] < 2 or time.perf_counter() - began < seconds):
            models[place](images[(place + counts[place] * len(models)) % len(images)])
            counts[place] += 1

    with ThreadPoolExecutor(len(models), "in flight") as pool:
        working = [pool.submit(work, place) for place in range(len(models))]
        try:  # a `Thread.join` that Ctrl-C breaks off takes a thread that still runs for ended, before Python 3.13
            wait(working, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    spent = time.perf_counter() - began
    for one in working:
        one.result()  # raises what it failed with
    return Throughput(len(models), sum(counts) / spent, sum(counts), spent)


@contextmanager
def dropping(runner: Runner) -> Iterator[None]:
    """A model that fails here drops out with its error, and the others go on."""
    try:
        yield
    except TrtBlendMaskError as error:
        runner.error = str(error).rstrip(".")
