#include <cmath>
#include <cstdint>
#include <vector>

#include "layers/depthwise_conv2d/kernels.h"
#include "tensor/dispatch.h"

// By the plain kernels, on copies in the type that is computed in: right, and no faster than a batch norm of
// its own. What is rounded is rounded once, where it is stored.
namespace lamella::cpu {
namespace {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::DepthwiseFusion;
using detail::GradientWrite;
using detail::TensorView;

/// Calls visit(number i of the dense, row-major order, its place in the view) for all.
template <class Visit>
void each_place(const Shape& shape, const Strides& strides, const Visit& visit) {
  const std::int64_t count = shape.product();
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t rest = i, at = 0;
    for (int axis = shape.size() - 1; axis >= 0; --axis) {
      at += rest % shape[axis] * strides[axis];
      rest /= shape[axis];
    }
    visit(i, at);
  }
}

/// A dense copy.
template <class C>
struct Copy {
  Shape shape;
  std::vector<C> numbers;

  explicit Copy(const Shape& of) : shape(of), numbers(static_cast<std::size_t>(of.product())) {}
  explicit Copy(const ConstTensorView& view) : Copy(view.shape) {
    if (view.data == nullptr) return;
    detail::dispatch_floating(view.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      each_place(shape, view.strides, [&](std::int64_t i, std::int64_t at) {
        (*this)[i] = static_cast<C>(static_cast<ComputeType<T>>(view.as<T>()[at]));
      });
    });
  }
  C& operator[](std::int64_t i) { return numbers[static_cast<std::size_t>(i)]; }
  C operator[](std::int64_t i) const { return numbers[static_cast<std::size_t>(i)]; }
  TensorView view() {
    return {numbers.data(), shape, dense_strides(shape), sizeof(C) == 8 ? DType::Float64 : DType::Float32,
            Device::cpu()};
  }
  /// Rounded, and added to what is there if wanted.
  void store(const TensorView& to, GradientWrite write) const {
    detail::dispatch_floating(to.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      each_place(shape, to.strides, [&](std::int64_t i, std::int64_t at) {
        T& number = to.as<T>()[at];
        C sum = (*this)[i];
        if (write == GradientWrite::Accumulate) sum += static_cast<C>(static_cast<ComputeType<T>>(number));
        number = static_cast<T>(static_cast<ComputeType<T>>(sum));
      });
    });
  }
  /// The channel of number i of [N,C,H,W].
  std::int64_t channel(std::int64_t i) const { return i / (shape[2] * shape[3]) % shape[1]; }
  std::int64_t count() const { return static_cast<std::int64_t>(numbers.size()); }
};

/// Before the clamp.
template <class C>
C normalised(const DepthwiseFusion& fusion, std::int64_t channel, C z) {
  return std::fma(static_cast<C>(fusion.scale[channel]), z, static_cast<C>(fusion.shift[channel]));
}

template <class C>
Copy<C> transformed(const DepthwiseFusion& fusion, const ConstTensorView& input) {
  Copy<C> x(input);
  if (fusion.scale == nullptr) return x;
  const C low = static_cast<C>(fusion.low), high = static_cast<C>(fusion.high);
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const C y = normalised(fusion, x.channel(i), x[i]);
    x[i] = y < low ? low : y > high ? high : y;  // NaN stays NaN
  }
  return x;
}

/// In two passes, as a variance far from zero wants it.
template <class C>
void write_statistics(const Copy<C>& y, const DepthwiseFusion& fusion) {
  const std::int64_t channels = y.shape[1];
  std::vector<double> mean(static_cast<std::size_t>(channels)), squares(mean.size());
  const double count = channels == 0 ? 0 : static_cast<double>(y.count() / channels);
  for (std::int64_t i = 0; i < y.count(); ++i)
    mean[static_cast<std::size_t>(y.channel(i))] += static_cast<double>(y[i]) / count;
  for (std::int64_t i = 0; i < y.count(); ++i) {
    const auto c = static_cast<std::size_t>(y.channel(i));
    const double apart = static_cast<double>(y[i]) - mean[c];
    squares[c] += apart * apart / count;
  }
  for (std::size_t c = 0; c < mean.size(); ++c) {
    fusion.mean[c] = static_cast<float>(mean[c]);
    fusion.variance[c] = static_cast<float>(squares[c]);
  }
}

