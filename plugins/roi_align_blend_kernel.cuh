// RoIAlign plus blend on the device: what one block does.
//
// A block makes a band of rows of one detection's mask. Its threads lie along x as the mask's columns do, so that
// neighbours read neighbouring pixels; each walks down a run of rows. It keeps, in registers, the two rows of the bases
// and of the attention that surround its cell, already interpolated along x: a cell of the mask is mostly smaller than
// a pixel of the bases or a cell of the attention, so that most steps down find those rows there and load nothing.
// The band is put together in shared memory and leaves it 16 bytes at a time, whatever the mask's size and type.
//
// K, the number of bases, is a constant up to kMostBases; 0 stands for any number, of which nothing is kept. A pixel is
// packed if one load brings its K bases.
#ifndef TRT_BLENDMASK_ROI_ALIGN_BLEND_KERNEL_CUH_
#define TRT_BLENDMASK_ROI_ALIGN_BLEND_KERNEL_CUH_

#include <cuda_fp16.h>

#include "roi_align_blend_kernel.h"

namespace trt_blendmask {

constexpr int32_t kMostBases = 8;
constexpr int32_t kMostSamplingRatio = 2;
constexpr int32_t kThreads = 256;  // the most that a block has

// How masks are cut: the grid is (bands, D, N), a block is (R, runs).
struct Band {
  int32_t run;              // rows of a thread
  int32_t rows;             // rows of a block
  int32_t attention_bytes;  // what the attention takes in shared memory; 0 where K is 0
  float attention_scale;    // here, so that no thread divides for it
};

// Blocks that a multiprocessor is to hold at once: four, of 64 registers a thread, or fewer where K bases would spill.
TRT_BLENDMASK_BOTH constexpr int32_t resident_blocks(int32_t k, int32_t bases_bytes) {
  return k < 4 || (k == 4 && bases_bytes == 2) ? 4 : k == 4 ? 3 : 2;
}

struct RoiAlignBlendTensors {
  const void* bases;
  const float* boxes;
  const void* attention;
  const int32_t* count;
  void* masks;
};

// ---------------------------------------------------------------------------------------------------------------------
// Shared memory: the attention's rows [., M, K]; the taps of the band's rows and then of the columns, on the bases
// [rows + R, sampling_ratio] and on the attention [rows + R]; the band, with room to begin anywhere within 16 bytes.

TRT_BLENDMASK_BOTH int32_t bytes_of(ElementType type) {
  return type == ElementType::kFloat32 ? 4 : type == ElementType::kFloat16 ? 2 : 1;
}

TRT_BLENDMASK_BOTH int32_t round_up_to_16(int32_t bytes) { return (bytes + 15) / 16 * 16; }

TRT_BLENDMASK_BOTH int32_t shared_bytes(const RoiAlignBlendParams& params, const Band& band) {
  const BlendGeometry& g = params.geometry;
  const int32_t taps = (band.rows + g.mask_size) * (g.sampling_ratio + 1);
  const int32_t tile = round_up_to_16(band.rows * g.mask_size * bytes_of(params.masks_type) + 15);
  return band.attention_bytes + taps * static_cast<int32_t>(sizeof(Tap)) + tile;
}

// ---------------------------------------------------------------------------------------------------------------------
// Loads and stores

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

// Slots that are loaded together: a power of two.
TRT_BLENDMASK_BOTH constexpr int32_t pack_of(int32_t num_bases) {
  return num_bases <= 1 ? 1 : num_bases <= 2 ? 2 : num_bases <= 4 ? 4 : 8;
}

TRT_BLENDMASK_BOTH constexpr int32_t alignment_of(int32_t bytes) {
  return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : bytes % 2 == 0 ? 2 : 1;
}

// N neighbours, in as few loads as their alignment allows.
template <typename T, int32_t N>
struct alignas(alignment_of(N * sizeof(T))) Pack {
  T at[N];
};

// The bases of one image; `check` sees to it that 32 bits count its elements.
template <typename T, bool kPacked>
struct Bases {
  const T* image;
  int32_t pixel_stride;
  int32_t base_stride;

  __device__ Bases(const void* bases, const RoiAlignBlendParams& params, int64_t n) {
    const int32_t pixels = params.geometry.bases_h * params.geometry.bases_w;
    const bool planes = !kPacked && params.bases_layout == BasesLayout::kPlanes;
    pixel_stride = planes ? 1 : params.bases_channels;
    base_stride = planes ? pixels : 1;
    image = static_cast<const T*>(bases) + n * (pixels * (planes ? params.geometry.num_bases : params.bases_channels));
  }

