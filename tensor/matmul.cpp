#include "lamella/tensor/matmul.h"

#include "autograd/autocast.h"
#include "autograd/record.h"
#include "core/check.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/gemm.h"

namespace lamella {

using detail::ConstTensorView;
using detail::GradientContext;
using detail::GradientTarget;
using detail::Output;
using detail::read;
using detail::Saved;
using detail::TensorView;

namespace {

constexpr const char* kName = "matmul";

/// Strides of x's batch axes over the batch axes of `result`; 0 where they broadcast.
Strides batch_strides(const Shape& shape, const Strides& strides, const Shape& result) {
  const int missing = result.size() - shape.size();
  Strides batch;
  for (int axis = 0; axis < result.size() - 2; ++axis)
    batch.push_back(axis < missing || shape[axis - missing] == 1 ? 0 : strides[axis - missing]);
  return batch;
}

detail::GemmOperand operand(const ConstTensorView& x, const Shape& result, bool transposed = false) {
  const std::int64_t row = x.strides[x.shape.size() - 2], column = x.strides[x.shape.size() - 1];
  return {x.data, x.dtype, transposed ? column : row, transposed ? row : column,
          batch_strides(x.shape, x.strides, result)};
}

/// target = or += a·b, each transposed on demand, summed over the batch axes (those of `result`) that target
/// lacks.
void multiply(const ConstTensorView& a, bool a_transposed, const ConstTensorView& b, bool b_transposed,
              const Shape& result, const TensorView& target, detail::GradientWrite write) {
  const int axes = target.shape.size();
  const std::int64_t k = a.shape[a.shape.size() - (a_transposed ? 2 : 1)];
  detail::Gemm g;
  g.m = target.shape[axes - 2];
  g.n = target.shape[axes - 1];
  g.k = k;
  for (int axis = 0; axis < result.size() - 2; ++axis) g.batch.push_back(result[axis]);
  g.a = operand(a, result, a_transposed);
  g.b = operand(b, result, b_transposed);
  g.c = target.data;
  g.c_row = target.strides[axes - 2];
  g.c_column = target.strides[axes - 1];
  g.c_batch = batch_strides(target.shape, target.strides, result);
  g.c_dtype = target.dtype;
  g.write = write;
  LAMELLA_KERNEL(target.device, gemm(g));
}

/// Both operands have two axes or more.
Tensor multiply_matrices(const Tensor& a, const Tensor& b, const Shape& result) {
  const Output y(result, a.dtype(), a.device());
  multiply(read(a), false, read(b), false, result, y.write(), detail::GradientWrite::Overwrite);
  return detail::record(kName, {a, b}, y,
                        [a = Saved::when(detail::wants_gradient(b), a),
                         b = Saved::when(detail::wants_gradient(a), b), result](GradientContext& context) {
                          const Tensor& grad = context.grad();
                          if (const GradientTarget da = context.target(0))
                            multiply(read(grad), false, read(b.get()), true, result, da.view, da.write);
                          if (const GradientTarget db = context.target(1))
                            multiply(read(a.get()), true, read(grad), false, result, db.view, db.write);
                        });
}

}  // namespace

Tensor matmul(const Tensor& left, const Tensor& right) {
  detail::check_floating(kName, "left operand", left);
  detail::check_floating(kName, "right operand", right);
  const Tensor a = detail::lowered(left), b = detail::lowered(right);
  detail::check_same_device(kName, a, b);
  detail::check_same_dtype(kName, a, b);
  LAMELLA_CHECK(ShapeError, a.dim() >= 1 && b.dim() >= 1, kName, ": operands need at least one axis (",
                a.describe(), " times ", b.describe(), ")");
  const std::int64_t inner = b.size(b.dim() == 1 ? 0 : -2);
  LAMELLA_CHECK(ShapeError, a.size(-1) == inner, kName, ": the left operand has ", a.size(-1),
                " columns but the right one has ", inner, " rows (", a.describe(), " times ", b.describe(),
                ")");
  if (a.dim() == 1) {
    const Tensor y = matmul(a.unsqueeze(0), b);
    return y.squeeze(b.dim() == 1 ? 0 : -2);
  }
  if (b.dim() == 1) return matmul(a, b.unsqueeze(1)).squeeze(-1);
  // A stack of matrices times one matrix is one tall matrix times that matrix.
  if (a.dim() > 2 && b.dim() == 2) {
    Shape result = a.shape();
    result.erase(a.dim() - 1);
    const std::int64_t rows = result.product();
    result.push_back(b.size(1));
    return matmul(a.reshape({rows, inner}), b).reshape(result);
  }
  Shape a_batch = a.shape(), b_batch = b.shape();
  for (int i = 0; i < 2; ++i) {
    a_batch.erase(a_batch.size() - 1);
    b_batch.erase(b_batch.size() - 1);
  }
  Shape result = broadcast_shapes(kName, a_batch, b_batch);
  result.push_back(a.size(-2));
  result.push_back(b.size(-1));
  return multiply_matrices(a, b, result);
}

}  // namespace lamella
