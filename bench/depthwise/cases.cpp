#include "cases.h"

#include <algorithm>
#include <random>

namespace lamella::bench {
namespace {

struct Row {
  const char* name;
  const char* sets;  // with spaces between
  std::int64_t n, c, h, w;
  Size2 kernel;
  std::int64_t stride = 1;
  Size2 padding{0};
  std::int64_t dilation = 1, multiplier = 1;
};

// The layers of MobileNetV1, V2 and V3-Large for images of 224 pixels are all here, each once.
const Row kRows[] = {
    {"3x7", "core source kernelbench", 32, 128, 128, 256, {3, 7}},  // KernelBench 85
    {"kx1", "core source kernelbench", 64, 8, 512, 512, {3, 1}},    // 83
    {"3x3", "core source kernelbench", 64, 128, 256, 512, 3},       // 84
    {"kb82", "kernelbench", 16, 64, 512, 512, 3},
    {"kb86", "kernelbench", 16, 64, 512, 512, 3, 1, 1},  // its depthwise half

    {"32@112", "core mobilenet", 256, 32, 112, 112, 3, 1, 1},
    {"96@112s2", "core mobilenet", 256, 96, 112, 112, 3, 2, 1},
    {"144@56", "core mobilenet", 256, 144, 56, 56, 3, 1, 1},
    {"144@56s2", "core mobilenet", 256, 144, 56, 56, 3, 2, 1},
    {"192@28", "core mobilenet", 256, 192, 28, 28, 3, 1, 1},
    {"384@14", "core mobilenet", 256, 384, 14, 14, 3, 1, 1},
    {"576@14s2", "core mobilenet", 256, 576, 14, 14, 3, 2, 1},
    {"960@7", "core mobilenet", 256, 960, 7, 7, 3, 1, 1},
    {"192@28s2", "mobilenet", 256, 192, 28, 28, 3, 2, 1},
    {"576@14", "mobilenet", 256, 576, 14, 14, 3, 1, 1},

    {"64@112s2", "mobilenet", 256, 64, 112, 112, 3, 2, 1},
    {"128@56", "mobilenet", 256, 128, 56, 56, 3, 1, 1},
    {"128@56s2", "mobilenet", 256, 128, 56, 56, 3, 2, 1},
    {"256@28", "mobilenet", 256, 256, 28, 28, 3, 1, 1},
    {"256@28s2", "mobilenet", 256, 256, 28, 28, 3, 2, 1},
    {"512@14", "mobilenet", 256, 512, 14, 14, 3, 1, 1},
    {"512@14s2", "mobilenet", 256, 512, 14, 14, 3, 2, 1},
    {"1024@7", "mobilenet", 256, 1024, 7, 7, 3, 1, 1},

    {"16@112", "mobilenet", 256, 16, 112, 112, 3, 1, 1},
    {"72@56", "mobilenet", 256, 72, 56, 56, 3, 1, 1},
    {"72@56k5s2", "mobilenet", 256, 72, 56, 56, 5, 2, 2},
    {"120@28k5", "core mobilenet", 256, 120, 28, 28, 5, 1, 2},
    {"240@28s2", "mobilenet", 256, 240, 28, 28, 3, 2, 1},
    {"200@14", "mobilenet", 256, 200, 14, 14, 3, 1, 1},
    {"184@14", "mobilenet", 256, 184, 14, 14, 3, 1, 1},
    {"480@14", "mobilenet", 256, 480, 14, 14, 3, 1, 1},
    {"672@14", "mobilenet", 256, 672, 14, 14, 3, 1, 1},
    {"672@14k5s2", "mobilenet", 256, 672, 14, 14, 5, 2, 2},
    {"960@7k5", "mobilenet", 256, 960, 7, 7, 5, 1, 2},

    // MobileNetV2 for images of 32 pixels, with the strides of 224 and with a small stem.
    {"32@16", "mobilenet32", 128, 32, 16, 16, 3, 1, 1},
    {"96@16s2", "mobilenet32", 128, 96, 16, 16, 3, 2, 1},
    {"144@8", "mobilenet32", 128, 144, 8, 8, 3, 1, 1},
    {"144@8s2", "mobilenet32", 128, 144, 8, 8, 3, 2, 1},
    {"192@4", "mobilenet32", 128, 192, 4, 4, 3, 1, 1},
    {"192@4s2", "mobilenet32", 128, 192, 4, 4, 3, 2, 1},
    {"384@2", "mobilenet32", 128, 384, 2, 2, 3, 1, 1},
    {"576@2", "mobilenet32", 128, 576, 2, 2, 3, 1, 1},
    {"576@2s2", "mobilenet32", 128, 576, 2, 2, 3, 2, 1},
    {"960@1", "mobilenet32", 128, 960, 1, 1, 3, 1, 1},
    {"32@32", "mobilenet32", 128, 32, 32, 32, 3, 1, 1},
    {"96@32", "mobilenet32", 128, 96, 32, 32, 3, 1, 1},
    {"144@32", "mobilenet32", 128, 144, 32, 32, 3, 1, 1},
    {"144@32s2", "mobilenet32", 128, 144, 32, 32, 3, 2, 1},
    {"192@16", "mobilenet32", 128, 192, 16, 16, 3, 1, 1},
    {"192@16s2", "mobilenet32", 128, 192, 16, 16, 3, 2, 1},
    {"384@8", "mobilenet32", 128, 384, 8, 8, 3, 1, 1},
    {"576@8", "mobilenet32", 128, 576, 8, 8, 3, 1, 1},
    {"576@8s2", "mobilenet32", 128, 576, 8, 8, 3, 2, 1},
    {"960@4", "mobilenet32", 128, 960, 4, 4, 3, 1, 1},

    {"240@28k5s2", "core", 256, 240, 28, 28, 5, 2, 2},
    {"96@56k7", "core", 128, 96, 56, 56, 7, 1, 3},
    {"384@14k7", "core", 128, 384, 14, 14, 7, 1, 3},
    {"128@56d2", "core", 128, 128, 56, 56, 3, 1, 2, 2},

    {"32@112m2", "multiplier", 256, 32, 112, 112, 3, 1, 1, 1, 2},
    {"96@56m2", "multiplier", 256, 96, 56, 56, 3, 1, 1, 1, 2},
    {"96@56s2m2", "multiplier", 256, 96, 56, 56, 3, 2, 1, 1, 2},

    {"32@112n1", "batch1", 1, 32, 112, 112, 3, 1, 1},
    {"96@112s2n1", "batch1", 1, 96, 112, 112, 3, 2, 1},
    {"144@56n1", "batch1", 1, 144, 56, 56, 3, 1, 1},
    {"384@14n1", "batch1", 1, 384, 14, 14, 3, 1, 1},
    {"960@7n1", "batch1", 1, 960, 7, 7, 3, 1, 1},
    {"96@56k7n1", "batch1", 1, 96, 56, 56, 7, 1, 3},
};

Conv2dGeometry geometry_of(std::int64_t n, std::int64_t c, Size2 in, Size2 kernel, Size2 stride,
                           Size2 padding, Size2 dilation, std::int64_t multiplier) {
  return make_conv2d_geometry("depthwise_conv2d", {n, c, in.h, in.w}, {c * multiplier, 1, kernel.h, kernel.w},
                              stride, padding, dilation, c);
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

/// How often a tap meets an input along an axis.
double meetings(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                std::int64_t padding, std::int64_t dilation) {
  std::int64_t count = 0;
  for (std::int64_t tap = 0; tap < kernel; ++tap) {
    const std::int64_t offset = tap * dilation - padding;  // 0 <= o · stride + offset < in
    const std::int64_t first = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    const std::int64_t last = in - 1 - offset < 0 ? -1 : (in - 1 - offset) / stride;
    count += std::max<std::int64_t>(0, std::min(last, out - 1) - first + 1);
  }
  return static_cast<double>(count);
}

/// Whole numbers that are the same with every standard library.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : engine_(seed) {}
  std::int64_t between(std::int64_t least, std::int64_t most) {
    return least + static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(most - least + 1));
  }
  bool coin() { return between(0, 1) == 1; }
  Size2 pair(std::int64_t least, std::int64_t most) {
    const std::int64_t h = between(least, most), w = between(least, most);
    return coin() ? Size2(h, w) : Size2(h);
  }

