#include "lamella/tensor/combine.h"

#include <limits>

#include "autograd/record.h"
#include "core/check.h"
#include "core/profiling_bytes.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"

namespace lamella {

using detail::alias;
using detail::GradientContext;
using detail::GradientWrite;
using detail::Output;
using detail::read;

namespace {

/// More would not be counted in bytes.
constexpr std::int64_t kMostElements = std::numeric_limits<std::int64_t>::max() / 16;

/// Elements begin … begin + count - 1 along `axis`, without a graph.
Tensor part(const Tensor& whole, int axis, std::int64_t begin, std::int64_t count) {
  Shape shape = whole.shape();
  shape[axis] = count;
  return alias(whole, shape, whole.strides(), count == 0 ? 0 : begin * whole.strides()[axis]);
}

}  // namespace

Tensor cat(const Tensors& tensors, int axis) {
  LAMELLA_CHECK(ShapeError, !tensors.empty(), "cat: no tensors");
  for (const Tensor& tensor : tensors) detail::check_defined("cat", "a tensor", tensor);
  const Tensor& first = tensors.front();
  axis = normalize_axis("cat", axis, first.dim());
  Shape shape = first.shape();
  shape[axis] = 0;
  for (const Tensor& tensor : tensors) {
    detail::check_same_device("cat", first, tensor);
    detail::check_same_dtype("cat", first, tensor);
    bool fits = tensor.dim() == first.dim();
    for (int a = 0; fits && a < first.dim(); ++a) fits = a == axis || tensor.size(a) == first.size(a);
    LAMELLA_CHECK(ShapeError, fits, "cat: ", tensor.describe(), " does not join ", first.describe(),
                  " along axis ", axis);
    LAMELLA_CHECK(ShapeError, !__builtin_add_overflow(shape[axis], tensor.size(axis), &shape[axis]),
                  "cat: ", tensor.describe(), " makes axis ", axis, " longer than 64 bits count");
  }
  const Output y(shape, first.dtype(), first.device(), first.memory_format());
  std::vector<std::int64_t> sizes;
  std::int64_t at = 0;
  for (const Tensor& tensor : tensors) {
    const std::int64_t size = tensor.size(axis);
    if (tensor.numel() > 0)
      LAMELLA_KERNEL(first.device(),
                     copy(read(tensor), detail::write(part(y.unrecorded(), axis, at, size), "cat"),
                          GradientWrite::Overwrite));
    sizes.push_back(size);
    at += size;
  }
  return detail::record("cat", tensors, y, [axis, sizes](GradientContext& context) {
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      context.add(static_cast<int>(i), part(context.grad(), axis, begin, sizes[i]));
      begin += sizes[i];
    }
  });
}

Tensor stack(const Tensors& tensors, int axis) {
  LAMELLA_CHECK(ShapeError, !tensors.empty(), "stack: no tensors");
  Tensors raised;
  for (const Tensor& tensor : tensors) {
    detail::check_defined("stack", "a tensor", tensor);
    LAMELLA_CHECK(ShapeError, tensor.shape() == tensors.front().shape(), "stack: ", tensor.describe(),
                  " beside ", tensors.front().describe());
    raised.push_back(tensor.unsqueeze(axis));
  }
  return cat(raised, axis < 0 ? axis + tensors.front().dim() + 1 : axis);
}

Tensor pad(const Tensor& x, const std::vector<PadWidth>& widths, double value) {
  detail::check_defined("pad", "input", x);
  LAMELLA_CHECK(ShapeError, static_cast<int>(widths.size()) <= x.dim(), "pad: ", widths.size(),
                " widths for ", x.describe());
  Shape shape = x.shape();
  Dims before = Dims::filled(x.dim(), 0);
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const int axis = x.dim() - static_cast<int>(widths.size()) + static_cast<int>(i);
    LAMELLA_CHECK(ShapeError, widths[i].before >= 0 && widths[i].after >= 0, "pad: width (", widths[i].before,
                  ", ", widths[i].after, ") of axis ", axis, " is negative");
    before[axis] = widths[i].before;
    LAMELLA_CHECK(ShapeError,
                  !__builtin_add_overflow(shape[axis], widths[i].before, &shape[axis]) &&
                      !__builtin_add_overflow(shape[axis], widths[i].after, &shape[axis]),
                  "pad: width (", widths[i].before, ", ", widths[i].after, ") makes axis ", axis, " of ",
                  x.describe(), " longer than 64 bits count");
  }
  const Output y(shape, x.dtype(), x.device(), x.memory_format());
  const auto inside = [before, from = x.shape()](Tensor whole) {
    for (int axis = 0; axis < from.size(); ++axis) whole = part(whole, axis, before[axis], from[axis]);
    return whole;
  };
  LAMELLA_KERNEL(x.device(), fill(y.write(), value));
  LAMELLA_KERNEL(x.device(),
                 copy(read(x), detail::write(inside(y.unrecorded()), "pad"), GradientWrite::Overwrite));
  return detail::record("pad", {x}, y,
                        [inside](GradientContext& context) { context.add(0, inside(context.grad())); });
}

Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype) {
  detail::check_defined("one_hot", "indices", indices);
  LAMELLA_CHECK(DTypeError, indices.dtype() == DType::Int64, "one_hot: indices ", indices.describe(),
                " are not int64");
  LAMELLA_CHECK(ShapeError, classes >= 1, "one_hot: ", classes, " classes");
  std::int64_t elements = 0;
  LAMELLA_CHECK(
      ShapeError, !__builtin_mul_overflow(indices.numel(), classes, &elements) && elements <= kMostElements,
      "one_hot: ", classes, " classes for ", indices.describe(), " make more elements than 64 bits count");
  const std::vector<std::int64_t> at = indices.to_vector<std::int64_t>();
  Shape shape = indices.shape();
  shape.push_back(classes);
  const Tensor values = zeros(shape);
  float* const to = [&] {
    const detail::profiling::BytesApart no_kernel_writes_it;
    return detail::write(values, "one_hot").as<float>();
  }();
  for (std::size_t i = 0; i < at.size(); ++i) {
    LAMELLA_CHECK(ShapeError, at[i] >= 0 && at[i] < classes, "one_hot: index ", at[i], " at position ", i,
                  " is not in [0, ", classes, ")");
    to[static_cast<std::int64_t>(i) * classes + at[i]] = 1.0f;
  }
  return detail::without_gradient("one_hot", Output::of(values.to(dtype).to(indices.device())));
}

}  // namespace lamella
