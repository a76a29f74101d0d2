// The elementwise kernels of every backend: included behind the backend's map_each(), with LAMELLA_BACKEND
// defined as its namespace. No include guard: never included twice in one file.
#include <initializer_list>

#include "tensor/kernels/elementwise.h"
#include "tensor/pending_factors-inl.h"

namespace lamella::LAMELLA_BACKEND {

namespace {

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

void run(BinaryOp op, DType type, const MapOperand& a, const MapOperand& b, const TensorView& out,
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

void run(TernaryOp op, DType type, const MapOperand& g, const MapOperand& a, const MapOperand& b,
         const TensorView& out, GradientWrite write) {
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

void run(CompareOp op, DType type, const MapOperand& a, const MapOperand& b, const TensorView& out) {
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
  dispatch_compute_floating(out.dtype, [&](auto tag) {
    map_each<typename decltype(tag)::type>(out, GradientWrite::Overwrite, detail::AddPending(), a.stored,
                                           factors.scale, factors.shift, b);
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
    dispatch_compute_floating(type, [&](auto tag) {
      map_each<typename decltype(tag)::type>(out, write, detail::SquareGradient(), g, a);
    });
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
    using F = std::remove_cvref_t<decltype(f)>;
    dispatch_compute(type, [&](auto tag) {
      using C = typename decltype(tag)::type;
      if constexpr (std::is_floating_point_v<C> || F::kIntegers)
        map_each<C>(out, GradientWrite::Overwrite, detail::Forward<F>{f}, x);
    });
  });
}

void unary_gradient(UnaryOp op, const ConstTensorView& g, const ConstTensorView& saved, const TensorView& out,
                    GradientWrite write) {
  const DType type = widest({g.dtype, saved.dtype, out.dtype});
  visit(op, [&](auto f) {
    using F = std::remove_cvref_t<decltype(f)>;
    dispatch_compute_floating(type, [&](auto tag) {
      map_each<typename decltype(tag)::type>(out, write, detail::Backward<F>{f}, g, saved);
    });
  });
}

void where(const ConstTensorView& condition, const ConstTensorView& a, const ConstTensorView& b,
           const TensorView& out) {
  dispatch_compute(widest({a.dtype, b.dtype, out.dtype}), [&](auto tag) {
    map_each<typename decltype(tag)::type>(out, GradientWrite::Overwrite, detail::Choose(), condition, a, b);
  });
}

void where_gradient(bool side, const ConstTensorView& condition, const ConstTensorView& g,
                    const TensorView& out, GradientWrite write) {
  dispatch_compute_floating(widest({g.dtype, out.dtype}), [&](auto tag) {
    map_each<typename decltype(tag)::type>(out, write, detail::ChooseGradient{side}, condition, g);
  });
}

void compare(CompareOp op, const ConstTensorView& a, const ConstTensorView& b, const TensorView& out) {
  run(op, widest({a.dtype, b.dtype}), a, b, out);
}
void compare(CompareOp op, const ConstTensorView& a, double b, const TensorView& out) {
  run(op, is_floating(a.dtype) ? a.dtype : DType::Float64, a, repeat(b, out), out);
}

}  // namespace lamella::LAMELLA_BACKEND
