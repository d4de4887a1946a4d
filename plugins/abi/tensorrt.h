// TensorRT's interface: its own headers where the build found them, else ours. The one place that chooses.
#ifndef TRT_BLENDMASK_ABI_TENSORRT_H_
#define TRT_BLENDMASK_ABI_TENSORRT_H_

#ifdef TRT_BLENDMASK_NVIDIA_HEADERS
#include <NvInferRuntime.h>
#if NV_TENSORRT_MAJOR < 10
#error "Expected the headers of TensorRT 10 or newer. To build without any: make plugin TENSORRT_INC="
#endif
#else
#include "plugin_interfaces.h"
#endif

#endif  // TRT_BLENDMASK_ABI_TENSORRT_H_
