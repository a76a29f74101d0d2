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

/// Training of convolutional networks: tensors, gradients, layers.
namespace lamella {

namespace detail {
struct TensorImpl;
struct TensorDoor;
}  // namespace detail

/// A half-open range of positions along one axis, as Python's `begin:end:step`. Negative bounds count from
/// the end and bounds beyond the axis are cut; step is at least 1.
struct Slice {
  std::optional<std::int64_t> begin = {};  ///< first position; left out: 0
  std::optional<std::int64_t> end = {};    ///< behind the last position; left out: the size of the axis
  std::int64_t step = 1;                   ///< distance between positions
};

/// One index per axis: a position (drops the axis; negative counts from the end) or a Slice (keeps it).
class Index {
 public:
  /// One position.
  Index(std::int64_t position) : position_(position) {}  // NOLINT(google-explicit-constructor)
  /// One position.
  Index(int position) : position_(position) {}  // NOLINT(google-explicit-constructor)
  /// A range of positions.
  Index(Slice slice) : slice_(slice), is_slice_(true) {}  // NOLINT(google-explicit-constructor)
  /// Whether it is a Slice.
  bool is_slice() const { return is_slice_; }
  /// The position, if it is one.
  std::int64_t position() const { return position_; }
  /// The Slice, if it is one.
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
/// default) has no storage; whatever needs more of it than defined(), describe() or printing throws Error
/// naming itself. Errors below come on top of that.
///
/// Threads: any number of threads may use tensors as operands at the same time. In-place changes, gradients
/// and requires_grad of one tensor need the caller's own order.
class LAMELLA_API Tensor {
 public:
  Tensor() = default;

  /// False for a tensor that was made by default and not assigned since.
  bool defined() const { return impl_ != nullptr; }
  explicit operator bool() const = delete;

  // ---- What it is ----

  /// Size of each axis.
  const Shape& shape() const;
  /// Distance in elements between neighbours along each axis.
  const Strides& strides() const;
  /// Number of axes; 0 for a scalar.
  int dim() const;
  /// Size of one axis; negative counts from the end. Throws ShapeError out of range.
  std::int64_t size(int axis) const;
  /// Number of elements.
  std::int64_t numel() const;
  /// Type of the elements.
  DType dtype() const;
  /// Where the elements lie.
  Device device() const;
  /// True if the elements lie densely in `format`'s order (axes of size 1 never matter); false for
  /// ChannelsLast unless there are four axes.
  bool is_contiguous(MemoryFormat format = MemoryFormat::Contiguous) const;
  /// The format that operators give their outputs: ChannelsLast if it has four axes and lies densely in that
  /// order, else Contiguous. Where that is row-major order as well (one channel, or one pixel) the strides
  /// tell: [N,1,H,W] made as ChannelsLast stays so.
  MemoryFormat memory_format() const;
  /// "[8,32,56,56] float32 cpu", with " channels_last" where it is; "undefined". For messages.
  std::string describe() const;

  // ---- Its numbers ----

  /// First element, for reading; the others lie at strides(). Valid while a tensor with this storage lives.
  /// On a GPU this is a device address. Throws DTypeError if T is not the element type.
  template <class T>
  const T* data() const {
    return static_cast<const T*>(raw_data(dtype_of<T>));
  }
  /// The same for writing. Counts as an in-place change at the moment of the call: also throws Error while
  /// gradients are recorded and the tensor requires one. Call it anew before each round of changes: what is
  /// written later through an old pointer goes unnoticed, by backward and by results that were not computed
  /// yet (batch_norm() and activations may leave that to whoever reads them).
  template <class T>
  T* mutable_data() {
    return static_cast<T*>(raw_mutable_data(dtype_of<T>));
  }
  /// All elements in logical (row-major) order, converted to T: float, double, int64_t, int32_t or uint8_t.
  /// Copies from a GPU.
  template <class T>
  std::vector<T> to_vector() const;
  /// The only element, converted to T: double, float, int64_t or bool. Waits for a GPU. Throws ShapeError
  /// unless numel() is 1.
  template <class T = double>
  T item() const;

  // ---- Copies and conversions: operators with a gradient; *this itself where there is nothing to do ----

  /// On `device`, in the same memory format. With `non_blocking`, a copy from page-locked memory to a GPU is
  /// only queued on the current stream: work queued there later sees it, and the CPU must not change this
  /// tensor before synchronize(); other copies are done on return. Throws DeviceError for a device that this
  /// build or machine does not have.
  Tensor to(Device device, bool non_blocking = false) const;
  /// With elements of type `dtype`. Floating to integer truncates toward zero; integers have no gradient.
  Tensor to(DType dtype) const;
  /// Dense in `format`. Throws ShapeError for ChannelsLast unless there are four axes.
  Tensor contiguous(MemoryFormat format = MemoryFormat::Contiguous) const;
  /// New storage, always: the same numbers, dense in memory_format(). Its gradient flows back to this tensor.
  Tensor clone() const;

  /// On the CPU in page-locked memory, from which a GPU copies on its own: see to(). Throws DeviceError where
  /// there is no GPU and for a tensor that lies on one. Has no gradient.
  Tensor pin_memory() const;
  /// True for a tensor of the CPU in page-locked memory.
  bool is_pinned() const;
  /// Says that work queued on `stream`, by now and until the tensor's memory is given back, uses it: needed
  /// where `stream` is not the one that was current when the tensor was made. Does nothing on the CPU, unless
  /// the memory is page-locked.
  void record_stream(Stream stream) const;

  // ---- Views (share storage; gradients flow through) ----

