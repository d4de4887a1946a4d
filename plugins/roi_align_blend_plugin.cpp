#include "roi_align_blend_plugin.h"

#include <cstdint>
#include <exception>
#include <utility>

#include "load_time.h"
#include "plugin_log.h"
#include "roi_align_blend_shapes.h"

namespace trt_blendmask {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginTensorDesc;

constexpr const char* kName = "RoiAlignBlend";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "trt_blendmask";
constexpr uintptr_t kAlignment = 16;  // bytes, of every pointer

// TensorRT's convention: 0 is success. A sentence that is not empty is logged.
int32_t status_of(const std::string& problem) {
  if (problem.empty()) return 0;
  log_error(std::string(kName) + ": " + problem + ".");
  return 1;
}

// Nothing may leave an interface function as an exception; out of memory is all that is thrown.
template <typename Function>
auto guarded(decltype(std::declval<Function>()()) otherwise, const Function& function) -> decltype(function()) {
  try {
    return function();
  } catch (const std::exception& error) {
    status_of(error.what());
    return otherwise;
  }
}

TensorDescs gather(PluginTensorDesc const* in, PluginTensorDesc const* out) {
  return {in[kBases], in[kBoxes], in[kAttention], in[kCount], out[0]};
}

// A dimension's value where it is known, else -1.
Dims known_dims(const nvinfer1::DimsExprs& shape) {
  Dims dims{};
  dims.nbDims = shape.nbDims;
  for (int32_t i = 0; i < shape.nbDims && i < Dims::MAX_DIMS; ++i) {
    dims.d[i] = shape.d[i]->isConstant() ? shape.d[i]->getConstantValue() : -1;
  }
  return dims;
}

std::string judge_pointers(void const* const* inputs, void* const* outputs) {
  if (inputs == nullptr || outputs == nullptr) return "the list of inputs or outputs is a null pointer";
  const void* const pointers[kTensors] = {inputs[kBases], inputs[kBoxes], inputs[kAttention], inputs[kCount],
                                          outputs[0]};
  for (int32_t i = 0; i < kTensors; ++i) {
    const std::string name = name_of(static_cast<Tensor>(i));
    if (pointers[i] == nullptr) return name + " is a null pointer, expected device memory";
    if (reinterpret_cast<uintptr_t>(pointers[i]) % kAlignment == 0) continue;
    return name + " begins at an odd address, expected one aligned to " + std::to_string(kAlignment) + " bytes";
  }
  return "";
}

}  // namespace

RoiAlignBlendPlugin::RoiAlignBlendPlugin(const BlendAttributes& attributes)
    : attributes_(attributes),
      fields_(attributes),
      description_(describe(attributes)),
      timing_id_(std::string(kName) + ' ' + kVersion + ' ' + description_) {}

nvinfer1::IPluginCapability* RoiAlignBlendPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* RoiAlignBlendPlugin::clone() noexcept {
  return guarded(nullptr, [&]() -> nvinfer1::IPluginV3* { return new RoiAlignBlendPlugin(attributes_); });
}

nvinfer1::AsciiChar const* RoiAlignBlendPlugin::getPluginName() const noexcept { return kName; }
nvinfer1::AsciiChar const* RoiAlignBlendPlugin::getPluginVersion() const noexcept { return kVersion; }
nvinfer1::AsciiChar const* RoiAlignBlendPlugin::getPluginNamespace() const noexcept { return kNamespace; }
int32_t RoiAlignBlendPlugin::getNbOutputs() const noexcept { return kOutputs; }

// What the builder's timings depend on beside shapes and formats.
char const* RoiAlignBlendPlugin::getTimingCacheID() noexcept { return timing_id_.c_str(); }
char const* RoiAlignBlendPlugin::getMetadataString() noexcept { return description_.c_str(); }

int32_t RoiAlignBlendPlugin::getOutputDataTypes(DataType* outputTypes, int32_t nbOutputs, DataType const* inputTypes,
                                                int32_t nbInputs) const noexcept {
  return guarded(1, [&] {
    const std::string problem = judge_tensor_count(nbInputs, nbOutputs);
    if (!problem.empty()) return status_of(problem);
    TensorDescs descs{};  // linear
    for (int32_t i = 0; i < kInputs; ++i) descs[i].type = inputTypes[i];
    descs[kMasks].type = outputTypes[0] = mask_type(attributes_);
    return status_of(judge_types(attributes_, descs));
  });
}

int32_t RoiAlignBlendPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
                                             nvinfer1::DimsExprs const* /*shapeInputs*/, int32_t nbShapeInputs,
                                             nvinfer1::DimsExprs* outputs, int32_t nbOutputs,
                                             nvinfer1::IExprBuilder& exprBuilder) noexcept {
  return guarded(1, [&] {
    const std::string problem = judge_tensor_count(nbInputs, nbOutputs);
    if (!problem.empty()) return status_of(problem);
    if (nbShapeInputs != 0) return status_of(std::to_string(nbShapeInputs) + " shape inputs, expected none");
    TensorDims dims;
    for (int32_t i = 0; i < kInputs; ++i) dims[i] = known_dims(inputs[i]);
    dims[kMasks] = {4, {-1, -1, -1, -1}};
    const int32_t status = status_of(judge_shapes(attributes_, dims));
    if (status != 0) return status;
    const auto* side = exprBuilder.constant(attributes_.mask_size);
    outputs[0].nbDims = 4;
    outputs[0].d[0] = inputs[kBoxes].d[0];
    outputs[0].d[1] = inputs[kBoxes].d[1];
    outputs[0].d[2] = outputs[0].d[3] = side;
    return 0;
  });
}

