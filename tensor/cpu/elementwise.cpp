#include "tensor/cpu/elementwise.h"

#include <initializer_list>

#include "tensor/cpu/map.h"
#include "tensor/cpu/pending_map.h"

namespace lamella::cpu {

namespace {

/// A view that repeats a number; it must outlive the kernel.
ConstTensorView repeat(const double& number, const TensorView& out) {
  return {&number, out.shape, Dims::filled(out.shape.size(), 0), DType::Float64, out.device};
}

/// A type whose compute type is the widest among these.
DType widest(std::initializer_list<DType> types) {
  DType result = DType::Int64;
  for (const DType type : types)
    if (type == DType::Float64)
      return type;
    else if (is_floating(type))
      result = DType::Float32;
  return result;
}

void run(BinaryOp op, DType type, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out,
         GradientWrite write) {
  const auto any = [&](auto f) {
    dispatch_compute(type, [&](auto tag) { map_each<typename decltype(tag)::type>(out, write, f, a, b); });
  };
  const auto floating = [&](auto f) {
    dispatch_compute_floating(type,
                              [&](auto tag) { map_each<typename decltype(tag)::type>(out, write, f, a, b); });
  };
  switch (op) {
    case BinaryOp::Add:
      return any(detail::Add());
    case BinaryOp::Sub:
      return any(detail::Sub());
    case BinaryOp::Mul:
      return any(detail::Mul());
    case BinaryOp::Div:
      return floating(detail::Div());
    case BinaryOp::Maximum:
      return any(detail::Maximum());
    case BinaryOp::Minimum:
      return any(detail::Minimum());
    case BinaryOp::Pow:
      return floating(detail::Pow());
  }
}

void run(TernaryOp op, DType type, const ConstTensorView& g, const ConstTensorView& a,
         const ConstTensorView& b, const TensorView& out, GradientWrite write) {
  dispatch_compute_floating(type, [&](auto tag) {
    using C = typename decltype(tag)::type;
    switch (op) {
      case TernaryOp::DivisorGradient:
        return map_each<C>(out, write, detail::DivisorGradient(), g, a, b);
      case TernaryOp::MaximumGradient:
        return map_each<C>(out, write, detail::MaximumGradient(), g, a, b);
      case TernaryOp::MinimumGradient:
        return map_each<C>(out, write, detail::MinimumGradient(), g, a, b);
      case TernaryOp::BaseGradient:
        return map_each<C>(out, write, detail::BaseGradient(), g, a, b);
      case TernaryOp::ExponentGradient:
        return map_each<C>(out, write, detail::ExponentGradient(), g, a, b);
    }
  });
}

void run(CompareOp op, DType type, const ConstTensorView& a, const ConstTensorView& b,
         const TensorView& out) {
  dispatch_compute(type, [&](auto tag) {
    using C = typename decltype(tag)::type;
    const auto each = [&](auto f) { map_each<C>(out, GradientWrite::Overwrite, f, a, b); };
    switch (op) {
      case CompareOp::Equal:
        return each(detail::Equal());
      case CompareOp::NotEqual:
        return each(detail::NotEqual());
      case CompareOp::Less:
        return each(detail::Less());
      case CompareOp::LessEqual:
        return each(detail::LessEqual());
      case CompareOp::Greater:
        return each(detail::Greater());
      case CompareOp::GreaterEqual:
        return each(detail::GreaterEqual());
      case CompareOp::And:
        return each(detail::And());
      case CompareOp::Or:
        return each(detail::Or());
    }
  });
}

template <class Body>
void visit(const UnaryOp& op, Body&& body) {
  switch (op.kind) {
    case UnaryKind::Neg:
      return body(detail::Neg());
    case UnaryKind::Abs:
      return body(detail::Abs());
    case UnaryKind::Exp:
      return body(detail::Exp());
    case UnaryKind::Log:
      return body(detail::Log());
    case UnaryKind::Sqrt:
      return body(detail::Sqrt());
    case UnaryKind::Clamp:
      return body(detail::Clamp{op.low, op.high});
  }
}

}  // namespace

void binary(BinaryOp op, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out,
            GradientWrite write) {
  run(op, widest({a.dtype, b.dtype, out.dtype}), a, b, out, write);
}
void binary(BinaryOp op, const ConstTensorView& a, double b, const TensorView& out, GradientWrite write) {
  // The square is the power that everybody takes; a product costs a fraction of it.
  if (op == BinaryOp::Pow && b == 2) return binary(BinaryOp::Mul, a, a, out, write);
  run(op, widest({a.dtype, out.dtype}), a, repeat(b, out), out, write);
}
void binary(BinaryOp op, double a, const ConstTensorView& b, const TensorView& out, GradientWrite write) {
  run(op, widest({b.dtype, out.dtype}), repeat(a, out), b, out, write);
}

void add_pending(const detail::PendingView& a, const ConstTensorView& b, const TensorView& out) {
  const PendingFactors factors = factors_of(a);
  const auto add = [](auto stored, auto scale, auto shift, auto other) {
    return stored * scale + shift + other;
  };
  dispatch_compute_floating(out.dtype, [&](auto tag) {
    map_each<typename decltype(tag)::type>(out, GradientWrite::Overwrite, add, a.stored, factors.scale,
                                           factors.shift, b);
  });
}

void ternary(TernaryOp op, const ConstTensorView& g, const ConstTensorView& a, const ConstTensorView& b,
             const TensorView& out, GradientWrite write) {
  run(op, widest({g.dtype, a.dtype, b.dtype, out.dtype}), g, a, b, out, write);
}
void ternary(TernaryOp op, const ConstTensorView& g, const ConstTensorView& a, double b,
             const TensorView& out, GradientWrite write) {
  const DType type = widest({g.dtype, a.dtype, out.dtype});
  if (op == TernaryOp::BaseGradient && b == 2) {
    const auto of_square = [](auto slope, auto base) { return slope * (base + base); };
    dispatch_compute_floating(
        type, [&](auto tag) { map_each<typename decltype(tag)::type>(out, write, of_square, g, a); });
    return;
  }
  run(op, type, g, a, repeat(b, out), out, write);
}
void ternary(TernaryOp op, const ConstTensorView& g, double a, const ConstTensorView& b,
             const TensorView& out, GradientWrite write) {
  run(op, widest({g.dtype, b.dtype, out.dtype}), g, repeat(a, out), b, out, write);
}

void unary(UnaryOp op, const ConstTensorView& x, const TensorView& out) {
  const DType type = widest({x.dtype, out.dtype});
  visit(op, [&](auto f) {
    const auto forward = [f](auto value) { return f.forward(value); };
    dispatch_compute(type, [&](auto tag) {
      using C = typename decltype(tag)::type;
      if constexpr (std::is_floating_point_v<C> || decltype(f)::kIntegers)
        map_each<C>(out, GradientWrite::Overwrite, forward, x);
    });
  });
}

void unary_gradient(UnaryOp op, const ConstTensorView& g, const ConstTensorView& saved, const TensorView& out,
                    GradientWrite write) {
  const DType type = widest({g.dtype, saved.dtype, out.dtype});
  visit(op, [&](auto f) {
    const auto gradient = [f](auto a, auto b) { return f.gradient(a, b); };
    dispatch_compute_floating(
        type, [&](auto tag) { map_each<typename decltype(tag)::type>(out, write, gradient, g, saved); });
  });
}

void where(const ConstTensorView& condition, const ConstTensorView& a, const ConstTensorView& b,
           const TensorView& out) {
  const auto choose = [](auto c, auto x, auto y) { return c != decltype(c)(0) ? x : y; };
  dispatch_compute(widest({a.dtype, b.dtype, out.dtype}), [&](auto tag) {
    map_each<typename decltype(tag)::type>(out, GradientWrite::Overwrite, choose, condition, a, b);
  });
}

void where_gradient(bool side, const ConstTensorView& condition, const ConstTensorView& g,
                    const TensorView& out, GradientWrite write) {
  const auto choose = [side](auto c, auto value) {
    return (c != decltype(c)(0)) == side ? value : decltype(value)(0);
  };
  dispatch_compute_floating(widest({g.dtype, out.dtype}), [&](auto tag) {
    map_each<typename decltype(tag)::type>(out, write, choose, condition, g);
  });
}

void compare(CompareOp op, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out) {
  run(op, widest({a.dtype, b.dtype}), a, b, out);
}
void compare(CompareOp op, const ConstTensorView& a, double b, const TensorView& out) {
  run(op, is_floating(a.dtype) ? a.dtype : DType::Float64, a, repeat(b, out), out);
}

}  // namespace lamella::cpu
