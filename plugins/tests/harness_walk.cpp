// Every function of the creator and of the plugin, called as a builder and a runtime would.
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <thread>
#include <utility>

#include "harness.h"

namespace harness {
namespace {

using namespace nvinfer1;

constexpr int32_t kR = 28, kM = 7;
const std::vector<Field> kFields = {{"mask_size", kR}, {"attention_size", kM}, {"spatial_scale", 0.125f}};

std::string text_of(const Plugin& plugin) { return build_of(plugin)->getMetadataString(); }

void walk_creator() {
  expect(std::strcmp(creator()->getPluginName(), "RoiAlignBlend") == 0, "the creator's name");
  expect(std::strcmp(creator()->getPluginVersion(), "1") == 0, "the creator's version");
  expect(std::strcmp(creator()->getPluginNamespace(), "trt_blendmask") == 0, "the creator's namespace");
  expect(creator()->getAPILanguage() == APILanguage::kCPP, "the creator's language");
  const PluginFieldCollection* names = creator()->getFieldNames();
  const std::pair<const char*, PluginFieldType> expected[] = {
      {"mask_size", PluginFieldType::kINT32},       {"attention_size", PluginFieldType::kINT32},
      {"spatial_scale", PluginFieldType::kFLOAT32}, {"sampling_ratio", PluginFieldType::kINT32},
      {"aligned", PluginFieldType::kINT32},         {"attention_interpolation", PluginFieldType::kCHAR},
      {"activation", PluginFieldType::kCHAR},       {"mask_dtype", PluginFieldType::kCHAR}};
  expect(names->nbFields == 8, "eight fields");
  for (int32_t i = 0; i < names->nbFields && i < 8; ++i) {
    expect(std::strcmp(names->fields[i].name, expected[i].first) == 0, std::string("field ") + expected[i].first);
    expect(names->fields[i].type == expected[i].second, std::string("type of field ") + expected[i].first);
  }
}

void walk_creation() {
  expect(text_of(create({})) ==
             "mask_size=56 attention_size=14 spatial_scale=0.25 sampling_ratio=1 aligned=1 "
             "attention_interpolation=bilinear activation=sigmoid mask_dtype=float32",
         "a node that is silent has BlendMask's values");
  for (const char* interpolation : {"bilinear", "nearest"}) {
    for (const char* activation : {"sigmoid", "none"}) {
      for (const char* dtype : {"float32", "float16", "uint8"}) {
        for (const int32_t ratio : {1, 2}) {
          for (const int32_t aligned : {0, 1}) {
            const Plugin plugin = create({{"attention_interpolation", std::string(interpolation)},
                                          {"activation", std::string(activation) + '\0'},
                                          {"mask_dtype", std::string(dtype)},
                                          {"sampling_ratio", ratio},
                                          {"aligned", aligned}});
            expect(plugin != nullptr, "every combination of fields makes a plugin");
            if (plugin == nullptr) continue;
            const std::string tail = "sampling_ratio=" + std::to_string(ratio) + " aligned=" + std::to_string(aligned) +
                                     " attention_interpolation=" + interpolation + " activation=" + activation +
                                     " mask_dtype=" + dtype;
            expect(text_of(plugin).find(tail) != std::string::npos, "the metadata says " + tail);
          }
        }
      }
    }
  }
  forget_sentences();
}

void walk_refused_creation() {
  const int32_t integers[2] = {28, 28};
  const float number = 0.25f;
  const auto refuse = [](const std::vector<PluginField>& fields, const char* fragment) {
    expect_refusal(make(fields, TensorRTPhase::kBUILD) == nullptr, fragment, fragment);
  };
  refuse({{"mask_size", &number, PluginFieldType::kFLOAT32, 1}}, "mask_size is a float32, expected an int32");
  refuse({{"mask_size", integers, PluginFieldType::kINT32, 2}}, "mask_size is 2 values long, expected an int32");
  refuse({{"mask_size", integers, PluginFieldType::kINT32, 0}}, "mask_size is 0 values long, expected an int32");
  refuse({{"mask_size", nullptr, PluginFieldType::kINT32, 1}}, "mask_size is without a value, expected an int32");
  refuse({{"mask_size", integers, PluginFieldType::kINT32, 1}, {"mask_size", integers, PluginFieldType::kINT32, 1}},
         "mask_size is given twice");
  refuse({{"activation", "tanh", PluginFieldType::kCHAR, 4}}, "is \"tanh\", expected \"sigmoid\" or \"none\"");
  refuse({{"activation", "", PluginFieldType::kCHAR, 0}}, "activation is 0 values long, expected a string");
  refuse({{"mask_dtype", "int8", PluginFieldType::kCHAR, 4}}, "expected \"float32\" or \"float16\" or \"uint8\"");
  refuse({{"spatial_scale", integers, PluginFieldType::kINT32, 1}}, "spatial_scale is an int32, expected a float32");
  refuse({{"scale", &number, PluginFieldType::kFLOAT32, 1}}, "field scale is unknown");
  refuse({{nullptr, &number, PluginFieldType::kFLOAT32, 1}}, "field 0 has no name");
  expect_refusal(creator()->createPlugin("layer", nullptr, TensorRTPhase::kBUILD) == nullptr, "null pointer",
                 "no list");
  const PluginFieldCollection lies{1, nullptr};
  expect_refusal(creator()->createPlugin(nullptr, &lies, TensorRTPhase::kBUILD) == nullptr, "list of fields", "a lie");
  for (const char* name : {"mask_size", "attention_size", "sampling_ratio", "aligned"}) {
    for (const int32_t value : {-1, 1 << 20}) {
      expect_refusal(create({{name, value}}) == nullptr, std::to_string(value), std::string(name) + " out of range");
    }
  }
  for (const float value : {0.0f, -0.25f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    expect_refusal(create({{"spatial_scale", value}}) == nullptr, "spatial_scale is", "a scale out of range");
  }
  expect_refusal(create({{"mask_size", 0}}, TensorRTPhase::kRUNTIME) == nullptr, "mask_size is 0", "at runtime, too");
}

void walk_capabilities() {
  const Plugin plugin = create(kFields);
  const auto info = [](const IVersionedInterface* of) {
    const InterfaceInfo got = of->getInterfaceInfo();
    return std::string(got.kind) + ' ' + std::to_string(got.major) + '.' + std::to_string(got.minor);
  };
  auto* core = static_cast<IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
  IPluginV3OneBuild* build = build_of(plugin);
  expect(info(plugin.get()) == "PLUGIN 1.0", "version of the plugin");
  expect(info(core) == "PLUGIN_V3ONE_CORE 1.0", "version of the core");
  expect(info(build) == "PLUGIN_V3ONE_BUILD 1.0", "version of the build interface");
  expect(info(runtime_of(plugin)) == "PLUGIN_V3ONE_RUNTIME 1.0", "version of the runtime interface");
  expect(plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(7)) == nullptr, "no fourth capability");
  expect(std::strcmp(core->getPluginName(), "RoiAlignBlend") == 0, "the plugin's name");
  expect(std::strcmp(core->getPluginVersion(), "1") == 0, "the plugin's version");
  expect(std::strcmp(core->getPluginNamespace(), "trt_blendmask") == 0, "the plugin's namespace");
  expect(build->getNbOutputs() == 1, "one output");
  expect(build->getNbTactics() == 0 && build->getValidTactics(nullptr, 0) == 0, "no tactics of its own");
  expect(build->getFormatCombinationLimit() == 100, "the usual limit of combinations");
  expect(text_of(plugin).find("mask_size=28 attention_size=7 spatial_scale=0.125") == 0, "the metadata");
  expect("RoiAlignBlend 1 " + text_of(plugin) == build->getTimingCacheID(), "timing-cache id");
}

void walk_types() {
  const Plugin plugin = create(kFields);
  constexpr auto kF = DataType::kFLOAT, kH = DataType::kHALF, kI = DataType::kINT32, kB = DataType::kBF16;
  const auto status = [](const Plugin& of, std::vector<DataType> inputs, DataType* output, int32_t outputs = 1) {
    return build_of(of)->getOutputDataTypes(output, outputs, inputs.data(), static_cast<int32_t>(inputs.size()));
  };
  DataType output{};
  for (const DataType bases : {kF, kH}) {
    for (const DataType attention : {kF, kH}) {
      for (const auto& [name, type] : {std::pair{"float32", kF}, {"float16", kH}, {"uint8", DataType::kUINT8}}) {
        const Plugin of = create({{"mask_dtype", std::string(name)}});
        expect(status(of, {bases, kF, attention, kI}, &output) == 0 && output == type, "the output's type");
      }
    }
  }
  forget_sentences();
  expect_refusal(status(plugin, {kB, kF, kF, kI}, &output) != 0, "bases has data type 7", "bfloat16 bases");
  expect_refusal(status(plugin, {kF, kH, kF, kI}, &output) != 0, "boxes has data type 1", "float16 boxes");
  expect_refusal(status(plugin, {kF, kF, kI, kI}, &output) != 0, "attention has data type 3", "int32 attention");
  expect_refusal(status(plugin, {kF, kF, kF, DataType::kINT64}, &output) != 0, "count has data type 8", "int64 count");
  expect_refusal(status(plugin, {kF, kF, kF}, &output) != 0, "3 inputs", "three inputs");
  expect_refusal(status(plugin, {kF, kF, kF, kI}, &output, 2) != 0, "2 outputs", "two outputs");
}

// A builder of expressions whose unknowns are symbols.
class Expression final : public IDimensionExpr, public apiv::VDimensionExpr {
 public:
  explicit Expression(int64_t known) : value(known) { mImpl = this; }
  bool isConstant() const override { return value >= 0; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return false; }
  const int64_t value;  // -1: a symbol
};

class Builder final : public IExprBuilder, public apiv::VExprBuilder {
 public:
  Builder() { mImpl = this; }
  IDimensionExpr const* constant(int64_t value) override { return &made.emplace_back(value); }
  IDimensionExpr const* operation(DimensionOperation, IDimensionExpr const&, IDimensionExpr const&) override {
    return &made.emplace_back(-1);
  }
  IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) override {
    return nullptr;
  }
  std::deque<Expression> made;
};

void walk_shapes() {
  const Plugin plugin = create(kFields);
  const auto shapes = [&](const std::vector<Dims>& inputs, DimsExprs* output, Builder* builder, DimsExprs* boxes,
                          int32_t shape_inputs = 0) {
    std::vector<DimsExprs> expressions;
    for (const Dims& dims : inputs) {
      DimsExprs& shape = expressions.emplace_back(DimsExprs{dims.nbDims, {}});
      for (int32_t i = 0; i < dims.nbDims; ++i) shape.d[i] = &builder->made.emplace_back(dims.d[i]);
    }
    if (boxes != nullptr) *boxes = expressions[1];
    IExprBuilder& base = *builder;
    return build_of(plugin)->getOutputShapes(expressions.data(), static_cast<int32_t>(inputs.size()), nullptr,
                                             shape_inputs, output, 1, base);
  };
  const auto with = [](int64_t n, int64_t d, int64_t k) {
    return std::vector<Dims>{{4, {n, k, 24, 36}}, {3, {n, d, 4}}, {3, {n, d, k < 0 ? -1 : k * kM * kM}}, {1, {n}}};
  };
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{2, 100}, {-1, 100}, {2, -1}, {-1, -1}}) {
    Builder builder;
    DimsExprs output{}, boxes{};
    expect(shapes(with(n, d, 4), &output, &builder, &boxes) == 0, "shapes are derived");
    expect(output.nbDims == 4 && output.d[0] == boxes.d[0] && output.d[1] == boxes.d[1], "N and D are the boxes'");
    if (output.nbDims != 4) continue;
    expect(output.d[2]->isConstant() && output.d[2]->getConstantValue() == kR, "R rows");
    expect(output.d[3]->isConstant() && output.d[3]->getConstantValue() == kR, "R columns");
  }
  const auto refuse = [&](std::vector<Dims> inputs, const char* fragment, int32_t shape_inputs = 0) {
    Builder builder;
    DimsExprs output{};
    expect_refusal(shapes(inputs, &output, &builder, nullptr, shape_inputs) != 0, fragment, fragment);
  };
  const auto changed = [&](int32_t tensor, Dims dims) {
    std::vector<Dims> inputs = with(2, 100, 4);
    inputs[tensor] = dims;
    return inputs;
  };
  refuse(changed(0, {3, {4, 24, 36}}), "bases has 3 dimensions, expected [N, K, Hb, Wb]");
  refuse(changed(1, {3, {2, 100, 5}}), "boxes is [2, 100, 5], expected [N, D, 4]");
  refuse(changed(1, {3, {3, 100, 4}}), "with N = 2 as bases");
  refuse(changed(2, {3, {2, 100, 4 * 14 * 14}}), "attention is [2, 100, 784], expected [N, D, K * M * M]");
  refuse(changed(2, {3, {2, 99, 4 * kM * kM}}), "with D = 100 as boxes");
  refuse(changed(3, {1, {1}}), "count is [1], expected [N]");
  refuse({{4, {2, 4, 24, 36}}}, "1 inputs");
  refuse(with(2, 100, 4), "1 shape inputs", 1);
}

