#include <algorithm>
#include <limits>
#include <vector>

#include "layers/activation/kernels.h"
#include "tensor/cpu/map.h"
#include "tensor/cpu/strided.h"
#include "tensor/functions.h"

namespace lamella::cpu {

using detail::ConstTensorView;
using detail::exponential;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// Accumulators of a sum along a row, added in order at the end: so many can be in flight.
constexpr std::int64_t kLanes = 16;
/// Columns handled side by side where the axis is not the dense one.
constexpr std::int64_t kColumns = 64;
/// Exponentials of a row held at a time.
constexpr std::int64_t kPart = 256;

/// Σ term(i) for i in [0, n).
template <class Term>
double sum_in_lanes(std::int64_t n, const Term& term) {
  std::array<double, kLanes> lanes{};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t k = 0; k < kLanes; ++k)
      lanes[static_cast<std::size_t>(k)] += static_cast<double>(term(i + k));
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(term(i));
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <class C>
C largest(const C* values, std::int64_t n) {
  std::array<C, kLanes> lanes;
  lanes.fill(-std::numeric_limits<C>::infinity());
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t k = 0; k < kLanes; ++k) {
      C& lane = lanes[static_cast<std::size_t>(k)];
      lane = values[i + k] > lane ? values[i + k] : lane;
    }
  C result = *std::max_element(lanes.begin(), lanes.end());
  for (; i < n; ++i) result = values[i] > result ? values[i] : result;
  return result;
}

// One row of `length` numbers, in place. NaN passes the maximum by but not the sum.

template <class C>
void forward_row(bool logarithm, C* values, std::int64_t length) {
  const C top = largest(values, length);
  if (logarithm) {
    double sum = 0;
    std::array<C, kPart> powers;
    for (std::int64_t done = 0; done < length; done += kPart) {
      const C* part = values + done;
      const std::int64_t n = std::min(kPart, length - done);
      for (std::int64_t i = 0; i < n; ++i)
        powers[static_cast<std::size_t>(i)] = exponential(static_cast<C>(part[i] - top));
      sum += sum_in_lanes(n, [&](std::int64_t i) { return powers[static_cast<std::size_t>(i)]; });
    }
    const C log_sum = static_cast<C>(std::log(sum));
    for (std::int64_t i = 0; i < length; ++i) values[i] = values[i] - top - log_sum;
  } else {
    for (std::int64_t i = 0; i < length; ++i) values[i] = exponential(static_cast<C>(values[i] - top));
    const double sum = sum_in_lanes(length, [=](std::int64_t i) { return values[i]; });
    const C factor = static_cast<C>(1 / sum);
    for (std::int64_t i = 0; i < length; ++i) values[i] *= factor;
  }
}

/// g becomes the gradient.
template <class C>
void backward_row(bool logarithm, C* g, const C* y, std::int64_t length) {
  if (logarithm) {
    const C sum = static_cast<C>(sum_in_lanes(length, [=](std::int64_t i) { return g[i]; }));
    for (std::int64_t i = 0; i < length; ++i) g[i] -= exponential(y[i]) * sum;
  } else {
    const C sum = static_cast<C>(sum_in_lanes(
        length, [=](std::int64_t i) { return static_cast<double>(g[i]) * static_cast<double>(y[i]); }));
    for (std::int64_t i = 0; i < length; ++i) g[i] = y[i] * (g[i] - sum);
  }
}

// `width` columns side by side, [length, width], in place.

template <class C>
void forward_columns(bool logarithm, C* values, std::int64_t length, std::int64_t width) {
  std::array<C, kColumns> top;
  std::array<double, kColumns> sum{};
  top.fill(-std::numeric_limits<C>::infinity());
  for (std::int64_t l = 0; l < length; ++l)
    for (std::int64_t w = 0; w < width; ++w) {
      const C value = values[l * width + w];
      C& best = top[static_cast<std::size_t>(w)];
      best = value > best ? value : best;
    }
  std::array<C, kColumns> powers;
  for (std::int64_t l = 0; l < length; ++l) {
    for (std::int64_t w = 0; w < width; ++w) {
      C& value = values[l * width + w];
      const C below = value - top[static_cast<std::size_t>(w)];
      const C power = exponential(below);
      powers[static_cast<std::size_t>(w)] = power;
      value = logarithm ? below : power;
    }
    for (std::size_t w = 0; w < static_cast<std::size_t>(width); ++w)
      sum[w] += static_cast<double>(powers[w]);
  }
  std::array<C, kColumns> last;
  for (std::size_t w = 0; w < kColumns; ++w)
    last[w] = static_cast<C>(logarithm ? std::log(sum[w]) : 1 / sum[w]);
  for (std::int64_t l = 0; l < length; ++l)
    for (std::int64_t w = 0; w < width; ++w) {
      C& value = values[l * width + w];
      const C by = last[static_cast<std::size_t>(w)];
      value = logarithm ? value - by : value * by;
    }
}

