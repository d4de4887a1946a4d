// Prints where every function stands in its table, where every member lies in its struct, and what every value is: the
// same text from plugins/abi and from TensorRT's headers, or plugins/abi is wrong. (The harness could not tell apart
// two functions that do the same.)
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "abi/tensorrt.h"

using namespace nvinfer1;

namespace {

// A pointer to a virtual member function holds its place in the table, by the platform's C++ ABI.
template <typename Function>
size_t place_of(Function function) {
  size_t value = 0;
  std::memcpy(&value, &function, sizeof value);
#if !defined(__aarch64__) && !defined(__arm__)
  value -= 1;
#endif
  return value / sizeof(void*);
}

}  // namespace

#define PLACE(type, function) std::printf("%2zu %s::%s\n", place_of(&type::function), #type, #function)
#define OFFSET(type, member) std::printf("%3zu %s.%s\n", offsetof(type, member), #type, #member)
#define VALUE(value) std::printf("%2d %s\n", static_cast<int>(value), #value)
#define SIZE(type) std::printf("%3zu bytes of %s\n", sizeof(type), #type)

int main() {
  PLACE(IVersionedInterface, getAPILanguage);
  PLACE(IVersionedInterface, getInterfaceInfo);
  PLACE(IPluginV3, getCapabilityInterface);
  PLACE(IPluginV3, clone);
  PLACE(IPluginV3OneCore, getPluginName);
  PLACE(IPluginV3OneCore, getPluginVersion);
  PLACE(IPluginV3OneCore, getPluginNamespace);
  PLACE(IPluginV3OneBuild, configurePlugin);
  PLACE(IPluginV3OneBuild, getOutputDataTypes);
  PLACE(IPluginV3OneBuild, getOutputShapes);
  PLACE(IPluginV3OneBuild, supportsFormatCombination);
  PLACE(IPluginV3OneBuild, getNbOutputs);
  PLACE(IPluginV3OneBuild, getWorkspaceSize);
  PLACE(IPluginV3OneBuild, getValidTactics);
  PLACE(IPluginV3OneBuild, getNbTactics);
  PLACE(IPluginV3OneBuild, getTimingCacheID);
  PLACE(IPluginV3OneBuild, getFormatCombinationLimit);
  PLACE(IPluginV3OneBuild, getMetadataString);
  PLACE(IPluginV3OneRuntime, setTactic);
  PLACE(IPluginV3OneRuntime, onShapeChange);
  PLACE(IPluginV3OneRuntime, enqueue);
  PLACE(IPluginV3OneRuntime, attachToContext);
  PLACE(IPluginV3OneRuntime, getFieldsToSerialize);
  PLACE(IPluginCreatorV3One, createPlugin);
  PLACE(IPluginCreatorV3One, getFieldNames);
  PLACE(IPluginCreatorV3One, getPluginName);
  PLACE(IPluginCreatorV3One, getPluginVersion);
  PLACE(IPluginCreatorV3One, getPluginNamespace);
  PLACE(IPluginResourceContext, getGpuAllocator);
  PLACE(IPluginResourceContext, getErrorRecorder);
  PLACE(apiv::VDimensionExpr, isConstant);
  PLACE(apiv::VDimensionExpr, getConstantValue);
  PLACE(apiv::VDimensionExpr, isSizeTensor);
  PLACE(apiv::VExprBuilder, constant);
  PLACE(apiv::VExprBuilder, operation);
  PLACE(apiv::VExprBuilder, declareSizeTensor);

  SIZE(IDimensionExpr);
  SIZE(IExprBuilder);
  SIZE(Dims);
  SIZE(DimsExprs);
  SIZE(PluginTensorDesc);
  SIZE(DynamicPluginTensorDesc);
  SIZE(PluginField);
  SIZE(PluginFieldCollection);
  SIZE(InterfaceInfo);
  OFFSET(Dims, nbDims);
  OFFSET(Dims, d);
  OFFSET(DimsExprs, nbDims);
  OFFSET(DimsExprs, d);
  OFFSET(PluginTensorDesc, dims);
  OFFSET(PluginTensorDesc, type);
  OFFSET(PluginTensorDesc, format);
  OFFSET(PluginTensorDesc, scale);
  OFFSET(DynamicPluginTensorDesc, desc);
  OFFSET(DynamicPluginTensorDesc, min);
  OFFSET(DynamicPluginTensorDesc, max);
  OFFSET(DynamicPluginTensorDesc, opt);
  OFFSET(PluginField, name);
  OFFSET(PluginField, data);
  OFFSET(PluginField, type);
  OFFSET(PluginField, length);
  OFFSET(PluginFieldCollection, nbFields);
  OFFSET(PluginFieldCollection, fields);
  OFFSET(InterfaceInfo, kind);
  OFFSET(InterfaceInfo, major);
  OFFSET(InterfaceInfo, minor);

  VALUE(Dims::MAX_DIMS);
  VALUE(DataType::kFLOAT);
  VALUE(DataType::kHALF);
  VALUE(DataType::kINT8);
  VALUE(DataType::kINT32);
  VALUE(DataType::kBOOL);
  VALUE(DataType::kUINT8);
  VALUE(DataType::kFP8);
  VALUE(DataType::kBF16);
  VALUE(DataType::kINT64);
  VALUE(TensorFormat::kLINEAR);
  VALUE(TensorFormat::kCHW2);
  VALUE(TensorFormat::kHWC8);
  VALUE(TensorFormat::kCHW4);
  VALUE(TensorFormat::kCHW16);
  VALUE(TensorFormat::kCHW32);
  VALUE(TensorFormat::kHWC);
  VALUE(TensorFormat::kHWC16);
  VALUE(PluginFieldType::kFLOAT16);
  VALUE(PluginFieldType::kFLOAT32);
  VALUE(PluginFieldType::kFLOAT64);
  VALUE(PluginFieldType::kINT32);
  VALUE(PluginFieldType::kCHAR);
  VALUE(PluginFieldType::kUNKNOWN);
  VALUE(PluginFieldType::kINT64);
  VALUE(TensorRTPhase::kBUILD);
  VALUE(TensorRTPhase::kRUNTIME);
  VALUE(PluginCapabilityType::kCORE);
  VALUE(PluginCapabilityType::kBUILD);
  VALUE(PluginCapabilityType::kRUNTIME);
  VALUE(APILanguage::kCPP);
  VALUE(APILanguage::kPYTHON);
  return 0;
}
