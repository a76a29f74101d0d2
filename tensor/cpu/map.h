#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "tensor/dispatch.h"
#include "tensor/view.h"

/// Elementwise kernels over any types and strides. An operator writes one loop over dense numbers of its
/// compute type; map() feeds it, with pointers to the operands themselves where they are such, and otherwise
/// with blocks that it gathers and converts in the L1 cache. So an operator costs one loop per compute type
/// to compile, and a dense operand costs one pass over memory.
namespace lamella::cpu {

using detail::dispatch_compute;
using detail::dispatch_compute_floating;

/// out[i] = f(in[0][i], in[1][i], …) for i in [0, n).
template <class C>
using MapLoop = void (*)(const void* function, const C* const* in, C* out, std::int64_t n);

inline constexpr int kMaxMapInputs = 4;

/// Runs `loop` over views of one shape (broadcast ones have stride 0). C is float, double or std::int64_t;
/// Accumulate adds to a floating `out` instead, rounding once.
template <class C>
void map(const detail::TensorView& out, detail::GradientWrite write,
         std::span<const detail::ConstTensorView> in, MapLoop<C> loop, const void* function);

extern template void map<float>(const detail::TensorView&, detail::GradientWrite,
                                std::span<const detail::ConstTensorView>, MapLoop<float>, const void*);
extern template void map<double>(const detail::TensorView&, detail::GradientWrite,
                                 std::span<const detail::ConstTensorView>, MapLoop<double>, const void*);
extern template void map<std::int64_t>(const detail::TensorView&, detail::GradientWrite,
                                       std::span<const detail::ConstTensorView>, MapLoop<std::int64_t>,
                                       const void*);

/// n numbers `stride` apart, of any type, into dense ones of the compute type; and back, replacing or adding.
template <class C>
void load(DType dtype, const void* from, std::int64_t stride, std::int64_t n, C* to);
template <class C>
void store(DType dtype, const C* from, std::int64_t n, void* to, std::int64_t stride,
           detail::GradientWrite write);

/// map() with a function of N numbers: map_each<float>(y, Overwrite, f, a, b).
template <class C, class F, class... Views>
void map_each(const detail::TensorView& out, detail::GradientWrite write, const F& f, const Views&... views) {
  constexpr std::size_t kInputs = sizeof...(Views);
  static_assert(kInputs <= kMaxMapInputs);
  const std::array<detail::ConstTensorView, kInputs> in{views...};
  map<C>(
      out, write, in,
      [](const void* function, const C* const* from, C* __restrict to, std::int64_t n) {
        const F copy = *static_cast<const F*>(function);  // its members stay in registers
        [&]<std::size_t... I>(std::index_sequence<I...>) {
          const std::array<const C*, kInputs> p{from[I]...};
          for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<C>(copy(p[I][i]...));
        }
        (std::make_index_sequence<kInputs>{});
      },
      &f);
}

/// What map_each() takes: a number by a view that repeats it, and that it must outlive.
using MapOperand = detail::ConstTensorView;
inline MapOperand repeat(const double& number, const detail::ConstTensorView& over) {
  return {&number, over.shape, Dims::filled(over.shape.size(), 0), DType::Float64, over.device};
}

}  // namespace lamella::cpu