void walk_formats() {
  for (const auto& [name, mask_type] :
       {std::pair{"float32", DataType::kFLOAT}, {"float16", DataType::kHALF}, {"uint8", DataType::kUINT8}}) {
    const Plugin plugin = create({{"mask_dtype", std::string(name)}});
    int combinations = 1;
    for (int32_t position = 0; position < 5; ++position) {
      int supported = 0;
      for (int32_t type = 0; type <= 9; ++type) {
        for (int32_t format = 0; format <= 12; ++format) {
          std::vector<DynamicPluginTensorDesc> tensors(5);  // beyond `position` TensorRT promises nothing
          tensors[position].desc.type = static_cast<DataType>(type);
          tensors[position].desc.format = static_cast<TensorFormat>(format);
          const DataType of = tensors[position].desc.type;
          const bool half = of == DataType::kHALF, single = of == DataType::kFLOAT;
          const bool linear = format == static_cast<int32_t>(TensorFormat::kLINEAR);
          const bool together = (half && tensors[position].desc.format == TensorFormat::kHWC8) ||
                                (single && tensors[position].desc.format == TensorFormat::kHWC);
          const bool expected[] = {(half || single) && (linear || together), single && linear,
                                   (half || single) && linear, of == DataType::kINT32 && linear,
                                   of == mask_type && linear};
          const bool got = build_of(plugin)->supportsFormatCombination(position, tensors.data(), 4, 1);
          expect(got == expected[position], "position " + std::to_string(position) + " type " + std::to_string(type) +
                                                " format " + std::to_string(format));
          supported += got ? 1 : 0;
        }
      }
      combinations *= supported;
    }
    expect(combinations == 8, "eight combinations of formats");
    DynamicPluginTensorDesc any{};
    expect(!build_of(plugin)->supportsFormatCombination(5, &any, 4, 1), "no sixth tensor");
    expect(!build_of(plugin)->supportsFormatCombination(0, &any, 3, 1), "not with three inputs");
  }
  forget_sentences();
}