template <class C>
void backward_columns(bool logarithm, C* g, const C* y, std::int64_t length, std::int64_t width) {
  std::array<double, kColumns> sum{};
  for (std::int64_t l = 0; l < length; ++l)
    for (std::int64_t w = 0; w < width; ++w) {
      const std::int64_t i = l * width + w;
      const double weight = logarithm ? 1 : static_cast<double>(y[i]);
      sum[static_cast<std::size_t>(w)] += static_cast<double>(g[i]) * weight;
    }
  std::array<C, kColumns> total;
  for (std::size_t w = 0; w < kColumns; ++w) total[w] = static_cast<C>(sum[w]);
  for (std::int64_t l = 0; l < length; ++l) {
    C* const row = g + l * width;
    const C* const out = y + l * width;
    if (logarithm)
      for (std::int64_t w = 0; w < width; ++w)
        row[w] -= exponential(out[w]) * total[static_cast<std::size_t>(w)];
    else
      for (std::int64_t w = 0; w < width; ++w)
        row[w] = out[w] * (row[w] - total[static_cast<std::size_t>(w)]);
  }
}

template <class View>
auto* element(const View& view, std::int64_t offset) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>,
                                  const std::byte, std::byte>;
  return static_cast<Byte*>(view.data) + offset * static_cast<std::int64_t>(size_of(view.dtype));
}

/// Gathers every line along `axis` of the inputs in dense buffers of the compute type, has `lines` work on
/// the first in place, and stores that in `out`: lines(buffers, length, width).
template <class C, std::size_t N, class Lines>
void for_each_line(const std::array<ConstTensorView, N>& in, int axis, const TensorView& out,
                   GradientWrite write, const Lines& lines) {
  const std::int64_t length = out.shape[axis];
  Shape others = out.shape;
  others[axis] = 1;
  std::array<Strides, N + 1> strides;
  strides[0] = out.strides;
  for (std::size_t k = 0; k < N; ++k) strides[k + 1] = in[k].strides;
  const auto plan = plan_strided<N + 1>(others, strides);
  if (plan.total == 0 || length == 0) return;
  const auto last = static_cast<std::size_t>(plan.axes - 1);
  const bool side_by_side = plan.stride[0][last] < out.strides[axis] && plan.size[last] > 1;
  const std::int64_t most = side_by_side ? kColumns : 1;
  const std::int64_t grain = std::max<std::int64_t>(most, kElementGrain / length / most * most);
  for_each_row(
      plan,
      [&](const std::array<std::int64_t, N + 1>& at, std::int64_t n) {
        std::array<std::vector<C>, N> buffers;
        for (std::vector<C>& buffer : buffers)
          buffer.resize(static_cast<std::size_t>(length * std::min(n, most)));
        for (std::int64_t done = 0; done < n; done += most) {
          const std::int64_t width = std::min(most, n - done);
          for (std::size_t k = 0; k < N; ++k) {
            const std::int64_t step = plan.stride[k + 1][last], along = in[k].strides[axis];
            const std::int64_t begin = at[k + 1] + done * step;
            C* buffer = buffers[k].data();
            if (side_by_side)
              for (std::int64_t l = 0; l < length; ++l)
                load(in[k].dtype, element(in[k], begin + l * along), step, width, buffer + l * width);
            else
              load(in[k].dtype, element(in[k], begin), along, length, buffer);
          }
          lines(buffers, length, width, side_by_side);
          const std::int64_t step = plan.stride[0][last], along = out.strides[axis];
          const std::int64_t begin = at[0] + done * step;
          const C* buffer = buffers[0].data();
          if (side_by_side)
            for (std::int64_t l = 0; l < length; ++l)
              store(out.dtype, buffer + l * width, width, element(out, begin + l * along), step, write);
          else
            store(out.dtype, buffer, length, element(out, begin), along, write);
        }
      },
      grain);
}

}  // namespace

void softmax_forward(bool logarithm, const ConstTensorView& x, int axis, const TensorView& y) {
  dispatch_compute_floating(y.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    for_each_line<C, 1>(
        {x}, axis, y, GradientWrite::Overwrite,
        [logarithm](auto& buffers, std::int64_t length, std::int64_t width, bool side_by_side) {
          if (side_by_side)
            forward_columns(logarithm, buffers[0].data(), length, width);
          else
            forward_row(logarithm, buffers[0].data(), length);
        });
  });
}

void softmax_backward(bool logarithm, const ConstTensorView& g, const ConstTensorView& y, int axis,
                      const TensorView& dx, GradientWrite write) {
  dispatch_compute_floating(dx.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    for_each_line<C, 2>(
        {g, y}, axis, dx, write,
        [logarithm](auto& buffers, std::int64_t length, std::int64_t width, bool side_by_side) {
          if (side_by_side)
            backward_columns(logarithm, buffers[0].data(), buffers[1].data(), length, width);
          else
            backward_row(logarithm, buffers[0].data(), buffers[1].data(), length);
        });
  });
}

}  // namespace lamella::cpu
