// RoIAlign plus blend: what can be run, how masks are cut for a device, and which kernel does it.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "roi_align_blend_kernel.cuh"
#include "roi_align_blend_kernel.h"

namespace trt_blendmask {

// ---------------------------------------------------------------------------------------------------------------------
// The check

namespace {

struct Limit {
  const char* name;
  int32_t value;
  int32_t least;
  int32_t most;
};

}  // namespace

const char* check(const RoiAlignBlendParams& params) {
  static thread_local char sentence[96];
  const BlendGeometry& g = params.geometry;
  const bool pixels = params.bases_layout == BasesLayout::kPixels;
  const Limit limits[] = {
      {"num_bases", g.num_bases, 1, 1024},
      {"height of the bases", g.bases_h, 1, 1 << 15},
      {"width of the bases", g.bases_w, 1, 1 << 15},
      {"mask_size", g.mask_size, 1, kThreads},
      {"attention_size", g.attention_size, 1, 256},
      {"sampling_ratio", g.sampling_ratio, 1, kMostSamplingRatio},
      {"attention_interpolation", static_cast<int32_t>(g.attention_interpolation), 0, 1},
      {"activation", static_cast<int32_t>(g.activation), 0, 1},
      {"batch", params.batch, 1, 65535},            // the grid's z
      {"detections", params.detections, 1, 65535},  // the grid's y
      {"type of the bases", static_cast<int32_t>(params.bases_type), 0, 1},
      {"layout of the bases", static_cast<int32_t>(params.bases_layout), 0, 1},
      {"bases_channels", pixels ? params.bases_channels : g.num_bases, g.num_bases, 1 << 15},
      {"type of the attention", static_cast<int32_t>(params.attention_type), 0, 1},
      {"type of the masks", static_cast<int32_t>(params.masks_type), 0, 2},
  };
  for (const Limit& limit : limits) {
    if (limit.value >= limit.least && limit.value <= limit.most) continue;
    std::snprintf(sentence, sizeof sentence, "%s is %d, expected %d to %d", limit.name, limit.value, limit.least,
                  limit.most);
    return sentence;
  }
  if (!(g.spatial_scale > 0.0f && std::isfinite(g.spatial_scale))) {
    std::snprintf(sentence, sizeof sentence, "spatial_scale is %g, expected a positive number", g.spatial_scale);
    return sentence;
  }
  const int64_t elements = int64_t{g.bases_h} * g.bases_w * (pixels ? params.bases_channels : g.num_bases);
  if (elements > INT32_MAX) {
    std::snprintf(sentence, sizeof sentence, "an image's bases have %lld elements, expected at most %d",
                  static_cast<long long>(elements), INT32_MAX);
    return sentence;
  }
  return nullptr;
}

namespace {

// ---------------------------------------------------------------------------------------------------------------------
// The cut

constexpr int32_t kLongestRun = 8;              // longer ones leave a small device too few blocks to share out evenly
constexpr int32_t kMostSharedBytes = 48 << 10;  // what needs no leave of the driver

int32_t divided_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

// Bands of runs just long enough for all blocks to be resident at once, if any are: long runs load less, short ones
// hide more.
Band cut(const RoiAlignBlendParams& params, int32_t multiprocessors) {
  const BlendGeometry& g = params.geometry;
  const int32_t k = g.num_bases <= kMostBases ? g.num_bases : 0;
  const int64_t resident = int64_t{multiprocessors} * resident_blocks(k, bytes_of(params.bases_type));
  Band band = {0, 0, 0, attention_scale(g)};
  int64_t blocks = 0;
  do {
    band.run += 1;
    band.rows = band.run * std::min(kThreads / g.mask_size, divided_up(g.mask_size, band.run));
    blocks = int64_t{params.batch} * params.detections * divided_up(g.mask_size, band.rows);
  } while (blocks > resident && band.run < kLongestRun);
  if (k == 0) return band;
  int32_t attention_rows = 0;
  for (int32_t first = 0; first < g.mask_size; first += band.rows) {
    const int32_t last = std::min(first + band.rows, g.mask_size) - 1;
    const int32_t begin = attention_tap(first, band.attention_scale, g).low;
    attention_rows = std::max(attention_rows, attention_tap(last, band.attention_scale, g).high + 1 - begin);
  }
  band.attention_bytes = round_up_to_16(attention_rows * g.attention_size * g.num_bases * 4);
  if (shared_bytes(params, band) > kMostSharedBytes) band.attention_bytes = 0;
  return band;
}

// ---------------------------------------------------------------------------------------------------------------------
// The kernel

using Kernel = void (*)(RoiAlignBlendParams, Band, RoiAlignBlendTensors);

template <typename T, bool kPacked>
Kernel kernel_of(int32_t k) {
  constexpr Kernel kernels[kMostBases + 1] = {
      roi_align_blend_kernel<T, 0, false>,   roi_align_blend_kernel<T, 1, kPacked>,
      roi_align_blend_kernel<T, 2, kPacked>, roi_align_blend_kernel<T, 3, kPacked>,
      roi_align_blend_kernel<T, 4, kPacked>, roi_align_blend_kernel<T, 5, kPacked>,
      roi_align_blend_kernel<T, 6, kPacked>, roi_align_blend_kernel<T, 7, kPacked>,
      roi_align_blend_kernel<T, 8, kPacked>,
  };
  return kernels[k];
}

Kernel choose(const RoiAlignBlendParams& params, const Band& band) {
  const int32_t k = band.attention_bytes > 0 ? params.geometry.num_bases : 0;
  const bool packed = params.bases_layout == BasesLayout::kPixels && params.bases_channels % pack_of(k) == 0;
  if (params.bases_type == ElementType::kFloat16) {
    return packed ? kernel_of<__half, true>(k) : kernel_of<__half, false>(k);
  }
  return packed ? kernel_of<float, true>(k) : kernel_of<float, false>(k);
}

}  // namespace

cudaError_t roi_align_blend(const RoiAlignBlendParams& params, const void* bases, const float* boxes,
                            const void* attention, const int32_t* count, void* masks, cudaStream_t stream) {
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  RoiAlignBlendParams argument = params;
  Band band = cut(params, multiprocessors);
  RoiAlignBlendTensors tensors = {bases, boxes, attention, count, masks};
  const int32_t r = params.geometry.mask_size;
  const dim3 grid(divided_up(r, band.rows), params.detections, params.batch);
  const dim3 block(r, band.rows / band.run);
  void* arguments[] = {&argument, &band, &tensors};
  return cudaLaunchKernel(choose(params, band), grid, block, arguments, shared_bytes(params, band), stream);
}

}  // namespace trt_blendmask
