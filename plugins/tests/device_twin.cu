// The launcher behind C functions that take arrays in the host's memory. nvcc makes it a library for a GPU; g++ with
// pretend_cuda/ makes the same library for any machine.
#include <algorithm>
#include <cstring>
#include <initializer_list>

#ifndef __CUDACC__
#include <dlfcn.h>
#endif

#include "twin.h"

using namespace trt_blendmask;

namespace {

// Device memory. What is to be written has guards of 256 bytes before and after, which must not be; what is read has
// none, so that sanitizers see where it ends.
class Memory {
 public:
  Memory(const void* content, size_t bytes) : bytes_(bytes), guard_(content == nullptr ? kGuard : 0) {
    error_ = cudaMalloc(&block_, bytes + 2 * guard_);
    if (error_ == cudaSuccess)
      error_ = content != nullptr ? copy_in(content) : cudaMemset(block_, kMark, bytes + 2 * guard_);
  }
  Memory(const Memory&) = delete;
  ~Memory() { cudaFree(block_); }

  cudaError_t error() const { return error_; }
  void* get() const { return static_cast<unsigned char*>(block_) + guard_; }
  cudaError_t copy_in(const void* content) { return cudaMemcpy(get(), content, bytes_, cudaMemcpyHostToDevice); }
  cudaError_t copy_out(void* content) const { return cudaMemcpy(content, get(), bytes_, cudaMemcpyDeviceToHost); }

  cudaError_t check_guards() const {
    unsigned char guards[2 * kGuard];
    cudaError_t error = cudaMemcpy(guards, block_, kGuard, cudaMemcpyDeviceToHost);
    const auto* after = static_cast<unsigned char*>(get()) + bytes_;
    if (error == cudaSuccess) error = cudaMemcpy(guards + kGuard, after, kGuard, cudaMemcpyDeviceToHost);
    if (error != cudaSuccess) return error;
    for (unsigned char byte : guards) {
      if (byte != kMark) return cudaErrorIllegalAddress;
    }
    return cudaSuccess;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr int kMark = 0xa5;
  size_t bytes_;
  size_t guard_;
  void* block_ = nullptr;
  cudaError_t error_;
};

// The tensors of one call.
struct Tensors {
  Memory bases, boxes, attention, count, masks;

  Tensors(const RoiAlignBlendParams& params, const void* bases, const float* boxes, const void* attention,
          const int32_t* count)
      : bases(bases, Sizes(params).bases),
        boxes(boxes, Sizes(params).boxes),
        attention(attention, Sizes(params).attention),
        count(count, Sizes(params).count),
        masks(nullptr, Sizes(params).masks) {}

  cudaError_t error() const {
    for (const Memory* memory : {&bases, &boxes, &attention, &count, &masks}) {
      if (memory->error() != cudaSuccess) return memory->error();
    }
    return cudaSuccess;
  }

  cudaError_t launch(const RoiAlignBlendParams& params, cudaStream_t stream) const {
    return roi_align_blend(params, bases.get(), static_cast<const float*>(boxes.get()), attention.get(),
                           static_cast<const int32_t*>(count.get()), masks.get(), stream);
  }

