"""What a lane calls of TensorRT is there in the real module, under these names and with these arguments."""

from __future__ import annotations

import tensorrt_rtx as trt

from tests.cuda.fake_engine import FakeContext


def test_what_a_lane_calls() -> None:
    called = {name for name in dir(FakeContext) if not name.startswith("_")}
    assert called == {"set_tensor_address", "execute_async_v3"}
    assert called <= set(dir(trt.IExecutionContext))
    assert "support graph capture" in (trt.BuilderFlag.__doc__ or "").split("REQUIRE_USER_ALLOCATION")[1]
    assert "set_tensor_address(self" in (trt.IExecutionContext.set_tensor_address.__doc__ or "")
    assert "name: str, memory: typing.SupportsInt) -> bool" in (trt.IExecutionContext.set_tensor_address.__doc__ or "")
    assert "stream_handle: typing.SupportsInt) -> bool" in (trt.IExecutionContext.execute_async_v3.__doc__ or "")
