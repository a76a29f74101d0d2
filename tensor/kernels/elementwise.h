#pragma once

#include "tensor/door.h"
#include "tensor/functions.h"
#include "tensor/view.h"

/// Kernels of the elementwise operators. Views have the shape of `out` (stride 0 where they repeat), any
/// strides and types; a number stands for a view that repeats it. Computed in the widest kind of type among
/// the views.
namespace lamella::cpu {

using detail::BinaryOp;
using detail::CompareOp;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;
using detail::TernaryOp;
using detail::UnaryKind;
using detail::UnaryOp;

void binary(BinaryOp op, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out,
            GradientWrite write);
void binary(BinaryOp op, const ConstTensorView& a, double b, const TensorView& out, GradientWrite write);
void binary(BinaryOp op, double a, const ConstTensorView& b, const TensorView& out, GradientWrite write);

/// out = a.stored · scale[c] + shift[c] + b; the activation that `a` owes must be None.
void add_pending(const detail::PendingView& a, const ConstTensorView& b, const TensorView& out);

void ternary(TernaryOp op, const ConstTensorView& g, const ConstTensorView& a, const ConstTensorView& b,
             const TensorView& out, GradientWrite write);
void ternary(TernaryOp op, const ConstTensorView& g, const ConstTensorView& a, double b,
             const TensorView& out, GradientWrite write);
void ternary(TernaryOp op, const ConstTensorView& g, double a, const ConstTensorView& b,
             const TensorView& out, GradientWrite write);

void unary(UnaryOp op, const ConstTensorView& x, const TensorView& out);
/// `saved` is what the operator's formula reads: its input or its output.
void unary_gradient(UnaryOp op, const ConstTensorView& g, const ConstTensorView& saved, const TensorView& out,
                    GradientWrite write);

/// out = condition ? a : b.
void where(const ConstTensorView& condition, const ConstTensorView& a, const ConstTensorView& b,
           const TensorView& out);
/// out = condition is `side` ? g : 0.
void where_gradient(bool side, const ConstTensorView& condition, const ConstTensorView& g,
                    const TensorView& out, GradientWrite write);

/// `out` is bool.
void compare(CompareOp op, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out);
/// A floating view compares in its own compute type, others in double.
void compare(CompareOp op, const ConstTensorView& a, double b, const TensorView& out);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

using detail::BinaryOp;
using detail::CompareOp;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;
using detail::TernaryOp;
using detail::UnaryKind;
using detail::UnaryOp;

void binary(BinaryOp op, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out,
            GradientWrite write);
void binary(BinaryOp op, const ConstTensorView& a, double b, const TensorView& out, GradientWrite write);
void binary(BinaryOp op, double a, const ConstTensorView& b, const TensorView& out, GradientWrite write);
void ternary(TernaryOp op, const ConstTensorView& g, const ConstTensorView& a, const ConstTensorView& b,
             const TensorView& out, GradientWrite write);
void ternary(TernaryOp op, const ConstTensorView& g, const ConstTensorView& a, double b,
             const TensorView& out, GradientWrite write);
void ternary(TernaryOp op, const ConstTensorView& g, double a, const ConstTensorView& b,
             const TensorView& out, GradientWrite write);
void compare(CompareOp op, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out);
void compare(CompareOp op, const ConstTensorView& a, double b, const TensorView& out);
decltype(cpu::add_pending) add_pending;
decltype(cpu::unary) unary;
decltype(cpu::unary_gradient) unary_gradient;
decltype(cpu::where) where;
decltype(cpu::where_gradient) where_gradient;

}  // namespace lamella::cuda
