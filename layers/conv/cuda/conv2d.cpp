#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "layers/conv/cuda/convolve.h"
#include "layers/conv/cuda/reorder.h"
#include "layers/conv/cuda/results.h"
#include "layers/conv/cuda/weight_gradient.h"
#include "layers/conv/kernels.h"
#include "layers/dense.h"
#include "tensor/kernels/copy.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

bool is_channels_last(const ConstTensorView& x) {
  return detail::is_dense(x.shape, x.strides, MemoryFormat::ChannelsLast);
}

/// Row-major images with few pixels make poor matrices; so do half-precision rows that do not begin at
/// sixteen bytes. The same images in channels-last order make one good matrix.
bool reorders(const Conv2dGeometry& g, DType dtype) {
  constexpr std::int64_t kFewPixels = 32, kAligned = 8;
  const std::int64_t pixels = g.out.h * g.out.w;
  return g.batch > 1 && (pixels <= kFewPixels || (size_of(dtype) == 2 && pixels % kAligned != 0));
}

/// Whether partial weight gradients, one per row-major image, are more bytes than two reordered copies.
bool reorders_for_weight(const Conv2dGeometry& g, DType dtype) {
  if (reorders(g, dtype)) return true;
  constexpr std::int64_t kFewBytes = 4 << 20;
  const std::int64_t part = 4 * g.weight_shape().product();
  const std::int64_t image = static_cast<std::int64_t>(size_of(dtype)) *
                             (g.in_channels * g.in.h * g.in.w + g.out_channels * g.out.h * g.out.w);
  return g.batch > 1 && part > image && part > kFewBytes / g.batch;
}

/// Rows (or columns) of the input that are a stride apart meet the same taps: those from `first` on.
struct Phase {
  std::int64_t first, count;
  std::int64_t taps, first_tap, tap_stride;
  std::int64_t start, tap_step;  ///< number i meets output start + i + tap · tap_step
};

/// Those that meet any taps.
std::vector<Phase> phases(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                          std::int64_t dilation) {
  const std::int64_t common = std::gcd(dilation, stride), tap_stride = stride / common;
  std::vector<Phase> result;
  // Tap t meets input first + i · stride at output (first + padding - t · dilation) / stride + i.
  for (std::int64_t tap = 0; tap < std::min(kernel, tap_stride); ++tap) {
    const std::int64_t shift = (tap * dilation - padding) % stride,
                       first = shift < 0 ? shift + stride : shift;
    if (first >= in) continue;
    result.push_back({first, (in - first + stride - 1) / stride, (kernel - tap + tap_stride - 1) / tap_stride,
                      tap, tap_stride, (first + padding - tap * dilation) / stride, -(dilation / common)});
  }
  return result;
}

const void* at(const void* data, std::int64_t offset, DType dtype) {
  return static_cast<const std::byte*>(data) + offset * static_cast<std::int64_t>(size_of(dtype));
}
void* at(void* data, std::int64_t offset, DType dtype) {
  return static_cast<std::byte*>(data) + offset * static_cast<std::int64_t>(size_of(dtype));
}

void forward(const Conv2dGeometry& g, const ConstTensorView& input, const ConstTensorView& weight,
             const ConstTensorView& bias, const TensorView& output, bool channels_last) {
  Convolution c;
  c.windows = forward_windows(g);
  c.channels_last = channels_last;
  c.source = input;
  const Strides& s = weight.strides;
  const std::int64_t outputs = g.out_channels / g.groups;
  c.weight = {weight.data,
              {g.groups, outputs, g.in_channels / g.groups, g.kernel.h, g.kernel.w},
              {s[0] * outputs, s[0], s[1], s[2], s[3]},
              weight.dtype,
              weight.device};
  c.bias = bias;
  c.target = output;
  convolve(c);
}

