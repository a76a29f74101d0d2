#pragma once

#include <algorithm>

#include "autograd/record.h"
#include "lamella/tensor/reduce.h"
#include "tensor/broadcast.h"

/// What the elementwise operators share in front of their kernels.
namespace lamella::detail {

/// The type of `a op b`: see arithmetic.h.
inline DType result_type(const Tensor& a, const Tensor& b) {
  const auto kind = [](DType type) { return is_floating(type) ? 2 : type == DType::Bool ? 0 : 1; };
  const bool a_counts = a.dim() > 0 || b.dim() == 0 || kind(a.dtype()) > kind(b.dtype());
  const bool b_counts = b.dim() > 0 || a.dim() == 0 || kind(b.dtype()) > kind(a.dtype());
  if (!a_counts) return b.dtype();
  if (!b_counts) return a.dtype();
  return promote(a.dtype(), b.dtype());
}

/// The type of `x op number`.
inline DType number_type(DType x) { return is_floating(x) ? x : DType::Float32; }

/// The format of the first tensor of this shape; of a result that no operand has the shape of, row-major.
inline MemoryFormat result_format(const Shape& shape, std::initializer_list<Tensor> operands) {
  for (const Tensor& operand : operands)
    if (operand.shape() == shape) return operand.memory_format();
  return MemoryFormat::Contiguous;
}

inline void check_two(const char* op, const Tensor& a, const Tensor& b) {
  check_defined(op, "first operand", a);
  check_defined(op, "second operand", b);
  check_same_device(op, a, b);
}

/// What the gradient of a broadcast operand has to look like.
struct Operand {
  explicit Operand(const Tensor& tensor) : shape(tensor.shape()), dtype(tensor.dtype()) {}
  Shape shape;
  DType dtype;
};

/// The result's gradient is this operand's, but for broadcasting and type.
inline void pass_gradient(GradientContext& context, int input, const Operand& operand) {
  if (!context.needs(input)) return;
  const Tensor& grad = context.grad();
  context.add(input, (grad.shape() == operand.shape ? grad : sum_to(grad, operand.shape)).to(operand.dtype));
}

/// Calls kernel(view, write) to compute an operand's gradient over the result's shape: in its place, or in a
/// temporary (of at least float32) that is summed where the operand was broadcast.
template <class Kernel>
void operand_gradient(GradientContext& context, int input, const Operand& operand, const Kernel& kernel) {
  if (!context.needs(input)) return;
  const Tensor& grad = context.grad();
  if (grad.shape() == operand.shape) {
    const GradientTarget target = context.target(input);
    kernel(target.view, target.write);
    return;
  }
  const Tensor full =
      allocate(grad.shape(), promote(grad.dtype(), DType::Float32), grad.device(), grad.memory_format());
  kernel(write(full, "backward"), GradientWrite::Overwrite);
  context.add(input, sum_to(full, operand.shape).to(operand.dtype));
}

}  // namespace lamella::detail
