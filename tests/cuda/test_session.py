"""Frames through `TensorRtSession` over a double of a GPU: the network's own answers, nothing allocated, all freed."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.cuda.fake_cuda import FakeCudaError, FakeDevice, FakeGraph, FakeStream
from tests.cuda.fake_engine import IMAGES, OUTPUTS, FakeContext, FakeEngine, network, picture
from trt_blendmask.backends import tensorrt
from trt_blendmask.backends.lane import FIRST_SLOTS, Block, Lane, Mode
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.errors import DataError, SourceUnavailableError, UsageError
from trt_blendmask.structures import ModelSpec, TensorSpec

COUNTS = (0, 1, 7, FIRST_SLOTS - 1, FIRST_SLOTS, FIRST_SLOTS + 1, 99, 100, 3)


@pytest.fixture(params=[False, True], ids=["copied", "mapped"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    """A GPU of each kind of memory, on which the mode that its kind is for is the fastest."""
    device = FakeDevice(integrated=request.param)
    monkeypatch.setattr(tensorrt, "_milliseconds", lambda lane: 2.0 - lane.mode.mapped)
    yield device
    assert not device.live, "something was not freed"


@pytest.fixture
def engine(device: FakeDevice) -> FakeEngine:
    return FakeEngine(device)


@pytest.fixture
def session(engine: FakeEngine, device: FakeDevice) -> Iterator[TensorRtSession]:
    session = TensorRtSession(engine, device)
    yield session
    session.close()


def agree(got: dict[str, Any], images: Any) -> None:
    """With what the network says itself, in all filled slots."""
    wanted = network(images)
    count = int(wanted["count"][0])
    assert set(got) == set(wanted)
    assert got["masks"].shape == (1, count, 8, 8)
    for name, value in got.items():
        np.testing.assert_array_equal(value, wanted[name][:, :count] if name == "masks" else wanted[name])


def test_frames(session: TensorRtSession) -> None:
    for seed, count in enumerate(COUNTS):
        agree(session.run(picture(count, seed)), picture(count, seed))
        session.input_buffer()[...] = picture(count, seed + 50)
        agree(session.run(session.input_buffer()), picture(count, seed + 50))


@pytest.mark.parametrize("count", [-5, 101, 2**31 - 1])
def test_count_out_of_range(device: FakeDevice, count: int) -> None:
    """A broken engine may say anything; no memory but its own is read."""
    engine = FakeEngine(device, lambda images: {**network(images), "count": np.array([count], np.int32)})
    session = TensorRtSession(engine, device)
    assert session.run(picture(100))["masks"].shape[1] == min(max(count, 0), 100)
    session.close()


def test_one_graph_and_no_allocation(session: TensorRtSession, engine: FakeEngine, device: FakeDevice) -> None:
    """After the first frame nothing is made any more, and TensorRT is not asked again: the graph is replayed."""
    session.run(picture(3))
    counts, runs = device.counts.copy(), engine.runs
    for i in range(200):
        session.run(picture(i % 100, i % 256))
    assert device.counts == counts
    assert engine.runs == runs
    assert "one CUDA graph a frame" in session.how


def test_bytes_copied(session: TensorRtSession, device: FakeDevice) -> None:
    """Nothing where memory is shared; else the input, and the outputs of the filled slots beyond the first few."""
    first = Block.of(OUTPUTS).first_bytes
    assert first < Block.of(OUTPUTS).nbytes / 2
    for count, more in ((0, 0), (FIRST_SLOTS, 0), (FIRST_SLOTS + 5, 5 * 256), (100, (100 - FIRST_SLOTS) * 256)):
        device.copied.clear()
        session.run(picture(count))
        expected = {} if device.integrated else {"upload": 64 * 96 * 3, "download": first + more}
        assert dict(device.copied) == expected


def test_graph_equals_plain_enqueue(engine: FakeEngine, device: FakeDevice) -> None:
    device.capturable = False
    session = TensorRtSession(engine, device)
    assert "not captured (Expected the GPU to do the work, but CUDA says: operation not permitted" in session.how
    runs = engine.runs
    for seed, count in enumerate(COUNTS):
        agree(session.run(picture(count, seed)), picture(count, seed))
    assert engine.runs == runs + len(COUNTS)
    session.close()


@pytest.mark.parametrize("fastest", [Mode(), Mode(mapped=True), Mode(own_graphs=True), Mode(True, True)])
def test_fastest_mode_is_taken(monkeypatch: pytest.MonkeyPatch, fastest: Mode) -> None:
    """Of those that fit the engine and the GPU, and it is said by how much."""
    device = FakeDevice(integrated=True)
    monkeypatch.setattr(tensorrt, "_milliseconds", lambda lane: 1.5 if lane.mode == fastest else 2.5)
    session = TensorRtSession(FakeEngine(device, flavor="rtx"), device)
    assert session.how.startswith(f"TensorRT-RTX 10.13.3.9 on Fake through a double: {fastest}, 1.50 ms against")
    assert session.how.count("2.50 ms") == 3
    twin = session.twin()
    for own in (session, twin):
        assert own._lane.mode == fastest
        agree(own.run(picture(50)), picture(50))
    session.close()
    assert not device.live


def test_modes_are_timed_where_there_are_several() -> None:
    device = FakeDevice(integrated=True)
    session = TensorRtSession(FakeEngine(device), device)
    assert " ms against " in session.how
    session.close()
    assert not device.live


def test_twins_in_threads(session: TensorRtSession, device: FakeDevice) -> None:
    """Each has buffers and a context of its own."""
    sessions, errors = [session, session.twin(), session.twin()], []
    assert session.abreast == 2
    assert not any(
        np.shares_memory(a.input_buffer(), b.input_buffer()) for a in sessions for b in sessions if a is not b
    )
    counts = device.counts.copy()

    def work(own: TensorRtSession, number: int) -> None:
        try:
            for i in range(30):
                agree(own.run(picture((i * number) % 101, i)), picture((i * number) % 101, i))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(own, i + 1)) for i, own in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert device.counts == counts


def test_two_threads_in_one_session(session: TensorRtSession, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    run = session._lane.run

    def slow() -> dict[str, Any]:
        inside.set()
        go_on.wait(5)
        return run()

    monkeypatch.setattr(session._lane, "run", slow)
    thread = threading.Thread(target=session.run, args=(picture(1),))
    thread.start()
    inside.wait(5)
    with pytest.raises(UsageError, match=r"twin\(\)"):
        session.run(picture(1))
    go_on.set()
    thread.join()


class OnDevice:
    """An array of another library: PyCUDA's GPUArray, CuPy's ndarray, PyTorch's Tensor."""

    def __init__(self, device: FakeDevice, images: Any, strides: Any = None) -> None:
        with device.current():
            self.buffer = device.memory(images.nbytes)
        self.buffer.array[:] = images.reshape(-1).view(np.uint8)
        self.__cuda_array_interface__ = {
            "shape": images.shape,
            "typestr": images.dtype.str,
            "data": (self.buffer.pointer, False),
            "strides": strides,
            "version": 3,
        }


