// RoIAlign plus blend on the device: what one call needs, checked once, and its launch.
#ifndef TRT_BLENDMASK_ROI_ALIGN_BLEND_KERNEL_H_
#define TRT_BLENDMASK_ROI_ALIGN_BLEND_KERNEL_H_

#ifndef __CUDACC_RTC__
#include <cuda_runtime_api.h>
#endif

#include "roi_align_blend_math.h"

namespace trt_blendmask {

enum class ElementType : int32_t { kFloat32, kFloat16, kUint8 };

// How the bases lie in memory: plane by plane, or pixel by pixel with `channels` slots each, of which K are filled.
enum class BasesLayout : int32_t { kPlanes, kPixels };

struct RoiAlignBlendParams {
  BlendGeometry geometry;
  int32_t batch;           // N
  int32_t detections;      // D, slots per image
  ElementType bases_type;  // float32 or float16
  BasesLayout bases_layout;
  int32_t bases_channels;      // slots per pixel in kPixels: K, or K rounded up to the format's vector
  ElementType attention_type;  // float32 or float16
  ElementType masks_type;      // any
};

#ifndef __CUDACC_RTC__

// nullptr if the parameters are ones that `roi_align_blend` can run, else what is wrong with them: "mask_size is 0,
// expected 1 to 256". The sentence lives until the
// same thread's next call.
const char* check(const RoiAlignBlendParams& params);

// Fills `masks` [N, D, R, R] from `bases` [N, K, Hb, Wb], `boxes` float32 [N, D, 4] (xyxy, input pixels), `attention`
// [N, D, K * M * M] and `count` int32 [N]; slots from `count` on are written as 0. One launch; no allocation, no
// synchronisation. `params` must have passed `check`; all pointers are the device's and aligned to 16 bytes.
cudaError_t roi_align_blend(const RoiAlignBlendParams& params, const void* bases, const float* boxes,
                            const void* attention, const int32_t* count, void* masks, cudaStream_t stream);

#endif  // __CUDACC_RTC__

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_ROI_ALIGN_BLEND_KERNEL_H_