void walk_configuration() {
  const Plugin plugin = create(kFields);
  const auto configure = [&](const std::vector<PluginTensorDesc>& tensors, int32_t inputs = 4) {
    std::vector<DynamicPluginTensorDesc> dynamic;
    for (const auto& desc : tensors) dynamic.push_back({desc, desc.dims, desc.dims, desc.dims});
    expect(build_of(plugin)->getWorkspaceSize(dynamic.data(), 4, &dynamic[4], 1) == 0, "no workspace");
    return build_of(plugin)->configurePlugin(dynamic.data(), inputs, &dynamic[4], 1);
  };
  auto tensors = descs(2, 100, 4, 24, 36, kM, kR);
  expect(configure(tensors) == 0, "a static network is configured");
  tensors[0].type = DataType::kHALF;
  tensors[0].format = TensorFormat::kHWC8;
  expect(configure(tensors) == 0, "half bases in HWC8 are configured");
  expect_refusal(configure(tensors, 3) != 0, "3 inputs", "three inputs");
  tensors[0].format = TensorFormat::kHWC;
  expect_refusal(configure(tensors) != 0, "bases has data type 1 and format 8", "half bases in HWC");
  for (auto& tensor : tensors = descs(2, 100, 4, 24, 36, kM, kR)) tensor.dims.d[0] = -1;
  expect(configure(tensors) == 0, "an open batch is configured");
  expect_refusal(runtime_of(plugin)->onShapeChange(tensors.data(), 4, &tensors[4], 1) != 0, "all known",
                 "an open batch at runtime");
  expect_refusal(configure(descs(2, 100, 4, 24, 36, 14, kR)) != 0, "attention is", "another attention");
  expect_refusal(configure(descs(2, 100, 4, 24, 36, kM, 56)) != 0, "masks is", "other masks");
}

