#include "lamella/data/transforms.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lamella/core/error.h"
#include "lamella/tensor/create.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::data {
namespace {

using test::pattern;

const std::filesystem::path kGolden = std::filesystem::path(LAMELLA_SOURCE_DIR) / "tests/data/golden";

// A pixel's value tells where it came from; black is outside.
Image coordinates(int height, int width) {
  Image image(height, width, 3);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      image.row(y)[3 * x] = static_cast<std::uint8_t>(y + 1);
      image.row(y)[3 * x + 1] = static_cast<std::uint8_t>(x + 1);
      image.row(y)[3 * x + 2] = 255;
    }
  return image;
}

// Where the top left of `part` lies in `whole` = coordinates(…), by its pixels, checking every one.
std::pair<int, int> origin(const Image& part, int whole_height, int whole_width) {
  int top = 1000, left = 1000;
  for (int y = 0; y < part.height; ++y)
    for (int x = 0; x < part.width; ++x)
      if (part.row(y)[3 * x + 2] == 255)
        top = part.row(y)[3 * x] - 1 - y, left = part.row(y)[3 * x + 1] - 1 - x;
  for (int y = 0; y < part.height; ++y)
    for (int x = 0; x < part.width; ++x) {
      const std::uint8_t* pixel = part.row(y) + 3 * x;
      const bool inside = top + y >= 0 && top + y < whole_height && left + x >= 0 && left + x < whole_width;
      EXPECT_EQ(pixel[0], inside ? top + y + 1 : 0);
      EXPECT_EQ(pixel[1], inside ? left + x + 1 : 0);
      EXPECT_EQ(pixel[2], inside ? 255 : 0);
    }
  return {top, left};
}

TEST(RandomCropTest, reaches_every_place_and_pads_with_black) {
  const RandomCrop crop(4, 2);
  std::set<std::pair<int, int>> places;
  for (std::uint64_t i = 0; i < 400; ++i) {
    Random random(1, 0, i);
    const Image part = crop(coordinates(4, 5), random);
    ASSERT_EQ(part.height, 4);
    ASSERT_EQ(part.width, 4);
    places.insert(origin(part, 4, 5));
  }
  EXPECT_EQ(places.size(), 5u * 6u);
  EXPECT_EQ(*places.begin(), std::pair(-2, -2));
  EXPECT_EQ(*places.rbegin(), std::pair(2, 3));
}

TEST(RandomCropTest, refuses_what_is_too_large) {
  Random random(1, 0, 0);
  EXPECT_THROW_WITH(RandomCrop(7, 1)(coordinates(4, 9), random), ShapeError,
                    "a crop of 7x7 is larger than an image of 4x9");
  EXPECT_NO_THROW(RandomCrop(6, 1)(coordinates(4, 9), random));
  EXPECT_THROW(RandomCrop(0), ShapeError);
  EXPECT_THROW(RandomCrop(4, -1), ShapeError);
}

TEST(CenterCropTest, rounds_as_torchvision_does) {
  Random random(1, 0, 0);
  // torchvision.transforms.functional.center_crop: int(round((size - wanted) / 2.0)), halves to even.
  EXPECT_EQ(origin(CenterCrop(4)(coordinates(5, 7), random), 5, 7), std::pair(0, 2));
  EXPECT_EQ(origin(CenterCrop(4)(coordinates(6, 9), random), 6, 9), std::pair(1, 2));
  EXPECT_EQ(origin(CenterCrop(3, 5)(coordinates(3, 5), random), 3, 5), std::pair(0, 0));
  // Smaller images are padded by (wanted - size) // 2 in front.
  EXPECT_EQ(origin(CenterCrop(4)(coordinates(3, 9), random), 3, 9), std::pair(0, 2));
  EXPECT_EQ(origin(CenterCrop(8)(coordinates(3, 2), random), 3, 2), std::pair(-2, -3));
  EXPECT_THROW(CenterCrop(-1), ShapeError);
}

TEST(FlipTest, mirrors_rows) {
  Random random(1, 0, 0);
  for (const int channels : {1, 3})
    for (const int width : {1, 2, 5}) {
      const Image image = pattern(3, width, 0, channels);
      const Image mirrored = RandomHorizontalFlip(1.0)(image, random);
      for (int y = 0; y < 3; ++y)
        for (int x = 0; x < width; ++x)
          for (int c = 0; c < channels; ++c)
            EXPECT_EQ(mirrored.row(y)[x * channels + c], image.row(y)[(width - 1 - x) * channels + c]);
      EXPECT_EQ(RandomHorizontalFlip(0.0)(image, random), image);
    }
  int flips = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    Random each(5, 0, i);
    flips += RandomHorizontalFlip(0.25)(coordinates(1, 2), each).pixels[1] == 2 ? 1 : 0;
  }
  EXPECT_NEAR(flips, 500, 5 * std::sqrt(2000 * 0.25 * 0.75));
  EXPECT_THROW(RandomHorizontalFlip(1.5), Error);
}

