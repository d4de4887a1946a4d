// TensorRT's plugin registry as its two generations have it: 11 dropped the functions for plugins of version 1 and 2
// from the table. Functions that nobody calls here are named for their place in the table only.
#ifndef TRT_BLENDMASK_ABI_REGISTRY_H_
#define TRT_BLENDMASK_ABI_REGISTRY_H_

#include <cstdint>

#include "tensorrt.h"

namespace trt_blendmask::abi {

class RegistryOf10 {
 public:
  virtual bool place0() = 0;
  virtual bool place1() = 0;
  virtual bool place2() = 0;

 protected:
  virtual ~RegistryOf10() noexcept = default;

 public:
  virtual void setErrorRecorder(nvinfer1::IErrorRecorder* recorder) noexcept = 0;
  virtual nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept = 0;
  virtual bool place7() = 0;
  virtual bool isParentSearchEnabled() const = 0;
  virtual void setParentSearchEnabled(bool enabled) = 0;
  virtual void* loadLibrary(char const* path) noexcept = 0;
  virtual void deregisterLibrary(void* handle) noexcept = 0;
  virtual bool registerCreator(nvinfer1::IPluginCreatorInterface& creator, char const* name_space) noexcept = 0;
  virtual nvinfer1::IPluginCreatorInterface* const* getAllCreators(int32_t* count) const noexcept = 0;
  virtual nvinfer1::IPluginCreatorInterface* getCreator(char const* name, char const* version,
                                                        char const* name_space) noexcept = 0;
  virtual bool deregisterCreator(nvinfer1::IPluginCreatorInterface const& creator) noexcept = 0;
};

class RegistryOf11 {
 protected:
  virtual ~RegistryOf11() noexcept = default;

 public:
  virtual void setErrorRecorder(nvinfer1::IErrorRecorder* recorder) noexcept = 0;
  virtual nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept = 0;
  virtual bool isParentSearchEnabled() const = 0;
  virtual void setParentSearchEnabled(bool enabled) = 0;
  virtual void* loadLibrary(char const* path) noexcept = 0;
  virtual void deregisterLibrary(void* handle) noexcept = 0;
  virtual bool registerCreator(nvinfer1::IPluginCreatorInterface& creator, char const* name_space) noexcept = 0;
  virtual nvinfer1::IPluginCreatorInterface* const* getAllCreators(int32_t* count) const noexcept = 0;
  virtual nvinfer1::IPluginCreatorInterface* getCreator(char const* name, char const* version,
                                                        char const* name_space) noexcept = 0;
  virtual bool deregisterCreator(nvinfer1::IPluginCreatorInterface const& creator) noexcept = 0;
};

// Versions are as getInferLibVersion tells them: 100300 is 10.3.0. Older registries lie otherwise, and know no plugins
// of version 3.
constexpr int32_t kOldestVersion = 100000;

// Whether the library of this version has the registry of 10. TensorRT-RTX, whose versions begin with 1, has 11's.
inline bool has_registry_of_10(int32_t version) { return version / 10000 == 10; }

}  // namespace trt_blendmask::abi

#endif  // TRT_BLENDMASK_ABI_REGISTRY_H_
