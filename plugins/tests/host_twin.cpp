// The operator by plain loops over roi_align_blend_math.h: what g++ makes of the arithmetic.
#include <cuda_fp16.h>

#include <vector>

#include "twin.h"

using namespace trt_blendmask;

namespace {

float read(const void* from, ElementType type, size_t index) {
  return type == ElementType::kFloat16 ? __half2float(static_cast<const __half*>(from)[index])
                                       : static_cast<const float*>(from)[index];
}

void write(void* to, ElementType type, size_t index, float value) {
  if (type == ElementType::kFloat32) static_cast<float*>(to)[index] = value;
  if (type == ElementType::kFloat16) static_cast<__half*>(to)[index] = __float2half_rn(value);
  if (type == ElementType::kUint8) static_cast<uint8_t*>(to)[index] = to_uint8(value);
}

// The mask's cell (row, column); `base_at(k, y, x)` and `attention_at(k, y, x)` are floats.
template <typename BaseAt, typename AttentionAt>
float cell(const BlendGeometry& g, const float* box, int32_t row, int32_t column, const BaseAt& base_at,
           const AttentionAt& attention_at) {
  const Span x = box_span(box[0], box[2], g), y = box_span(box[1], box[3], g);
  const float scale = attention_scale(g);
  std::vector<float> weights(g.num_bases);
  for (int32_t k = 0; k < g.num_bases; ++k) {
    const auto at = [&](int32_t i, int32_t j) { return attention_at(k, i, j); };
    weights[k] = interpolate(at, attention_tap(row, scale, g), attention_tap(column, scale, g));
  }
  float most = weights[0];
  for (float weight : weights) most = fmaxf(most, weight);
  SoftmaxSum sum(most);
  for (int32_t k = 0; k < g.num_bases; ++k) {
    const auto at = [&](int32_t i, int32_t j) { return base_at(k, i, j); };
    float value = 0.0f;
    for (int32_t p = 0; p < g.sampling_ratio; ++p) {
      for (int32_t q = 0; q < g.sampling_ratio; ++q) {
        value += interpolate(at, roi_tap(y, row, p, g.bases_h, g), roi_tap(x, column, q, g.bases_w, g));
      }
    }
    sum.add(weights[k], value);
  }
  return activate(sum.logit(), g.activation);
}

}  // namespace

extern "C" int blend(const RoiAlignBlendParams* params, const void* bases, const float* boxes, const void* attention,
                     const int32_t* count, void* masks) {
  const RoiAlignBlendParams& p = *params;
  const BlendGeometry& g = p.geometry;
  const size_t k_total = g.num_bases, h = g.bases_h, w = g.bases_w, m = g.attention_size, r = g.mask_size;
  const size_t channels = p.bases_channels;
  for (size_t n = 0; n < static_cast<size_t>(p.batch); ++n) {
    const auto base_at = [&](size_t k, size_t y, size_t x) {
      const bool planes = p.bases_layout == BasesLayout::kPlanes;
      const size_t plane = ((n * k_total + k) * h + y) * w + x, pixel = ((n * h + y) * w + x) * channels + k;
      return read(bases, p.bases_type, planes ? plane : pixel);
    };
    for (size_t d = 0; d < static_cast<size_t>(p.detections); ++d) {
      const size_t slot = n * p.detections + d;
      const auto attention_at = [&](size_t k, size_t y, size_t x) {
        return read(attention, p.attention_type, ((slot * k_total + k) * m + y) * m + x);
      };
      for (size_t i = 0; i < r * r; ++i) {
        const bool filled = static_cast<int64_t>(d) < count[n];
        const float mask = filled ? cell(g, boxes + slot * 4, i / r, i % r, base_at, attention_at) : 0.0f;
        write(masks, p.masks_type, slot * r * r + i, mask);
      }
    }
  }
  return 0;
}
