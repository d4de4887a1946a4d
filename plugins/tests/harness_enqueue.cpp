// Enqueue, of plugins that TensorRT's registry made, against the host's arithmetic (host_twin.cpp).
//
// What is under test beside the kernel is the way there: that the types, formats and shapes that TensorRT gives become
// the right parameters. So the twin is given plain planes, whatever the format that the plugin is given.
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "harness.h"
#include "twin.h"

namespace harness {
namespace {

using namespace nvinfer1;
using trt_blendmask::ElementType;

using Bytes = std::vector<unsigned char>;

// Memory that enqueue can be given: the device's, or the host's for a kernel that runs there.
class Memory {
 public:
  Memory(const Bytes& content, bool on_device) : bytes_(content.size()), on_device_(on_device) {
    if (on_device_) {
      succeed(cudaMalloc(&address_, bytes_));
    } else {
      address_ = std::aligned_alloc(256, (bytes_ + 255) / 256 * 256);
    }
    write(content);
  }
  Memory(const Memory&) = delete;
  ~Memory() { on_device_ ? static_cast<void>(cudaFree(address_)) : std::free(address_); }

  void* get() const { return address_; }
  void write(const Bytes& content) { copy(address_, content.data(), cudaMemcpyHostToDevice); }
  Bytes read() const {
    Bytes content(bytes_);
    copy(content.data(), address_, cudaMemcpyDeviceToHost);
    return content;
  }

  static void succeed(cudaError_t error) { expect(error == cudaSuccess, cudaGetErrorString(error)); }

 private:
  void copy(void* to, const void* from, cudaMemcpyKind kind) const {
    if (on_device_) {
      succeed(cudaMemcpy(to, from, bytes_, kind));
    } else {
      std::memcpy(to, from, bytes_);
    }
  }

  size_t bytes_;
  bool on_device_;
  void* address_ = nullptr;
};

struct Case {
  int32_t n, d, k, h, w, m, r;
  bool half_bases = false, pixels = false, half_attention = false;
  ElementType masks = ElementType::kFloat32;
  int32_t sampling_ratio = 1;
  bool aligned = true;
  trt_blendmask::Interpolation interpolation = trt_blendmask::Interpolation::kBilinear;
  trt_blendmask::Activation activation = trt_blendmask::Activation::kSigmoid;
  float spatial_scale = 0.25f;
};

std::string text_of(const Case& c) {
  std::string text;
  for (const int32_t value : {c.n, c.d, c.k, c.h, c.w, c.m, c.r}) text += std::to_string(value) + ' ';
  text += c.half_bases ? "half bases" : "float bases";
  text += c.pixels ? " by pixel" : " by plane";
  text += c.half_attention ? ", half attention" : ", float attention";
  return text + ", masks " + std::to_string(static_cast<int32_t>(c.masks));
}

void append(Bytes* to, const void* value, size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(value);
  to->insert(to->end(), from, from + bytes);
}

Bytes in_type(const std::vector<float>& values, bool half) {
  Bytes bytes;
  for (const float value : values) {
    const __half rounded = __float2half_rn(value);
    half ? append(&bytes, &rounded, sizeof rounded) : append(&bytes, &value, sizeof value);
  }
  return bytes;
}

// [N, K, H, W] to [N, H, W, slots], with NaN where a slot holds no base.
std::vector<float> by_pixel(const std::vector<float>& planes, const Case& c, int32_t slots) {
  const size_t pixels = static_cast<size_t>(c.h) * c.w;
  std::vector<float> result(c.n * pixels * slots, std::nanf(""));
  for (size_t n = 0; n < static_cast<size_t>(c.n); ++n) {
    for (size_t k = 0; k < static_cast<size_t>(c.k); ++k) {
      for (size_t i = 0; i < pixels; ++i) result[(n * pixels + i) * slots + k] = planes[(n * c.k + k) * pixels + i];
    }
  }
  return result;
}

// One call's inputs, as the plugin and as the twin get them.
struct Inputs {
  Bytes bases, bases_by_plane, boxes, attention, count;

