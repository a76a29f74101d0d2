#pragma once

#include <cstdint>
#include <type_traits>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/cuda/packet.cuh"
#include "layers/pool/cuda/windows.cuh"
#include "tensor/dispatch.h"

/// How pooling kernels are chosen: sixteen bytes of channels at a time where they come last, fit and lie so.
namespace lamella::cuda {

inline constexpr int kPoolThreads = 256;

using detail::cuda::is_aligned;
using detail::cuda::Lot;
using detail::cuda::Packet;

template <class T, int V>
__device__ Lot<T, V> load_lot(const T* from, std::int64_t lot) {
  return reinterpret_cast<const Lot<T, V>*>(from)[lot];
}
template <class T, int V>
__device__ void store_lot(const Lot<T, V>& lot, T* to, std::int64_t at) {
  reinterpret_cast<Lot<T, V>*>(to)[at] = lot;
}

/// value, or value added to what `to` holds.
template <class T, int V>
__device__ void write_lot(const detail::ComputeType<T> (&value)[V], T* to, std::int64_t at, bool accumulate) {
  using namespace detail::cuda;
  Lot<T, V> lot;
  if (accumulate) {
    lot = load_lot<T, V>(to, at);
#pragma unroll
    for (int v = 0; v < V; ++v) lot.at[v] = from_compute<T>(value[v] + to_compute(lot.at[v]));
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) lot.at[v] = from_compute<T>(value[v]);
  }
  store_lot(lot, to, at);
}

/// Calls body(i) for this thread's share of the items.
template <class I, class Body>
__device__ void for_each_item(std::int64_t items, const Body& body) {
  using U = std::make_unsigned_t<I>;
  const U step = U(gridDim.x) * blockDim.x, end = static_cast<U>(items);
  for (U i = U(blockIdx.x) * blockDim.x + threadIdx.x; i < end; i += step) body(static_cast<I>(i));
}

template <int V>
struct LotSize {
  static constexpr int value = V;
};

/// Calls body(I(), LotSize<V>()) with the type of positions and the lots that suit; `aligned` tells that all
/// operands allow lots of sixteen bytes of T.
template <class T, class Body>
void with_pooling(const detail::Pool2dGeometry& g, bool aligned, const Body& body) {
  if (!fits_32_bits(g))
    body(std::int64_t(), LotSize<1>());
  else if (g.channels_last && aligned && g.channels % Packet<T>::kSize == 0)
    body(std::int32_t(), LotSize<Packet<T>::kSize>());
  else
    body(std::int32_t(), LotSize<1>());
}

}  // namespace lamella::cuda
