// CUDA's __half for g++: the two conversions that the kernel needs, after IEEE 754.
#ifndef TRT_BLENDMASK_PRETEND_CUDA_FP16_H_
#define TRT_BLENDMASK_PRETEND_CUDA_FP16_H_

#include <cmath>
#include <cstdint>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half half) {
  const float sign = half.bits & 0x8000 ? -1.0f : 1.0f;
  const int exponent = half.bits >> 10 & 31, fraction = half.bits & 1023;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

inline __half __float2half_rn(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return {0x7fff};
  const float size = std::fabs(value);
  if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
  const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);  // below, all have one exponent
  const int step = exponent - 10;                                 // the last place's power of two
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, -step)));
  return {static_cast<uint16_t>(sign | (((step + 24) << 10) + steps))};
}

#endif  // TRT_BLENDMASK_PRETEND_CUDA_FP16_H_
