#include "roi_align_blend_fields.h"

#include <charconv>
#include <cstring>
#include <string_view>

namespace trt_blendmask {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

template <typename Value>
struct Choice {
  std::string_view name;
  Value value;
};

constexpr Choice<Interpolation> kInterpolations[] = {{"bilinear", Interpolation::kBilinear},
                                                     {"nearest", Interpolation::kNearest}};
constexpr Choice<Activation> kActivations[] = {{"sigmoid", Activation::kSigmoid}, {"none", Activation::kNone}};
constexpr Choice<ElementType> kElementTypes[] = {
    {"float32", ElementType::kFloat32}, {"float16", ElementType::kFloat16}, {"uint8", ElementType::kUint8}};

const char* type_name(PluginFieldType type) {
  switch (type) {
    case PluginFieldType::kFLOAT32:
      return "a float32";
    case PluginFieldType::kINT32:
      return "an int32";
    case PluginFieldType::kCHAR:
      return "a string";
    case PluginFieldType::kFLOAT64:
      return "a float64";
    case PluginFieldType::kINT64:
      return "an int64";
    default:
      return "of another type";
  }
}

// Each `take` returns an empty string, or what the field holds and what was expected of it.
std::string mismatch(const PluginField& field, PluginFieldType expected) {
  const bool text = expected == PluginFieldType::kCHAR;
  if (field.type != expected) return std::string(type_name(field.type)) + ", expected " + type_name(expected);
  if (field.data == nullptr) return std::string("without a value, expected ") + type_name(expected);
  if (field.length < 1 || (!text && field.length != 1)) {
    return std::to_string(field.length) + " values long, expected " + type_name(expected);
  }
  return "";
}

std::string take(const PluginField& field, int32_t* value) {
  std::string problem = mismatch(field, PluginFieldType::kINT32);
  if (problem.empty()) std::memcpy(value, field.data, sizeof *value);  // an engine promises no alignment
  return problem;
}

std::string take(const PluginField& field, float* value) {
  std::string problem = mismatch(field, PluginFieldType::kFLOAT32);
  if (problem.empty()) std::memcpy(value, field.data, sizeof *value);
  return problem;
}

template <typename Value, size_t kCount>
std::string take(const PluginField& field, const Choice<Value> (&choices)[kCount], Value* value) {
  std::string problem = mismatch(field, PluginFieldType::kCHAR);
  if (!problem.empty()) return problem;
  std::string_view text(static_cast<const char*>(field.data), static_cast<size_t>(field.length));
  if (text.back() == '\0') text.remove_suffix(1);  // the ONNX parser adds one, Python does not
  for (const auto& choice : choices) {
    if (choice.name != text) {
      problem += (problem.empty() ? ", expected \"" : " or \"") + std::string(choice.name) + '"';
      continue;
    }
    *value = choice.value;
    return "";
  }
  return '"' + std::string(text) + '"' + problem;
}

std::string take(const PluginField& field, BlendAttributes* to) {
  const std::string_view name(field.name);
  if (name == "mask_size") return take(field, &to->mask_size);
  if (name == "attention_size") return take(field, &to->attention_size);
  if (name == "spatial_scale") return take(field, &to->spatial_scale);
  if (name == "sampling_ratio") return take(field, &to->sampling_ratio);
  if (name == "aligned") return take(field, &to->aligned);
  if (name == "attention_interpolation") return take(field, kInterpolations, &to->attention_interpolation);
  if (name == "activation") return take(field, kActivations, &to->activation);
  if (name == "mask_dtype") return take(field, kElementTypes, &to->mask_dtype);
  return "unknown, expected one of those in \"" + describe(BlendAttributes{}) + '"';
}

template <typename Value, size_t kCount>
std::string_view name_of(Value value, const Choice<Value> (&choices)[kCount]) {
  for (const auto& choice : choices) {
    if (choice.value == value) return choice.name;
  }
  return "";
}

template <typename Value, size_t kCount>
PluginField text_field(const char* name, Value value, const Choice<Value> (&choices)[kCount]) {
  const std::string_view text = name_of(value, choices);
  return {name, text.data(), PluginFieldType::kCHAR, static_cast<int32_t>(text.size())};
}

}  // namespace

std::string read_fields(const nvinfer1::PluginFieldCollection& fields, BlendAttributes* attributes) {
  if (fields.nbFields < 0 || (fields.nbFields > 0 && fields.fields == nullptr))
    return "the list of fields is not valid";
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    const PluginField& field = fields.fields[i];
    if (field.name == nullptr) return "field " + std::to_string(i) + " has no name";
    for (int32_t before = 0; before < i; ++before) {
      if (std::string_view(fields.fields[before].name) == field.name) {
        return std::string("field ") + field.name + " is given twice, expected once";
      }
    }
    const std::string problem = take(field, attributes);
    if (!problem.empty()) return std::string("field ") + field.name + " is " + problem;
  }
  if (attributes->aligned != 0 && attributes->aligned != 1) {
    return "field aligned is " + std::to_string(attributes->aligned) + ", expected 0 or 1";
  }
  return "";
}

BlendFields::BlendFields(const BlendAttributes& attributes)
    : attributes_(attributes),
      fields_{PluginField{"mask_size", &attributes_.mask_size, PluginFieldType::kINT32, 1},
              PluginField{"attention_size", &attributes_.attention_size, PluginFieldType::kINT32, 1},
              PluginField{"spatial_scale", &attributes_.spatial_scale, PluginFieldType::kFLOAT32, 1},
              PluginField{"sampling_ratio", &attributes_.sampling_ratio, PluginFieldType::kINT32, 1},
              PluginField{"aligned", &attributes_.aligned, PluginFieldType::kINT32, 1},
              text_field("attention_interpolation", attributes.attention_interpolation, kInterpolations),
              text_field("activation", attributes.activation, kActivations),
              text_field("mask_dtype", attributes.mask_dtype, kElementTypes)},
      collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}

std::string describe(const BlendAttributes& attributes) {
  std::array<char, 32> scale{};
  std::to_chars(scale.data(), scale.data() + scale.size() - 1, attributes.spatial_scale);  // the same in every locale
  std::string text = "mask_size=" + std::to_string(attributes.mask_size);
  text += " attention_size=" + std::to_string(attributes.attention_size);
  text += std::string(" spatial_scale=") + scale.data();
  text += " sampling_ratio=" + std::to_string(attributes.sampling_ratio);
  text += " aligned=" + std::to_string(attributes.aligned);
  text += " attention_interpolation=" + std::string(name_of(attributes.attention_interpolation, kInterpolations));
  text += " activation=" + std::string(name_of(attributes.activation, kActivations));
  text += " mask_dtype=" + std::string(name_of(attributes.mask_dtype, kElementTypes));
  return text;
}

}  // namespace trt_blendmask