bool RoiAlignBlendPlugin::supportsFormatCombination(int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut,
                                                    int32_t nbInputs, int32_t nbOutputs) noexcept {
  if (nbInputs != kInputs || nbOutputs != kOutputs || pos < 0 || pos >= kTensors) return false;
  return is_supported(attributes_, static_cast<Tensor>(pos), inOut[pos].desc.type, inOut[pos].desc.format);
}

int32_t RoiAlignBlendPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
                                             nvinfer1::DynamicPluginTensorDesc const* out, int32_t nbOutputs) noexcept {
  return guarded(1, [&] {
    const std::string problem = judge_tensor_count(nbInputs, nbOutputs);
    if (!problem.empty()) return status_of(problem);
    return status_of(
        judge(attributes_, {in[kBases].desc, in[kBoxes].desc, in[kAttention].desc, in[kCount].desc, out[0].desc}));
  });
}

int32_t RoiAlignBlendPlugin::onShapeChange(PluginTensorDesc const* in, int32_t nbInputs, PluginTensorDesc const* out,
                                           int32_t nbOutputs) noexcept {
  return guarded(1, [&] {
    const std::string problem = judge_tensor_count(nbInputs, nbOutputs);
    if (!problem.empty()) return status_of(problem);
    RoiAlignBlendParams unused;
    return status_of(fill(attributes_, gather(in, out), &unused));
  });
}

// Takes everything from the descriptions and keeps nothing: the same object may run for several contexts at once, and
// a CUDA graph can be captured around it.
int32_t RoiAlignBlendPlugin::enqueue(PluginTensorDesc const* inputDesc, PluginTensorDesc const* outputDesc,
                                     void const* const* inputs, void* const* outputs, void* /*workspace*/,
                                     cudaStream_t stream) noexcept {
  return guarded(1, [&] {
    if (inputDesc == nullptr || outputDesc == nullptr) return status_of("the tensors' descriptions are a null pointer");
    RoiAlignBlendParams params{};
    const int32_t status = status_of(fill(attributes_, gather(inputDesc, outputDesc), &params));
    if (status != 0) return status;
    if (params.batch == 0 || params.detections == 0) return 0;  // no mask to write
    const int32_t pointers = status_of(judge_pointers(inputs, outputs));
    if (pointers != 0) return pointers;
    const cudaError_t error =
        roi_align_blend(params, inputs[kBases], static_cast<const float*>(inputs[kBoxes]), inputs[kAttention],
                        static_cast<const int32_t*>(inputs[kCount]), outputs[0], stream);
    if (error == cudaSuccess) return 0;
    return status_of(std::string("the launch failed: ") + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
  });
}

nvinfer1::IPluginV3* RoiAlignBlendPlugin::attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept {
  return clone();
}

nvinfer1::PluginFieldCollection const* RoiAlignBlendPlugin::getFieldsToSerialize() noexcept {
  return fields_.collection();
}

nvinfer1::IPluginV3* RoiAlignBlendCreator::createPlugin(nvinfer1::AsciiChar const* name,
                                                        nvinfer1::PluginFieldCollection const* fc,
                                                        nvinfer1::TensorRTPhase phase) noexcept {
  return guarded(nullptr, [&]() -> nvinfer1::IPluginV3* {
    BlendAttributes attributes;
    std::string problem = fc == nullptr ? "the list of fields is a null pointer" : read_fields(*fc, &attributes);
    if (problem.empty()) {
      const char* refusal = check(smallest_params(attributes));
      if (refusal != nullptr) problem = refusal;
    }
    if (!problem.empty()) {
      status_of("layer \"" + std::string(name == nullptr ? "" : name) + "\" is not made: " + problem);
      return nullptr;
    }
    if (phase == nvinfer1::TensorRTPhase::kBUILD && attributes.mask_dtype == ElementType::kUint8) {
      log_warning(std::string(kName) +
                  ": TensorRT's documentation rules out uint8 as a plugin's output; if the build "
                  "fails, take mask_dtype \"float16\" and let Mul by 255, Round and Cast follow.");
    }
    return new RoiAlignBlendPlugin(attributes);
  });
}

nvinfer1::PluginFieldCollection const* RoiAlignBlendCreator::getFieldNames() noexcept { return fields_.collection(); }
nvinfer1::AsciiChar const* RoiAlignBlendCreator::getPluginName() const noexcept { return kName; }
nvinfer1::AsciiChar const* RoiAlignBlendCreator::getPluginVersion() const noexcept { return kVersion; }
nvinfer1::AsciiChar const* RoiAlignBlendCreator::getPluginNamespace() const noexcept { return kNamespace; }

nvinfer1::IPluginCreatorV3One* creator() {
  static RoiAlignBlendCreator one;
  return &one;
}

}  // namespace trt_blendmask

// What TensorRT looks for in a plugin library.
#define TRT_BLENDMASK_EXPORT extern "C" __attribute__((visibility("default")))

TRT_BLENDMASK_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { trt_blendmask::set_logger_finder(finder); }

TRT_BLENDMASK_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& nbCreators) {
  static nvinfer1::IPluginCreatorInterface* const creators[] = {trt_blendmask::creator()};
  trt_blendmask::withdraw_registration();
  nbCreators = 1;
  return creators;
}