template <class C>
void mask_and_sum(Copy<C>& dx, const Copy<C>& z, const DepthwiseFusion& fusion) {
  std::vector<double> sums(static_cast<std::size_t>(dx.shape[1])), products(sums.size());
  for (std::int64_t i = 0; i < dx.count(); ++i) {
    const std::int64_t channel = dx.channel(i);
    const C y = normalised(fusion, channel, z[i]);
    if (!(y > static_cast<C>(fusion.low) && y < static_cast<C>(fusion.high))) {
      dx[i] = 0;
      continue;
    }
    const auto c = static_cast<std::size_t>(channel);
    sums[c] += static_cast<double>(dx[i]);
    products[c] +=
        static_cast<double>(dx[i]) * (static_cast<double>(z[i]) - static_cast<double>(fusion.center[c]));
  }
  for (std::size_t c = 0; c < sums.size(); ++c) {
    fusion.sum[c] = static_cast<float>(sums[c]);
    fusion.product[c] = static_cast<float>(products[c]);
  }
}

/// Calls body(C{}) with the type that is computed in.
template <class Body>
void in_compute_type(DType dtype, const Body& body) {
  dtype == DType::Float64 ? body(double{}) : body(float{});
}

}  // namespace

void depthwise_conv2d_forward_fused(const Conv2dGeometry& g, const DepthwiseFusion& fusion,
                                    const ConstTensorView& input, const ConstTensorView& weight,
                                    const ConstTensorView& bias, const TensorView& output) {
  in_compute_type(input.dtype, [&](auto number) {
    using C = decltype(number);
    Copy<C> x = transformed<C>(fusion, input), w(weight), y(g.output_shape());
    Copy<C> b(Shape{g.out_channels});
    if (bias.data != nullptr) b = Copy<C>(bias);
    if (y.count() > 0) {
      depthwise_conv2d_forward(g, x.view(), w.view(), b.view(), y.view());
      y.store(output, GradientWrite::Overwrite);
    }
    if (fusion.mean != nullptr) write_statistics(y, fusion);
  });
}

void depthwise_conv2d_backward_fused(const Conv2dGeometry& g, const DepthwiseFusion& fusion,
                                     const ConstTensorView& grad_output, const ConstTensorView& input,
                                     const ConstTensorView& weight, const TensorView& grad_input,
                                     GradientWrite input_write, const TensorView& grad_weight,
                                     GradientWrite weight_write, const TensorView& grad_bias,
                                     GradientWrite bias_write) {
  in_compute_type(grad_output.dtype, [&](auto number) {
    using C = decltype(number);
    Copy<C> dy(grad_output);
    if (grad_input.data != nullptr || fusion.sum != nullptr) {
      Copy<C> w(weight), dx(g.input_shape());
      if (dx.count() > 0)
        depthwise_conv2d_backward_input(g, dy.view(), w.view(), dx.view(), GradientWrite::Overwrite);
      if (fusion.sum != nullptr) mask_and_sum(dx, Copy<C>(input), fusion);
      if (grad_input.data != nullptr) dx.store(grad_input, input_write);
    }
    if (grad_weight.data == nullptr && grad_bias.data == nullptr) return;
    Copy<C> x = transformed<C>(fusion, input), dw(g.weight_shape()), db(Shape{g.out_channels});
    depthwise_conv2d_backward_weight(g, dy.view(), x.view(), dw.view(), GradientWrite::Overwrite, db.view(),
                                     GradientWrite::Overwrite);
    if (grad_weight.data != nullptr) dw.store(grad_weight, weight_write);
    if (grad_bias.data != nullptr) db.store(grad_bias, bias_write);
  });
}

}  // namespace lamella::cpu
