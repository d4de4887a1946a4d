// Just enough of CUDA for g++ to compile and run `roi_align_blend_kernel.cu` as it is, on a machine without a GPU: a
// block is as many threads, __syncthreads a barrier, shared memory an array that is watched. Arithmetic is the host's.
#ifndef TRT_BLENDMASK_PRETEND_CUDA_RUNTIME_API_H_
#define TRT_BLENDMASK_PRETEND_CUDA_RUNTIME_API_H_

#include <pthread.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __shared__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline

using std::max;
using std::min;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorIllegalAddress = 700 };
using cudaStream_t = struct CUstream_st*;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

// ---------------------------------------------------------------------------------------------------------------------
// Memory: the host's, so that AddressSanitizer watches it

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };

inline cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return posix_memalign(pointer, 256, bytes) == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaFree(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

// ---------------------------------------------------------------------------------------------------------------------
// The device: its size comes from PRETEND_MULTIPROCESSORS, for the cut of the masks depends on it

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  const char* multiprocessors = std::getenv("PRETEND_MULTIPROCESSORS");
  *value = multiprocessors != nullptr ? std::atoi(multiprocessors) : 8;
  return cudaSuccess;
}

inline thread_local dim3 threadIdx;
inline thread_local dim3 blockIdx;
inline dim3 blockDim;
inline pthread_barrier_t pretend_barrier;

inline void __syncthreads() { pthread_barrier_wait(&pretend_barrier); }

namespace trt_blendmask {
inline constexpr size_t kPretendShared = 48 << 10;
alignas(16) inline uint4 shared[kPretendShared / 16 + 64];  // what `extern __shared__ uint4 shared[]` declares
}  // namespace trt_blendmask

// Fills shared memory with bytes that are NaN as floats; after a block, those past `bytes` must still be so.
inline bool pretend_shared(size_t bytes, bool check) {
  auto* memory = reinterpret_cast<unsigned char*>(trt_blendmask::shared);
  const size_t size = sizeof trt_blendmask::shared;
  if (!check) std::memset(memory, 0xff, size);
  return std::all_of(memory + bytes, memory + size, [](unsigned char byte) { return byte == 0xff; });
}

// The launch that was asked for last; while `only_noted`, nothing runs.
struct PretendLaunch {
  const void* kernel;
  dim3 grid, block;
  size_t shared_bytes;
  bool only_noted;
};
inline PretendLaunch pretend_last = {};

template <typename... Arguments, size_t... I>
cudaError_t pretend_launch(void (*kernel)(Arguments...), dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                           std::index_sequence<I...>) {
  if (shared_bytes > trt_blendmask::kPretendShared || block.x * block.y > 1024) return cudaErrorInvalidValue;
  blockDim = block;
  bool sound = true;
  pthread_barrier_init(&pretend_barrier, nullptr, block.x * block.y);
  const auto thread = [&](unsigned x, unsigned y) {
    threadIdx = {x, y};
    for (unsigned i = 0; i < grid.x * grid.y * grid.z; ++i) {
      blockIdx = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
      if (x + y == 0) pretend_shared(shared_bytes, false);
      __syncthreads();
      kernel(*static_cast<Arguments*>(arguments[I])...);
      __syncthreads();
      if (x + y == 0) sound = sound && pretend_shared(shared_bytes, true);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned y = 0; y < block.y; ++y) {
    for (unsigned x = 0; x < block.x; ++x) threads.emplace_back(thread, x, y);
  }
  for (std::thread& each : threads) each.join();
  pthread_barrier_destroy(&pretend_barrier);
  return sound ? cudaSuccess : cudaErrorIllegalAddress;
}

template <typename... Arguments>
cudaError_t cudaLaunchKernel(void (*kernel)(Arguments...), dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t) {
  pretend_last = {reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, pretend_last.only_noted};
  if (pretend_last.only_noted) return cudaSuccess;
  return pretend_launch(kernel, grid, block, arguments, shared_bytes, std::index_sequence_for<Arguments...>());
}

#endif  // TRT_BLENDMASK_PRETEND_CUDA_RUNTIME_API_H_
