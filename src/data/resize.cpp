#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/check.h"

namespace lamella::data {
namespace {

// Weights are integers with this many bits behind the point, so that results are the same everywhere; 22
// leave room for the eight of a pixel and a sign.
constexpr int kWeightBits = 22;

// For each output position, a run of input positions and their weights, which add up to one.
struct Filter {
  struct Run {
    int first = 0;
    int count = 0;
  };
  std::vector<Run> runs;
  std::vector<std::int32_t> weights;  // `stride` for each run
  std::size_t stride = 0;
};

Filter make_filter(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double radius = std::max(scale, 1.0);
  Filter filter;
  filter.stride = static_cast<std::size_t>(std::ceil(radius)) * 2 + 1;
  filter.runs.resize(static_cast<std::size_t>(out));
  filter.weights.resize(filter.runs.size() * filter.stride);
  std::vector<double> exact(filter.stride);
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(std::lround(center - radius)), 0);
    const int last = std::min(static_cast<int>(std::lround(center + radius)), in);
    double sum = 0.0;
    for (int k = first; k < last; ++k) {
      const double distance = std::abs((k - center + 0.5) / radius);
      sum += exact[static_cast<std::size_t>(k - first)] = std::max(1.0 - distance, 0.0);
    }
    std::int32_t* weights = filter.weights.data() + static_cast<std::size_t>(i) * filter.stride;
    for (int k = 0; k < last - first; ++k)
      weights[k] = static_cast<std::int32_t>(
          std::lround(exact[static_cast<std::size_t>(k)] / sum * (1 << kWeightBits)));
    filter.runs[static_cast<std::size_t>(i)] = {first, last - first};
  }
  return filter;
}

std::uint8_t to_byte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

constexpr std::int32_t kHalf = 1 << (kWeightBits - 1);

template <int Channels>
void filter_row(const std::uint8_t* in, const Filter& filter, std::uint8_t* out) {
  const std::int32_t* weights = filter.weights.data();
  for (const Filter::Run& run : filter.runs) {
    std::int32_t sum[Channels];
    std::fill_n(sum, Channels, kHalf);
    const std::uint8_t* from = in + static_cast<std::ptrdiff_t>(run.first) * Channels;
    for (int k = 0; k < run.count; ++k)
      for (int c = 0; c < Channels; ++c) sum[c] += weights[k] * from[k * Channels + c];
    for (int c = 0; c < Channels; ++c) *out++ = to_byte(sum[c]);
    weights += filter.stride;
  }
}

}  // namespace

Image detail::resize_region(const Image& image, int top, int left, int height, int width, int out_height,
                            int out_width) {
  const Filter across = make_filter(width, out_width), down = make_filter(height, out_height);
  Image narrow(height, out_width, image.channels);
  for (int y = 0; y < height; ++y) {
    const std::uint8_t* from = image.row(top + y) + static_cast<std::ptrdiff_t>(left) * image.channels;
    if (image.channels == 3) {
      filter_row<3>(from, across, narrow.row(y));
    } else {
      filter_row<1>(from, across, narrow.row(y));
    }
  }
  Image result(out_height, out_width, image.channels);
  const std::size_t row_bytes = result.row_bytes();
  std::vector<std::int32_t> sums(row_bytes);
  for (int y = 0; y < out_height; ++y) {
    const Filter::Run run = down.runs[static_cast<std::size_t>(y)];
    const std::int32_t* weights = down.weights.data() + static_cast<std::size_t>(y) * down.stride;
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int k = 0; k < run.count; ++k) {
      const std::uint8_t* from = narrow.row(run.first + k);
      for (std::size_t i = 0; i < row_bytes; ++i) sums[i] += weights[k] * from[i];
    }
    std::transform(sums.begin(), sums.end(), result.row(y), to_byte);
  }
  return result;
}

Image resize(const Image& image, int height, int width) {
  LAMELLA_CHECK(ShapeError, height >= 1 && width >= 1 && std::int64_t{height} * width <= kMaxPixels,
                "resize: size ", height, "x", width, "; must be at least 1x1 and at most ", kMaxPixels,
                " pixels");
  if (height == image.height && width == image.width) return image;
  return detail::resize_region(image, 0, 0, image.height, image.width, height, width);
}

}  // namespace lamella::data
