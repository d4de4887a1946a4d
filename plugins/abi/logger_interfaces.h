// The logger and its finder as the two generations of TensorRT have them. TensorRT 11 made them versioned interfaces,
// which moved their functions down the table: a library that runs with 10 and 11 alike must look before it calls.
//
// Not in an anonymous namespace: there a compiler may conclude that nobody implements them.
#ifndef TRT_BLENDMASK_ABI_LOGGER_INTERFACES_H_
#define TRT_BLENDMASK_ABI_LOGGER_INTERFACES_H_

#include <cxxabi.h>

#include <cstdint>
#include <cstring>
#include <typeinfo>

#include "tensorrt.h"

namespace trt_blendmask::abi {

enum class Severity : int32_t { kInternalError = 0, kError = 1, kWarning = 2, kInfo = 3, kVerbose = 4 };

class LoggerOf10 {
 public:
  virtual void log(Severity severity, char const* message) noexcept = 0;
  virtual ~LoggerOf10() = default;
};

class LoggerFinderOf10 {
 public:
  virtual LoggerOf10* findLogger() = 0;
  virtual ~LoggerFinderOf10() = default;
};

class LoggerOf11 : public nvinfer1::IVersionedInterface {
 public:
  virtual void log(Severity severity, char const* message) noexcept = 0;
};

class LoggerFinderOf11 : public nvinfer1::IVersionedInterface {
 public:
  virtual LoggerOf11* findLogger() = 0;
};

// Whether the object's own type information names the versioned interface as its first ancestor. (A call cannot tell:
// the first function of both finders takes nothing, and may well return 0.)
inline bool is_versioned(void* object) {
  const std::type_info* type = &typeid(*static_cast<LoggerFinderOf10*>(object));
  while (const auto* derived = dynamic_cast<const __cxxabiv1::__si_class_type_info*>(type)) type = derived->__base_type;
  return std::strcmp(type->name(), typeid(nvinfer1::IVersionedInterface).name()) == 0;
}

}  // namespace trt_blendmask::abi

#endif  // TRT_BLENDMASK_ABI_LOGGER_INTERFACES_H_