def test_arrays_of_others(session: TensorRtSession, engine: FakeEngine, device: FakeDevice) -> None:
    """On the device in, on the device out."""
    for count, strides in ((5, None), (60, picture(0).strides)):
        images = OnDevice(device, picture(count), strides)
        agree(session.run(images), picture(count))
        counts, runs = device.counts.copy(), engine.runs
        agree(session.run(images), picture(count))
        assert device.counts == counts
        assert engine.runs == runs, "the graph is replayed"
        wanted = network(picture(count))
        for name, value in session.device_outputs().items():
            interface = value.__cuda_array_interface__
            assert interface["shape"] == value.shape == wanted[name].shape
            assert interface["typestr"] == wanted[name].dtype.str
            memory = device.bytes_at(interface["data"][0], wanted[name].nbytes)
            np.testing.assert_array_equal(memory.view(wanted[name].dtype).reshape(value.shape), wanted[name])
        with device.current():
            images.buffer.free()
    wrong = OnDevice(device, picture(0), (1, 2, 3, 4))
    with pytest.raises(DataError, match="contiguous"):
        session.run(wrong)
    with device.current():
        wrong.buffer.free()


def test_arrays_still_being_made(session: TensorRtSession, device: FakeDevice) -> None:
    """What fills them in another stream comes first."""
    images = OnDevice(device, picture(1))
    with device.current():
        stream, host = device.stream(), device.pinned(64 * 96 * 3)
        for count in (40, 70):
            host.array[:] = picture(count).reshape(-1)
            stream.upload(images.buffer.pointer, host.array)
            agree(session.run(images), picture(count))
        for thing in (stream, host, images.buffer):
            thing.free()