TEST(CutoutTest, covers_a_square_around_any_pixel) {
  const Image image = pattern(5, 6, 0, 3);
  const std::vector<std::uint8_t> fill{251, 252, 253};
  std::set<std::pair<int, int>> centres;
  for (std::uint64_t i = 0; i < 500; ++i) {
    Random random(3, 0, i);
    const Image cut = Cutout(3, fill)(image, random);
    int low = 5, high = -1, first = 6, last = -1, covered = 0;
    for (int y = 0; y < 5; ++y)
      for (int x = 0; x < 6; ++x) {
        const std::uint8_t* const pixel = cut.row(y) + x * 3;
        if (!std::equal(fill.begin(), fill.end(), pixel)) {
          EXPECT_TRUE(std::equal(pixel, pixel + 3, image.row(y) + x * 3)) << y << ", " << x;
          continue;
        }
        low = std::min(low, y), high = std::max(high, y), first = std::min(first, x),
        last = std::max(last, x);
        ++covered;
      }
    EXPECT_EQ(covered, (high - low + 1) * (last - first + 1)) << "not a rectangle";
    // At a border one row or column of the three lies outside.
    EXPECT_TRUE(high - low == 2 || (high - low == 1 && (low == 0 || high == 4))) << low << " to " << high;
    EXPECT_TRUE(last - first == 2 || (last - first == 1 && (first == 0 || last == 5)));
    centres.insert({low == 0 && high == 1 ? 0 : low + 1, first == 0 && last == 1 ? 0 : first + 1});
  }
  EXPECT_EQ(centres.size(), 5u * 6u);
}

TEST(CutoutTest, covers_all_of_a_small_image_and_refuses_what_does_not_fit) {
  Random random(1, 0, 0);
  EXPECT_EQ(Cutout(9, {7})(pattern(2, 3, 0, 3), random), Image(2, 3, 3, 7));
  EXPECT_THROW(Cutout(0), ShapeError);
  EXPECT_THROW(Cutout(4, {1, 2}), ShapeError);
  EXPECT_THROW_WITH(Cutout(4, {1, 2, 3})(Image(4, 4, 1), random), ShapeError,
                    "a fill of 3 bytes for an image of 1 channels");
}

// The filter as it is defined, in double and with no rounding in between.
Image slow_resize(const Image& image, int height, int width) {
  const auto weight = [](int in, int out, int i, int k) {
    const double scale = static_cast<double>(in) / out, radius = std::max(scale, 1.0);
    return std::max(0.0, 1.0 - std::abs((k + 0.5 - (i + 0.5) * scale) / radius));
  };
  Image result(height, width, image.channels);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < image.channels; ++c) {
        double sum = 0, weights = 0;
        for (int v = 0; v < image.height; ++v)
          for (int u = 0; u < image.width; ++u) {
            const double w = weight(image.height, height, y, v) * weight(image.width, width, x, u);
            sum += w * image.row(v)[u * image.channels + c];
            weights += w;
          }
        result.row(y)[x * image.channels + c] = static_cast<std::uint8_t>(std::lround(sum / weights));
      }
  return result;
}

int largest_difference(const Image& a, const Image& b) {
  if (a.height != b.height || a.width != b.width || a.pixels.size() != b.pixels.size()) return 1000;
  int largest = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i)
    largest = std::max(largest, std::abs(int{a.pixels[i]} - int{b.pixels[i]}));
  return largest;
}

TEST(ResizeTest, gives_what_pillow_gives) {
  const Image photo = read_image(kGolden / "photo.png");
  for (const auto& [height, width] : {std::pair{24, 24}, {80, 100}, {13, 90}, {47, 20}, {1, 1}})
    // Bytes between the two directions, of which either may come first.
    EXPECT_LE(largest_difference(resize(photo, height, width),
                                 read_image(kGolden / ("resized_" + std::to_string(height) + "x" +
                                                       std::to_string(width) + ".png"))),
              1)
        << height << "x" << width;
}

RC_GTEST_PROP(ResizeTest, gives_what_the_definition_gives, ()) {
  const auto size = [] { return *rc::gen::inRange(1, 14); };
  const Image image = pattern(size(), size(), *rc::gen::inRange(0, 100), *rc::gen::element(1, 3));
  const int height = size(), width = size();
  // One rounding to bytes between the two directions, one after.
  RC_ASSERT(largest_difference(resize(image, height, width), slow_resize(image, height, width)) <= 1);
}