  /// The same elements in row-major order with another shape; one size may be -1, which is then computed. A
  /// view where strides allow, else a copy. Throws ShapeError for another number of elements, a second -1 or
  /// another negative size.
  Tensor reshape(const Shape& shape) const;
  /// Merges axes first … last into one; without axes, the result has one. Negative ones count from the end.
  /// Throws ShapeError out of range or if `first` comes after `last`.
  Tensor flatten(int first = 0, int last = -1) const;
  /// Axis i of the result is axis order[i] of this tensor (negative counts from the end). Throws ShapeError
  /// unless `order` names each axis once.
  Tensor permute(const Dims& order) const;
  /// Swaps two axes (negative counts from the end). Throws ShapeError out of range.
  Tensor transpose(int a, int b) const;
  /// Positions begin … end - 1 in steps along one axis; see Slice. Throws ShapeError for an axis out of range
  /// or a step below 1.
  Tensor slice(int axis, Slice range) const;
  /// One position along one axis, which goes away; negative ones count from the end. Throws ShapeError out of
  /// range.
  Tensor select(int axis, std::int64_t position) const;
  /// One index per leading axis, as NumPy's basic indexing: t({0, Slice{1, 3}}). Throws ShapeError for more
  /// indices than axes, or out of range.
  Tensor operator()(std::initializer_list<Index> indices) const;
  /// Repeats axes of size 1 without a copy (stride 0); new axes may be added in front; -1 keeps the size of
  /// an axis that is there. Throws ShapeError for fewer axes, and where a size is neither 1 nor the one
  /// wanted.
  Tensor expand(const Shape& shape) const;
  /// Without one axis of size 1 (negative counts from the end). Throws ShapeError out of range or for another
  /// size.
  Tensor squeeze(int axis) const;
  /// With a new axis of size 1 before axis `axis`, or at the end for dim(); negative ones count from the end
  /// of the result. Throws ShapeError out of range or if there are kMaxAxes already.
  Tensor unsqueeze(int axis) const;

  // ---- In-place changes: never recorded ----
  //
  // They throw Error while gradients are recorded and the tensor requires one (wrap in NoGrad, or detach()),
  // and for a tensor that holds an element several times, as expand() makes. All tensors that share the
  // storage see the change; a backward that needs the old numbers throws Error.

  /// Sets every element to `value`, converted to the type.
  Tensor& fill_(double value);
  /// fill_(0).
  Tensor& zero_() { return fill_(0); }
  /// Takes the numbers of `source`, broadcast and converted to this type, from any device. Throws ShapeError
  /// if it does not broadcast to this shape.
  Tensor& copy_(const Tensor& source);

  // ---- Gradients ----

  /// True if backward computes a gradient of it: of a leaf that was told so, or of a result of such tensors.
  bool requires_grad() const;
  /// Leaves only: throws Error for the result of a recorded operator; DTypeError to switch it on unless
  /// floating.
  Tensor& set_requires_grad(bool on = true);
  /// True unless made by a recorded operator.
  bool is_leaf() const;
  /// The accumulated gradient; undefined if there is none since the start or zero_grad().
  Tensor grad() const;
  /// Replaces the gradient. It must have this shape, type and device, or be undefined (none); throws
  /// ShapeError, DTypeError or DeviceError otherwise.
  void set_grad(const Tensor& gradient);
  /// Forgets the gradient but keeps its memory: the next backward overwrites it.
  void zero_grad();
  /// Keeps grad() of a result of an operator, too. Leaves keep theirs anyway.
  void retain_grad();
  /// Runs `hook` on the finished gradient of this tensor in each backward, before anything else sees it.
  /// Throws Error unless it requires a gradient. In backward, a hook that returns another shape or type
  /// throws ShapeError or DTypeError.
  void register_hook(GradientHook hook);
  /// Gradients of this tensor with respect to every leaf it was computed from, added to their grad().
  /// `gradient` (of this shape, type and device) is what it starts from; it may be left out for a single
  /// element: 1. The graph is freed on the way unless retain_graph.
  ///
  /// Throws Error if this tensor does not require a gradient, if the graph was freed before, and if a tensor
  /// that the graph saved was changed in place; ShapeError, DTypeError or DeviceError if `gradient` does not
  /// fit or is missing.
  void backward(const Tensor& gradient = Tensor(), bool retain_graph = false) const;
  /// The same storage, cut off from the graph: requires no gradient.
  Tensor detach() const;

 private:
  friend struct detail::TensorDoor;
  explicit Tensor(std::shared_ptr<detail::TensorImpl> impl) : impl_(std::move(impl)) {}
  const void* raw_data(DType expected) const;
  void* raw_mutable_data(DType expected);

  std::shared_ptr<detail::TensorImpl> impl_;
};

/// Several tensors, such as the parameters of a module.
using Tensors = std::vector<Tensor>;

/// @cond
extern template LAMELLA_API std::vector<float> Tensor::to_vector<float>() const;
extern template LAMELLA_API std::vector<double> Tensor::to_vector<double>() const;
extern template LAMELLA_API std::vector<std::int64_t> Tensor::to_vector<std::int64_t>() const;
extern template LAMELLA_API std::vector<std::int32_t> Tensor::to_vector<std::int32_t>() const;
extern template LAMELLA_API std::vector<std::uint8_t> Tensor::to_vector<std::uint8_t>() const;
extern template LAMELLA_API float Tensor::item<float>() const;
extern template LAMELLA_API double Tensor::item<double>() const;
extern template LAMELLA_API std::int64_t Tensor::item<std::int64_t>() const;
extern template LAMELLA_API bool Tensor::item<bool>() const;
/// @endcond

/// Prints shape, type and numbers, shortened in the middle where long.
LAMELLA_API std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

}  // namespace lamella
