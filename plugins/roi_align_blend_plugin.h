// RoiAlignBlend as a TensorRT layer (IPluginV3). No arithmetic here: attributes, shapes and types are judged, and
// roi_align_blend_kernel.h is called.
//
// Inputs: bases [N, K, Hb, Wb] float32 or float16, boxes [N, D, 4] float32 (xyxy, input pixels), attention
// [N, D, K * M * M] float32 or float16, count [N] int32. Output: masks [N, D, R, R] of the type that mask_dtype names.
#ifndef TRT_BLENDMASK_ROI_ALIGN_BLEND_PLUGIN_H_
#define TRT_BLENDMASK_ROI_ALIGN_BLEND_PLUGIN_H_

#include <string>

#include "abi/tensorrt.h"
#include "roi_align_blend_fields.h"

namespace trt_blendmask {

// Never changes once made, so that threads and execution contexts may share it.
class RoiAlignBlendPlugin final : public nvinfer1::IPluginV3,
                                  public nvinfer1::IPluginV3OneCore,
                                  public nvinfer1::IPluginV3OneBuild,
                                  public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit RoiAlignBlendPlugin(const BlendAttributes& attributes);

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  nvinfer1::AsciiChar const* getPluginName() const noexcept override;
  nvinfer1::AsciiChar const* getPluginVersion() const noexcept override;
  nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override;

  int32_t getNbOutputs() const noexcept override;
  int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, int32_t nbOutputs, nvinfer1::DataType const* inputTypes,
                             int32_t nbInputs) const noexcept override;
  int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs, nvinfer1::DimsExprs const* shapeInputs,
                          int32_t nbShapeInputs, nvinfer1::DimsExprs* outputs, int32_t nbOutputs,
                          nvinfer1::IExprBuilder& exprBuilder) noexcept override;
  bool supportsFormatCombination(int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut, int32_t nbInputs,
                                 int32_t nbOutputs) noexcept override;
  int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
                          nvinfer1::DynamicPluginTensorDesc const* out, int32_t nbOutputs) noexcept override;
  char const* getTimingCacheID() noexcept override;
  char const* getMetadataString() noexcept override;

  int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs, nvinfer1::PluginTensorDesc const* out,
                        int32_t nbOutputs) noexcept override;
  int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDesc, nvinfer1::PluginTensorDesc const* outputDesc,
                  void const* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

 private:
  const BlendAttributes attributes_;
  const BlendFields fields_;
  const std::string description_;
  const std::string timing_id_;
};

class RoiAlignBlendCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fc,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override;
  nvinfer1::AsciiChar const* getPluginName() const noexcept override;
  nvinfer1::AsciiChar const* getPluginVersion() const noexcept override;
  nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override;

 private:
  const BlendFields fields_{BlendAttributes{}};
};

// The library's one creator.
nvinfer1::IPluginCreatorV3One* creator();

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_ROI_ALIGN_BLEND_PLUGIN_H_
