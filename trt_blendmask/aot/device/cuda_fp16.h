// CUDA's __half for NVRTC where no CUDA headers are installed: what the kernel needs of it.
#ifndef TRT_BLENDMASK_AOT_CUDA_FP16_H_
#define TRT_BLENDMASK_AOT_CUDA_FP16_H_

struct __half {
  unsigned short bits;
};

__device__ __forceinline__ float __half2float(__half half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half.bits));
  return value;
}

__device__ __forceinline__ __half __float2half_rn(float value) {
  __half half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
  return half;
}

#endif  // TRT_BLENDMASK_AOT_CUDA_FP16_H_
