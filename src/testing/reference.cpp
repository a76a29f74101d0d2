#include <algorithm>
#include <cmath>
#include <functional>

#include "core/check.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"

namespace lamella::testing::reference {

namespace {

void check_defined(const char* op, const char* argument, const Tensor& tensor) {
  LAMELLA_CHECK(Error, tensor.defined(), op, ": ", argument, " is an undefined tensor");
}

void check_shape(const char* op, const char* argument, const Tensor& tensor, const Shape& shape) {
  check_defined(op, argument, tensor);
  LAMELLA_CHECK(ShapeError, tensor.shape() == shape, op, ": ", argument, " is ", tensor.describe(),
                ", expected the shape ", shape.to_string());
}

/// One number per channel; `otherwise` where the tensor is undefined.
std::vector<double> per_channel(const char* op, const char* argument, const Tensor& tensor,
                                std::int64_t channels, double otherwise) {
  if (!tensor.defined()) return std::vector<double>(static_cast<std::size_t>(channels), otherwise);
  check_shape(op, argument, tensor, {channels});
  return tensor.to_vector<double>();
}

/// Visits every product weight[o, c, kh, kw] · input[n, g·C/G + c, ih, iw] of output[n, o, oh, ow], as flat
/// indices.
void for_each_product(const Conv2dGeometry& g,
                      const std::function<void(std::size_t, std::size_t, std::size_t)>& visit) {
  const std::int64_t group_in = g.in_channels / g.groups, group_out = g.out_channels / g.groups;
  for (std::int64_t n = 0; n < g.batch; ++n)
    for (std::int64_t o = 0; o < g.out_channels; ++o)
      for (std::int64_t oh = 0; oh < g.out.h; ++oh)
        for (std::int64_t ow = 0; ow < g.out.w; ++ow)
          for (std::int64_t c = 0; c < group_in; ++c)
            for (std::int64_t kh = 0; kh < g.kernel.h; ++kh)
              for (std::int64_t kw = 0; kw < g.kernel.w; ++kw) {
                const std::int64_t ih = oh * g.stride.h - g.padding.h + kh * g.dilation.h;
                const std::int64_t iw = ow * g.stride.w - g.padding.w + kw * g.dilation.w;
                if (ih < 0 || ih >= g.in.h || iw < 0 || iw >= g.in.w) continue;
                const std::int64_t channel = (o / group_out) * group_in + c;
                visit(static_cast<std::size_t>(((n * g.out_channels + o) * g.out.h + oh) * g.out.w + ow),
                      static_cast<std::size_t>(((o * group_in + c) * g.kernel.h + kh) * g.kernel.w + kw),
                      static_cast<std::size_t>(((n * g.in_channels + channel) * g.in.h + ih) * g.in.w + iw));
              }
}

}  // namespace

Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias, Size2 stride, Size2 padding,
              Size2 dilation, std::int64_t groups) {
  check_defined("reference conv2d", "input", input);
  check_defined("reference conv2d", "weight", weight);
  const Conv2dGeometry g = make_conv2d_geometry("reference conv2d", input.shape(), weight.shape(), stride,
                                                padding, dilation, groups);
  const auto x = input.to_vector<double>(), w = weight.to_vector<double>();
  const auto b = per_channel("reference conv2d", "bias", bias, g.out_channels, 0);
  const auto plane = static_cast<std::size_t>(g.out.h * g.out.w);
  std::vector<double> y(static_cast<std::size_t>(g.output_shape().product()));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = b[(i / plane) % b.size()];
  for_each_product(g, [&](std::size_t o, std::size_t k, std::size_t i) { y[o] += w[k] * x[i]; });
  return from_vector(y, g.output_shape());
}

Tensor conv2d_backward_input(const Tensor& grad_output, const Tensor& weight, const Shape& input_shape,
                             Size2 stride, Size2 padding, Size2 dilation, std::int64_t groups) {
  check_defined("reference conv2d_backward_input", "weight", weight);
  const Conv2dGeometry g = make_conv2d_geometry("reference conv2d_backward_input", input_shape,
                                                weight.shape(), stride, padding, dilation, groups);
  check_shape("reference conv2d_backward_input", "grad_output", grad_output, g.output_shape());
  const auto dy = grad_output.to_vector<double>(), w = weight.to_vector<double>();
  std::vector<double> dx(static_cast<std::size_t>(input_shape.product()), 0.0);
  for_each_product(g, [&](std::size_t o, std::size_t k, std::size_t i) { dx[i] += w[k] * dy[o]; });
  return from_vector(dx, input_shape);
}