@pytest.mark.parametrize(
    "images", [np.zeros((64, 96, 3), np.uint8), np.zeros((1, 1, 1, 1), np.uint8), np.zeros(IMAGES.shape, np.int16)]
)
def test_wrong_input(session: TensorRtSession, device: FakeDevice, images: Any) -> None:
    with pytest.raises(DataError, match=r"Expected uint8 \[1, 64, 96, 3\] for 'images', got"):
        session.run(images)
    other = OnDevice(device, images)
    with pytest.raises(DataError, match=r"Expected uint8 \[1, 64, 96, 3\] for 'images', got"):
        session.run(other)
    with device.current():
        other.buffer.free()


@pytest.mark.parametrize("changes", [{"shape": (-1, 64, 96, 3)}, {"dtype": "bf16"}])
def test_other_ends(device: FakeDevice, changes: dict[str, Any]) -> None:
    """Of an engine that is none of ours, which the user trusts."""
    images = replace(IMAGES, **changes)
    for ends, said in ((((images,), OUTPUTS), "'images' is"), (((), OUTPUTS), "lacks them")):
        with pytest.raises(DataError, match=said):
            TensorRtSession(FakeEngine(device, ends=ends, spec=None), device)


def test_enqueue_fails(session: TensorRtSession, engine: FakeEngine) -> None:
    """In the middle of the work, and from the start."""
    session._lane._graph, graph = None, session._lane._graph
    engine.fails = True
    with pytest.raises(SourceUnavailableError, match=r"could not: Error Code 1: it was told to fail\. Build"):
        session.run(picture(1))
    session._lane._graph = graph
    with pytest.raises(SourceUnavailableError, match="could not"):
        session.twin()


def test_memory_full(engine: FakeEngine, device: FakeDevice) -> None:
    """What was allocated before is given back."""
    device.total = 64 * 96 * 3
    if device.integrated:  # which needs none of the GPU's own
        Lane(engine, device, Mode(mapped=True)).close()
    with pytest.raises(SourceUnavailableError, match=r"memory is full: close other programs") as caught:
        Lane(engine, device, Mode())
    assert not device.live, f"while somebody holds {caught.value!r}"


def test_memory_refused(engine: FakeEngine, device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeContext, "set_tensor_address", lambda *_: False)
    with pytest.raises(SourceUnavailableError, match="refused the memory for 'images'"):
        Lane(engine, device, Mode())


