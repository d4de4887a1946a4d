"""Frames through `TensorRtSession` and the real cuda.core and PyCUDA, over the double of the driver that
test_real_libraries.py puts in the driver's place; it runs this file, which pytest does not find by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda.fake_engine import DriverDouble, FakeEngine, network, picture
from tests.cuda.test_session import COUNTS, agree
from tests.gpu.test_cuda import LIBRARIES
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.cuda import choose


@pytest.fixture
def machine() -> Iterator[DriverDouble]:
    machine = DriverDouble()
    before = machine.driver.fake_live()
    yield machine
    assert machine.driver.fake_live() == before, "something was not freed"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("flavor", ["tensorrt", "rtx"])
def test_frames_and_twins(machine: DriverDouble, library: str, flavor: str) -> None:
    """In the thread that opened the engine and in another one, which closes it."""
    engine = FakeEngine(machine, flavor=flavor)
    session = TensorRtSession(engine, choose(library))
    twin = session.twin()
    for own in (session, twin):
        own.run(picture(1))
    allocations, runs = machine.driver.fake_allocations(), engine.runs
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for seed, count in enumerate(COUNTS):
                agree(session.run(picture(count, seed)), picture(count, seed))
                agree(twin.run(picture(count, seed + 20)), picture(count, seed + 20))
        except BaseException as error:
            errors.append(error)

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert machine.driver.fake_allocations() == allocations
    assert "TensorRT-RTX" in session.how or engine.runs == runs, "the graph is replayed"
    assert min(vars(session.times()).values()) >= 0
    thread = threading.Thread(target=session.close)
    thread.start()
    thread.join()
    assert engine.closed


@pytest.mark.needs("gpu", "pycuda")
@pytest.mark.parametrize("own_context", [False, True])
def test_arrays_of_pycuda(machine: DriverDouble, own_context: bool) -> None:
    """PyCUDA's arrays, made in the caller's context, go in and come out without a copy over the bus."""
    import pycuda.driver as cuda
    from pycuda import gpuarray

    cuda.init()
    context = cuda.Device(0).make_context() if own_context else None
    uses, contexts = machine.driver.fake_primary_uses(), machine.driver.fake_other_contexts()
    device = choose("pycuda")
    if own_context:
        assert machine.driver.fake_primary_uses() == uses, "the primary context is left alone"
    assert machine.driver.fake_other_contexts() == contexts, "no second context by surprise"
    session = TensorRtSession(FakeEngine(machine), device)
    with device.current():
        images = gpuarray.to_gpu(picture(70))
        agree(session.run(images), picture(70))
        outputs: dict[str, Any] = {}
        for name, value in session.device_outputs().items():
            outputs[name] = gpuarray.GPUArray(value.shape, value.dtype, gpudata=value.pointer).get()
        for name, value in network(picture(70)).items():
            np.testing.assert_array_equal(outputs[name], value)
        images.gpudata.free()
    session.close()
    if context is not None:
        context.pop()
        context.detach()