Tensor conv2d_backward_weight(const Tensor& grad_output, const Tensor& input, const Shape& weight_shape,
                              Size2 stride, Size2 padding, Size2 dilation, std::int64_t groups) {
  check_defined("reference conv2d_backward_weight", "input", input);
  const Conv2dGeometry g = make_conv2d_geometry("reference conv2d_backward_weight", input.shape(),
                                                weight_shape, stride, padding, dilation, groups);
  check_shape("reference conv2d_backward_weight", "grad_output", grad_output, g.output_shape());
  const auto dy = grad_output.to_vector<double>(), x = input.to_vector<double>();
  std::vector<double> dw(static_cast<std::size_t>(weight_shape.product()), 0.0);
  for_each_product(g, [&](std::size_t o, std::size_t k, std::size_t i) { dw[k] += dy[o] * x[i]; });
  return from_vector(dw, weight_shape);
}

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_defined("reference matmul", "a", a);
  check_defined("reference matmul", "b", b);
  LAMELLA_CHECK(ShapeError, a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0),
                "reference matmul: ", a.describe(), " times ", b.describe(), ", expected [m,k] times [k,n]");
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  const auto m = static_cast<std::size_t>(a.size(0)), k = static_cast<std::size_t>(a.size(1)),
             n = static_cast<std::size_t>(b.size(1));
  std::vector<double> z(m * n, 0.0);
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t l = 0; l < k; ++l)
      for (std::size_t j = 0; j < n; ++j) z[i * n + j] += x[i * k + l] * y[l * n + j];
  return from_vector(z, {a.size(0), b.size(1)});
}

Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  check_defined("reference batch_norm", "x", x);
  LAMELLA_CHECK(ShapeError, x.dim() >= 2, "reference batch_norm: ", x.describe(), ", expected [N,C,…]");
  const auto values = x.to_vector<double>();
  const auto batch = static_cast<std::size_t>(x.size(0)), channels = static_cast<std::size_t>(x.size(1));
  const std::size_t plane = batch * channels == 0 ? 0 : values.size() / (batch * channels);
  const auto w = per_channel("reference batch_norm", "weight", weight, x.size(1), 1);
  const auto b = per_channel("reference batch_norm", "bias", bias, x.size(1), 0);
  std::vector<double> y(values.size());
  for (std::size_t c = 0; c < channels; ++c) {
    const auto each = [&](const std::function<void(std::size_t)>& visit) {
      for (std::size_t n = 0; n < batch; ++n)
        for (std::size_t i = 0; i < plane; ++i) visit((n * channels + c) * plane + i);
    };
    double mean = 0, variance = 0;
    each([&](std::size_t i) { mean += values[i]; });
    mean /= static_cast<double>(batch * plane);
    each([&](std::size_t i) { variance += (values[i] - mean) * (values[i] - mean); });
    variance /= static_cast<double>(batch * plane);
    each([&](std::size_t i) { y[i] = (values[i] - mean) / std::sqrt(variance + eps) * w[c] + b[c]; });
  }
  return from_vector(y, x.shape());
}

Tensor log_softmax(const Tensor& logits) {
  check_defined("reference log_softmax", "logits", logits);
  LAMELLA_CHECK(ShapeError, logits.dim() == 2 && logits.size(1) > 0,
                "reference log_softmax: ", logits.describe(), ", expected [N,C] with C > 0");
  auto values = logits.to_vector<double>();
  const auto classes = static_cast<std::size_t>(logits.size(1));
  for (std::size_t row = 0; row + classes <= values.size(); row += classes) {
    double largest = -INFINITY, total = 0;
    for (std::size_t c = 0; c < classes; ++c) largest = std::max(largest, values[row + c]);
    for (std::size_t c = 0; c < classes; ++c) total += std::exp(values[row + c] - largest);
    for (std::size_t c = 0; c < classes; ++c) values[row + c] -= largest + std::log(total);
  }
  return from_vector(values, logits.shape());
}

}  // namespace lamella::testing::reference