/// The input's gradient as convolutions of the output's gradient, one for the pixels of each phase: none
/// meets the zeros between strides.
void backward_input(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                    const ConstTensorView& weight, const TensorView& grad_input, GradientWrite write,
                    bool channels_last) {
  const std::vector<Phase> rows = phases(g.in.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h),
                           columns = phases(g.in.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
  const auto meets_all = [](const std::vector<Phase>& some, std::int64_t stride, std::int64_t in) {
    return static_cast<std::int64_t>(some.size()) == std::min(stride, in);
  };
  const bool whole = meets_all(rows, g.stride.h, g.in.h) && meets_all(columns, g.stride.w, g.in.w);
  if (!whole && write == GradientWrite::Overwrite) fill(grad_input, 0);
  const std::int64_t inputs = g.in_channels / g.groups, outputs = g.out_channels / g.groups;
  const Strides &s = weight.strides, &t = grad_input.strides;
  for (const Phase& row : rows)
    for (const Phase& column : columns) {
      Convolution c;
      c.windows.channels = g.out_channels;
      c.windows.groups = g.groups;
      c.windows.source = g.out;
      c.windows.grid = {row.count, column.count};
      c.windows.taps = {row.taps, column.taps};
      c.windows.start = {row.start, column.start};
      c.windows.tap_step = {row.tap_step, column.tap_step};
      c.channels_last = channels_last;
      c.source = grad_output;
      c.weight = {at(weight.data, row.first_tap * s[2] + column.first_tap * s[3], weight.dtype),
                  {g.groups, inputs, outputs, row.taps, column.taps},
                  {s[0] * outputs, s[1], s[0], s[2] * row.tap_stride, s[3] * column.tap_stride},
                  weight.dtype,
                  weight.device};
      c.target = {at(grad_input.data, row.first * t[2] + column.first * t[3], grad_input.dtype),
                  {g.batch, g.in_channels, row.count, column.count},
                  {t[0], t[1], t[2] * g.stride.h, t[3] * g.stride.w},
                  grad_input.dtype,
                  grad_input.device};
      c.target_is_dense = row.count == g.in.h && column.count == g.in.w;
      c.write = write;
      convolve(c);
    }
}

}  // namespace

void conv2d_forward(const Conv2dGeometry& g, const ConstTensorView& input, const ConstTensorView& weight,
                    const ConstTensorView& bias, const TensorView& output) {
  if (g.batch == 0) return;
  const bool channels_last = is_channels_last(input) && is_channels_last(output);
  if (channels_last || !reorders(g, input.dtype)) {
    forward(g, input, weight, bias, output, channels_last);
    return;
  }
  const ChannelsLastCopy x = ChannelsLastCopy::of(input), y(output);
  forward(g, x.view(), weight, bias, y.view(), true);
  reorder(y.view(), output, false);
}

void conv2d_backward_input(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                           const ConstTensorView& weight, const TensorView& grad_input, GradientWrite write) {
  if (g.batch == 0) return;
  const bool channels_last = is_channels_last(grad_input) && is_channels_last(grad_output);
  // A second pass that adds would round twice.
  if (channels_last || write == GradientWrite::Accumulate || !reorders(g, grad_input.dtype)) {
    backward_input(g, grad_output, weight, grad_input, write, channels_last);
    return;
  }
  const ChannelsLastCopy dy = ChannelsLastCopy::of(grad_output), dx(grad_input);
  backward_input(g, dy.view(), weight, dx.view(), write, true);
  reorder(dx.view(), grad_input, false);
}

void conv2d_backward_weight(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                            const ConstTensorView& input, const TensorView& grad_weight,
                            GradientWrite weight_write, const TensorView& grad_bias,
                            GradientWrite bias_write) {
  if (g.batch == 0) {
    if (grad_weight.data != nullptr && weight_write == GradientWrite::Overwrite) fill(grad_weight, 0);
    if (grad_bias.data != nullptr && bias_write == GradientWrite::Overwrite) fill(grad_bias, 0);
    return;
  }
  if (grad_bias.data != nullptr)
    sum_channels(grad_output, is_channels_last(grad_output), grad_bias, bias_write);
  if (grad_weight.data == nullptr) return;
  const bool channels_last = is_channels_last(input) && is_channels_last(grad_output);
  if (channels_last || !reorders_for_weight(g, input.dtype)) {
    convolve_weight_gradient(g, grad_output, input, channels_last, grad_weight, weight_write);
    return;
  }
  const ChannelsLastCopy dy = ChannelsLastCopy::of(grad_output), x = ChannelsLastCopy::of(input);
  convolve_weight_gradient(g, dy.view(), x.view(), true, grad_weight, weight_write);
}

}  // namespace lamella::cuda
