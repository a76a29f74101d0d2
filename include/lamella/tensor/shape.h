#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "lamella/core/export.h"

namespace lamella {

/// Most axes a tensor may have.
inline constexpr int kMaxAxes = 8;

/// Up to kMaxAxes 64-bit numbers, one per axis: a shape, or strides counted in elements. A plain value: no
/// heap, passed to kernels as it is.
class LAMELLA_API Dims {
 public:
  constexpr Dims() = default;
  /// Throws ShapeError for more than kMaxAxes numbers.
  Dims(std::initializer_list<std::int64_t> values);
  /// Throws ShapeError for more than kMaxAxes numbers.
  explicit Dims(std::span<const std::int64_t> values);
  /// Throws ShapeError for more than kMaxAxes numbers.
  explicit Dims(const std::vector<std::int64_t>& values) : Dims(std::span<const std::int64_t>(values)) {}
  /// `count` times `value`. Throws ShapeError unless 0 <= count <= kMaxAxes.
  static Dims filled(int count, std::int64_t value);

  /// How many numbers there are.
  constexpr int size() const { return size_; }
  /// True if there are none.
  constexpr bool empty() const { return size_ == 0; }
  /// The number of one axis, from 0; not checked.
  constexpr std::int64_t operator[](int axis) const { return values_[static_cast<std::size_t>(axis)]; }
  /// The same for writing.
  constexpr std::int64_t& operator[](int axis) { return values_[static_cast<std::size_t>(axis)]; }
  /// For range-based loops.
  constexpr const std::int64_t* begin() const { return values_.data(); }
  /// Behind the last number.
  constexpr const std::int64_t* end() const { return values_.data() + size_; }
  /// The last number; there must be one.
  std::int64_t back() const { return values_[static_cast<std::size_t>(size_ - 1)]; }

  /// Appends a number. Throws ShapeError if there are kMaxAxes already.
  void push_back(std::int64_t value);
  /// Puts a number before position `axis`, or at the end for size(). Throws ShapeError out of range or if
  /// there are kMaxAxes already.
  void insert(int axis, std::int64_t value);
  /// Takes out the number at `axis`. Throws ShapeError out of range.
  void erase(int axis);

  /// Product of all numbers; 1 when empty. Throws ShapeError where it exceeds 64 bits.
  std::int64_t product() const;
  /// The numbers, copied.
  std::vector<std::int64_t> to_vector() const { return {begin(), end()}; }
  /// "[8,32,56,56]".
  std::string to_string() const;
  /// Equal in size and in every number.
  LAMELLA_API friend bool operator==(const Dims& a, const Dims& b);

 private:
  std::array<std::int64_t, kMaxAxes> values_{};
  int size_ = 0;
};

/// A tensor's size along each axis.
using Shape = Dims;
/// Distances in elements between neighbours along each axis.
using Strides = Dims;

/// How a dense [N,C,H,W] tensor lies in memory. The order of its axes is N, C, H, W either way; only strides
/// differ.
enum class MemoryFormat : std::uint8_t {
  Contiguous,   ///< row-major: NCHW
  ChannelsLast  ///< NHWC; for 4 axes only
};
/// "contiguous" or "channels_last".
LAMELLA_API const char* name(MemoryFormat format);

/// Strides of a dense tensor of `shape` in `format`. Throws ShapeError for ChannelsLast unless there are 4
/// axes, and where a stride exceeds 64 bits.
LAMELLA_API Strides dense_strides(const Shape& shape, MemoryFormat format = MemoryFormat::Contiguous);

/// The shape of `a op b` by NumPy's rule: axes are aligned at the right; sizes must be equal or 1. Throws
/// ShapeError naming `op` and both.
LAMELLA_API Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b);

/// An axis in [-count, count) as one in [0, count). Throws ShapeError naming `op`.
LAMELLA_API int normalize_axis(const char* op, int axis, int count);

}  // namespace lamella
