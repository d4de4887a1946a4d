// Runs a twin on cases in files, without Python around it: for the sanitizers. A file holds RoiAlignBlendParams, the
// bases, boxes, attention and count; the masks are written to the file's name with ".masks" after it.
#include <cstdio>
#include <string>
#include <vector>

#include "twin.h"

using namespace trt_blendmask;

namespace {

bool run(const std::string& name) {
  std::FILE* file = std::fopen(name.c_str(), "rb");
  if (file == nullptr) return false;
  RoiAlignBlendParams params;
  bool read = std::fread(&params, sizeof params, 1, file) == 1;
  const Sizes sizes = read ? Sizes(params) : Sizes(RoiAlignBlendParams{});
  const auto next = [&](size_t bytes) {
    std::vector<unsigned char> content(bytes);
    read = read && std::fread(content.data(), 1, bytes, file) == bytes;
    return content;
  };
  const auto bases = next(sizes.bases), boxes = next(sizes.boxes), attention = next(sizes.attention);
  const auto count = next(sizes.count);
  std::fclose(file);
  std::vector<unsigned char> masks(sizes.masks);
  if (!read || blend(&params, bases.data(), reinterpret_cast<const float*>(boxes.data()), attention.data(),
                     reinterpret_cast<const int32_t*>(count.data()), masks.data()) != 0) {
    return false;
  }
  std::FILE* out = std::fopen((name + ".masks").c_str(), "wb");
  if (out == nullptr) return false;
  const bool written = std::fwrite(masks.data(), 1, masks.size(), out) == masks.size();
  return std::fclose(out) == 0 && written;
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (!run(argv[i])) {
      std::fprintf(stderr, "%s: could not be run\n", argv[i]);
      return 1;
    }
  }
  return 0;
}
