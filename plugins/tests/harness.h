// What both parts of the harness share: checks, captured sentences, and a plugin made by TensorRT's registry.
#ifndef TRT_BLENDMASK_TESTS_HARNESS_H_
#define TRT_BLENDMASK_TESTS_HARNESS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi/tensorrt.h"

namespace harness {

// Counts a failure and prints it, without ending the run.
void expect(bool holds, const std::string& what);

// Expects that something was refused with a sentence that holds `fragment`, and forgets the sentences so far.
void expect_refusal(bool refused, const std::string& fragment, const std::string& what);

// What the plugin has said since it was last asked.
std::string forget_sentences();

// One value for the creator; keeps what the field points to.
class Field {
 public:
  Field(std::string name, int32_t value);
  Field(std::string name, float value);
  Field(std::string name, std::string value);
  nvinfer1::PluginField get() const;

 private:
  std::string name_;
  nvinfer1::PluginFieldType type_;
  std::string bytes_;
  int32_t length_;
};

using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

nvinfer1::IPluginCreatorV3One* creator();
Plugin make(const std::vector<nvinfer1::PluginField>& fields, nvinfer1::TensorRTPhase phase);
Plugin create(const std::vector<Field>& fields, nvinfer1::TensorRTPhase phase = nvinfer1::TensorRTPhase::kBUILD);
nvinfer1::IPluginV3OneBuild* build_of(const Plugin& plugin);
nvinfer1::IPluginV3OneRuntime* runtime_of(const Plugin& plugin);

// bases, boxes, attention, count, masks: consistent, linear, float32 but for count.
std::vector<nvinfer1::PluginTensorDesc> descs(int64_t n, int64_t d, int64_t k, int64_t h, int64_t w, int64_t m,
                                              int64_t r);

void walk_everything();

// Enqueue against the host's arithmetic: on the GPU, or in the host's memory where the library's kernel was compiled
// for the host.
void enqueue_in_memory(bool on_device);

// Enqueue fails with a sentence, and nothing worse, where there is no GPU.
void enqueue_without_device();

}  // namespace harness

#endif  // TRT_BLENDMASK_TESTS_HARNESS_H_