def test_second_mode_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one runs all the same."""
    device, lanes = FakeDevice(), []
    monkeypatch.setattr(tensorrt, "_milliseconds", lambda lane: lanes.append(lane) or 1.0)
    engine = FakeEngine(device, flavor="rtx")
    device.total = 64 * 96 * 3 + Block.of(OUTPUTS).nbytes
    session = TensorRtSession(engine, device)
    agree(session.run(picture(50)), picture(50))
    session.close()
    assert len(lanes) == 1


def test_close(engine: FakeEngine, device: FakeDevice) -> None:
    session = TensorRtSession(engine, device)
    twin = session.twin()
    twin.close()
    agree(session.run(picture(2)), picture(2))
    another = session.twin().twin()
    session.close()
    session.close()
    assert engine.closed
    assert not device.live
    for own in (session, twin, another):
        with pytest.raises(DataError, match="was closed"):
            own.run(picture(1))


def test_dropped(engine: FakeEngine, device: FakeDevice) -> None:
    """What nobody closed is freed all the same."""
    session = TensorRtSession(engine, device)
    session.twin()
    del session
    gc.collect()
    assert not device.live


def test_gpu_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at each call from then on; `close` adds no second error to the first."""
    device = FakeDevice()
    engine = FakeEngine(device)
    session = TensorRtSession(engine, device)
    with monkeypatch.context() as broken:
        broken.setattr(FakeStream, "finish", lambda _: fail("an illegal memory access was encountered"))
        with pytest.raises(SourceUnavailableError, match="illegal memory access"), closing(session):
            session.run(picture(1))
    assert engine.closed
    with monkeypatch.context() as broken:
        broken.setattr(FakeStream, "finish", lambda _: fail("unspecified launch failure"))
        with pytest.raises(SourceUnavailableError, match="launch failure"):
            Lane(FakeEngine(device), device, Mode())


def fail(text: str) -> None:
    raise FakeCudaError(text)


def test_arrays_while_another_thread_captures(
    session: TensorRtSession, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To wait for what fills them would spoil the capture, and fail itself."""
    images, capture = OnDevice(device, picture(40)), device.capture
    session.run(images)

    def slow(stream: FakeStream, work: Callable[[], None]) -> FakeGraph:
        return capture(stream, lambda: (work(), time.sleep(0.05)))

    monkeypatch.setattr(device, "capture", slow)
    twins: list[TensorRtSession] = []
    thread = threading.Thread(target=lambda: twins.append(session.twin()))
    thread.start()
    for _ in range(10):
        agree(session.run(images), picture(40))
        time.sleep(0.01)
    thread.join()
    assert twins[0]._lane.captured
    with device.current():
        images.buffer.free()


def test_times(session: TensorRtSession) -> None:
    times = session.times()
    assert min(times.upload, times.compute, times.download, times.launch, times.frame) >= 0
    agree(session.run(picture(9)), picture(9))


def test_metadata(session: TensorRtSession, device: FakeDevice) -> None:
    """Of the passport; an engine without one tells what it can."""
    assert ModelSpec.from_json(session.metadata).class_names == ("nut", "bolt")
    nameless = TensorRtSession(FakeEngine(device, spec=None), device)
    spec = ModelSpec.from_json(nameless.metadata)
    assert (spec.input_hw, spec.max_detections, spec.mask_size, spec.mask_dtype) == ((64, 96), 100, 8, "float32")
    nameless.close()


def test_block_is_aligned() -> None:
    for dtype in ("float32", "float16", "uint8"):
        outputs = (*OUTPUTS[:4], TensorSpec("masks", dtype, (1, 100, 56, 56)))
        block = Block.of(outputs)
        assert all(offset % 256 == 0 for offset in block.offsets.values())
        assert block.slot_bytes == 56 * 56 * np.dtype(dtype).itemsize
        assert block.nbytes == block.offsets["masks"] + 100 * block.slot_bytes
    small = TensorSpec("masks", "uint8", (1, 100, 4, 4))  # as many bytes as the boxes
    assert Block.of(OUTPUTS) == Block.of((*OUTPUTS[4:], *OUTPUTS[:4]))
    for outputs in ((*OUTPUTS[:4], small), (small, *OUTPUTS[:4])):
        block = Block.of(outputs)
        assert block.slot_bytes == (16 if block.offsets["masks"] == max(block.offsets.values()) else 0)
    assert Block.of(OUTPUTS[:3]).first_bytes == Block.of(OUTPUTS[:3]).nbytes  # no masks: all of it, always
