#include "plugin_log.h"

#include <atomic>
#include <cstdio>

#include "abi/logger_interfaces.h"

namespace trt_blendmask {
namespace {

using abi::Severity;

std::atomic<void*> logger_finder{nullptr};

template <typename Finder>
bool tell(void* finder, Severity severity, const char* text) {
  auto* logger = static_cast<Finder*>(finder)->findLogger();
  if (logger != nullptr) logger->log(severity, text);
  return logger != nullptr;
}

void log(Severity severity, const std::string& sentence) {
  const std::string text = "trt_blendmask: " + sentence;
  void* finder = logger_finder.load();
  const bool told =
      finder != nullptr && (abi::is_versioned(finder) ? tell<abi::LoggerFinderOf11>(finder, severity, text.c_str())
                                                      : tell<abi::LoggerFinderOf10>(finder, severity, text.c_str()));
  if (!told) std::fprintf(stderr, "%s\n", text.c_str());
}

}  // namespace

void log_error(const std::string& sentence) { log(Severity::kError, sentence); }

void log_warning(const std::string& sentence) { log(Severity::kWarning, sentence); }

void set_logger_finder(void* finder) { logger_finder.store(finder); }

}  // namespace trt_blendmask
