"""The ahead-of-time tail's PTX on a GPU, launched as TensorRT is told to; needs cuda-bindings and NVRTC too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.gpu.test_kernel import EXACT, agree
from tests.plugin.aot_cases import blend_params
from tests.plugin.cases import random_case
from tests.plugin.test_aot_kernel import CASES
from tests.plugin.twins import Case, Twin
from trt_blendmask.aot.compile import compile_ptx, device_target
from trt_blendmask.aot.launch import plan
from trt_blendmask.aot.source import ENTRY, kernel_source


def done(results: tuple[Any, ...]) -> Any:
    error, *values = results
    assert error == 0, error
    return values[0] if values else None


def blend_by_ptx(case: Case) -> Any:
    """Masks [N, D, R, R] by the PTX, in the primary context."""
    from cuda.bindings import driver

    params = blend_params(case)
    done(driver.cuInit(0))
    device = done(driver.cuDeviceGet(0))
    done(driver.cuCtxSetCurrent(done(driver.cuDevicePrimaryCtxRetain(device))))
    target = device_target()
    launch = plan(params, target.multiprocessors)
    module = done(driver.cuModuleLoadData(compile_ptx(kernel_source(params, launch), target.arch) + b"\0"))
    masks = case.empty_masks()
    arrays = [*case.arrays(), masks]
    pointers = [done(driver.cuMemAlloc(array.nbytes)) for array in arrays]
    for pointer, array in zip(pointers, arrays, strict=True):
        done(driver.cuMemcpyHtoD(pointer, array.ctypes.data, array.nbytes))
    function = done(driver.cuModuleGetFunction(module, ENTRY.encode()))
    values = np.array([int(pointer) for pointer in pointers], np.uint64)
    places = np.array([values.ctypes.data + 8 * i for i in range(len(values))], np.uint64)
    done(driver.cuLaunchKernel(function, *launch.grid, *launch.block, launch.shared_bytes, 0, places.ctypes.data, 0))
    done(driver.cuCtxSynchronize())
    done(driver.cuMemcpyDtoH(masks.ctypes.data, pointers[-1], masks.nbytes))
    for pointer in pointers:
        done(driver.cuMemFree(pointer))
    done(driver.cuModuleUnload(module))
    done(driver.cuDevicePrimaryCtxRelease(device))
    return masks


@pytest.mark.needs("gpu")
@pytest.mark.parametrize("options", [options for _, options in CASES])
def test_ptx_blends_as_the_host_does(host: Twin, options: dict[str, Any]) -> None:
    for d in (1, 7, 100):
        case = random_case(d, d=d, **options)
        agree(blend_by_ptx(case), host(case), EXACT * (1 if case.sigmoid else float(np.abs(case.bases).max())))