  cudaError_t results(void* to) const {
    cudaError_t error = cudaDeviceSynchronize();
    if (error == cudaSuccess) error = masks.copy_out(to);
    return error == cudaSuccess ? masks.check_guards() : error;
  }
};

__global__ void coordinates_kernel(const BlendGeometry g, const float* boxes, Tap* taps) {
  const int32_t box = static_cast<int32_t>(blockIdx.x), cell = static_cast<int32_t>(threadIdx.x);
  Tap* to = taps + (static_cast<int64_t>(box) * g.mask_size + cell) * 2 * g.sampling_ratio;
  for (int32_t axis = 0; axis < 2; ++axis) {
    const Span span = box_span(boxes[box * 4 + axis], boxes[box * 4 + axis + 2], g);
    const int32_t size = axis == 0 ? g.bases_w : g.bases_h;
    for (int32_t s = 0; s < g.sampling_ratio; ++s) *to++ = roi_tap(span, cell, s, size, g);
  }
}

}  // namespace

extern "C" {

const char* refusal(const RoiAlignBlendParams* params) { return check(*params); }

int blend(const RoiAlignBlendParams* params, const void* bases, const float* boxes, const void* attention,
          const int32_t* count, void* masks) {
  const Tensors tensors(*params, bases, boxes, attention, count);
  cudaError_t error = tensors.error();
  if (error == cudaSuccess) error = tensors.launch(*params, nullptr);
  return error == cudaSuccess ? tensors.results(masks) : error;
}

// Where the samples of all cells of `boxes` [D, 4] lie: taps [D, R, x and y, sampling_ratio].
int coordinates(const RoiAlignBlendParams* params, const float* boxes, void* taps) {
  BlendGeometry geometry = params->geometry;
  const size_t tap_count = size_t{2} * params->detections * geometry.mask_size * geometry.sampling_ratio;
  const Memory in(boxes, params->detections * 4 * sizeof(float)), out(nullptr, tap_count * sizeof(Tap));
  if (in.error() != cudaSuccess || out.error() != cudaSuccess) return cudaErrorInvalidValue;
  const float* from = static_cast<const float*>(in.get());
  Tap* to = static_cast<Tap*>(out.get());
  void* arguments[] = {&geometry, &from, &to};
  cudaError_t error =
      cudaLaunchKernel(coordinates_kernel, dim3(params->detections), dim3(geometry.mask_size), arguments, 0, nullptr);
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  return error == cudaSuccess ? out.copy_out(taps) : error;
}

#ifndef __CUDACC__

// What the launcher asks of a device: grid, block and shared memory. Returns the mangled name of its kernel.
const char* planned(const RoiAlignBlendParams* params, int32_t (&launch)[7]) {
  pretend_last.only_noted = true;
  roi_align_blend(*params, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
  pretend_last.only_noted = false;
  const dim3 &grid = pretend_last.grid, &block = pretend_last.block;
  const size_t sizes[7] = {grid.x, grid.y, grid.z, block.x, block.y, block.z, pretend_last.shared_bytes};
  std::copy(sizes, sizes + 7, launch);
  Dl_info found = {};
  return dladdr(pretend_last.kernel, &found) != 0 && found.dli_sname != nullptr ? found.dli_sname : "";
}

#else

// For callers with device memory of their own.
int launch(const RoiAlignBlendParams* params, const void* bases, const float* boxes, const void* attention,
           const int32_t* count, void* masks, cudaStream_t stream) {
  return roi_align_blend(*params, bases, boxes, attention, count, masks, stream);
}

__global__ void nothing_kernel() {}

int launch_nothing(cudaStream_t stream) {
  return cudaLaunchKernel(nothing_kernel, dim3(1), dim3(1), nullptr, 0, stream);
}

int device_count(int* devices) { return cudaGetDeviceCount(devices); }

// Captures one call, then replays it `replays` times; before the last replay the boxes become `other_boxes`. The masks
// are those of the first and of the last replay, one after the other.
int blend_in_graph(const RoiAlignBlendParams* params, const void* bases, const float* boxes, const void* attention,
                   const int32_t* count, const float* other_boxes, int replays, void* masks) {
  Tensors tensors(*params, bases, boxes, attention, count);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replayable = nullptr;
  cudaError_t error = tensors.error();
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  if (error == cudaSuccess) error = tensors.launch(*params, stream);
  if (error == cudaSuccess) error = cudaStreamEndCapture(stream, &graph);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&replayable, graph, 0);
  for (int i = 0; i < replays && error == cudaSuccess; ++i) {
    if (i == replays - 1) error = tensors.boxes.copy_in(other_boxes);
    if (error == cudaSuccess) error = cudaGraphLaunch(replayable, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    if (error == cudaSuccess && i == 0) error = tensors.results(masks);
  }
  if (error == cudaSuccess) error = tensors.results(static_cast<char*>(masks) + Sizes(*params).masks);
  cudaGraphExecDestroy(replayable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return error;
}

// `rounds` calls in each of two streams at once; in the second stream with `other_boxes`. The masks are those of the
// first and of the second stream.
int blend_in_two_streams(const RoiAlignBlendParams* params, const void* bases, const float* boxes,
                         const void* attention, const int32_t* count, const float* other_boxes, int rounds,
                         void* masks) {
  const Tensors first(*params, bases, boxes, attention, count), second(*params, bases, other_boxes, attention, count);
  cudaStream_t streams[2] = {nullptr, nullptr};
  cudaError_t error = first.error() == cudaSuccess ? second.error() : first.error();
  for (cudaStream_t& stream : streams) {
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  }
  for (int i = 0; i < rounds && error == cudaSuccess; ++i) {
    error = first.launch(*params, streams[0]);
    if (error == cudaSuccess) error = second.launch(*params, streams[1]);
  }
  if (error == cudaSuccess) error = first.results(masks);
  if (error == cudaSuccess) error = second.results(static_cast<char*>(masks) + Sizes(*params).masks);
  for (cudaStream_t stream : streams) cudaStreamDestroy(stream);
  return error;
}

#endif  // __CUDACC__
}
