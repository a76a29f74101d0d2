#include "lamella/tensor/reduce.h"

#include <limits>

#include "autograd/record.h"
#include "core/check.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/compare.h"
#include "lamella/tensor/create.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/reduce.h"

namespace lamella {

using detail::GradientContext;
using detail::Output;
using detail::read;
using detail::ReduceKind;

namespace {

/// The shape with size 1 along the reduced axes.
Shape reduced_shape(const char* op, const Tensor& x, const Dims& axes) {
  detail::check_defined(op, "input", x);
  if (axes.empty()) return Dims::filled(x.dim(), 1);
  Shape shape = x.shape();
  Dims seen = Dims::filled(x.dim(), 0);
  for (const std::int64_t axis : axes) {
    const int at = normalize_axis(op, static_cast<int>(axis), x.dim());
    LAMELLA_CHECK(ShapeError, seen[at]++ == 0, op, ": axis ", at, " twice in ", axes.to_string());
    shape[at] = 1;
  }
  return shape;
}

/// `kept` without the reduced axes.
Shape dropped_shape(const Tensor& x, const Shape& kept, const Dims& axes) {
  if (axes.empty()) return {};
  Dims gone = Dims::filled(x.dim(), 0);
  for (const std::int64_t axis : axes) gone[static_cast<int>(axis < 0 ? axis + x.dim() : axis)] = 1;
  Shape shape;
  for (int axis = 0; axis < x.dim(); ++axis)
    if (!gone[axis]) shape.push_back(kept[axis]);
  return shape;
}

Tensor finish(const Tensor& x, const Tensor& y, const ReduceOptions& options) {
  return options.keep_axes ? y : y.reshape(dropped_shape(x, y.shape(), options.axes));
}

/// scale · Σ over the axes where `kept` is 1 and x is not.
Tensor scaled_sum(const char* op, const Tensor& x, const Shape& kept, double scale) {
  const bool floating = is_floating(x.dtype());
  const Output y(kept, floating ? x.dtype() : DType::Int64, x.device());
  LAMELLA_KERNEL(x.device(), reduce(ReduceKind::Sum, read(x), y.write(), scale));
  if (!floating) return detail::without_gradient(op, y);
  return detail::record(op, {x}, y, [from = x.shape(), scale](GradientContext& context) {
    const Tensor& grad = context.grad();
    context.add(0, (scale == 1 ? grad : grad * scale).expand(from));
  });
}

Tensor extreme(const char* op, ReduceKind kind, const Tensor& x, const ReduceOptions& options) {
  const Shape kept = reduced_shape(op, x, options.axes);
  LAMELLA_CHECK(ShapeError, x.numel() > 0 || kept.product() == 0, op, ": no elements to choose from in ",
                x.describe());
  const Output y(kept, x.dtype(), x.device());
  LAMELLA_KERNEL(x.device(), reduce(kind, read(x), y.write(), 1));
  if (!is_floating(x.dtype())) return finish(x, detail::without_gradient(op, y), options);
  const Tensor result = detail::record(
      op, {x}, y, [x = detail::Saved(x), y = detail::Saved(y), kept](GradientContext& context) {
        const Tensor grad = context.grad();
        // Half types cannot count far.
        const Tensor chosen = equal(x.get(), y.get()).to(promote(grad.dtype(), DType::Float32));
        context.add(0, (chosen * (grad / sum_to(chosen, kept))).to(grad.dtype()));
      });
  return finish(x, result, options);
}

Tensor arg(const char* op, bool largest, const Tensor& x, int axis, bool keep_axis) {
  detail::check_defined(op, "input", x);
  axis = normalize_axis(op, axis, x.dim());
  LAMELLA_CHECK(ShapeError, x.size(axis) > 0, op, ": axis ", axis, " of ", x.describe(), " is empty");
  Shape kept = x.shape();
  kept[axis] = 1;
  const Output y(kept, DType::Int64, x.device());
  LAMELLA_KERNEL(x.device(), arg_extreme(largest, read(x), axis, y.write()));
  const Tensor result = detail::without_gradient(op, y);
  return keep_axis ? result : result.squeeze(axis);
}

}  // namespace

Tensor sum(const Tensor& x, const ReduceOptions& options) {
  return finish(x, scaled_sum("sum", x, reduced_shape("sum", x, options.axes), 1), options);
}

Tensor mean(const Tensor& x, const ReduceOptions& options) {
  detail::check_floating("mean", "input", x);
  const Shape kept = reduced_shape("mean", x, options.axes);
  const std::int64_t count = kept.product() == 0 ? 1 : x.numel() / kept.product();
  const double scale =
      count == 0 ? std::numeric_limits<double>::quiet_NaN() : 1.0 / static_cast<double>(count);
  return finish(x, scaled_sum("mean", x, kept, scale), options);
}

Tensor var(const Tensor& x, const ReduceOptions& options, double correction) {
  detail::check_floating("var", "input", x);
  if (x.dtype() == DType::Float16 || x.dtype() == DType::BFloat16)
    return var(x.to(DType::Float32), options, correction).to(x.dtype());
  const Shape kept = reduced_shape("var", x, options.axes);
  const std::int64_t count = kept.product() == 0 ? 0 : x.numel() / kept.product();
  const Tensor centred = x - mean(x, {.axes = options.axes, .keep_axes = true});
  const double divisor = static_cast<double>(count) - correction;
  const Tensor total = scaled_sum("var", centred * centred, kept,
                                  divisor > 0 ? 1.0 / divisor : std::numeric_limits<double>::quiet_NaN());
  return finish(x, total, options);
}

Tensor max(const Tensor& x, const ReduceOptions& options) {
  return extreme("max", ReduceKind::Max, x, options);
}
Tensor min(const Tensor& x, const ReduceOptions& options) {
  return extreme("min", ReduceKind::Min, x, options);
}
Tensor argmax(const Tensor& x, int axis, bool keep_axis) { return arg("argmax", true, x, axis, keep_axis); }
Tensor argmin(const Tensor& x, int axis, bool keep_axis) { return arg("argmin", false, x, axis, keep_axis); }

Tensor sum_to(const Tensor& x, const Shape& shape) {
  detail::check_defined("sum_to", "input", x);
  if (x.shape() == shape) return x;
  const int extra = x.dim() - shape.size();
  bool fits = extra >= 0;
  Shape kept = Dims::filled(x.dim(), 1);
  for (int axis = extra; fits && axis < x.dim(); ++axis) {
    kept[axis] = shape[axis - extra];
    fits = kept[axis] == x.size(axis) || kept[axis] == 1;
  }
  LAMELLA_CHECK(ShapeError, fits, "sum_to: ", shape.to_string(), " does not broadcast to ", x.describe());
  return scaled_sum("sum_to", x, kept, 1).reshape(shape);
}

}  // namespace lamella
