#include "roi_align_blend_shapes.h"

#include <cstdint>
#include <limits>

namespace trt_blendmask {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::TensorFormat;

constexpr const char* kNames[kTensors] = {"bases", "boxes", "attention", "count", "masks"};
constexpr const char* kShapes[kTensors] = {"[N, K, Hb, Wb]", "[N, D, 4]", "[N, D, K * M * M]", "[N]", "[N, D, R, R]"};
constexpr int32_t kRanks[kTensors] = {4, 3, 3, 1, 4};
constexpr int32_t kHwc8Channels = 8;

std::string to_text(const Dims& dims) {
  std::string text = "[";
  for (int32_t i = 0; i < dims.nbDims && i < Dims::MAX_DIMS; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(dims.d[i]);
  }
  return text + "]";
}

std::string expected_types(const BlendAttributes& attributes, Tensor tensor) {
  switch (tensor) {
    case kBases:
      return "float32 (linear or HWC) or float16 (linear or HWC8)";
    case kBoxes:
      return "float32, linear";
    case kAttention:
      return "float32 or float16, linear";
    case kCount:
      return "int32, linear";
    default:
      return "what mask_dtype says, linear: " + describe(attributes);
  }
}

bool fits(int64_t a, int64_t b) { return a < 0 || b < 0 || a == b; }

std::string misfit(Tensor tensor, const TensorDims& dims, const std::string& expected) {
  return std::string(kNames[tensor]) + " is " + to_text(dims[tensor]) + ", expected " + kShapes[tensor] + " with " +
         expected;
}

ElementType element_type(DataType type) {
  return type == DataType::kHALF ? ElementType::kFloat16 : ElementType::kFloat32;
}

}  // namespace

const char* name_of(Tensor tensor) { return kNames[tensor]; }

std::string judge_tensor_count(int32_t inputs, int32_t outputs) {
  if (inputs == kInputs && outputs == kOutputs) return "";
  return std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
         " outputs, expected bases, boxes, attention, count and masks";
}

DataType mask_type(const BlendAttributes& attributes) {
  switch (attributes.mask_dtype) {
    case ElementType::kFloat16:
      return DataType::kHALF;
    case ElementType::kUint8:
      return DataType::kUINT8;
    default:
      return DataType::kFLOAT;
  }
}

bool is_supported(const BlendAttributes& attributes, Tensor tensor, DataType type) {
  switch (tensor) {
    case kBoxes:
      return type == DataType::kFLOAT;
    case kCount:
      return type == DataType::kINT32;
    case kMasks:
      return type == mask_type(attributes);
    default:
      return type == DataType::kFLOAT || type == DataType::kHALF;
  }
}

bool is_supported(const BlendAttributes& attributes, Tensor tensor, DataType type, TensorFormat format) {
  if (!is_supported(attributes, tensor, type)) return false;
  if (format == TensorFormat::kLINEAR) return true;
  // The two formats in which a pixel's K values lie together; TensorRT has kHWC for float only, kHWC8 for half only.
  return tensor == kBases && format == (type == DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8);
}

std::string judge_types(const BlendAttributes& attributes, const TensorDescs& descs) {
  for (int32_t i = 0; i < kTensors; ++i) {
    const Tensor tensor = static_cast<Tensor>(i);
    if (is_supported(attributes, tensor, descs[i].type, descs[i].format)) continue;
    return std::string(kNames[i]) + " has data type " + std::to_string(static_cast<int32_t>(descs[i].type)) +
           " and format " + std::to_string(static_cast<int32_t>(descs[i].format)) + ", expected " +
           expected_types(attributes, tensor);
  }
  return "";
}