TEST(ResizeTest, keeps_the_aspect_ratio_of_the_shorter_side) {
  Random random(1, 0, 0);
  const auto size = [&](int shorter, int height, int width) {
    const Image image = Resize(shorter)(Image(height, width, 3), random);
    return std::pair{image.height, image.width};
  };
  // torchvision: int(size * long / short).
  EXPECT_EQ(size(256, 375, 500), std::pair(256, 341));
  EXPECT_EQ(size(256, 500, 375), std::pair(341, 256));
  EXPECT_EQ(size(10, 4, 4), std::pair(10, 10));
  EXPECT_EQ(size(4, 4, 9), std::pair(4, 9));
  const Image both = Resize(3, 7)(Image(5, 5, 1), random);
  EXPECT_EQ(both.height, 3);
  EXPECT_EQ(both.width, 7);
  EXPECT_THROW(Resize(0), ShapeError);
  EXPECT_THROW(Resize(4, -1), ShapeError);
  EXPECT_THROW(Resize(60000), ShapeError);
  EXPECT_THROW_WITH(Resize(8000)(Image(1, 9000, 1), random), ShapeError, "more than");
  EXPECT_THROW(resize(Image(2, 2, 3), 0, 2), ShapeError);
}

TEST(RandomResizedCropTest, takes_parts_of_the_right_size) {
  // A picture whose red rises by one each row and green by one each column tells size and place of the part.
  constexpr int kSide = 200;
  Image ramp(kSide, kSide, 3);
  for (int y = 0; y < kSide; ++y)
    for (int x = 0; x < kSide; ++x)
      ramp.row(y)[3 * x] = static_cast<std::uint8_t>(y),
                      ramp.row(y)[3 * x + 1] = static_cast<std::uint8_t>(x);
  const RandomResizedCrop crop(50);
  double least = 1e9, most = 0, log_ratios = 0;
  constexpr std::uint64_t kDraws = 500;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    Random random(3, 0, i);
    const Image part = crop(ramp, random);
    ASSERT_EQ(part.height, 50);
    ASSERT_EQ(part.width, 50);
    // Away from the border the filter keeps a ramp: 40 output pixels apart is 0.8 of the part.
    const double high = (part.row(45)[0] - part.row(5)[0]) / 0.8;
    const double wide = (part.row(0)[3 * 45 + 1] - part.row(0)[3 * 5 + 1]) / 0.8;
    const double area = high * wide / (kSide * kSide), ratio = wide / high;
    EXPECT_GT(area, 0.08 * 0.9);
    EXPECT_LT(area, 1.03);
    EXPECT_GT(ratio, 0.75 * 0.94);
    EXPECT_LT(ratio, 4.0 / 3.0 * 1.06);
    least = std::min(least, area), most = std::max(most, area);
    log_ratios += std::log(ratio);
  }
  EXPECT_LT(least, 0.12);
  EXPECT_GT(most, 0.9);
  EXPECT_NEAR(log_ratios / kDraws, 0.0, 0.04);
}

TEST(RandomResizedCropTest, falls_back_to_the_centre) {
  // No part with ratio 3/4 … 4/3 has the whole area of a strip; the largest in the middle is taken.
  Random random(1, 0, 0);
  Image strip(10, 100, 3);
  for (int y = 0; y < 10; ++y)
    for (int x = 0; x < 100; ++x) strip.row(y)[3 * x] = static_cast<std::uint8_t>(x);
  const Image part = RandomResizedCrop(13, {1.0, 1.0})(strip, random);
  // 13 columns (10 * 4/3, rounded) from (100 - 13) / 2 = 43 on, kept as they are across.
  for (int x = 0; x < 13; ++x) EXPECT_EQ(part.row(6)[3 * x], 43 + x);
  EXPECT_NO_THROW(RandomResizedCrop(4)(Image(1, 1, 3), random));
  EXPECT_NO_THROW(RandomResizedCrop(4)(Image(1, 500, 1), random));
  EXPECT_THROW(RandomResizedCrop(0), ShapeError);
  EXPECT_THROW(RandomResizedCrop(8, {0.5, 0.4}), ShapeError);
  EXPECT_THROW(RandomResizedCrop(8, {0.0, 1.0}), ShapeError);
}

