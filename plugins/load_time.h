// Registration without TensorRT's asking: `trtexec --staticPlugins`, DeepStream's custom-lib-path and a plain dlopen
// only load the library, while `IPluginRegistry::loadLibrary` (trtexec --dynamicPlugins) loads it and then takes its
// creators. The registry cannot tell that the library is about to be asked, and would refuse a creator it has already.
#ifndef TRT_BLENDMASK_LOAD_TIME_H_
#define TRT_BLENDMASK_LOAD_TIME_H_

namespace trt_blendmask {

// Takes back what was registered when the library was loaded; the registry is about to do so itself.
void withdraw_registration();

}  // namespace trt_blendmask

#endif  // TRT_BLENDMASK_LOAD_TIME_H_