void walk_serialisation() {
  const Plugin plugin = create({{"mask_size", 30},
                                {"attention_size", 5},
                                {"spatial_scale", 0.1f},
                                {"sampling_ratio", 2},
                                {"aligned", 0},
                                {"attention_interpolation", std::string("nearest")},
                                {"activation", std::string("none")},
                                {"mask_dtype", std::string("float16")}});
  const PluginFieldCollection* fields = runtime_of(plugin)->getFieldsToSerialize();
  expect(fields->nbFields == 8, "eight fields are serialised");
  expect(runtime_of(plugin)->getFieldsToSerialize()->fields == fields->fields, "their place is stable");
  const Plugin copy(creator()->createPlugin("layer", fields, TensorRTPhase::kRUNTIME));
  expect(copy != nullptr && text_of(copy) == text_of(plugin), "serialised and made again, it is the same");
}

class Context final : public IPluginResourceContext {
 public:
  IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
};

void walk_clones() {
  Plugin plugin = create(kFields);
  const std::string text = text_of(plugin);
  Context contexts[2];
  const Plugin clone(plugin->clone());
  const Plugin attached(runtime_of(plugin)->attachToContext(&contexts[0]));
  const Plugin other(runtime_of(plugin)->attachToContext(&contexts[1]));
  expect(clone != nullptr && attached != nullptr && other != nullptr, "clones are made");
  expect(clone != plugin && attached != plugin && attached != other, "every clone is an object of its own");
  plugin.reset();
  auto tensors = descs(2, 100, 4, 24, 36, kM, kR);
  for (const Plugin* each : {&clone, &attached, &other}) {
    expect(text_of(*each) == text, "a clone outlives what it was made from");
    expect(runtime_of(*each)->setTactic(0) == 0, "the default tactic");
    expect(runtime_of(*each)->onShapeChange(tensors.data(), 4, &tensors[4], 1) == 0, "shapes are taken");
    expect(runtime_of(*each)->getFieldsToSerialize()->nbFields == 8, "a clone can be serialised");
  }
}