  Inputs(const Case& c, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 2.0f);
    std::uniform_real_distribution<float> part(-0.3f, 1.3f);
    std::vector<float> planes(size_t{1} * c.n * c.k * c.h * c.w), cells(size_t{1} * c.n * c.d * c.k * c.m * c.m);
    for (float& value : planes) value = normal(random);
    for (float& value : cells) value = normal(random);
    bases_by_plane = in_type(planes, c.half_bases);
    const int32_t slots = c.half_bases ? (c.k + 7) / 8 * 8 : c.k;
    bases = c.pixels ? in_type(by_pixel(planes, c, slots), c.half_bases) : bases_by_plane;
    attention = in_type(cells, c.half_attention);
    const float strange[] = {std::nanf(""), std::numeric_limits<float>::infinity(), -1e30f, 1e30f, 0.0f};
    for (int32_t slot = 0; slot < c.n * c.d; ++slot) {
      float xs[2] = {part(random) * 4 * c.w, part(random) * 4 * c.w};
      float ys[2] = {part(random) * 4 * c.h, part(random) * 4 * c.h};
      if (slot % 8 != 7) {  // else as it came, perhaps inverted
        std::sort(xs, xs + 2);
        std::sort(ys, ys + 2);
      }
      float box[4] = {xs[0], ys[0], xs[1], ys[1]};
      if (slot % 16 == 15) box[random() % 4] = strange[random() % 5];
      append(&boxes, box, sizeof box);
    }
    for (int32_t image = 0; image < c.n; ++image) {
      const int32_t filled = image == 0 ? c.d : static_cast<int32_t>(random() % (c.d + 1));
      append(&count, &filled, sizeof filled);
    }
  }
};

trt_blendmask::RoiAlignBlendParams params_of(const Case& c) {
  const auto type = [](bool half) { return half ? ElementType::kFloat16 : ElementType::kFloat32; };
  return {{c.k, c.h, c.w, c.r, c.m, c.spatial_scale, c.sampling_ratio, c.aligned, c.interpolation, c.activation},
          c.n,
          c.d,
          type(c.half_bases),
          trt_blendmask::BasesLayout::kPlanes,
          c.k,
          type(c.half_attention),
          c.masks};
}

Bytes expected_masks(const Case& c, const Inputs& inputs) {
  const auto params = params_of(c);
  Bytes masks(trt_blendmask::Sizes(params).masks);
  blend(&params, inputs.bases_by_plane.data(), reinterpret_cast<const float*>(inputs.boxes.data()),
        inputs.attention.data(), reinterpret_cast<const int32_t*>(inputs.count.data()), masks.data());
  return masks;
}

double value_at(const Bytes& bytes, ElementType type, size_t i) {
  if (type == ElementType::kUint8) return bytes[i] / 255.0;
  if (type == ElementType::kFloat16) return __half2float(reinterpret_cast<const __half*>(bytes.data())[i]);
  return reinterpret_cast<const float*>(bytes.data())[i];
}

// float32 within 1e-5, float16 within a rounding of it, uint8 within one step and that rarely.
void compare(const Bytes& got, const Bytes& expected, ElementType type, const std::string& what) {
  const size_t count = got.size() / trt_blendmask::bytes_per_element(type);
  double most = 0.0;
  size_t differ = 0;
  for (size_t i = 0; i < count; ++i) {
    const double difference = std::abs(value_at(got, type, i) - value_at(expected, type, i));
    most = difference <= most ? most : difference;  // a NaN becomes the most, and stays
    differ += difference == 0.0 ? 0 : 1;
  }
  const double bound = type == ElementType::kFloat32 ? 1e-5 : type == ElementType::kFloat16 ? 1e-3 : 1.01 / 255.0;
  expect(most <= bound, what + ": differs by " + std::to_string(most));
  expect(type != ElementType::kUint8 || differ * 1000 <= count, what + ": " + std::to_string(differ) + " steps");
}

Plugin plugin_of(const Case& c) {
  const char* dtypes[] = {"float32", "float16", "uint8"};
  const bool nearest = c.interpolation == trt_blendmask::Interpolation::kNearest;
  const bool sigmoid = c.activation == trt_blendmask::Activation::kSigmoid;
  return create({{"mask_size", c.r},
                 {"attention_size", c.m},
                 {"spatial_scale", c.spatial_scale},
                 {"sampling_ratio", c.sampling_ratio},
                 {"aligned", c.aligned ? 1 : 0},
                 {"attention_interpolation", std::string(nearest ? "nearest" : "bilinear")},
                 {"activation", std::string(sigmoid ? "sigmoid" : "none")},
                 {"mask_dtype", std::string(dtypes[static_cast<int32_t>(c.masks)])}},
                TensorRTPhase::kRUNTIME);
}

std::vector<PluginTensorDesc> descs_of(const Case& c) {
  auto tensors = descs(c.n, c.d, c.k, c.h, c.w, c.m, c.r);
  const DataType types[] = {DataType::kFLOAT, DataType::kHALF, DataType::kUINT8};
  if (c.half_bases) tensors[0].type = DataType::kHALF;
  if (c.pixels) tensors[0].format = c.half_bases ? TensorFormat::kHWC8 : TensorFormat::kHWC;
  if (c.half_attention) tensors[2].type = DataType::kHALF;
  tensors[4].type = types[static_cast<int32_t>(c.masks)];
  return tensors;
}

// A plugin with memory of its own, as one execution context has it.
class Call {
 public:
  Call(const Case& c, const Inputs& inputs, bool on_device)
      : case_(c),
        plugin_(plugin_of(c)),
        tensors_(descs_of(c)),
        bases_(inputs.bases, on_device),
        boxes_(inputs.boxes, on_device),
        attention_(inputs.attention, on_device),
        count_(inputs.count, on_device),
        masks_(Bytes(trt_blendmask::Sizes(params_of(c)).masks, 0xa5), on_device) {}

