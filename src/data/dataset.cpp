#include "lamella/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "core/check.h"
#include "data/shuffle.h"

namespace lamella::data {
namespace {

void check_index(const char* what, std::int64_t index, std::int64_t size) {
  LAMELLA_CHECK(ShapeError, index >= 0 && index < size, what, ": example ", index, " of ", size,
                "; must be in [0, ", size, ")");
}

class Subset final : public Dataset {
 public:
  Subset(DatasetPtr whole, std::vector<std::int64_t> indices)
      : whole_(std::move(whole)), indices_(std::move(indices)) {
    for (const std::int64_t index : indices_) check_index("subset", index, whole_->size());
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(indices_.size()); }
  const std::vector<std::string>& classes() const override { return whole_->classes(); }
  Example get(std::int64_t index) const override { return whole_->get(original(index)); }
  std::int64_t label(std::int64_t index) const override { return whole_->label(original(index)); }
  std::string describe(std::int64_t index) const override { return whole_->describe(original(index)); }

 private:
  std::int64_t original(std::int64_t index) const {
    check_index("subset", index, size());
    return indices_[static_cast<std::size_t>(index)];
  }

  DatasetPtr whole_;
  std::vector<std::int64_t> indices_;
};

class MemoryDataset final : public Dataset {
 public:
  MemoryDataset(std::vector<std::uint8_t> pixels, int height, int width, int channels,
                std::vector<std::int64_t> labels, std::vector<std::string> classes)
      : pixels_(std::move(pixels)),
        height_(height),
        width_(width),
        channels_(channels),
        labels_(std::move(labels)),
        classes_(std::move(classes)) {
    const Image like(height, width, channels);
    image_bytes_ = like.pixels.size();
    LAMELLA_CHECK(ShapeError,
                  pixels_.size() / image_bytes_ == labels_.size() && pixels_.size() % image_bytes_ == 0,
                  "memory_dataset: ", pixels_.size(), " bytes are not ", labels_.size(),
                  " images (one for each label) of ", height, "x", width, "x", channels);
    if (classes_.empty() && !labels_.empty()) name_classes();
    for (std::size_t i = 0; i < labels_.size(); ++i)
      LAMELLA_CHECK(ShapeError, labels_[i] >= 0 && labels_[i] < static_cast<std::int64_t>(classes_.size()),
                    "memory_dataset: label ", labels_[i], " of example ", i, " is out of range; there are ",
                    classes_.size(), " classes");
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  Example get(std::int64_t index) const override {
    Example example;
    example.label = label(index);
    example.image.height = height_;
    example.image.width = width_;
    example.image.channels = channels_;
    const std::uint8_t* begin = pixels_.data() + static_cast<std::size_t>(index) * image_bytes_;
    example.image.pixels.assign(begin, begin + image_bytes_);
    return example;
  }
  std::int64_t label(std::int64_t index) const override {
    check_index("memory_dataset", index, size());
    return labels_[static_cast<std::size_t>(index)];
  }

 private:
  void name_classes() {
    constexpr std::int64_t kMost = 1 << 20;
    const std::int64_t largest = *std::max_element(labels_.begin(), labels_.end());
    LAMELLA_CHECK(ShapeError, largest < kMost, "memory_dataset: label ", largest,
                  " without class names; at most ", kMost - 1);
    for (std::int64_t i = 0; i <= largest; ++i) classes_.push_back(std::to_string(i));
  }

  std::vector<std::uint8_t> pixels_;
  int height_, width_, channels_;
  std::vector<std::int64_t> labels_;
  std::vector<std::string> classes_;
  std::size_t image_bytes_ = 0;
};

}  // namespace

std::string Dataset::describe(std::int64_t index) const { return "example " + std::to_string(index); }

DatasetPtr subset(DatasetPtr dataset, std::vector<std::int64_t> indices) {
  LAMELLA_CHECK(Error, dataset != nullptr, "subset: the dataset is null");
  return std::make_shared<Subset>(std::move(dataset), std::move(indices));
}

std::pair<DatasetPtr, DatasetPtr> split(DatasetPtr dataset, double fraction, std::uint64_t seed) {
  LAMELLA_CHECK(Error, dataset != nullptr, "split: the dataset is null");
  LAMELLA_CHECK(Error, fraction >= 0.0 && fraction <= 1.0, "split: fraction ", fraction,
                "; must be in [0, 1]");
  const std::int64_t size = dataset->size();
  const auto cut = static_cast<std::ptrdiff_t>(std::llround(fraction * static_cast<double>(size)));
  const auto order = detail::shuffled(size, Random(seed, 0, 0, Random::Purpose::Split));
  std::vector<std::int64_t> first(order.begin(), order.begin() + cut),
      second(order.begin() + cut, order.end());
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  return {subset(dataset, std::move(first)), subset(dataset, std::move(second))};
}

DatasetPtr memory_dataset(std::vector<std::uint8_t> pixels, int height, int width, int channels,
                          std::vector<std::int64_t> labels, std::vector<std::string> classes) {
  return std::make_shared<MemoryDataset>(std::move(pixels), height, width, channels, std::move(labels),
                                         std::move(classes));
}

DatasetPtr memory_dataset(const Tensor& images, const Tensor& labels, std::vector<std::string> classes) {
  LAMELLA_CHECK(Error, images.defined() && labels.defined(),
                "memory_dataset: images or labels are undefined");
  LAMELLA_CHECK(DeviceError, images.device().is_cpu() && labels.device().is_cpu(), "memory_dataset: images ",
                images.describe(), " and labels ", labels.describe(), " must both be on the CPU");
  LAMELLA_CHECK(DTypeError, images.dtype() == uint8 && (labels.dtype() == int64 || labels.dtype() == uint8),
                "memory_dataset: images ", images.describe(), " must be uint8, labels ", labels.describe(),
                " int64 or uint8");
  const Tensor four = images.dim() == 3 ? images.unsqueeze(1) : images;
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  LAMELLA_CHECK(ShapeError,
                four.dim() == 4 && (four.size(1) == 1 || four.size(1) == 3) && four.size(2) <= kMost &&
                    four.size(3) <= kMost,
                "memory_dataset: images ", images.describe(),
                " must be [N,C,H,W] with 1 or 3 channels, or [N,H,W]");
  LAMELLA_CHECK(ShapeError, labels.dim() == 1 && labels.size(0) == four.size(0), "memory_dataset: labels ",
                labels.describe(), " must be [", four.size(0), "], one for each image of ",
                images.describe());
  return memory_dataset(four.permute({0, 2, 3, 1}).to_vector<std::uint8_t>(), static_cast<int>(four.size(2)),
                        static_cast<int>(four.size(3)), static_cast<int>(four.size(1)),
                        labels.to_vector<std::int64_t>(), std::move(classes));
}

}  // namespace lamella::data
