#include <algorithm>
#include <numeric>

#include "autograd/record.h"
#include "core/check.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"

namespace lamella {

using detail::alias;
using detail::GradientContext;
using detail::Output;

namespace {

/// Strides for `shape` over the same memory in the same row-major order, if there are any.
bool strides_after_reshape(const Shape& from, const Strides& strides, const Shape& to, Strides& result) {
  result = dense_strides(to);
  if (from.product() == 0) return true;
  int axis = from.size() - 1;
  int target = to.size() - 1;
  while (axis >= 0 || target >= 0) {
    while (axis >= 0 && from[axis] == 1) --axis;
    if (axis < 0) {
      for (; target >= 0; --target) result[target] = 1;
      return true;
    }
    // A maximal run of axes that lie densely behind one another.
    std::int64_t run = from[axis];
    const std::int64_t step = strides[axis];
    while (axis > 0 && (from[axis - 1] == 1 || strides[axis - 1] == run * step)) {
      --axis;
      run *= from[axis];
    }
    --axis;
    std::int64_t filled = 1;
    while (target >= 0 && filled < run) {
      result[target] = step * filled;
      filled *= to[target];
      --target;
    }
    if (filled != run) return false;
    while (target >= 0 && to[target] == 1) {
      result[target] = step * filled;
      --target;
    }
  }
  return true;
}

Shape resolve(const Shape& from, const Shape& wanted) {
  Shape shape = wanted;
  int open = -1;
  std::int64_t known = 1;
  for (int axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == -1) {
      LAMELLA_CHECK(ShapeError, open < 0, "reshape: more than one -1 in ", wanted.to_string());
      open = axis;
    } else {
      LAMELLA_CHECK(ShapeError, shape[axis] >= 0, "reshape: negative size in ", wanted.to_string());
      LAMELLA_CHECK(ShapeError, !__builtin_mul_overflow(known, shape[axis], &known),
                    "reshape: ", wanted.to_string(), " has too many elements");
    }
  }
  if (open >= 0) {
    LAMELLA_CHECK(ShapeError, known != 0 && from.product() % known == 0, "reshape: ", from.to_string(),
                  " into ", wanted.to_string());
    shape[open] = from.product() / known;
    known *= shape[open];
  }
  LAMELLA_CHECK(ShapeError, known == from.product(), "reshape: ", from.to_string(), " has ", from.product(),
                " elements, ", wanted.to_string(), " has ", known);
  return shape;
}

struct Range {
  std::int64_t begin;
  std::int64_t count;
};

Range resolve(const Slice& slice, std::int64_t size) {
  LAMELLA_CHECK(ShapeError, slice.step >= 1, "slice: step ", slice.step, " is not positive");
  const auto clamp = [size](std::int64_t at) {
    return std::clamp<std::int64_t>(at < 0 ? at + size : at, 0, size);
  };
  const std::int64_t begin = clamp(slice.begin.value_or(0)), end = clamp(slice.end.value_or(size));
  return {begin, end <= begin ? 0 : (end - begin - 1) / slice.step + 1};
}

/// Gradient of a view that leaves elements out: zero there.
void scatter_gradient(GradientContext& context, const Shape& shape,
                      const std::function<Tensor(const Tensor&)>& same_view) {
  const Tensor& grad = context.grad();
  Tensor whole = zeros(shape, {.dtype = grad.dtype(), .device = grad.device()});
  same_view(whole).copy_(grad);
  context.add(0, whole);
}

}  // namespace

Tensor Tensor::reshape(const Shape& wanted) const {
  detail::check_defined("reshape", "tensor", *this);
  const Shape target = resolve(shape(), wanted);
  if (target == shape()) return *this;
  Strides strides;
  if (!strides_after_reshape(shape(), this->strides(), target, strides)) return contiguous().reshape(target);
  return detail::record(
      "reshape", {*this}, Output::of(alias(*this, target, strides, 0)),
      [from = shape()](GradientContext& context) { context.add(0, context.grad().reshape(from)); });
}

Tensor Tensor::flatten(int first, int last) const {
  first = normalize_axis("flatten", first, std::max(dim(), 1));
  last = normalize_axis("flatten", last, std::max(dim(), 1));
  LAMELLA_CHECK(ShapeError, first <= last, "flatten: first axis ", first, " after last axis ", last);
  Shape target;
  std::int64_t merged = 1;
  for (int axis = 0; axis < dim(); ++axis) {
    if (axis < first || axis > last) {
      target.push_back(size(axis));
    } else {
      merged *= size(axis);
      if (axis == last) target.push_back(merged);
    }
  }
  if (dim() == 0) target = {1};
  return reshape(target);
}

