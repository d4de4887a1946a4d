// Sentences for TensorRT's logger; for standard error where the process has given TensorRT none.
#ifndef TRT_BLENDMASK_PLUGIN_LOG_H_
#define TRT_BLENDMASK_PLUGIN_LOG_H_

#include <string>

namespace trt_blendmask {

void log_error(const std::string& sentence);
void log_warning(const std::string& sentence);

// Where TensorRT's logger is to be asked for: an nvinfer1::ILoggerFinder, or nullptr.
void set_logger_finder(void* finder);

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_PLUGIN_LOG_H_
