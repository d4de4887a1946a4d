// RoIAlign plus blend: the arithmetic of BlendMask's blender, once, for the host and the device.
//
// BlendMask (arXiv 2001.00309, section 3.2; adet/modeling/blendmask/blender.py): the K bases are RoIAligned in a box to
// R x R, the box's attention K x M x M is brought to R x R, and softmaxed over the K bases in every cell; the weighted
// sum of the bases is the mask's logit. Everything is computed in float, whatever the type of inputs and output.
//
// Coordinates: boxes are xyxy in pixels of the network's input; a tap's indices are pixels of the bases or cells of the
// attention. RoIAlign's rules at the edge: a sample before -1 or beyond the size counts 0, whatever the bases hold, one
// between the edge and the outermost pixel's centre takes that pixel. Samples of NaN or infinite boxes count 0.
//
// Knows the C++ standard library only.
#ifndef TRT_BLENDMASK_ROI_ALIGN_BLEND_MATH_H_
#define TRT_BLENDMASK_ROI_ALIGN_BLEND_MATH_H_

#ifdef __CUDACC_RTC__  // NVRTC has the functions, but no standard library to take them from
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
#else
#include <cmath>
#include <cstdint>
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define TRT_BLENDMASK_BOTH __host__ __device__ __forceinline__
#else
#define TRT_BLENDMASK_BOTH inline
#endif

namespace trt_blendmask {

enum class Interpolation : int32_t { kBilinear, kNearest };
enum class Activation : int32_t { kSigmoid, kNone };

// What the operator's attributes and the shape of the bases say.
struct BlendGeometry {
  int32_t num_bases;       // K
  int32_t bases_h;         // Hb
  int32_t bases_w;         // Wb
  int32_t mask_size;       // R
  int32_t attention_size;  // M
  float spatial_scale;     // bases pixels per input pixel
  int32_t sampling_ratio;  // RoIAlign samples per cell and axis: 1 or 2
  bool aligned;            // ROIAlignV2: half a pixel is taken off
  Interpolation attention_interpolation;
  Activation activation;
};

// A linear interpolation along one axis: low_weight * at[low] + high_weight * at[high]. A sample that counts 0 has no
// weight, and else low_weight is positive.
struct alignas(16) Tap {
  int32_t low;
  int32_t high;
  float low_weight;
  float high_weight;
};

// A box along one axis: its start and the length of one mask cell, in bases pixels.
struct Span {
  float start;
  float cell;
};

// A product and a sum that no compiler fuses: coordinates are the same to the last bit on every machine, and it is by
// them that a sample counts or not.
TRT_BLENDMASK_BOTH float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  volatile float product = a * b;
  return product;
#endif
}

TRT_BLENDMASK_BOTH Span box_span(float low, float high, const BlendGeometry& g) {
  const float shift = g.aligned ? 0.5f : 0.0f;
  const float start = rounded_product(low, g.spatial_scale) - shift;
  const float end = rounded_product(high, g.spatial_scale) - shift;
  float length = end - start;
  if (!g.aligned && !(length >= 1.0f)) length = length == length ? 1.0f : length;  // a NaN stays one
  return {start, length / static_cast<float>(g.mask_size)};
}

// Where sample `sample` of mask cell `cell` lies, for a map of `size` pixels. Each sample bears 1 / sampling_ratio,
// which is exact and so as good as a division.
TRT_BLENDMASK_BOTH Tap roi_tap(const Span& span, int32_t cell, int32_t sample, int32_t size, const BlendGeometry& g) {
  const float share = g.sampling_ratio == 2 ? 0.5f : 1.0f;
  const float inside = rounded_product(static_cast<float>(sample) + 0.5f, span.cell) * share;
  const float position = (span.start + rounded_product(static_cast<float>(cell), span.cell)) + inside;
  if (!(position >= -1.0f && position <= static_cast<float>(size))) return {0, 0, 0.0f, 0.0f};  // NaN, too
  const float last = static_cast<float>(size - 1);
  const float clamped = position < 0.0f ? 0.0f : (position > last ? last : position);
  const int32_t low = static_cast<int32_t>(clamped);
  const int32_t high = low + 1 < size ? low + 1 : low;
  const float part = clamped - static_cast<float>(low);
  return {low, high, (1.0f - part) * share, part * share};
}

// Cells of the attention per cell of the mask.
TRT_BLENDMASK_BOTH float attention_scale(const BlendGeometry& g) {
  return static_cast<float>(g.attention_size) / static_cast<float>(g.mask_size);
}

// Where mask cell `cell` lies on the attention: align_corners False, clamped at the border; nearest takes the floor.
TRT_BLENDMASK_BOTH Tap attention_tap(int32_t cell, float scale, const BlendGeometry& g) {
  const int32_t last = g.attention_size - 1;
  if (g.attention_interpolation == Interpolation::kNearest) {
    const int32_t at = static_cast<int32_t>(rounded_product(static_cast<float>(cell), scale));
    return {at < last ? at : last, at < last ? at : last, 1.0f, 0.0f};
  }
  const float position = rounded_product(static_cast<float>(cell) + 0.5f, scale) - 0.5f;
  const float clamped = position > 0.0f ? position : 0.0f;
  const int32_t floor = static_cast<int32_t>(clamped);
  const int32_t low = floor < last ? floor : last;
  const float part = clamped - static_cast<float>(floor);
  return {low, low < last ? low + 1 : last, 1.0f - part, part};
}

TRT_BLENDMASK_BOTH bool counts(const Tap& tap) { return tap.low_weight > 0.0f; }

TRT_BLENDMASK_BOTH float mix(const Tap& tap, float low, float high) {
  return tap.low_weight * low + tap.high_weight * high;
}

// The value at (y, x) of a map whose `at(row, column)` is a float: along x, then along y.
template <typename At>
TRT_BLENDMASK_BOTH float interpolate(const At& at, const Tap& y, const Tap& x) {
  if (!counts(y) || !counts(x)) return 0.0f;  // not a product: an infinite pixel times no weight is NaN
  return mix(y, mix(x, at(y.low, x.low), at(y.low, x.high)), mix(x, at(y.high, x.low), at(y.high, x.high)));
}

// e^x and a / b. The device's quick ones are within 2 + 1.16 |x| and 2 units in the last place, which moves a
// probability by less than 1e-6 here: exponents are at most 0 where they weigh bases, and a sigmoid is flat where its
// exponent is large.
TRT_BLENDMASK_BOTH float exponential(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return expf(x);
#endif
}

TRT_BLENDMASK_BOTH float quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

// A sum of values weighted by the softmax of their attention, of which `most` is the greatest.
struct SoftmaxSum {
  float most;
  float total;
  float weighted;

  TRT_BLENDMASK_BOTH explicit SoftmaxSum(float greatest) : most(greatest), total(0.0f), weighted(0.0f) {}

  TRT_BLENDMASK_BOTH void add(float attention, float value) {
    const float weight = exponential(attention - most);
    total += weight;
    weighted += weight * value;
  }

  TRT_BLENDMASK_BOTH float logit() const { return quotient(weighted, total); }
};

TRT_BLENDMASK_BOTH float activate(float logit, Activation activation) {
  return activation == Activation::kSigmoid ? quotient(1.0f, 1.0f + exponential(-logit)) : logit;
}

// round(255 * probability), half to even as ONNX's Round.
TRT_BLENDMASK_BOTH uint8_t to_uint8(float probability) {
  return static_cast<uint8_t>(nearbyintf(fminf(fmaxf(255.0f * probability, 0.0f), 255.0f)));
}

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_ROI_ALIGN_BLEND_MATH_H_