  void enqueue(cudaStream_t stream = nullptr) {
    auto* runtime = runtime_of(plugin_);
    const void* inputs[] = {bases_.get(), boxes_.get(), attention_.get(), count_.get()};
    void* output = masks_.get();
    expect(runtime->onShapeChange(tensors_.data(), 4, &tensors_[4], 1) == 0, "shapes are taken");
    expect(runtime->enqueue(tensors_.data(), &tensors_[4], inputs, &output, nullptr, stream) == 0, "enqueue succeeds");
  }

  void change_boxes(const Inputs& inputs) { boxes_.write(inputs.boxes); }

  void judge(const Inputs& inputs, const std::string& what) const {
    compare(masks_.read(), expected_masks(case_, inputs), case_.masks, what + text_of(case_));
  }

 private:
  Case case_;
  Plugin plugin_;
  std::vector<PluginTensorDesc> tensors_;
  Memory bases_, boxes_, attention_, count_, masks_;
};

void run(const Case& c, bool on_device) {
  const Inputs inputs(c, 7);
  Call call(c, inputs, on_device);
  call.enqueue();
  call.judge(inputs, "");
}

void capture_and_replay() {
  const Case c{2, 40, 4, 60, 80, 14, 56};
  const Inputs first(c, 1), second(c, 2);
  Call call(c, first, true);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  Memory::succeed(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  Memory::succeed(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  call.enqueue(stream);
  Memory::succeed(cudaStreamEndCapture(stream, &graph));
  Memory::succeed(cudaGraphInstantiate(&replay, graph, 0));
  Inputs inputs = first;
  for (const Inputs* boxes : {&first, &second}) {
    call.change_boxes(*boxes);
    inputs.boxes = boxes->boxes;
    Memory::succeed(cudaGraphLaunch(replay, stream));
    Memory::succeed(cudaStreamSynchronize(stream));
    call.judge(inputs, "replayed: ");
  }
  Memory::succeed(cudaGraphExecDestroy(replay));
  Memory::succeed(cudaGraphDestroy(graph));
  Memory::succeed(cudaStreamDestroy(stream));
}

void two_streams() {
  const Case c{1, 100, 4, 60, 80, 14, 56}, other{4, 100, 3, 40, 50, 7, 28, true, true, true, ElementType::kFloat16};
  const Inputs inputs(c, 3), other_inputs(other, 4);
  Call call(c, inputs, true), other_call(other, other_inputs, true);
  cudaStream_t streams[2];
  for (auto& stream : streams) Memory::succeed(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (int i = 0; i < 100; ++i) {
    call.enqueue(streams[0]);
    other_call.enqueue(streams[1]);
  }
  for (auto& stream : streams) {
    Memory::succeed(cudaStreamSynchronize(stream));
    Memory::succeed(cudaStreamDestroy(stream));
  }
  call.judge(inputs, "beside another stream: ");
  other_call.judge(other_inputs, "beside another stream: ");
}

}  // namespace

void enqueue_in_memory(bool on_device) {
  for (const ElementType masks : {ElementType::kFloat32, ElementType::kFloat16, ElementType::kUint8}) {
    for (int bits = 0; bits < 8; ++bits) {
      Case c{2, 5, 4, 12, 17, 7, 14, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, masks};
      run(c, on_device);
      c.n = 1;
      c.k = 3 + 2 * bits % 7;  // 3 to 9: a K that fills its slots, some that do not, and two vectors of HWC8
      c.sampling_ratio = 2;
      c.aligned = false;
      c.interpolation = trt_blendmask::Interpolation::kNearest;
      c.spatial_scale = 0.125f;
      run(c, on_device);
    }
  }
  Case logits{1, 3, 4, 12, 17, 7, 14};
  logits.activation = trt_blendmask::Activation::kNone;
  run(logits, on_device);
  if (!on_device) return;
  for (const int32_t batch : {1, 4}) {
    for (const int32_t slots : {1, 100, 300}) run({batch, slots, 4, 36, 50, 14, 56}, true);
  }
  run({4, 2500, 4, 36, 50, 7, 14}, true);  // ten thousand boxes
  capture_and_replay();
  two_streams();
}

void enqueue_without_device() {
  const Case c{1, 3, 4, 12, 17, 7, 14};
  const Plugin plugin = plugin_of(c);
  const auto tensors = descs_of(c);
  alignas(16) char memory[64];
  const void* inputs[4] = {memory, memory, memory, memory};
  void* output = memory;
  forget_sentences();
  expect_refusal(runtime_of(plugin)->enqueue(tensors.data(), &tensors[4], inputs, &output, nullptr, nullptr) != 0,
                 "the launch failed: cudaError", "a launch without a GPU");
}

}  // namespace harness
