// What TensorRT says of the five tensors, judged and brought to the kernel's parameters.
#ifndef TRT_BLENDMASK_ROI_ALIGN_BLEND_SHAPES_H_
#define TRT_BLENDMASK_ROI_ALIGN_BLEND_SHAPES_H_

#include <array>
#include <string>

#include "abi/tensorrt.h"
#include "roi_align_blend_fields.h"
#include "roi_align_blend_kernel.h"

namespace trt_blendmask {

enum Tensor : int32_t { kBases, kBoxes, kAttention, kCount, kMasks, kTensors };
constexpr int32_t kInputs = kMasks;
constexpr int32_t kOutputs = 1;

using TensorDims = std::array<nvinfer1::Dims, kTensors>;
using TensorDescs = std::array<nvinfer1::PluginTensorDesc, kTensors>;

const char* name_of(Tensor tensor);

// Empty, or how many tensors were expected and came.
std::string judge_tensor_count(int32_t inputs, int32_t outputs);

// Whether the tensor may have this type and this format.
bool is_supported(const BlendAttributes& attributes, Tensor tensor, nvinfer1::DataType type,
                  nvinfer1::TensorFormat format);
bool is_supported(const BlendAttributes& attributes, Tensor tensor, nvinfer1::DataType type);

// Empty, or which tensor has a type or format that is not supported, and what was expected.
std::string judge_types(const BlendAttributes& attributes, const TensorDescs& descs);

// Empty, or which shape does not fit which other one. Negative dimensions are not known yet and fit everything.
std::string judge_shapes(const BlendAttributes& attributes, const TensorDims& dims);

// Types and shapes.
std::string judge(const BlendAttributes& attributes, const TensorDescs& descs);

// Types, shapes, all dimensions known, and within the kernel's limits; fills `params` where the result is empty.
std::string fill(const BlendAttributes& attributes, const TensorDescs& descs, RoiAlignBlendParams* params);

// The parameters that the attributes alone decide; the rest is 1.
RoiAlignBlendParams smallest_params(const BlendAttributes& attributes);

nvinfer1::DataType mask_type(const BlendAttributes& attributes);

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_ROI_ALIGN_BLEND_SHAPES_H_
