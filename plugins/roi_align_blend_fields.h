// The attributes of a RoiAlignBlend node, and the plugin fields that carry them.
#ifndef TRT_BLENDMASK_ROI_ALIGN_BLEND_FIELDS_H_
#define TRT_BLENDMASK_ROI_ALIGN_BLEND_FIELDS_H_

#include <array>
#include <string>

#include "abi/tensorrt.h"
#include "roi_align_blend_kernel.h"

namespace trt_blendmask {

// BlendMask's own values stand where a node is silent.
struct BlendAttributes {
  int32_t mask_size = 56;       // R
  int32_t attention_size = 14;  // M
  float spatial_scale = 0.25f;  // bases pixels per input pixel
  int32_t sampling_ratio = 1;
  int32_t aligned = 1;                                               // 0 or 1
  Interpolation attention_interpolation = Interpolation::kBilinear;  // "bilinear" or "nearest"
  Activation activation = Activation::kSigmoid;                      // "sigmoid" or "none"
  ElementType mask_dtype = ElementType::kFloat32;                    // "float32", "float16" or "uint8"
};

// Takes in what the fields say, each at most once. Empty where all is well, else the sentence that says what was
// expected and what came.
std::string read_fields(const nvinfer1::PluginFieldCollection& fields, BlendAttributes* attributes);

// The attributes as fields that point into this object, so it neither moves nor is copied.
class BlendFields {
 public:
  explicit BlendFields(const BlendAttributes& attributes);
  BlendFields(const BlendFields&) = delete;
  BlendFields& operator=(const BlendFields&) = delete;

  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  BlendAttributes attributes_;
  std::array<nvinfer1::PluginField, 8> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

// Every attribute by name and value: "mask_size=56 attention_size=14 ...".
std::string describe(const BlendAttributes& attributes);

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_ROI_ALIGN_BLEND_FIELDS_H_
