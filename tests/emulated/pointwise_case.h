#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "layers/conv/cuda/pointwise/cut.h"
#include "layers/conv/cuda/pointwise/device/point_load.cuh"

/// What the tests of pointwise kernels on the emulated machine share.
namespace lamella::pointwise::checks {

/// Random numbers, small multiples of a power of two: sums of their products are exact.
class Draw {
 public:
  explicit Draw(unsigned seed) : engine_(seed) {}
  int operator()(int low, int high) {
    return low + static_cast<int>(engine_() % static_cast<unsigned>(high - low + 1));
  }
  bool one_in(int n) { return (*this)(1, n) == 1; }
  std::vector<double> numbers(std::int64_t count, int most = 4, double unit = 0.5) {
    std::vector<double> made(static_cast<std::size_t>(count));
    for (double& number : made) number = (*this)(-most, most) * unit;
    return made;
  }

 private:
  std::mt19937 engine_;
};

template <class T>
double rounded(double number) {
  return static_cast<double>(widen(narrow<T>(static_cast<float>(number))));
}
inline std::vector<float> floats(const std::vector<double>& from) { return {from.begin(), from.end()}; }

/// A matrix [rows][channels] in memory at sixteen bytes, with NaN in it and behind it.
template <class T>
class Matrix {
 public:
  Matrix(std::int64_t rows, int channels)
      : rows_(rows),
        channels_(channels),
        bytes_(static_cast<std::size_t>(rows * channels) * sizeof(T) + 16 + kBehind, 0xff) {
    data_ = reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(bytes_.data()) + 15) / 16 * 16);
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  T* data() { return data_; }
  void fill(const std::vector<double>& numbers) {
    for (std::size_t i = 0; i < numbers.size(); ++i) data_[i] = narrow<T>(static_cast<float>(numbers[i]));
  }
  double at(std::int64_t i) const { return static_cast<double>(widen(data_[i])); }
  /// What a TensorMap points to, for boxes of this shape. Lives as long as this object, which has one.
  TensorMap map(const BoxShape& box) {
    tensor_.data = reinterpret_cast<unsigned char*>(data_);
    EXPECT_EQ(rows_ % box.fold, 0);
    const std::int64_t channels = channels_ * box.fold, rows = rows_ / box.fold, all = 2 * channels * rows;
    const std::int64_t sizes[4] = {channels, rows, 1, 1}, strides[4] = {2, 2 * channels, all, all};
    std::copy_n(sizes, 4, tensor_.sizes), std::copy_n(strides, 4, tensor_.strides);
    const int extents[4] = {box.channels, box.rows, 1, 1};
    std::copy_n(extents, 4, tensor_.box);
    tensor_.swizzle = box.channels / 8 - 1;
    TensorMap map{};
    map.opaque[0] = reinterpret_cast<std::uintptr_t>(&tensor_);
    return map;
  }
  /// Each number must be what is wanted, rounded, or off by `within` units of its last place.
  void expect(const char* what, const std::vector<double>& wanted, double within = 0) const {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const double right = rounded<T>(wanted[i]), got = at(static_cast<std::int64_t>(i));
      const double off = within * std::ldexp(std::max(std::abs(right), 0.25), sizeof(T) == 2 ? -7 : -22);
      ASSERT_TRUE(std::abs(got - right) <= off)
          << what << ": row " << static_cast<std::int64_t>(i) / channels_ << ", channel "
          << static_cast<std::int64_t>(i) % channels_ << " is " << got << " instead of " << right;
    }
    const auto* const end = reinterpret_cast<const unsigned char*>(data_ + rows_ * channels_);
    for (int i = 0; i < kBehind; ++i) ASSERT_EQ(end[i], 0xff) << what << ": something was written behind it";
  }

 private:
  static constexpr int kBehind = 64;
  std::int64_t rows_;
  int channels_;
  std::vector<unsigned char> bytes_;
  T* data_ = nullptr;
  EmulatedTensor tensor_;
};

/// scale, shift and bounds of some channels, and a(x) by them, as the kernels have it.
struct Activation {
  std::vector<float> scale, shift;
  Load load;
  Activation(Draw& draw, int channels, Load kind)
      : scale(floats(draw.numbers(channels, 2, 1))),
        shift(floats(draw.numbers(channels, 2, 0.5))),
        load(kind) {}
  Factors factors() const { return {scale.data(), shift.data(), kLow, kHigh}; }
  float before(double x, int channel) const {
    const auto c = static_cast<std::size_t>(channel);
    return std::fma(scale[c], static_cast<float>(x), shift[c]);
  }
  template <class T>
  double apply(double x, int channel) const {
    if (load == Load::Plain) return x;
    const float v = before(x, channel);
    return rounded<T>(
        static_cast<double>(load == Load::Clamp ? std::clamp(v, kLow, kHigh) : depthwise::hardswish(v)));
  }
  static constexpr float kLow = -1, kHigh = 2.5F;
};

}  // namespace lamella::pointwise::checks