  __device__ __forceinline__ float at(int32_t pixel, int32_t k) const {
    return to_float(image[pixel * pixel_stride + k * base_stride]);
  }

  template <int32_t K>
  __device__ __forceinline__ void load(int32_t pixel, float (&out)[K]) const {
    if constexpr (kPacked) {
      const auto pack = *reinterpret_cast<const Pack<T, pack_of(K)>*>(image + pixel * pixel_stride);
#pragma unroll
      for (int32_t k = 0; k < K; ++k) out[k] = to_float(pack.at[k]);
    } else {
#pragma unroll
      for (int32_t k = 0; k < K; ++k) out[k] = at(pixel, k);
    }
  }
};

__device__ __forceinline__ void put(uint8_t* tile, int32_t cell, float probability, ElementType type) {
  if (type == ElementType::kFloat32) {
    reinterpret_cast<float*>(tile)[cell] = probability;
  } else if (type == ElementType::kFloat16) {
    reinterpret_cast<__half*>(tile)[cell] = __float2half_rn(probability);
  } else {
    tile[cell] = to_uint8(probability);
  }
}

__device__ __forceinline__ int32_t threads_of_block() { return static_cast<int32_t>(blockDim.x * blockDim.y); }

__device__ __forceinline__ int32_t thread_in_block() {
  return static_cast<int32_t>(threadIdx.y * blockDim.x + threadIdx.x);
}

// How far `address` lies into 16 bytes.
__device__ __forceinline__ int32_t offset_in_16(const void* address) {
  return static_cast<int32_t>(reinterpret_cast<size_t>(address) % 16);
}

// Writes `bytes` bytes at `to`, by all threads of the block: from `tile`, as far into 16 bytes as `to`, or zeros.
template <bool kZeros>
__device__ __forceinline__ void write_out(uint8_t* to, int32_t bytes, const uint8_t* tile) {
  const int32_t begin = offset_in_16(to);
  const int32_t end = begin + bytes;
  to -= begin;
  if constexpr (!kZeros) tile -= begin;
#pragma unroll 1
  for (int32_t at = thread_in_block() * 16; at < end; at += threads_of_block() * 16) {
    if (at >= begin && at + 16 <= end) {
      uint4 sixteen = {0, 0, 0, 0};
      if constexpr (!kZeros) sixteen = *reinterpret_cast<const uint4*>(tile + at);
      *reinterpret_cast<uint4*>(to + at) = sixteen;
    } else {
#pragma unroll 1
      for (int32_t i = max(at, begin); i < min(at + 16, end); ++i) to[i] = kZeros ? 0 : tile[i];
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The walk down a column

template <int32_t N>
struct Rows {
  int32_t at[N];
};

// A map of K channels at one column, in the two rows around a cell.
template <int32_t K>
struct Around {
  int32_t low = -1;
  int32_t high = -1;
  float rows[2][K];

  // `interpolate_rows(y, values)` brings one or two rows to the column; two at once wait for memory once.
  template <typename InterpolateRows>
  __device__ __forceinline__ void move_to(const Tap& y, const InterpolateRows& interpolate_rows) {
    if (y.low == low && y.high == high) return;
    if (y.low == high) {
#pragma unroll
      for (int32_t k = 0; k < K; ++k) rows[0][k] = rows[1][k];
      interpolate_rows(Rows<1>{{y.high}}, &rows[1]);
    } else {
      interpolate_rows(Rows<2>{{y.low, y.high}}, &rows[0]);
    }
    low = y.low;
    high = y.high;
  }

  __device__ __forceinline__ float at(const Tap& y, int32_t k) const { return mix(y, rows[0][k], rows[1][k]); }
};

// The taps of a column, and of the band's rows.
struct Taps {
  const Tap* bases_y;      // [rows, sampling_ratio]
  const Tap* bases_x;      // [sampling_ratio]
  const Tap* attention_y;  // [rows]
  const Tap* attention_x;
};

// One thread's walk, with K in registers.
template <typename T, int32_t K, bool kPacked>
struct Walk {
  const BlendGeometry& g;
  const Taps& taps;
  const Bases<T, kPacked>& bases;
  const Pack<float, K>* attention;  // [rows that the band needs, M], shared
  int32_t attention_begin;          // the first of those rows
  Around<K> bases_around;
  Around<K> attention_around;

  template <int32_t kRows>
  __device__ __forceinline__ void bases_rows(const Rows<kRows>& y, float (*out)[K]) const {
#pragma unroll
    for (int32_t i = 0; i < kRows * K; ++i) out[i / K][i % K] = 0.0f;
#pragma unroll 1
    for (int32_t s = 0; s < g.sampling_ratio; ++s) {
      const Tap x = taps.bases_x[s];
      if (!counts(x)) continue;
      float low[kRows][K], high[kRows][K];
#pragma unroll
      for (int32_t i = 0; i < kRows; ++i) {
        bases.load(y.at[i] * g.bases_w + x.low, low[i]);
        bases.load(y.at[i] * g.bases_w + x.high, high[i]);
      }
#pragma unroll
      for (int32_t i = 0; i < kRows * K; ++i) out[i / K][i % K] += mix(x, low[i / K][i % K], high[i / K][i % K]);
    }
  }

  template <int32_t kRows>
  __device__ __forceinline__ void attention_rows(const Rows<kRows>& y, float (*out)[K]) const {
    const Tap x = *taps.attention_x;
#pragma unroll
    for (int32_t i = 0; i < kRows; ++i) {
      const Pack<float, K>* row = attention + (y.at[i] - attention_begin) * g.attention_size;
      const Pack<float, K> low = row[x.low], high = row[x.high];
#pragma unroll
      for (int32_t k = 0; k < K; ++k) out[i][k] = mix(x, low.at[k], high.at[k]);
    }
  }

  // The logit in row `row` of the band.
  __device__ __forceinline__ float logit(int32_t row) {
    float value[K] = {};
    for (int32_t s = 0; s < g.sampling_ratio; ++s) {
      const Tap y = taps.bases_y[row * g.sampling_ratio + s];
      if (!counts(y)) continue;
      bases_around.move_to(y, [this](const auto& at, float (*out)[K]) { bases_rows(at, out); });
#pragma unroll
      for (int32_t k = 0; k < K; ++k) value[k] += bases_around.at(y, k);
    }
    const Tap y = taps.attention_y[row];
    attention_around.move_to(y, [this](const auto& at, float (*out)[K]) { attention_rows(at, out); });
    float weight[K];
#pragma unroll
    for (int32_t k = 0; k < K; ++k) weight[k] = attention_around.at(y, k);
    float most = weight[0];
#pragma unroll
    for (int32_t k = 1; k < K; ++k) most = fmaxf(most, weight[k]);
    SoftmaxSum sum(most);
#pragma unroll
    for (int32_t k = 0; k < K; ++k) sum.add(weight[k], value[k]);
    return sum.logit();
  }
};

// The same for any number of bases, one after the other; `attention` [K, M, M] is in global memory.
template <typename T, typename A>
__device__ float logit_of_any(const BlendGeometry& g, const Taps& taps, const Bases<T, false>& bases,
                              const A* attention, int32_t row) {
  const int32_t m = g.attention_size;
  const auto weight_of = [&](int32_t k) {
    const A* plane = attention + k * m * m;
    const auto at = [&](int32_t y, int32_t x) { return to_float(plane[y * m + x]); };
    return interpolate(at, taps.attention_y[row], *taps.attention_x);
  };
  float most = weight_of(0);
  for (int32_t k = 1; k < g.num_bases; ++k) most = fmaxf(most, weight_of(k));
  SoftmaxSum sum(most);
  for (int32_t k = 0; k < g.num_bases; ++k) {
    const auto at = [&](int32_t y, int32_t x) { return bases.at(y * g.bases_w + x, k); };
    float value = 0.0f;
    for (int32_t sy = 0; sy < g.sampling_ratio; ++sy) {
      for (int32_t sx = 0; sx < g.sampling_ratio; ++sx) {
        value += interpolate(at, taps.bases_y[row * g.sampling_ratio + sy], taps.bases_x[sx]);
      }
    }
    sum.add(weight_of(k), value);
  }
  return sum.logit();
}

// ---------------------------------------------------------------------------------------------------------------------
// A block

// Brings `cells` cells of K planes, `plane` apart, to shared memory with the planes innermost; two at once wait once.
template <int32_t K, typename A>
__device__ __forceinline__ void stage(const A* planes, int32_t plane, int32_t cells, float* staged) {
  const int32_t step = threads_of_block();
  const auto at = [&](int32_t i) { return to_float(planes[i % K * plane + i / K]); };
#pragma unroll 1
  for (int32_t i = thread_in_block(); i < cells * K; i += 2 * step) {
    const bool second = i + step < cells * K;
    const float values[2] = {at(i), second ? at(i + step) : 0.0f};
    staged[i] = values[0];
    if (second) staged[i + step] = values[1];
  }
}

template <typename T, int32_t K, bool kPacked>
__device__ __forceinline__ void blend_block(const RoiAlignBlendParams& params, const Band& band,
                                            const RoiAlignBlendTensors& tensors) {
  const BlendGeometry& g = params.geometry;
  const int32_t r = g.mask_size, m = g.attention_size;
  const int32_t slot = static_cast<int32_t>(blockIdx.y), image = static_cast<int32_t>(blockIdx.z);
  const int64_t detection = static_cast<int64_t>(image) * params.detections + slot;
  const int32_t first_row = static_cast<int32_t>(blockIdx.x) * band.rows;
  const int32_t rows = min(band.rows, r - first_row);
  const int32_t bytes = rows * r * bytes_of(params.masks_type);
  uint8_t* masks = static_cast<uint8_t*>(tensors.masks) + (detection * r + first_row) * r * bytes_of(params.masks_type);

  if (slot >= tensors.count[image]) {
    write_out<true>(masks, bytes, nullptr);
    return;
  }

  const float4 box = reinterpret_cast<const float4*>(tensors.boxes)[detection];
  extern __shared__ uint4 shared[];
  float* staged = reinterpret_cast<float*>(shared);
  Tap* bases_taps = reinterpret_cast<Tap*>(shared + band.attention_bytes / 16);
  Tap* attention_taps = bases_taps + (band.rows + r) * g.sampling_ratio;
  uint8_t* tile = reinterpret_cast<uint8_t*>(attention_taps + band.rows + r) + offset_in_16(masks);

  // Once for the whole block: the attention's rows ...
  const bool half_attention = params.attention_type == ElementType::kFloat16;
  const __half* halves = static_cast<const __half*>(tensors.attention) + detection * g.num_bases * m * m;
  const float* floats = static_cast<const float*>(tensors.attention) + detection * g.num_bases * m * m;
  const int32_t attention_begin = attention_tap(first_row, band.attention_scale, g).low;
  if constexpr (K > 0) {
    const int32_t attention_end = attention_tap(first_row + rows - 1, band.attention_scale, g).high + 1;
    const int32_t first = attention_begin * m, cells = (attention_end - attention_begin) * m;
    half_attention ? stage<K>(halves + first, m * m, cells, staged) : stage<K>(floats + first, m * m, cells, staged);
  }

  // ... and the taps of the band's rows and of the columns.
#pragma unroll 1
  for (int32_t i = thread_in_block(); i < band.rows + r; i += threads_of_block()) {
    const bool is_row = i < band.rows;
    const Span span = box_span(is_row ? box.y : box.x, is_row ? box.w : box.z, g);
    const int32_t cell = is_row ? first_row + i : i - band.rows;
    attention_taps[i] = attention_tap(cell, band.attention_scale, g);
#pragma unroll 1
    for (int32_t s = 0; s < g.sampling_ratio; ++s) {
      bases_taps[i * g.sampling_ratio + s] = roi_tap(span, cell, s, is_row ? g.bases_h : g.bases_w, g);
    }
  }
  __syncthreads();

  const Bases<T, kPacked> bases(tensors.bases, params, image);
  const int32_t x = static_cast<int32_t>(threadIdx.x);
  const Taps taps = {bases_taps, bases_taps + (band.rows + x) * g.sampling_ratio, attention_taps,
                     attention_taps + band.rows + x};
  const auto walk_down = [&](const auto& logit_of) {
    const int32_t begin = static_cast<int32_t>(threadIdx.y) * band.run;
    const int32_t end = min(begin + band.run, rows);
    for (int32_t row = begin; row < end; ++row) {
      put(tile, row * r + x, activate(logit_of(row), g.activation), params.masks_type);
    }
  };
  if constexpr (K > 0) {
    const auto* attention = reinterpret_cast<const Pack<float, K>*>(staged);
    Walk<T, K, kPacked> walk = {g, taps, bases, attention, attention_begin, {}, {}};
    walk_down([&](int32_t row) { return walk.logit(row); });
  } else if (half_attention) {
    walk_down([&](int32_t row) { return logit_of_any(g, taps, bases, halves, row); });
  } else {
    walk_down([&](int32_t row) { return logit_of_any(g, taps, bases, floats, row); });
  }
  __syncthreads();
  write_out<false>(masks, bytes, tile);
}

template <typename T, int32_t K, bool kPacked>
__global__ void __launch_bounds__(kThreads, resident_blocks(K, sizeof(T)))
    roi_align_blend_kernel(const __grid_constant__ RoiAlignBlendParams params, const __grid_constant__ Band band,
                           const __grid_constant__ RoiAlignBlendTensors tensors) {
  blend_block<T, K, kPacked>(params, band, tensors);
}

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_ROI_ALIGN_BLEND_KERNEL_CUH_
