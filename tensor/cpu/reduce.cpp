#include "tensor/kernels/reduce.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"
#include "tensor/functions.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::ReduceKind;
using detail::TensorView;

namespace {

template <class T>
bool is_nan(T value) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(value);
  return false;
}

template <class C>
struct SumOf {
  using Acc = std::conditional_t<std::is_floating_point_v<C>, double, std::int64_t>;
  static constexpr Acc start() { return Acc(0); }
  static void add(Acc& into, Acc value) { into = detail::Add()(into, value); }  // integers wrap around
};

template <class C, bool kLargest>
struct ExtremeOf {
  using Acc = std::conditional_t<std::is_same_v<C, bool>, std::uint8_t, C>;
  static constexpr Acc start() {
    if constexpr (std::is_floating_point_v<C>)
      return kLargest ? -std::numeric_limits<C>::infinity() : std::numeric_limits<C>::infinity();
    return kLargest ? std::numeric_limits<Acc>::lowest() : std::numeric_limits<Acc>::max();
  }
  static void add(Acc& into, Acc value) {
    if (is_nan(into)) return;
    if (is_nan(value) || (kLargest ? value > into : value < into)) into = value;
  }
};

/// Offsets of `count` positions from `first` on, in the row-major order of `plan`'s axes.
template <class Visit>
void walk(const StridedPlan<1>& plan, std::int64_t first, std::int64_t count, const Visit& visit) {
  if (count == 0) return;
  std::array<std::int64_t, kMaxAxes> index{};
  std::int64_t rest = first, offset = 0;
  for (int axis = plan.axes - 1; axis >= 0; --axis) {
    const auto a = static_cast<std::size_t>(axis);
    index[a] = rest % plan.size[a];
    rest /= plan.size[a];
    offset += index[a] * plan.stride[0][a];
  }
  const auto inner = static_cast<std::size_t>(plan.axes - 1);
  for (std::int64_t i = 0; i < count; ++i) {
    visit(offset);
    offset += plan.stride[0][inner];
    ++index[inner];
    for (std::size_t a = inner; a > 0 && index[a] == plan.size[a]; --a) {
      offset += plan.stride[0][a - 1] - plan.size[a] * plan.stride[0][a];
      index[a] = 0;
      ++index[a - 1];
    }
  }
}

/// Reduced elements one partial result covers.
constexpr std::int64_t kReducedBlock = 8192;
/// Outputs whose partial results are built side by side.
constexpr std::int64_t kOutputBlock = 256;

