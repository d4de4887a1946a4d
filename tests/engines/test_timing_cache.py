"""The file of measured kernels: never a damaged byte to TensorRT, nothing lost between processes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines import tiny
from trt_blendmask.engines.operation import build
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.timing_cache import TimingCache, read_entries
from trt_blendmask.errors import DataError, NotTrustedError, TrtBlendMaskError

KEY = "TensorRT 10.13.3.9, Pretend GPU 8.7"


class Library:
    """What TensorRT's cache and config do, and the bytes that they were given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def create_timing_cache(self, content: bytes) -> Kernels:
        self.given.append(content)
        return Kernels(content)

    def set_timing_cache(self, _cache: Kernels, _ignore: bool) -> bool:
        return True


class Kernels:
    def __init__(self, content: bytes) -> None:
        self.names = set(content.decode().split())

    def combine(self, other: Kernels, _ignore: bool) -> bool:
        self.names |= other.names
        return True

    def serialize(self) -> bytes:
        return " ".join(sorted(self.names)).encode()


def measure(path: Path, *kernels: str, key: str = KEY, seed: Path | None = None) -> tuple[Library, list[str]]:
    """A build that times `kernels`; what the library was given, and what the user was told."""
    library, notes = Library(), list[str]()
    cache = TimingCache(path, key, seed, notes.append)
    known = cache.attach(library)
    known.names |= set(kernels)
    cache.save(library, known)
    return library, notes


def test_an_entry_per_gpu_and_version(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    measure(path, "a", "b")
    measure(path, "c", key="another GPU")
    library, notes = measure(path, "d")
    assert (library.given, notes) == ([b"a b"], [])
    assert read_entries(path) == {KEY: b"a b d", "another GPU": b"c"}


def test_two_builds_at_once_lose_nothing(tmp_path: Path) -> None:
    path, library = tmp_path / "timings", Library()
    measure(path, "a")
    slow = TimingCache(path, KEY, None, lambda _: None)
    known = slow.attach(library)
    known.names.add("slow")
    measure(path, "quick")
    slow.save(library, known)
    assert read_entries(path)[KEY] == b"a quick slow"


def test_seed_is_only_read(tmp_path: Path) -> None:
    measure(tmp_path / "seed", "s")
    before = (tmp_path / "seed").read_bytes()
    _, notes = measure(tmp_path / "timings", "a", seed=tmp_path / "seed")
    assert read_entries(tmp_path / "timings")[KEY] == b"a s"
    assert (notes, (tmp_path / "seed").read_bytes()) == ([], before)
    _, notes = measure(tmp_path / "timings", seed=tmp_path / "none")
    assert "has no timings" in notes[0]


def test_damaged_told_set_aside_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    measure(path, "a")
    damaged = path.read_bytes()[:-1] + b"x"
    path.write_bytes(damaged)
    library, notes = measure(path, "b")
    assert library.given == [b""], "TensorRT must not see it"
    assert ["damaged" in note for note in notes] == [True]
    assert read_entries(path) == {KEY: b"b"}
    assert (tmp_path / "timings.bad").read_bytes() == damaged


def test_3000_damaged_files(tmp_path: Path) -> None:
    path, draw = tmp_path / "timings", random.Random(1)
    measure(path, "kernel_one", "kernel_two")
    measure(path, "kernel_three", key="another GPU")
    whole = path.read_bytes()
    mutated = tmp_path / "mutated"
    for _ in range(3000):
        content = bytearray(whole)
        kind = draw.randrange(4)
        at = draw.randrange(len(content))
        if kind == 0:
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            content[at:at] = draw.randbytes(draw.randrange(1, 9))
        else:
            del content[at : at + draw.randrange(1, 9)]
        mutated.write_bytes(content)
        with pytest.raises(DataError):
            read_entries(mutated)


def test_of_others(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    measure(path, "a")
    path.chmod(0o666)
    with pytest.raises(NotTrustedError):
        read_entries(path)
    library, notes = measure(path, "b")
    assert (library.given, len(notes)) == ([b""], 1)


@pytest.mark.parametrize("name", ["file/timings", "n" * 300])
def test_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    _, notes = measure(tmp_path / name, "a")
    assert any("lost for the next build" in note for note in notes)


def test_in_a_build(calls: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, notes = tiny.write(tmp_path / "model.onnx"), list[str]()
    own, given = tmp_path / "cache" / "trt_blendmask" / "timings.cache", tmp_path / "given.cache"
    build(model)
    assert list(read_entries(own)) == [KEY]
    build(model, options=BuildOptions(timing_cache=given))
    given.write_bytes(b"junk")
    build(model, options=BuildOptions(timing_cache=given, seed_from=own), progress=lambda p: notes.append(p.note))
    assert [note for note in notes if "damaged" in note]
    assert read_entries(given)[KEY].count(b"kernel") == 2, "the seed's and this build's"
    monkeypatch.setenv("FAKE_TENSORRT", "cache-mismatch")
    build(model, progress=lambda p: notes.append(p.note))
    assert "of another GPU" in notes[-2] + notes[-3] + "".join(notes)
    monkeypatch.setenv("FAKE_TENSORRT", "cache-refused")
    build(model)
    lengths = [int(line.split()[1]) for line in calls() if line.startswith("create_timing_cache")]
    assert all(length == 0 or length > 5 for length in lengths), "never the 4 bytes of junk"


@pytest.mark.usefixtures("calls")
def test_a_cache_fails_no_build(tmp_path: Path) -> None:
    model = tiny.write(tmp_path / "model.onnx")
    (tmp_path / "folder").mkdir()
    try:
        build(model, options=BuildOptions(timing_cache=tmp_path / "folder"))
    except TrtBlendMaskError as error:
        pytest.fail(str(error))


@pytest.mark.usefixtures("calls")
def test_what_is_said_of_the_cache_is_not_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.write(tmp_path / "model.onnx")
    build(model)
    monkeypatch.setenv("FAKE_TENSORRT", "cache-noise")
    with pytest.raises(DataError, match="gives no reason"):
        build(model)
