#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamella/core/device.h"
#include "lamella/core/dtype.h"
#include "lamella/core/export.h"
#include "lamella/tensor/shape.h"

namespace lamella {

namespace detail {
struct TensorImpl;
struct TensorDoor;
}  // namespace detail

/// A half-open range of positions along one axis, as Python's `begin:end:step`. Negative bounds count from
/// the end and bounds beyond the axis are cut; step is at least 1.
struct Slice {
  std::optional<std::int64_t> begin = {};
  std::optional<std::int64_t> end = {};
  std::int64_t step = 1;
};

/// One index per axis: a position (drops the axis; negative counts from the end) or a Slice (keeps it).
class Index {
 public:
  Index(std::int64_t position) : position_(position) {}   // NOLINT(google-explicit-constructor)
  Index(int position) : position_(position) {}            // NOLINT(google-explicit-constructor)
  Index(Slice slice) : slice_(slice), is_slice_(true) {}  // NOLINT(google-explicit-constructor)
  bool is_slice() const { return is_slice_; }
  std::int64_t position() const { return position_; }
  const Slice& slice() const { return slice_; }

 private:
  std::int64_t position_ = 0;
  Slice slice_;
  bool is_slice_ = false;
};

/// Called with a tensor's finished gradient; may return another one to use instead (undefined: keep it).
using GradientHook = std::function<class Tensor(const class Tensor& gradient)>;

/// An n-dimensional array: a handle. Copies share storage, gradient and everything else; clone() copies the
/// numbers.
///
/// Operators run at once and give new tensors; views (reshape, permute, slice, expand, …) share storage.
/// Nothing moves between devices, types or layouts unless asked: to(), contiguous(). An undefined tensor (the
/// default) has no storage; using one in an operator throws Error naming the operator.
///
/// Threads: any number of threads may use tensors as operands at the same time. In-place changes, gradients
/// and requires_grad of one tensor need the caller's own order.
class LAMELLA_API Tensor {
 public:
  Tensor() = default;

  bool defined() const { return impl_ != nullptr; }
  explicit operator bool() const = delete;

  // ---- What it is ----

  const Shape& shape() const;
  /// Distance in elements between neighbours along each axis.
  const Strides& strides() const;
  /// Number of axes; 0 for a scalar.
  int dim() const;
  /// Size of one axis; negative counts from the end. Throws ShapeError out of range.
  std::int64_t size(int axis) const;
  /// Number of elements.
  std::int64_t numel() const;
  DType dtype() const;
  Device device() const;
  /// True if the elements lie densely in `format`'s order (axes of size 1 never matter).
  bool is_contiguous(MemoryFormat format = MemoryFormat::Contiguous) const;
  /// The format that operators give their outputs: ChannelsLast if it has four axes and lies densely in that
  /// order, else Contiguous. Where that is row-major order as well (one channel, or one pixel) the strides
  /// tell: [N,1,H,W] made as ChannelsLast stays so.
  MemoryFormat memory_format() const;
  /// "[8,32,56,56] float32 cpu", with " channels_last" where it is; "undefined".
  std::string describe() const;

  // ---- Its numbers ----

  /// First element, for reading. On a GPU this is a device address. Throws DTypeError if T is not the element
  /// type.
  template <class T>
  const T* data() const {
    return static_cast<const T*>(raw_data(dtype_of<T>));
  }
  /// First element, for writing; counts as an in-place change.
  template <class T>
  T* mutable_data() {
    return static_cast<T*>(raw_mutable_data(dtype_of<T>));
  }
  /// All elements in logical (row-major) order, converted to T (any arithmetic type of DTypeOf). Copies from
  /// a GPU.
  template <class T>
  std::vector<T> to_vector() const;
  /// The only element, converted to double or another arithmetic type. Waits for a GPU. Throws ShapeError
  /// unless numel() is 1.
  template <class T = double>
  T item() const;

  // ---- Copies and conversions: operators with a gradient; *this itself where there is nothing to do ----

