#include "tensor/kernels/copy.h"

#include <atomic>
#include <cmath>
#include <cstring>

#include "tensor/cpu/convert.h"
#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// Between layouts, the source's dense axis is not the target's: tiles small enough for the L1 keep both
/// sides whole.
template <class T>
bool copy_transposed(const StridedPlan<2>& plan, const T* from, T* to) {
  constexpr std::int64_t kTile = 16;
  const auto inner = static_cast<std::size_t>(plan.axes - 1);
  if (plan.axes < 2 || plan.stride[0][inner] != 1 || plan.stride[1][inner] == 1) return false;
  std::size_t dense = inner;
  for (std::size_t a = 0; a < inner; ++a)
    if (plan.stride[1][a] == 1) dense = a;
  if (dense == inner) return false;

  StridedPlan<2> outer;  // all axes but the two of the tile
  std::int64_t planes = 1;
  for (std::size_t a = 0; a < inner; ++a) {
    if (a == dense) continue;
    const auto next = static_cast<std::size_t>(outer.axes++);
    outer.size[next] = plan.size[a];
    outer.stride[0][next] = plan.stride[0][a];
    outer.stride[1][next] = plan.stride[1][a];
    planes *= plan.size[a];
  }
  const std::int64_t rows = plan.size[dense], columns = plan.size[inner];
  const std::int64_t to_row = plan.stride[0][dense], from_column = plan.stride[1][inner];
  const std::int64_t strips = (rows + kTile - 1) / kTile;
  const std::int64_t grain =
      std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(1, kTile * columns));
  detail::parallel_for(planes * strips, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      std::int64_t rest = item / strips;
      const std::int64_t r0 = (item % strips) * kTile, r1 = std::min(rows, r0 + kTile);
      const T* source = from;
      T* target = to;
      for (int axis = outer.axes - 1; axis >= 0; --axis) {
        const auto a = static_cast<std::size_t>(axis);
        const std::int64_t at = rest % outer.size[a];
        rest /= outer.size[a];
        target += at * outer.stride[0][a];
        source += at * outer.stride[1][a];
      }
      for (std::int64_t c0 = 0; c0 < columns; c0 += kTile) {
        const std::int64_t c1 = std::min(columns, c0 + kTile);
        for (std::int64_t r = r0; r < r1; ++r)
          for (std::int64_t c = c0; c < c1; ++c) target[r * to_row + c] = source[r + c * from_column];
      }
    }
  });
  return true;
}

}  // namespace

void copy(const ConstTensorView& source, const TensorView& target, GradientWrite write) {
  const auto plan = plan_strided<2>(target.shape, {target.strides, source.strides});
  const auto inner = static_cast<std::size_t>(plan.axes - 1);
  const std::int64_t to_step = plan.stride[0][inner], from_step = plan.stride[1][inner];
  if (write == GradientWrite::Accumulate) {
    LAMELLA_CHECK(DTypeError, source.dtype == target.dtype, "accumulate: ", name(source.dtype), " onto ",
                  name(target.dtype));
    detail::dispatch_floating(target.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using C = ComputeType<T>;
      for_each_row(plan, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
        T* to = target.as<T>() + at[0];
        const T* from = source.as<T>() + at[1];
        if (to_step == 1 && from_step == 1) {
          for (std::int64_t i = 0; i < n; ++i)
            to[i] = static_cast<T>(static_cast<C>(to[i]) + static_cast<C>(from[i]));
        } else {
          for (std::int64_t i = 0; i < n; ++i) {
            T& into = to[i * to_step];
            into = static_cast<T>(static_cast<C>(into) + static_cast<C>(from[i * from_step]));
          }
        }
      });
    });
    return;
  }
  detail::dispatch_all(target.dtype, [&](auto to_tag) {
    using To = typename decltype(to_tag)::type;
    if (source.dtype == target.dtype && copy_transposed(plan, source.as<To>(), target.as<To>())) return;
    detail::dispatch_all(source.dtype, [&](auto from_tag) {
      using From = typename decltype(from_tag)::type;
      for_each_row(plan, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
        convert_row(source.as<From>() + at[1], from_step, target.as<To>() + at[0], to_step, n);
      });
    });
  });
}

void round_all(const std::vector<Rounding>& all) {
  for (const Rounding& each : all) copy(each.from, each.to, GradientWrite::Overwrite);
}

void fill(const TensorView& target, double value) {
  const auto plan = plan_strided<1>(target.shape, {target.strides});
  const std::int64_t step = plan.stride[0][static_cast<std::size_t>(plan.axes - 1)];
  detail::dispatch_all(target.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T filler = convert<T>(value);
    for_each_row(plan, [&](const std::array<std::int64_t, 1>& at, std::int64_t n) {
      T* to = target.as<T>() + at[0];
      for (std::int64_t i = 0; i < n; ++i) to[i * step] = filler;
    });
  });
}

void find_nan(const ConstTensorView& source, bool* found) {
  std::atomic<bool> any{false};
  const auto plan = plan_strided<1>(source.shape, {source.strides});
  const std::int64_t step = plan.stride[0][static_cast<std::size_t>(plan.axes - 1)];
  detail::dispatch_floating(source.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_row(plan, [&](const std::array<std::int64_t, 1>& at, std::int64_t n) {
      const T* from = source.as<T>() + at[0];
      for (std::int64_t i = 0; i < n; ++i)
        if (std::isnan(static_cast<ComputeType<T>>(from[i * step])))
          any.store(true, std::memory_order_relaxed);
    });
  });
  *found = any.load();
}

}  // namespace lamella::cpu
