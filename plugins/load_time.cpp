#include "load_time.h"

#include <dlfcn.h>
#include <link.h>

#include <cstring>
#include <string>
#include <vector>

#include "abi/registry.h"
#include "roi_align_blend_plugin.h"

namespace trt_blendmask {
namespace {

struct Registration {
  void* registry = nullptr;
  bool of_10 = false;
};

Registration registration;

int note_tensorrt(dl_phdr_info* library, size_t, void* paths) {
  const char* slash = std::strrchr(library->dlpi_name, '/');
  const char* file = slash == nullptr ? library->dlpi_name : slash + 1;
  for (const char* name : {"libnvinfer.so", "libnvinfer_lean.so", "libnvinfer_dispatch.so"}) {
    if (std::strncmp(file, name, std::strlen(name)) != 0) continue;
    static_cast<std::vector<std::string>*>(paths)->emplace_back(library->dlpi_name);
  }
  return 0;
}

template <typename Registry>
bool add_to(void* registry) {
  return static_cast<Registry*>(registry)->registerCreator(*creator(), creator()->getPluginNamespace());
}

// Registers with the TensorRT that is in the process by now, if there is exactly one.
__attribute__((constructor)) void register_when_loaded() {
  std::vector<std::string> paths;
  dl_iterate_phdr(note_tensorrt, &paths);
  if (paths.size() != 1) return;
  void* tensorrt = dlopen(paths[0].c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (tensorrt == nullptr) return;
  const auto registry = reinterpret_cast<void* (*)()>(dlsym(tensorrt, "getPluginRegistry"));
  const auto version = reinterpret_cast<int32_t (*)()>(dlsym(tensorrt, "getInferLibVersion"));
  if (registry == nullptr || version == nullptr || version() < abi::kOldestVersion) return;
  const Registration found = {registry(), abi::has_registry_of_10(version())};
  const bool added = found.registry != nullptr && (found.of_10 ? add_to<abi::RegistryOf10>(found.registry)
                                                               : add_to<abi::RegistryOf11>(found.registry));
  if (!added) return;
  registration = found;
  Dl_info here;  // a registry that knows our creator must not see it unloaded
  if (dladdr(&registration, &here) != 0) dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

}  // namespace

void withdraw_registration() {
  if (registration.registry == nullptr) return;
  if (registration.of_10) {
    static_cast<abi::RegistryOf10*>(registration.registry)->deregisterCreator(*creator());
  } else {
    static_cast<abi::RegistryOf11*>(registration.registry)->deregisterCreator(*creator());
  }
  registration = {};
}

}  // namespace trt_blendmask
