// What the twins have in common: one C function, for ctypes and for run_case.cpp.
#ifndef TRT_BLENDMASK_TESTS_TWIN_H_
#define TRT_BLENDMASK_TESTS_TWIN_H_

#include "../roi_align_blend_kernel.h"

extern "C" {

// Fills `masks` as `roi_align_blend` would, from arrays in the host's memory. Returns 0, or CUDA's error.
int blend(const trt_blendmask::RoiAlignBlendParams* params, const void* bases, const float* boxes,
          const void* attention, const int32_t* count, void* masks);
}

namespace trt_blendmask {

inline size_t bytes_per_element(ElementType type) {
  return type == ElementType::kFloat32 ? 4 : type == ElementType::kFloat16 ? 2 : 1;
}

// The arrays' sizes in bytes.
struct Sizes {
  size_t bases, boxes, attention, count, masks;

  explicit Sizes(const RoiAlignBlendParams& p) {
    const BlendGeometry& g = p.geometry;
    const size_t slots = static_cast<size_t>(p.batch) * p.detections;
    const size_t channels = p.bases_layout == BasesLayout::kPixels ? p.bases_channels : g.num_bases;
    bases = p.batch * channels * g.bases_h * g.bases_w * bytes_per_element(p.bases_type);
    boxes = slots * 4 * sizeof(float);
    attention = slots * g.num_bases * g.attention_size * g.attention_size * bytes_per_element(p.attention_type);
    count = p.batch * sizeof(int32_t);
    masks = slots * g.mask_size * g.mask_size * bytes_per_element(p.masks_type);
  }
};

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_TESTS_TWIN_H_