void walk_refused_enqueue() {
  const Plugin plugin = create(kFields);
  const auto good = descs(2, 100, 4, 24, 36, kM, kR);
  alignas(16) char memory[64];
  const void* inputs[4] = {memory, memory, memory, memory};
  void* output = memory;
  const auto enqueue = [&](const std::vector<PluginTensorDesc>& tensors, const void* const* in, void* const* out) {
    return runtime_of(plugin)->enqueue(tensors.data(), &tensors[4], in, out, nullptr, nullptr);
  };
  const std::string names[4] = {"bases", "boxes", "attention", "count"};
  for (int32_t i = 0; i < 4; ++i) {
    const void* missing[4] = {memory, memory, memory, memory};
    missing[i] = nullptr;
    expect_refusal(enqueue(good, missing, &output) != 0, names[i] + " is a null pointer", "a missing input");
    missing[i] = memory + 4;
    expect_refusal(enqueue(good, missing, &output) != 0, names[i] + " begins at an odd address", "misaligned input");
  }
  void* nowhere = nullptr;
  expect_refusal(enqueue(good, inputs, &nowhere) != 0, "masks is a null pointer", "a missing output");
  expect_refusal(enqueue(good, nullptr, &output) != 0, "null pointer", "no inputs");
  expect_refusal(runtime_of(plugin)->enqueue(nullptr, nullptr, inputs, &output, nullptr, nullptr) != 0, "null pointer",
                 "no descriptions");
  const auto refuse = [&](int32_t tensor, const Dims& dims, const char* fragment) {
    auto tensors = good;
    tensors[tensor].dims = dims;
    expect_refusal(enqueue(tensors, inputs, &output) != 0, fragment, fragment);
    expect_refusal(runtime_of(plugin)->onShapeChange(tensors.data(), 4, &tensors[4], 1) != 0, fragment, fragment);
  };
  refuse(0, {4, {2, 5, 24, 36}}, "attention is");
  refuse(0, {4, {2, -1, 24, 36}}, "all known");
  refuse(0, {4, {2, 4, int64_t{1} << 40, 36}}, "below 2^31");
  refuse(0, {4, {2, 4, 0, 36}}, "height of the bases is 0");
  refuse(1, {3, {2, 100, 3}}, "boxes is");
  refuse(3, {1, {1}}, "count is");
  refuse(4, {4, {2, 100, kR, kR + 1}}, "masks is");
  auto tensors = good;
  tensors[1].type = DataType::kHALF;
  expect_refusal(enqueue(tensors, inputs, &output) != 0, "boxes has data type 1", "half boxes");
  const void* none[4] = {};
  for (const auto& empty : {descs(2, 0, 4, 24, 36, kM, kR), descs(0, 100, 4, 24, 36, kM, kR)}) {
    expect(runtime_of(plugin)->onShapeChange(empty.data(), 4, &empty[4], 1) == 0, "no slots or images are a shape");
    expect(enqueue(empty, none, &nowhere) == 0, "no slots or images, nothing to do");
  }
}

void walk_threads() {
  const Plugin plugin = create(kFields);
  const auto good = descs(2, 100, 4, 24, 36, kM, kR), bad = descs(2, 100, 4, 24, 36, kM, 9);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const Plugin mine(plugin->clone());
        count += runtime_of(mine)->onShapeChange(good.data(), 4, &good[4], 1) != 0 ? 1 : 0;
        count += runtime_of(plugin)->onShapeChange(bad.data(), 4, &bad[4], 1) == 0 ? 1 : 0;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const int count : wrong) expect(count == 0, "threads do not disturb each other");
  forget_sentences();
}

}  // namespace

void walk_everything() {
  walk_creator();
  walk_creation();
  walk_refused_creation();
  walk_capabilities();
  walk_types();
  walk_shapes();
  walk_formats();
  walk_configuration();
  walk_serialisation();
  walk_clones();
  walk_refused_enqueue();
  walk_threads();
}

}  // namespace harness