 private:
  std::mt19937_64 engine_;
};

std::string text_of(Size2 size) { return std::to_string(size.h) + "x" + std::to_string(size.w); }

}  // namespace

const char* name(Pass pass) {
  static constexpr const char* kNames[] = {"forward", "input", "weight", "both"};
  return kNames[static_cast<int>(pass)];
}

bool Case::is_in(const std::string& set) const {
  return std::find(sets.begin(), sets.end(), set) != sets.end();
}

const char* name(With with) {
  static constexpr const char* kNames[] = {"", "transform", "statistics", "sums"};
  return kNames[static_cast<int>(with)];
}

bool Cell::exists() const {
  switch (with) {
    case With::Transform:
      return pass != Pass::Input;
    case With::Statistics:
      return pass == Pass::Forward;
    case With::Sums:
      return pass == Pass::Input || pass == Pass::Both;
    default:
      return true;
  }
}

std::string Cell::label() const {
  return with == With::Nothing ? name(pass)
                               : std::string(name(pass)) + "+" + name(with) + (hardswish ? "+hs" : "");
}

double Cell::bytes() const {
  const Conv2dGeometry& g = what->geometry;
  const auto x = static_cast<double>(g.input_shape().product()),
             y = static_cast<double>(g.output_shape().product());
  const bool masks = pass == Pass::Input && with == With::Sums;  // by the input
  return (pass == Pass::Both || masks ? 2 * x + y : x + y) * static_cast<double>(size_of(dtype));
}