template <class Op, class From, class To>
void reduce_as(const ConstTensorView& input, const TensorView& output, double scale) {
  using Acc = typename Op::Acc;
  using C = ComputeType<From>;
  Shape kept_shape = output.shape, reduced_shape = input.shape;
  for (int axis = 0; axis < input.shape.size(); ++axis)
    if (output.shape[axis] == input.shape[axis] && input.shape[axis] != 1) reduced_shape[axis] = 1;
  const StridedPlan<2> kept = plan_strided<2>(kept_shape, {input.strides, output.strides});
  const StridedPlan<1> reduced = plan_strided<1>(reduced_shape, {input.strides});
  const std::int64_t outputs = kept.total, length = reduced.total;
  if (outputs == 0) return;
  std::vector<std::int64_t> from_offset(static_cast<std::size_t>(outputs)), to_offset(from_offset.size());
  {
    StridedPlan<1> side;
    side.axes = kept.axes;
    side.size = kept.size;
    for (int which = 0; which < 2; ++which) {
      side.stride[0] = kept.stride[static_cast<std::size_t>(which)];
      std::size_t i = 0;
      auto& offsets = which == 0 ? from_offset : to_offset;
      walk(side, 0, outputs, [&](std::int64_t offset) { offsets[i++] = offset; });
    }
  }
  // One row of partial results per block of reduced elements.
  const std::int64_t blocks = std::max<std::int64_t>(1, (length + kReducedBlock - 1) / kReducedBlock);
  const std::int64_t groups = (outputs + kOutputBlock - 1) / kOutputBlock;
  std::vector<Acc> partial(static_cast<std::size_t>(blocks * outputs), Op::start());
  const auto* from = input.as<From>();
  const std::int64_t grain = std::max<std::int64_t>(
      1, kElementGrain /
             std::max<std::int64_t>(1, std::min(outputs, kOutputBlock) * std::min(length, kReducedBlock)));
  detail::parallel_for(blocks * groups, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t block = item / groups, first = (item % groups) * kOutputBlock;
      const std::int64_t count = std::min(kOutputBlock, outputs - first);
      const std::int64_t r0 = block * kReducedBlock, rows = std::min(kReducedBlock, length - r0);
      Acc* const acc = partial.data() + block * outputs + first;
      const std::int64_t* const offsets = from_offset.data() + first;
      // Last minus first would not tell: an expanded axis repeats offsets.
      bool dense = true;
      for (std::int64_t i = 1; i < count; ++i) dense = dense && offsets[i] == offsets[0] + i;
      walk(reduced, r0, std::max<std::int64_t>(0, rows), [&](std::int64_t at) {
        if (dense) {
          const From* const row = from + at + offsets[0];
          for (std::int64_t i = 0; i < count; ++i) Op::add(acc[i], static_cast<Acc>(static_cast<C>(row[i])));
        } else {
          for (std::int64_t i = 0; i < count; ++i)
            Op::add(acc[i], static_cast<Acc>(static_cast<C>(from[at + offsets[i]])));
        }
      });
    }
  });
  auto* to = output.as<To>();
  for (std::int64_t o = 0; o < outputs; ++o) {
    Acc total = Op::start();
    for (std::int64_t block = 0; block < blocks; ++block)
      Op::add(total, partial[static_cast<std::size_t>(block * outputs + o)]);
    if constexpr (std::is_same_v<Acc, double> && !std::is_same_v<To, std::int64_t>)
      to[to_offset[static_cast<std::size_t>(o)]] =
          static_cast<To>(static_cast<ComputeType<To>>(total * scale));
    else
      to[to_offset[static_cast<std::size_t>(o)]] = static_cast<To>(static_cast<ComputeType<To>>(total));
  }
}

}  // namespace

void reduce(ReduceKind kind, const ConstTensorView& input, const TensorView& output, double scale) {
  detail::dispatch_all(input.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    using SumType = std::conditional_t<std::is_floating_point_v<C>, T, std::int64_t>;
    switch (kind) {
      case ReduceKind::Sum:
        return reduce_as<SumOf<C>, T, SumType>(input, output, scale);
      case ReduceKind::Max:
        return reduce_as<ExtremeOf<C, true>, T, T>(input, output, 1);
      case ReduceKind::Min:
        return reduce_as<ExtremeOf<C, false>, T, T>(input, output, 1);
    }
  });
}

void arg_extreme(bool largest, const ConstTensorView& input, int axis, const TensorView& output) {
  const std::int64_t length = input.shape[axis], step = input.strides[axis];
  const auto plan = plan_strided<2>(output.shape, {output.strides, [&] {
                                                     Strides strides = input.strides;
                                                     strides[axis] = 0;
                                                     return strides;
                                                   }()});
  const auto inner = static_cast<std::size_t>(plan.axes - 1);
  detail::dispatch_all(input.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const auto* from = input.as<T>();
    auto* to = output.as<std::int64_t>();
    for_each_row(
        plan,
        [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
          for (std::int64_t i = 0; i < n; ++i) {
            const T* line = from + at[1] + i * plan.stride[1][inner];
            C best = static_cast<C>(line[0]);
            std::int64_t where = 0;
            for (std::int64_t k = 1; k < length && !is_nan(best); ++k) {
              const C value = static_cast<C>(line[k * step]);
              if (is_nan(value) || (largest ? value > best : value < best)) {
                best = value;
                where = k;
              }
            }
            to[at[0] + i * plan.stride[0][inner]] = where;
          }
        },
        std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(1, length)));
  });
}

}  // namespace lamella::cpu