TEST(NormalizeTest, rounds_as_float32_arithmetic_does) {
  Image image(2, 3, 3);
  for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * 13);
  const Normalize normalize{.mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}};
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Tensor tensor = to_tensor(image, normalize, format);
    EXPECT_EQ(tensor.shape(), (Shape{1, 3, 2, 3}));
    EXPECT_TRUE(tensor.is_contiguous(format));
    const auto values = tensor.to_vector<float>();
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t i = 0; i < 6; ++i)
        EXPECT_EQ(
            values[c * 6 + i],
            (static_cast<float>(image.pixels[3 * i + c]) / 255.0f - normalize.mean[c]) / normalize.std[c]);
  }
  EXPECT_EQ(to_tensor(Image(1, 1, 1, 16), {.scale = 16.0f}).item(), 1.0);
  EXPECT_EQ(to_tensor(Image(1, 1, 3, 255), {.mean = {0.5f}, .std = {0.5f}}).to_vector<float>(),
            std::vector<float>(3, 1.0f));
  EXPECT_EQ(to_tensor(Image(1, 1, 3, 255), {.mean = {0, 1, 2}, .std = {0.5f}}).to_vector<float>(),
            (std::vector<float>{2, 0, -2}));
}

TEST(NormalizeTest, refuses_numbers_that_cannot_be_meant) {
  EXPECT_THROW_WITH(to_tensor(Image(1, 1, 1), {.mean = {0, 0, 0}}), ShapeError,
                    "3 means or stds for an image of 1");
  EXPECT_THROW(to_tensor(Image(1, 1, 3), {.mean = {0, 0}, .std = {1, 1, 1}}), ShapeError);
  EXPECT_THROW(to_tensor(Image(1, 1, 3), {.mean = {}}), ShapeError);
  EXPECT_THROW(to_tensor(Image(1, 1, 3), {.std = {0}}), Error);
  EXPECT_THROW(to_tensor(Image(1, 1, 3), {.std = {NAN}}), Error);
  EXPECT_THROW(to_tensor(Image(1, 1, 3), {.scale = 0}), Error);
  EXPECT_THROW(to_tensor(Image()), ShapeError);
}

TEST(MixupTest, mixes_each_image_with_its_predecessor) {
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Tensor images = arange(0, 3 * 2 * 2 * 2).reshape({3, 2, 2, 2}).contiguous(format);
    const Tensor labels = tensor({2, 0, 0}).to(int64);
    Random random(4, 0, 0, Random::Purpose::Batch), again = random;
    const Batch mixed = Mixup(0.4, 3)({images, labels}, random);
    const float x = static_cast<float>(again.beta(0.4));
    ASSERT_GT(x, 0.0f);
    ASSERT_LT(x, 1.0f);
    EXPECT_EQ(mixed.labels.shape(), (Shape{3, 3}));
    EXPECT_TRUE(mixed.images.is_contiguous(format));
    const auto probabilities = mixed.labels.to_vector<float>();
    const std::vector<float> expected{1 - x, 0, x, x, 0, 1 - x, 1, 0, 0};
    for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(probabilities[i], expected[i], 1e-6f) << i;
    const auto before = images.to_vector<float>(), after = mixed.images.to_vector<float>();
    for (std::size_t i = 0; i < 24; ++i)
      EXPECT_NEAR(after[i], x * before[i] + (1 - x) * before[(i + 16) % 24], 24 * 3e-7f) << i;
    EXPECT_EQ(before[23], 23.0f) << "the batch given stays as it was";
  }
}

TEST(MixupTest, checks_its_input) {
  Random random(4, 0, 0);
  const Tensor images = zeros({2, 1, 1, 1});
  const Batch plain = Mixup(0, 2)({images, tensor({1, 0}).to(int64)}, random);
  EXPECT_EQ(plain.labels.to_vector<float>(), (std::vector<float>{0, 1, 1, 0}));
  EXPECT_EQ(Mixup(1.0, 2)({zeros({1, 1, 1, 1}), tensor({1}).to(int64)}, random).labels.to_vector<float>(),
            (std::vector<float>{0, 1}));
  EXPECT_THROW_WITH(Mixup(0.2, 2)({images, tensor({1, 2}).to(int64)}, random), ShapeError,
                    "label 2 at position 1");
  EXPECT_THROW(Mixup(0.2, 2)({images, tensor({1, -1}).to(int64)}, random), ShapeError);
  EXPECT_THROW(Mixup(0.2, 2)({images, tensor({1, 0})}, random), DTypeError);
  EXPECT_THROW(Mixup(0.2, 2)({images, tensor({1}).to(int64)}, random), ShapeError);
  EXPECT_THROW(Mixup(-1, 2), Error);
  EXPECT_THROW(Mixup(1, 0), Error);
}

}  // namespace
}  // namespace lamella::data