double Cell::multiply_adds() const {
  const Conv2dGeometry& g = what->geometry;
  const double pairs = meetings(g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h) *
                       meetings(g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
  return static_cast<double>(g.batch * g.out_channels) * pairs * (pass == Pass::Both ? 2 : 1);
}

std::vector<Case> fixed_cases() {
  std::vector<Case> cases;
  for (const Row& row : kRows) {
    Case& added = cases.emplace_back();
    added.name = row.name;
    added.sets = words_of(row.sets);
    added.geometry = geometry_of(row.n, row.c, {row.h, row.w}, row.kernel, row.stride, row.padding,
                                 row.dilation, row.multiplier);
  }
  return cases;
}

std::vector<Case> random_cases(int count, std::uint64_t seed, const std::vector<DType>& types,
                               const std::vector<MemoryFormat>& formats) {
  constexpr double kLeast = 50e6, kMost = 400e6;
  Draw draw(seed);
  std::vector<Case> cases;
  while (cases.size() < static_cast<std::size_t>(count)) {
    const Size2 kernel = draw.pair(1, 15), stride = draw.pair(1, 3), dilation = draw.pair(1, 3);
    const Size2 reach((kernel.h - 1) * dilation.h, (kernel.w - 1) * dilation.w);
    const Size2 padding(draw.between(0, reach.h), draw.between(0, reach.w)), in = draw.pair(7, 200);
    // Few, some and many, whole powers of two and not.
    const std::int64_t channels = draw.between(1, std::int64_t{1} << draw.between(2, 10));
    const std::int64_t multiplier = draw.between(1, 2);
    const DType dtype =
        types[static_cast<std::size_t>(draw.between(0, static_cast<std::int64_t>(types.size()) - 1))];
    const MemoryFormat format =
        formats[static_cast<std::size_t>(draw.between(0, static_cast<std::int64_t>(formats.size()) - 1))];
    const auto wanted = static_cast<double>(
        draw.between(static_cast<std::int64_t>(kLeast), static_cast<std::int64_t>(kMost)));
    if (in.h + 2 * padding.h <= reach.h || in.w + 2 * padding.w <= reach.w) continue;
    Case next;
    next.geometry = geometry_of(1, channels, in, kernel, stride, padding, dilation, multiplier);
    next.dtype = dtype;
    next.format = format;
    Cell cell;
    cell.what = &next;
    cell.dtype = dtype;
    next.geometry.batch = static_cast<std::int64_t>(wanted / cell.bytes()) + 1;
    next.sets = {"random"};
    next.name = "r" + std::to_string(cases.size()) + ":" + std::to_string(next.geometry.batch) + "x" +
                std::to_string(channels) + "x" + text_of(in) + ",k" + text_of(kernel);
    if (stride != Size2(1)) next.name += ",s" + text_of(stride);
    if (padding != Size2(0)) next.name += ",p" + text_of(padding);
    if (dilation != Size2(1)) next.name += ",d" + text_of(dilation);
    if (multiplier > 1) next.name += ",m" + std::to_string(multiplier);
    cases.push_back(std::move(next));
  }
  return cases;
}

}  // namespace lamella::bench
