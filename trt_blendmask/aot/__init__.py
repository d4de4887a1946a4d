"""The ahead-of-time tail: the plugin's kernel as PTX inside the engine, for machines without nvcc (TensorRT >= 10.9).

`register()` before TensorRT's parser reads a graph of `surgery --tail aot`; it needs cuda-bindings and NVRTC
(`pip install 'trt-blendmask[aot]'`) while the engine is built, and nothing afterwards.
"""

from trt_blendmask.aot.attributes import encode
from trt_blendmask.aot.compile import Target
from trt_blendmask.aot.plugin import NAME, NAMESPACE, register

__all__ = ["NAME", "NAMESPACE", "Target", "encode", "register"]