Tensor Tensor::permute(const Dims& order) const {
  detail::check_defined("permute", "tensor", *this);
  LAMELLA_CHECK(ShapeError, order.size() == dim(), "permute: ", order.to_string(), " for ", describe());
  Shape target = shape();
  Strides steps = strides();
  Dims inverse = order;
  Dims seen = Dims::filled(dim(), 0);
  for (int axis = 0; axis < dim(); ++axis) {
    const int from = normalize_axis("permute", static_cast<int>(order[axis]), dim());
    LAMELLA_CHECK(ShapeError, seen[from]++ == 0, "permute: axis ", from, " twice in ", order.to_string());
    target[axis] = shape()[from];
    steps[axis] = strides()[from];
    inverse[from] = axis;
  }
  return detail::record(
      "permute", {*this}, Output::of(alias(*this, target, steps, 0)),
      [inverse](GradientContext& context) { context.add(0, context.grad().permute(inverse)); });
}

Tensor Tensor::transpose(int a, int b) const {
  a = normalize_axis("transpose", a, dim());
  b = normalize_axis("transpose", b, dim());
  Dims order = Dims::filled(dim(), 0);
  for (int axis = 0; axis < dim(); ++axis) order[axis] = axis == a ? b : axis == b ? a : axis;
  return permute(order);
}

Tensor Tensor::slice(int axis, Slice range) const {
  detail::check_defined("slice", "tensor", *this);
  axis = normalize_axis("slice", axis, dim());
  const auto [begin, count] = resolve(range, size(axis));
  if (count == size(axis)) return *this;
  Shape target = shape();
  Strides steps = strides();
  target[axis] = count;
  const std::int64_t offset = count == 0 ? 0 : begin * steps[axis];
  if (count > 1) steps[axis] *= range.step;  // any stride serves a single position
  return detail::record("slice", {*this}, Output::of(alias(*this, target, steps, offset)),
                        [from = shape(), axis, range](GradientContext& context) {
                          scatter_gradient(context, from,
                                           [&](const Tensor& t) { return t.slice(axis, range); });
                        });
}

Tensor Tensor::select(int axis, std::int64_t position) const {
  detail::check_defined("select", "tensor", *this);
  axis = normalize_axis("select", axis, dim());
  const std::int64_t at = position < 0 ? position + size(axis) : position;
  LAMELLA_CHECK(ShapeError, at >= 0 && at < size(axis), "select: position ", position, " of axis ", axis,
                " in ", describe());
  Shape target = shape();
  Strides steps = strides();
  const std::int64_t offset = at * steps[axis];
  target.erase(axis);
  steps.erase(axis);
  return detail::record("select", {*this}, Output::of(alias(*this, target, steps, offset)),
                        [from = shape(), axis, at](GradientContext& context) {
                          scatter_gradient(context, from,
                                           [&](const Tensor& t) { return t.select(axis, at); });
                        });
}

Tensor Tensor::operator()(std::initializer_list<Index> indices) const {
  detail::check_defined("index", "tensor", *this);
  LAMELLA_CHECK(ShapeError, static_cast<int>(indices.size()) <= dim(), "index: ", indices.size(),
                " indices for ", describe());
  Tensor result = *this;
  int axis = 0;
  for (const Index& index : indices) {
    if (index.is_slice())
      result = result.slice(axis++, index.slice());
    else
      result = result.select(axis, index.position());
  }
  return result;
}

Tensor Tensor::squeeze(int axis) const {
  axis = normalize_axis("squeeze", axis, dim());
  LAMELLA_CHECK(ShapeError, size(axis) == 1, "squeeze: axis ", axis, " of ", describe(), " is not 1");
  Shape target = shape();
  target.erase(axis);
  return reshape(target);
}

Tensor Tensor::unsqueeze(int axis) const {
  axis = normalize_axis("unsqueeze", axis, dim() + 1);
  Shape target = shape();
  target.insert(axis, 1);
  return reshape(target);
}

Tensor Tensor::expand(const Shape& wanted) const {
  detail::check_defined("expand", "tensor", *this);
  const int added = wanted.size() - dim();
  LAMELLA_CHECK(ShapeError, added >= 0, "expand: ", describe(), " to fewer axes ", wanted.to_string());
  Shape target = wanted;
  Strides steps = Dims::filled(wanted.size(), 0);
  for (int axis = 0; axis < wanted.size(); ++axis) {
    if (axis < added) {
      LAMELLA_CHECK(ShapeError, wanted[axis] >= 0, "expand: new axis ", axis, " of size ", wanted[axis]);
      continue;
    }
    const std::int64_t size = shape()[axis - added];
    if (wanted[axis] == -1) target[axis] = size;
    LAMELLA_CHECK(ShapeError, target[axis] == size || (size == 1 && target[axis] >= 0),
                  "expand: ", describe(), " to ", wanted.to_string());
    steps[axis] = target[axis] == size ? strides()[axis - added] : 0;
  }
  if (target == shape()) return *this;
  return detail::record(
      "expand", {*this}, Output::of(alias(*this, target, steps, 0)),
      [from = shape()](GradientContext& context) { context.add(0, sum_to(context.grad(), from)); });
}

}  // namespace lamella
