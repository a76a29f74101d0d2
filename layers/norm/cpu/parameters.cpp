#include "layers/norm/cpu/parameters.h"

#include "layers/norm/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

std::vector<double> load_parameter(const ConstTensorView& from, std::int64_t count, double filler) {
  std::vector<double> to(static_cast<std::size_t>(count), filler);
  if (from.data == nullptr || count == 0) return to;
  const auto plan = plan_strided<2>(from.shape, {dense_strides(from.shape), from.strides});
  const std::int64_t step = plan.stride[1][static_cast<std::size_t>(plan.axes - 1)];
  detail::dispatch_floating(from.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_row(plan, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i)
        to[static_cast<std::size_t>(at[0] + i)] =
            static_cast<double>(static_cast<ComputeType<T>>(from.as<T>()[at[1] + i * step]));
    });
  });
  return to;
}

void write_parameter_gradient(const ConstTensorView& sums, const TensorView& target, GradientWrite write) {
  const auto plan = plan_strided<2>(target.shape, {dense_strides(target.shape), target.strides});
  const std::int64_t step = plan.stride[1][static_cast<std::size_t>(plan.axes - 1)];
  detail::dispatch_floating(target.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    for_each_row(plan, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) {
        T& to = target.as<T>()[at[1] + i * step];
        double value = sums.as<double>()[at[0] + i];
        if (write == GradientWrite::Accumulate) value += static_cast<double>(static_cast<C>(to));
        to = static_cast<T>(static_cast<C>(value));
      }
    });
  });
}

}  // namespace lamella::cpu
