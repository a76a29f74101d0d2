#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/data/image.h"
#include "lamella/tensor/tensor.h"

namespace lamella::data {

/// Random numbers for one example, batch or order: Philox 4x32-10 indexed by (seed, epoch, index, purpose).
/// They depend on nothing else, so it does not matter which thread draws them, or when.
class LAMELLA_API Random {
 public:
  /// What the numbers are for; different purposes never share numbers.
  enum class Purpose : std::uint8_t { Example = 1, Batch = 2, Order = 3, Split = 4 };
  /// The sequence of example, batch or order `index` in an epoch.
  Random(std::uint64_t seed, std::uint64_t epoch, std::uint64_t index, Purpose purpose = Purpose::Example);

  /// 32 random bits.
  std::uint32_t bits();
  /// In [0, 1), 53 bits.
  double uniform();
  /// In [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// In [0, count), without bias. Throws ShapeError for a count below 1.
  std::int64_t below(std::int64_t count);
  /// True with probability `p`.
  bool chance(double p) { return uniform() < p; }
  /// Standard normal (Box-Muller).
  double normal();
  /// Beta(alpha, alpha) (G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", 2000).
  /// Throws Error unless alpha is positive and finite.
  double beta(double alpha);

 private:
  double log_gamma_variate(double shape);

  std::uint64_t seed_, index_, high_;
  std::array<std::uint32_t, 4> lanes_{};
  int used_ = 4;
};

/// A change of one image; drawn numbers come from `random`. Any function of this form will do.
using Transform = std::function<Image(Image image, Random& random)>;

/// Adds `padding` black pixels on every side, then takes a square (or height x width) at random.
class LAMELLA_API RandomCrop {
 public:
  /// A square of `size` pixels.
  explicit RandomCrop(int size, int padding = 0) : RandomCrop(size, size, padding) {}
  /// Sizes in pixels. Throws ShapeError for sizes below 1, more than kMaxPixels, or negative padding.
  RandomCrop(int height, int width, int padding);
  /// Throws ShapeError if the padded image is smaller than the crop.
  Image operator()(Image image, Random& random) const;

 private:
  int height_, width_, padding_;
};

/// Takes the square of `size` pixels in the middle; smaller images are padded with black. Rounds as
/// torchvision does.
class LAMELLA_API CenterCrop {
 public:
  /// A square of `size` pixels.
  explicit CenterCrop(int size) : CenterCrop(size, size) {}
  /// Sizes in pixels. Throws ShapeError for sizes below 1 or more than kMaxPixels.
  CenterCrop(int height, int width);
  /// Draws nothing.
  Image operator()(Image image, Random& random) const;

 private:
  int height_, width_;
};

/// Bilinear; when it shrinks, the triangle filter is widened by the scale, so that every source pixel counts
/// (as Pillow and torchvision do). With one size, the shorter side gets it and the aspect ratio stays.
class LAMELLA_API Resize {
 public:
  /// In pixels. Throws ShapeError for a size below 1 or more than kMaxPixels.
  explicit Resize(int shorter_side);
  /// In pixels. Throws ShapeError for sizes below 1 or more than kMaxPixels.
  Resize(int height, int width);
  /// Draws nothing. Throws ShapeError if the result had more than kMaxPixels.
  Image operator()(Image image, Random& random) const;

 private:
  int height_, width_;  // width_ 0: height_ is the shorter side
};

/// The function behind Resize. Throws ShapeError for sizes below 1 or more than kMaxPixels.
LAMELLA_API Image resize(const Image& image, int height, int width);

/// Takes a part of the image at random, an area of `scale` times the whole with aspect ratio in `ratio`
/// (log-uniform), and resizes it to a square. After ten parts that do not fit, takes the largest centred one
/// with a ratio in range (C. Szegedy et al., "Going deeper with convolutions", 2015; torchvision's rule).
class LAMELLA_API RandomResizedCrop {
 public:
  /// To `size` x `size` pixels. Throws ShapeError for sizes as Resize, and unless the ranges are positive
  /// with the smaller number first.
  explicit RandomResizedCrop(int size, std::array<double, 2> scale = {0.08, 1.0},
                             std::array<double, 2> ratio = {3.0 / 4.0, 4.0 / 3.0});
  /// The part, resized.
  Image operator()(Image image, Random& random) const;

 private:
  int size_;
  std::array<double, 2> scale_, ratio_;
};

/// Mirrors left and right with probability `p`.
class LAMELLA_API RandomHorizontalFlip {
 public:
  /// Throws Error unless p is in [0, 1].
  explicit RandomHorizontalFlip(double p = 0.5);
  /// The image, or its mirror image.
  Image operator()(Image image, Random& random) const;

 private:
  double p_;
};

/// Covers a square of `size` pixels, whose centre is any pixel: at the borders less of it is left (T.
/// DeVries, G. W. Taylor, "Improved regularization of convolutional neural networks with cutout", 2017).
class LAMELLA_API Cutout {
 public:
  /// `fill`: a byte for each channel, or one for all; the paper's is the data's mean. Throws ShapeError for a
  /// size below 1 or more than kMaxPixels, or a fill of neither 1 nor 3 bytes.
  explicit Cutout(int size, std::vector<std::uint8_t> fill = {0});
  /// Throws ShapeError if there are as many bytes of fill as neither 1 nor the image's channels.
  Image operator()(Image image, Random& random) const;

 private:
  int size_;
  std::vector<std::uint8_t> fill_;
};

/// How bytes become numbers, at the end of all transforms: (byte / scale - mean) / std, in float32, for each
/// channel. A single mean or std serves all channels; the default maps 0 … 255 to 0 … 1.
struct Normalize {
  std::vector<float> mean = {0.0f};  ///< in units of byte / scale
  std::vector<float> std = {1.0f};   ///< likewise
  float scale = 255.0f;              ///< what bytes are divided by first
};

/// One image as a float32 tensor [1,C,H,W], for prediction. Throws ShapeError if mean or std has neither 1
/// nor C numbers, Error if a std or the scale is zero or not finite.
LAMELLA_API Tensor to_tensor(const Image& image, const Normalize& normalize = {},
                             MemoryFormat format = MemoryFormat::Contiguous);

/// A batch: images [N,C,H,W] float32; labels [N] int64, or [N,classes] float32 probabilities after a Mixup.
struct Batch {
  Tensor images;  ///< [N,C,H,W] float32
  Tensor labels;  ///< [N] int64 or [N,classes] float32
};

/// A change of a whole batch; drawn numbers come from `random`.
using BatchTransform = std::function<Batch(Batch batch, Random& random)>;

/// Mixes every image with its predecessor in the batch (the first with the last): x * image + (1 - x) *
/// predecessor, labels likewise, as probabilities; one x for the batch, from Beta(alpha, alpha) (H. Zhang et
/// al., "mixup: Beyond empirical risk minimization", 2018). Alpha 0 only turns labels into probabilities.
class LAMELLA_API Mixup {
 public:
  /// Throws Error unless alpha is finite and not negative, and classes >= 1.
  Mixup(double alpha, std::int64_t classes);
  /// Takes float32 images and int64 labels [N] on the CPU, and gives a new batch. Throws ShapeError for a
  /// label out of range or sizes that do not fit, DTypeError, DeviceError; Error if undefined.
  Batch operator()(Batch batch, Random& random) const;

 private:
  double alpha_;
  std::int64_t classes_;
};

}  // namespace lamella::data
