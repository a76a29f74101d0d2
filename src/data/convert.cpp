#include "data/convert.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "lamella/tensor/create.h"

namespace lamella::data {
namespace detail {

NormalizeTable::NormalizeTable(const char* op, const Normalize& normalize) {
  const std::vector<float>& mean = normalize.mean;
  const std::vector<float>& deviation = normalize.std;
  LAMELLA_CHECK(ShapeError,
                !mean.empty() && !deviation.empty() &&
                    (mean.size() == deviation.size() || mean.size() == 1 || deviation.size() == 1),
                op, ": Normalize has ", mean.size(), " means and ", deviation.size(),
                " stds; one for each channel, or one for all");
  const auto fits = [](float value) { return std::isfinite(value); };
  LAMELLA_CHECK(Error,
                fits(normalize.scale) && normalize.scale != 0.0f &&
                    std::all_of(mean.begin(), mean.end(), fits) &&
                    std::all_of(deviation.begin(), deviation.end(),
                                [&](float value) { return fits(value) && value != 0.0f; }),
                op, ": Normalize needs finite means, and a scale and stds that are finite and not zero");
  channels_.resize(std::max(mean.size(), deviation.size()));
  for (std::size_t c = 0; c < channels_.size(); ++c)
    for (std::size_t byte = 0; byte < 256; ++byte)
      channels_[c][byte] = (static_cast<float>(byte) / normalize.scale - mean[mean.size() == 1 ? 0 : c]) /
                           deviation[deviation.size() == 1 ? 0 : c];
}

void NormalizeTable::convert(const Image& image, MemoryFormat format, float* out) const {
  const auto channels = static_cast<std::size_t>(image.channels);
  LAMELLA_CHECK(ShapeError, channels_.size() == 1 || channels_.size() == channels,
                "Normalize: ", channels_.size(), " means or stds for an image of ", image.channels,
                " channels");
  const std::size_t pixels = image.pixels.size() / channels;
  const std::size_t pixel_step = format == MemoryFormat::ChannelsLast ? channels : 1;
  const std::size_t channel_step = format == MemoryFormat::ChannelsLast ? 1 : pixels;
  for (std::size_t c = 0; c < channels; ++c) {
    const auto& table = channels_[channels_.size() == 1 ? 0 : c];
    const std::uint8_t* from = image.pixels.data() + c;
    float* to = out + c * channel_step;
    for (std::size_t i = 0; i < pixels; ++i) to[i * pixel_step] = table[from[i * channels]];
  }
}

}  // namespace detail

Tensor to_tensor(const Image& image, const Normalize& normalize, MemoryFormat format) {
  const detail::NormalizeTable table("to_tensor", normalize);
  const auto bytes = static_cast<std::int64_t>(image.height) * image.width * image.channels;
  LAMELLA_CHECK(
      ShapeError,
      image.height >= 1 && image.width >= 1 && bytes == static_cast<std::int64_t>(image.pixels.size()),
      "to_tensor: an image of ", image.height, "x", image.width, "x", image.channels, " with ",
      image.pixels.size(), " bytes");
  Tensor tensor = empty({1, image.channels, image.height, image.width}, {.format = format});
  table.convert(image, format, tensor.mutable_data<float>());
  return tensor;
}

}  // namespace lamella::data
