// The shipped library in TensorRT's own hands: opens a TensorRT library, has its registry load the plugin, and calls
// every function that a builder and a runtime would call.
//
//   harness <libnvinfer or libnvinfer_lean .so> <libtrt_blendmask.so> [--kernel-on-host]
//
// The harness and the library are compiled apart, so with TensorRT's headers on one side and ours on the other every
// call crosses the two declarations. Masks are computed where there is a GPU (REQUIRE_GPU=1 makes it a failure that
// there is none), or in a library whose kernel was compiled for the host.
#include "harness.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>

#include "abi/logger_interfaces.h"
#include "abi/registry.h"

namespace harness {
namespace {

using namespace nvinfer1;

// ---------------------------------------------------------------------------------------------------------------------
// Checks and captured sentences

int failures = 0;
int checks = 0;
std::mutex sentences_mutex;
std::string sentences;

void capture(char const* message) {
  const std::lock_guard<std::mutex> lock(sentences_mutex);
  sentences += message;
  sentences += '\n';
}

class Logger10 final : public trt_blendmask::abi::LoggerOf10 {
 public:
  void log(trt_blendmask::abi::Severity, char const* message) noexcept override { capture(message); }
};

class Finder10 final : public trt_blendmask::abi::LoggerFinderOf10 {
 public:
  trt_blendmask::abi::LoggerOf10* findLogger() override { return &logger; }
  Logger10 logger;
};

class Logger11 final : public trt_blendmask::abi::LoggerOf11 {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILogger", 1, 0}; }
  void log(trt_blendmask::abi::Severity, char const* message) noexcept override { capture(message); }
};

class Finder11 final : public trt_blendmask::abi::LoggerFinderOf11 {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILoggerFinder", 1, 0}; }
  trt_blendmask::abi::LoggerOf11* findLogger() override { return &logger; }
  Logger11 logger;
};

#ifdef TRT_BLENDMASK_NVIDIA_HEADERS
class LoggerOfHeaders final : public ILogger {
 public:
  void log(Severity, char const* message) noexcept override { capture(message); }
};

class FinderOfHeaders final : public ILoggerFinder {
 public:
  ILogger* findLogger() override { return &logger; }
  LoggerOfHeaders logger;
};
#endif

class NoLogger final : public trt_blendmask::abi::LoggerFinderOf10 {
 public:
  trt_blendmask::abi::LoggerOf10* findLogger() override { return nullptr; }
};

}  // namespace

std::string forget_sentences() {
  const std::lock_guard<std::mutex> lock(sentences_mutex);
  return std::exchange(sentences, "");
}

void expect(bool holds, const std::string& what) {
  ++checks;
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

void expect_refusal(bool refused, const std::string& fragment, const std::string& what) {
  const std::string said = forget_sentences();
  expect(refused, what + " is refused");
  expect(said.find(fragment) != std::string::npos,
         what + " is refused with \"" + fragment + "\" (said: \"" + said + "\")");
}

// ---------------------------------------------------------------------------------------------------------------------
// The registry's creator

namespace {

IPluginCreatorV3One* found_creator = nullptr;

// How often the registry lists the creator that it finds.
template <typename Registry>
int32_t listed(Registry* registry) {
  auto* found = registry->getCreator("RoiAlignBlend", "1", "trt_blendmask");
  int32_t count = 0, same = 0;
  IPluginCreatorInterface* const* all = registry->getAllCreators(&count);
  for (int32_t i = 0; i < count; ++i) same += found != nullptr && all[i] == found ? 1 : 0;
  return same;
}

template <typename Registry>
IPluginCreatorV3One* load(void* address, const char* path, bool at_load_time) {
  auto* registry = static_cast<Registry*>(address);
  expect(listed(registry) == 0, "the registry does not know the creator yet");
  void* opened = dlopen(path, RTLD_NOW);
  expect(opened != nullptr, "the library is opened");
  expect(listed(registry) == (at_load_time ? 1 : 0), "opened by anybody, it registers with TensorRT");
  if (opened != nullptr) dlclose(opened);
  expect(listed(registry) == (at_load_time ? 1 : 0), "and stays");
  for (int i = 0; i < 2; ++i) {
    void* handle = registry->loadLibrary(path);
    expect(handle != nullptr, "the registry loads the library");
    expect(listed(registry) == 1, "the registry lists the creator once");
    if (i == 1 || handle == nullptr) break;
    registry->deregisterLibrary(handle);
    expect(listed(registry) == 0, "the registry forgets the library");
  }
  auto* found = registry->getCreator("RoiAlignBlend", "1", "trt_blendmask");
  expect(found != nullptr, "the registry finds the creator");
  if (found == nullptr) return nullptr;
  expect(std::strcmp(found->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0, "the creator is of version 3");
  return static_cast<IPluginCreatorV3One*>(found);
}

}  // namespace

IPluginCreatorV3One* creator() { return found_creator; }

Plugin make(const std::vector<PluginField>& fields, TensorRTPhase phase) {
  const PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
  return Plugin(creator()->createPlugin("layer", &collection, phase));
}

Field::Field(std::string name, int32_t value)
    : name_(std::move(name)),
      type_(PluginFieldType::kINT32),
      bytes_(reinterpret_cast<const char*>(&value), sizeof value),
      length_(1) {}

Field::Field(std::string name, float value)
    : name_(std::move(name)),
      type_(PluginFieldType::kFLOAT32),
      bytes_(reinterpret_cast<const char*>(&value), sizeof value),
      length_(1) {}

Field::Field(std::string name, std::string value)
    : name_(std::move(name)),
      type_(PluginFieldType::kCHAR),
      bytes_(std::move(value)),
      length_(static_cast<int32_t>(bytes_.size())) {}

PluginField Field::get() const { return {name_.c_str(), bytes_.data(), type_, length_}; }

Plugin create(const std::vector<Field>& fields, TensorRTPhase phase) {
  std::vector<PluginField> list;
  for (const Field& field : fields) list.push_back(field.get());
  return make(list, phase);
}

IPluginV3OneBuild* build_of(const Plugin& plugin) {
  return static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}

IPluginV3OneRuntime* runtime_of(const Plugin& plugin) {
  return static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

std::vector<PluginTensorDesc> descs(int64_t n, int64_t d, int64_t k, int64_t h, int64_t w, int64_t m, int64_t r) {
  const auto linear = [](Dims dims, DataType type = DataType::kFLOAT) {
    return PluginTensorDesc{dims, type, TensorFormat::kLINEAR, 1.0f};
  };
  return {linear({4, {n, k, h, w}}), linear({3, {n, d, 4}}), linear({3, {n, d, k * m * m}}),
          linear({1, {n}}, DataType::kINT32), linear({4, {n, d, r, r}})};
}

namespace {

void walk_with(const std::string& logger, void (*set_finder)(void*), void* finder) {
  std::printf("with %s\n", logger.c_str());
  set_finder(finder);
  walk_everything();
}

int run(const char* tensorrt, const char* plugin, bool kernel_on_host) {
  void* library = dlopen(tensorrt, RTLD_NOW);
  if (library == nullptr) {
    std::printf("FAILED: %s\n", dlerror());
    return 1;
  }
  const auto registry = reinterpret_cast<void* (*)()>(dlsym(library, "getPluginRegistry"));
  const auto version = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibVersion"));
  if (registry == nullptr || version == nullptr) {
    std::printf("FAILED: %s is not TensorRT\n", tensorrt);
    return 1;
  }
  const bool of_10 = trt_blendmask::abi::has_registry_of_10(version());
  std::printf("TensorRT %d, registry of %s\n", version(), of_10 ? "10" : "11");
  const bool at_load_time = std::strstr(tensorrt, "libnvinfer") != nullptr;  // TensorRT-RTX has no plugin layers
  found_creator = of_10 ? load<trt_blendmask::abi::RegistryOf10>(registry(), plugin, at_load_time)
                        : load<trt_blendmask::abi::RegistryOf11>(registry(), plugin, at_load_time);
  void* opened = dlopen(plugin, RTLD_NOW | RTLD_NOLOAD);
  const auto set_finder =
      reinterpret_cast<void (*)(void*)>(opened == nullptr ? nullptr : dlsym(opened, "setLoggerFinder"));
  expect(set_finder != nullptr, "the library can be given a logger");
  if (creator() == nullptr || set_finder == nullptr) return 1;

  Finder10 finder10;
  walk_with("a logger of TensorRT 10", set_finder, &finder10);
  Finder11 finder11;
  walk_with("a logger of TensorRT 11", set_finder, &finder11);
#ifdef TRT_BLENDMASK_NVIDIA_HEADERS
  FinderOfHeaders finder_of_headers;
  walk_with("the headers' own logger", set_finder, static_cast<ILoggerFinder*>(&finder_of_headers));
#endif
  NoLogger none;
  for (void* finder : {static_cast<void*>(&none), static_cast<void*>(nullptr)}) {
    set_finder(finder);
    expect(create({{"mask_size", 0}}) == nullptr, "without a logger, refused all the same");
  }

  set_finder(&finder11);
  int devices = 0;
  const bool on_device = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  const char* required = std::getenv("REQUIRE_GPU");
  expect(on_device || required == nullptr || std::strcmp(required, "1") != 0, "REQUIRE_GPU=1, and there is no GPU");
  if (kernel_on_host) {
    enqueue_in_memory(false);
  } else if (on_device) {
    enqueue_in_memory(true);
  } else {
    enqueue_without_device();
  }
  set_finder(nullptr);
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace harness

int main(int argc, char** argv) {
  const bool kernel_on_host = argc == 4 && std::strcmp(argv[3], "--kernel-on-host") == 0;
  if (argc == 3 || kernel_on_host) return harness::run(argv[1], argv[2], kernel_on_host);
  std::printf("usage: %s <libnvinfer or libnvinfer_lean .so> <libtrt_blendmask.so> [--kernel-on-host]\n", argv[0]);
  return 64;
}
