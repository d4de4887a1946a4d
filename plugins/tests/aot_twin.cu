// The entry that an engine carries, in place of the launcher: AOT_SOURCE is the file that trt_blendmask.aot wrote,
// AOT_LAUNCH its grid, block and shared memory. Linked with device_twin.cu.
#include AOT_SOURCE

namespace trt_blendmask {

const char* check(const RoiAlignBlendParams&) { return nullptr; }

cudaError_t roi_align_blend(const RoiAlignBlendParams&, const void* bases, const float* boxes, const void* attention,
                            const int32_t* count, void* masks, cudaStream_t stream) {
  constexpr unsigned launch[] = {AOT_LAUNCH};
  void* arguments[] = {&bases, &boxes, &attention, &count, &masks};
  return cudaLaunchKernel(roi_align_blend_aot, dim3(launch[0], launch[1], launch[2]),
                          dim3(launch[3], launch[4], launch[5]), arguments, launch[6], stream);
}

}  // namespace trt_blendmask