std::string judge_shapes(const BlendAttributes& attributes, const TensorDims& dims) {
  for (int32_t i = 0; i < kTensors; ++i) {
    if (dims[i].nbDims != kRanks[i]) {
      return std::string(kNames[i]) + " has " + std::to_string(dims[i].nbDims) + " dimensions, expected " + kShapes[i];
    }
    for (int32_t axis = 0; axis < kRanks[i]; ++axis) {
      if (dims[i].d[axis] <= std::numeric_limits<int32_t>::max()) continue;
      return misfit(static_cast<Tensor>(i), dims, "dimensions below 2^31");
    }
  }
  const int64_t images = dims[kBases].d[0], bases = dims[kBases].d[1], slots = dims[kBoxes].d[1];
  const int64_t cells = int64_t{attributes.attention_size} * attributes.attention_size;
  const int64_t side = attributes.mask_size;
  for (const Tensor tensor : {kBoxes, kAttention, kCount, kMasks}) {
    if (!fits(dims[tensor].d[0], images)) return misfit(tensor, dims, "N = " + std::to_string(images) + " as bases");
  }
  if (!fits(dims[kBoxes].d[2], 4)) return misfit(kBoxes, dims, "four coordinates");
  for (const Tensor tensor : {kAttention, kMasks}) {
    if (!fits(dims[tensor].d[1], slots)) return misfit(tensor, dims, "D = " + std::to_string(slots) + " as boxes");
  }
  if (bases >= 0 && !fits(dims[kAttention].d[2], bases * cells)) {
    return misfit(kAttention, dims,
                  "K * M * M = " + std::to_string(bases) + " * " + std::to_string(cells) +
                      " (K is the bases', M the attribute attention_size)");
  }
  if (!fits(dims[kMasks].d[2], side) || !fits(dims[kMasks].d[3], side)) {
    return misfit(kMasks, dims, "R = " + std::to_string(side) + ", the attribute mask_size");
  }
  return "";
}

RoiAlignBlendParams smallest_params(const BlendAttributes& attributes) {
  RoiAlignBlendParams params{};
  params.geometry.num_bases = params.geometry.bases_h = params.geometry.bases_w = 1;
  params.geometry.mask_size = attributes.mask_size;
  params.geometry.attention_size = attributes.attention_size;
  params.geometry.spatial_scale = attributes.spatial_scale;
  params.geometry.sampling_ratio = attributes.sampling_ratio;
  params.geometry.aligned = attributes.aligned == 1;
  params.geometry.attention_interpolation = attributes.attention_interpolation;
  params.geometry.activation = attributes.activation;
  params.batch = params.detections = params.bases_channels = 1;
  params.masks_type = attributes.mask_dtype;
  return params;
}

std::string judge(const BlendAttributes& attributes, const TensorDescs& descs) {
  TensorDims dims;
  for (int32_t i = 0; i < kTensors; ++i) dims[i] = descs[i].dims;
  const std::string problem = judge_types(attributes, descs);
  return problem.empty() ? judge_shapes(attributes, dims) : problem;
}

std::string fill(const BlendAttributes& attributes, const TensorDescs& descs, RoiAlignBlendParams* params) {
  const std::string problem = judge(attributes, descs);
  if (!problem.empty()) return problem;
  for (int32_t i = 0; i < kTensors; ++i) {
    for (int32_t axis = 0; axis < kRanks[i]; ++axis) {
      if (descs[i].dims.d[axis] >= 0) continue;
      return std::string(kNames[i]) + " is " + to_text(descs[i].dims) + ", expected dimensions that are all known";
    }
  }
  *params = smallest_params(attributes);
  params->geometry.num_bases = static_cast<int32_t>(descs[kBases].dims.d[1]);
  params->geometry.bases_h = static_cast<int32_t>(descs[kBases].dims.d[2]);
  params->geometry.bases_w = static_cast<int32_t>(descs[kBases].dims.d[3]);
  params->batch = static_cast<int32_t>(descs[kBoxes].dims.d[0]);
  params->detections = static_cast<int32_t>(descs[kBoxes].dims.d[1]);
  params->bases_type = element_type(descs[kBases].type);
  params->attention_type = element_type(descs[kAttention].type);
  params->bases_layout = descs[kBases].format == TensorFormat::kLINEAR ? BasesLayout::kPlanes : BasesLayout::kPixels;
  params->bases_channels = params->geometry.num_bases;
  if (descs[kBases].format == TensorFormat::kHWC8) {
    const int32_t vectors = (params->bases_channels - 1) / kHwc8Channels + 1;
    params->bases_channels = vectors * kHwc8Channels;
  }
  const char* refusal = params->batch == 0 || params->detections == 0 ? nullptr : check(*params);
  return refusal == nullptr ? "" : refusal;
}

}  // namespace trt_blendmask
