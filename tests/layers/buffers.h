#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lamella/core/dtype.h"
#include "layers/depthwise_conv2d/kernels.h"

namespace lamella::test {

enum class Layout : int { Planar, ChannelsLast, PaddedPlanar, PaddedChannelsLast, WidthOutermost };
inline constexpr int kLayouts = 5;

inline double epsilon(DType dtype) {
  switch (dtype) {
    case DType::Float64:
      return std::numeric_limits<double>::epsilon();
    case DType::BFloat16:
      return 0x1p-8;
    case DType::Float16:
      return 0x1p-11;
    default:
      return std::numeric_limits<float>::epsilon();
  }
}

/// A strided tensor over plain storage, with a guard band in front of it, behind it and in every gap.
class Buffer {
 public:
  Buffer(DType dtype, const Shape& shape, Layout layout = Layout::Planar, std::int64_t misalign = 1)
      : dtype_(dtype), shape_(shape) {
    const std::int64_t c = shape.size() > 1 ? shape[1] : 1, h = shape.size() > 2 ? shape[2] : 1;
    const std::int64_t n = shape[0], w = shape.size() > 3 ? shape[3] : 1;
    std::int64_t s[4];
    switch (layout) {
      case Layout::Planar:
        s[3] = 1, s[2] = w, s[1] = w * h, s[0] = s[1] * c;
        break;
      case Layout::ChannelsLast:
        s[1] = 1, s[3] = c, s[2] = c * w, s[0] = s[2] * h;
        break;
      case Layout::PaddedPlanar:
        s[3] = 1, s[2] = w + 3, s[1] = s[2] * h + 5, s[0] = s[1] * c + 1;
        break;
      case Layout::PaddedChannelsLast:
        s[1] = 1, s[3] = c + 2, s[2] = s[3] * w + 3, s[0] = s[2] * h + 7;
        break;
      case Layout::WidthOutermost:
        s[0] = 1, s[1] = n, s[2] = n * c, s[3] = s[2] * h;
        break;
    }
    for (int axis = 0; axis < shape.size(); ++axis) strides_.push_back(s[axis]);
    std::int64_t last = 0;
    for (int axis = 0; axis < shape.size(); ++axis) last += (shape[axis] - 1) * strides_[axis];
    first_ = kGuard + misalign;
    bytes_.assign(
        static_cast<std::size_t>(first_ + std::max<std::int64_t>(last + 1, 0) + kGuard) * size_of(dtype),
        kPattern);
  }

  std::int64_t numel() const { return shape_.product(); }
  /// Of the i-th element in logical order.
  std::int64_t offset(std::int64_t i) const {
    std::int64_t at = first_;
    for (int axis = shape_.size() - 1; axis >= 0; --axis) {
      at += i % shape_[axis] * strides_[axis];
      i /= shape_[axis];
    }
    return at;
  }
  double get(std::int64_t i) const {
    const std::byte* at = bytes_.data() + static_cast<std::size_t>(offset(i)) * size_of(dtype_);
    switch (dtype_) {
      case DType::Float64:
        return read<double>(at);
      case DType::BFloat16:
        return read<BFloat16>(at);
      case DType::Float16:
        return read<Float16>(at);
      default:
        return read<float>(at);
    }
  }
  void set(std::int64_t i, double value) {
    std::byte* at = bytes_.data() + static_cast<std::size_t>(offset(i)) * size_of(dtype_);
    switch (dtype_) {
      case DType::Float64:
        return write(at, value);
      case DType::BFloat16:
        return write(at, BFloat16(static_cast<float>(value)));
      case DType::Float16:
        return write(at, Float16(static_cast<float>(value)));
      default:
        return write(at, static_cast<float>(value));
    }
  }
  Buffer& fill(double value) {
    for (std::int64_t i = 0; i < numel(); ++i) set(i, value);
    return *this;
  }
  Buffer& randomize(std::uint64_t seed) {
    std::mt19937_64 engine(seed);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    for (std::int64_t i = 0; i < numel(); ++i) set(i, uniform(engine));
    return *this;
  }
  std::vector<double> values() const {
    std::vector<double> result;
    for (std::int64_t i = 0; i < numel(); ++i) result.push_back(get(i));
    return result;
  }
  /// Whether every byte that belongs to no element is untouched.
  bool guards_hold() const {
    std::vector<std::byte> rest = bytes_;
    for (std::int64_t i = 0; i < numel(); ++i) {
      std::memset(rest.data() + static_cast<std::size_t>(offset(i)) * size_of(dtype_),
                  static_cast<int>(kPattern), size_of(dtype_));
    }
    for (const std::byte b : rest) {
      if (b != kPattern) return false;
    }
    return true;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  DType dtype() const { return dtype_; }

  detail::TensorView view() {
    return {bytes_.data() + static_cast<std::size_t>(first_) * size_of(dtype_), shape_, strides_, dtype_, {}};
  }

 private:
  // A pattern that is a NaN in every type, so that reading a gap into a result shows.
  static constexpr std::byte kPattern{0xff};
  static constexpr std::int64_t kGuard = 64;
  template <class T>
  static double read(const std::byte* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  }
  template <class T>
  static void write(std::byte* at, T value) {
    std::memcpy(at, &value, sizeof value);
  }

  DType dtype_;
  Shape shape_;
  Strides strides_;
  std::int64_t first_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace lamella::test