  Tensor to(Device device) const;
  /// Floating to integer truncates toward zero.
  Tensor to(DType dtype) const;
  /// Dense in `format`, and with its strides: a view where the memory is right for both formats (one channel,
  /// or one pixel).
  Tensor contiguous(MemoryFormat format = MemoryFormat::Contiguous) const;
  /// New storage, the same numbers, dense in memory_format().
  Tensor clone() const;

  // ---- Views (share storage; gradients flow through) ----

  /// The same elements in row-major order with another shape; one size may be -1. A view where strides allow,
  /// else a copy.
  Tensor reshape(const Shape& shape) const;
  /// Merges axes first … last into one.
  Tensor flatten(int first = 0, int last = -1) const;
  /// Axis i of the result is axis order[i] of this tensor.
  Tensor permute(const Dims& order) const;
  Tensor transpose(int a, int b) const;
  /// Positions begin … end - 1 in steps along one axis; see Slice.
  Tensor slice(int axis, Slice range) const;
  /// One position along one axis, which goes away.
  Tensor select(int axis, std::int64_t position) const;
  /// One index per leading axis, as NumPy's basic indexing: t({0, Slice{1, 3}}).
  Tensor operator()(std::initializer_list<Index> indices) const;
  /// Repeats axes of size 1 (stride 0); new axes may be added in front; -1 keeps a size.
  Tensor expand(const Shape& shape) const;
  Tensor squeeze(int axis) const;
  Tensor unsqueeze(int axis) const;

  // ---- In-place changes: never recorded ----

  Tensor& fill_(double value);
  Tensor& zero_() { return fill_(0); }
  /// Numbers of `source`, broadcast and converted to this type, from any device.
  Tensor& copy_(const Tensor& source);

  // ---- Gradients ----

  bool requires_grad() const;
  /// Leaves only; throws Error for a result of an operator, DTypeError unless floating.
  Tensor& set_requires_grad(bool on = true);
  /// True unless made by a recorded operator.
  bool is_leaf() const;
  /// The accumulated gradient; undefined if there is none since the start or zero_grad().
  Tensor grad() const;
  /// Replaces the gradient; it must have this shape, type and device (or be undefined).
  void set_grad(const Tensor& gradient);
  /// Forgets the gradient but keeps its memory: the next backward overwrites it.
  void zero_grad();
  /// Keeps grad() of a result of an operator, too.
  void retain_grad();
  /// Runs `hook` on the finished gradient of this tensor in each backward, before anything else sees it.
  void register_hook(GradientHook hook);
  /// Gradients of this tensor with respect to every leaf it was computed from, added to their grad().
  /// `gradient` (of this shape) may be left out for a single element: 1. The graph is freed on the way unless
  /// retain_graph.
  void backward(const Tensor& gradient = Tensor(), bool retain_graph = false) const;
  /// The same numbers, cut off from the graph.
  Tensor detach() const;

 private:
  friend struct detail::TensorDoor;
  explicit Tensor(std::shared_ptr<detail::TensorImpl> impl) : impl_(std::move(impl)) {}
  const void* raw_data(DType expected) const;
  void* raw_mutable_data(DType expected);

  std::shared_ptr<detail::TensorImpl> impl_;
};

using Tensors = std::vector<Tensor>;

extern template LAMELLA_API std::vector<float> Tensor::to_vector<float>() const;
extern template LAMELLA_API std::vector<double> Tensor::to_vector<double>() const;
extern template LAMELLA_API std::vector<std::int64_t> Tensor::to_vector<std::int64_t>() const;
extern template LAMELLA_API std::vector<std::int32_t> Tensor::to_vector<std::int32_t>() const;
extern template LAMELLA_API std::vector<std::uint8_t> Tensor::to_vector<std::uint8_t>() const;
extern template LAMELLA_API float Tensor::item<float>() const;
extern template LAMELLA_API double Tensor::item<double>() const;
extern template LAMELLA_API std::int64_t Tensor::item<std::int64_t>() const;
extern template LAMELLA_API bool Tensor::item<bool>() const;

/// Prints shape, type and numbers, shortened in the middle where long.
LAMELLA_API std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

}  // namespace lamella
