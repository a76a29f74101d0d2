#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"

/// Elementwise operators against plain loops in double.
namespace lamella::testing {

inline constexpr std::array kFloatingTypes{DType::Float32, DType::Float64, DType::BFloat16, DType::Float16};

/// Largest relative error of one rounding.
inline double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::Float64:
      return 0x1p-53;
    case DType::BFloat16:
      return 0x1p-8;
    case DType::Float16:
      return 0x1p-11;
    default:
      return 0x1p-24;
  }
}

/// `roundings` in the compute type and one in the storage type, and half the smallest number.
inline Tolerance rounding_bound(DType dtype, double roundings) {
  const double compute = dtype == DType::Float64 ? 0x1p-53 : 0x1p-24;
  const double tiny = dtype == DType::Float64 ? 0 : dtype == DType::Float16 ? 0x1p-25 : 0x1p-149;
  return {.relative =
              roundings * compute +
              (dtype == DType::Float32 || dtype == DType::Float64 ? 0 : unit_roundoff(dtype) * (1 + 1e-6)),
          .absolute = tiny};
}

/// Ways for the same numbers to lie in memory.
enum class Layout { Dense, ChannelsLast, Spread, Reversed, Offset };
inline constexpr std::array kLayouts{Layout::Dense, Layout::ChannelsLast, Layout::Spread, Layout::Reversed,
                                     Layout::Offset};

/// x in another layout; ChannelsLast only with four axes, else x itself.
inline Tensor laid_out(const Tensor& x, Layout layout) {
  const NoGrad no_grad;
  if (layout == Layout::Dense || x.dim() == 0) return x.contiguous();
  if (layout == Layout::ChannelsLast) return x.dim() == 4 ? x.contiguous(MemoryFormat::ChannelsLast) : x;
  if (layout == Layout::Reversed) {
    Dims order;
    for (int axis = x.dim() - 1; axis >= 0; --axis) order.push_back(axis);
    return x.permute(order).contiguous().permute(order);
  }
  // Every axis twice as long and every other position taken, or one longer at the front of the last one.
  Shape larger = x.shape();
  const int first = layout == Layout::Spread ? 0 : x.dim() - 1;
  for (int axis = first; axis < x.dim(); ++axis)
    larger[axis] = layout == Layout::Spread ? 2 * larger[axis] : larger[axis] + 1;
  Tensor view = full(larger, 7, {.dtype = x.dtype()});
  for (int axis = first; axis < x.dim(); ++axis)
    view = view.slice(axis, {.begin = 1, .end = {}, .step = layout == Layout::Spread ? 2 : 1});
  view.copy_(x);
  return view;
}

/// f over the broadcast elements of `inputs`, in double.
template <class F, class... Inputs>
Tensor plain_map(const Shape& shape, const F& f, const Inputs&... inputs) {
  const std::array<std::vector<double>, sizeof...(Inputs)> values{
      inputs.detach().expand(shape).template to_vector<double>()...};
  std::vector<double> result(static_cast<std::size_t>(shape.product()));
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = [&]<std::size_t... I>(std::index_sequence<I...>) {
      return static_cast<double>(f(values[I][i]...));
    }
  (std::index_sequence_for<Inputs...>{});
  return from_vector(result, shape);
}

/// Runs y.backward(g) once onto an empty gradient, once onto what that left and once onto NaN that
/// zero_grad() declared stale: the gradient of each of `inputs` must be `expected`, twice that, and
/// `expected` again.
inline void expect_gradients(const Tensor& y, const Tensor& g, const Tensors& inputs, const Tensors& expected,
                             Tolerance tolerance) {
  for (Tensor input : inputs) input.set_grad({});
  y.backward(g, true);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_THAT(inputs[i].grad(), IsClose(expected[i], tolerance)) << "input " << i;
    EXPECT_EQ(inputs[i].grad().dtype(), inputs[i].dtype());
  }
  y.backward(g, true);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor twice = plain_map(
        inputs[i].shape(), [](double v) { return 2 * v; }, expected[i]);
    // The sum is rounded once more.
    const Tolerance looser{2 * tolerance.relative + unit_roundoff(inputs[i].dtype()), 2 * tolerance.absolute};
    EXPECT_THAT(inputs[i].grad(), IsClose(twice, looser)) << "input " << i << ", added";
    Tensor(inputs[i]).grad().fill_(std::numeric_limits<double>::quiet_NaN());
    Tensor(inputs[i]).zero_grad();
  }
  y.backward(g, true);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    EXPECT_THAT(inputs[i].grad(), IsClose(expected[i], tolerance)) << "input " << i << ", overwritten";
}

/// The text of what `action` throws, if it is an `ErrorType`.
template <class ErrorType, class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const ErrorType& error) {
    return error.what();
  }
  return "nothing of this type was thrown";
}

}  // namespace lamella::testing
