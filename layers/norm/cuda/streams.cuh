#pragma once

#include "layers/norm/cuda/packets.cuh"

/// Numbers that are made of others at the same places, sixteen bytes at a time.
namespace lamella::cuda {

/// From g and x to out.
template <class T>
struct Streams {
  const T* g;  ///< null where the formula does not read it
  const T* x;
  T* out;
  bool accumulate;
};

template <class T>
struct Packets {
  Numbers<T> g, x;
};
template <class T>
struct PacketsAt {
  Packets<T> packets;
  std::int64_t at;
  int valid;
};

template <bool kWide, class T, class Formula>
__device__ inline Packets<T> load_streams(const Streams<T>& streams, std::int64_t at, int valid) {
  Packets<T> packets;
  if constexpr (Formula::kReadsGradient) packets.g = load_numbers<kWide>(streams.g + at, valid);
  packets.x = load_numbers<kWide>(streams.x + at, valid);
  return packets;
}

/// Number k of the packet has lanes[k · kStep].
template <bool kWide, int kStep, class T, class Formula>
__device__ inline void write_packet(const Streams<T>& streams, const Packets<T>& packets, std::int64_t at,
                                    int valid, const Formula& formula, const typename Formula::Lane* lanes) {
  using C = detail::ComputeType<T>;
  constexpr int kSize = Numbers<T>::kSize;
  T* const to = streams.out + at;
  C values[kSize];
#pragma unroll
  for (int k = 0; k < kSize; ++k) {
    C g = 0;
    if constexpr (Formula::kReadsGradient) g = packets.g.at(k);
    values[k] = formula(lanes[k * kStep], g, packets.x.at(k));
  }
  if (streams.accumulate) {
    const Numbers<T> before = load_numbers<kWide>(static_cast<const T*>(to), valid);
#pragma unroll
    for (int k = 0; k < kSize; ++k) values[k] += before.at(k);
  }
  store_numbers<kWide>(values, to, valid);
}

}  // namespace lamella::cuda
