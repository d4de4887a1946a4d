"""8000 damaged passports and plans (and 3000 caches, in test_timing_cache): refused, and TensorRT is never called."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest

from tests.engines.fake_runtime import DEVICE, FakeTensorRT, fake_flavor, info_of, plan_of, put_pair
from trt_blendmask.engines import engine as module
from trt_blendmask.engines.engine import open_engine
from trt_blendmask.engines.passport import passport_path
from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError

PASSPORTS, PLANS = 5000, 3000
ANYTHING = (None, True, 0, -1, 1.5, 1e400, "", "x", "0" * 64, [], {}, [[]], {"a": 1}, "\ud800", 10**30)

Damage = Callable[[random.Random, bytes], bytes]


def flip(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def drop(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 40) :]


def insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randint(0, len(data))
    return data[:place] + rng.randbytes(rng.randint(1, 40)) + data[place:]


def repeat(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start : start + rng.randint(1, 200)] + data[start:]


def blank(rng: random.Random, data: bytes) -> bytes:
    """A block of zeros, as a file system leaves after a power cut."""
    start = rng.randrange(len(data))
    size = min(rng.choice([1, 16, 512]), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def edit(rng: random.Random, data: bytes) -> bytes:
    """Another value, key or seal in what is valid JSON still."""
    values = json.loads(data)
    name = rng.choice(sorted(values))
    action = rng.randrange(4)
    if action == 0:
        del values[name]
    elif action == 1:
        values[rng.choice(["new", name.upper(), ""])] = values.pop(name)
    elif action == 2 and isinstance(values[name], dict) and values[name]:
        values[name][rng.choice(sorted(values[name]))] = rng.choice(ANYTHING)
    else:
        values[name] = rng.choice(ANYTHING)
    return json.dumps(values, sort_keys=True, indent=rng.choice([None, 1])).encode()


def other_text(rng: random.Random, _: bytes) -> bytes:
    """What is no passport at all."""
    texts = [b"", b"null", b"[]", b"{}", b"1", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{}", b"9" * 5000, b"NaN"]
    return rng.choice(texts)


def survivors(
    engine: Path, damaged: Path, damages: tuple[Damage, ...], count: int, trt: FakeTensorRT, seed: int
) -> list[bytes]:
    """Which of `count` damaged contents of the file `damaged` were not refused."""
    rng, whole = random.Random(seed), damaged.read_bytes()
    taken: list[bytes] = []
    sentences: set[str] = set()
    with damaged.open("r+b", buffering=0) as file:  # kept open: file systems are slow to truncate
        for _ in range(count):
            content = rng.choice(damages)(rng, whole)
            if content == whole:
                continue
            _overwrite(file, content)
            try:
                open_engine(engine, flavor=fake_flavor(trt))
                taken.append(content)
            except (DataError, NotTrustedError, InputMissingError) as error:
                sentences.add(str(error))
        _overwrite(file, whole)
    assert all("\n" not in sentence and "trt-blendmask build" in sentence for sentence in sentences)
    return taken


def _overwrite(file: FileIO, content: bytes) -> None:
    file.seek(0)
    file.write(content)
    file.truncate()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "find_device", lambda: DEVICE)
    put_pair(tmp_path / "F.engine", plan_of(), options={"opt_level": 3, "profile": [1, 2, 4]})
    return tmp_path / "F.engine"


def test_mutated_passports(engine: Path) -> None:
    trt = FakeTensorRT()
    damages = (flip, cut, drop, insert, repeat, blank, edit, edit, edit, other_text)
    assert survivors(engine, passport_path(engine), damages, PASSPORTS, trt, seed=1) == []
    assert trt.calls == []
    open_engine(engine, flavor=fake_flavor(trt))  # the undamaged one opens: the damage was the reason


def test_mutated_plans(engine: Path) -> None:
    trt = FakeTensorRT()
    damages = (flip, cut, drop, insert, repeat, blank)
    assert survivors(engine, engine, damages, PLANS, trt, seed=2) == []
    assert trt.calls == []
    open_engine(engine, flavor=fake_flavor(trt))


def test_the_count_of_calls_has_teeth(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that believes its passport is found out."""
    trt = FakeTensorRT()
    monkeypatch.setattr("trt_blendmask.engines.checks.matching_passport", lambda *_, **__: info_of(plan_of()))
    assert len(survivors(engine, engine, (flip,), 20, trt, seed=3)) == 20
    assert trt.calls
