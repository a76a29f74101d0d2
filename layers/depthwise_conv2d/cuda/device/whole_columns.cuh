#pragma once

#include "columns.cuh"

/// Small dense planes (NCHW) in float32, of which a thread has a whole one: products with what is outside are
/// not made, as the compiler knows all sizes.
namespace lamella::depthwise {

/// What a plane of x is.
template <int kHeight_, int kWidth_, int kPaddingH_, int kPaddingW_>
struct Map {
  static constexpr int kHeight = kHeight_, kWidth = kWidth_, kPaddingH = kPaddingH_, kPaddingW = kPaddingW_;
};

/// The parts of dw. A warp has 32 channels, of one image after the other, and pages of its own, which it asks
/// the copy engine for. Planes have an odd number of numbers, so that lanes meet no bank twice, but 32 of
/// them, and all of an image, are whole in sixteen bytes.
template <class T, class K, class M, bool kBias, int kPages, int kWarps, int kBlocks>
__global__ void __launch_bounds__(32 * kWarps, kBlocks) weigh_whole_columns(const PlaneWork work) {
  constexpr int kHeight = M::kHeight, kWidth = M::kWidth, kLanes = 32, kAll = K::kTaps + 1;
  constexpr int kOutHeight = kHeight + 2 * M::kPaddingH - K::kH + 1,
                kOutWidth = kWidth + 2 * M::kPaddingW - K::kW + 1;
  constexpr int kPlane = kHeight * kWidth, kOutPlane = kOutHeight * kOutWidth;
  constexpr int kPage = kLanes * (kPlane + kOutPlane);
  static_assert(sizeof(T) == 4 && K::kStrideH == 1 && K::kStrideW == 1 && K::kRepeat == 1);
  static_assert(kPlane % 2 == 1 && kOutPlane % 2 == 1);
  extern __shared__ uint4 shared[];
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const float* const ring = reinterpret_cast<const float*>(shared) + warp * kPages * kPage;
  const unsigned pages = shared_address(ring),
                 full = shared_address(shared) + 4 * kWarps * kPages * kPage + 8 * warp * kPages;
  if (lane == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1);
  }
  wait_for_stream();
  __syncthreads();

  const int groups = (work.channels + kLanes - 1) / kLanes,
            number = static_cast<int>(blockIdx.x) * kWarps + warp;
  const int part = number / groups, first_channel = (number - part * groups) * kLanes;
  const int planes = min(kLanes, work.channels - first_channel);
  const int first = part * work.items_per_part, last = min(work.items, first + work.items_per_part);
  const auto request = [&](int image, int slot) {
    if (lane != 0 || image >= last) return;
    const Int64 plane = static_cast<Int64>(image) * work.channels + first_channel;
    const unsigned to = pages + 4 * slot * kPage, barrier = full + 8 * slot;
    const unsigned x_bytes = 4 * kPlane * planes, g_bytes = 4 * kOutPlane * planes;
    expect_bytes(barrier, x_bytes + g_bytes);
    load_bytes(to, static_cast<const T*>(work.x) + plane * kPlane, x_bytes, barrier);
    load_bytes(to + 4 * kLanes * kPlane, static_cast<const T*>(work.y) + plane * kOutPlane, g_bytes, barrier);
  };
#pragma unroll 1
  for (int s = 0; s < kPages; ++s) request(first + s, s);

  float sums[K::kTaps], total = 0;
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) sums[k] = 0;
  PageCursor<kPages> cursor;
#pragma unroll 1
  for (int image = first; image < last; ++image) {
    wait_for_phase(full + 8 * cursor.slot, cursor.parity);
    const float* const x_from = ring + cursor.slot * kPage + lane * kPlane;
    const float* const g_from = ring + cursor.slot * kPage + kLanes * kPlane + lane * kOutPlane;
    if (lane < planes) {
      float g[kOutHeight][kOutWidth];
#pragma unroll
      for (int i = -M::kPaddingH; i < kHeight; ++i) {
        if (i + M::kPaddingH < kOutHeight) {
#pragma unroll
          for (int c = 0; c < kOutWidth; ++c) {
            g[i + M::kPaddingH][c] = g_from[(i + M::kPaddingH) * kOutWidth + c];
            if (kBias) total += g[i + M::kPaddingH][c];
          }
        }
        if (i < 0) continue;
        float x[kWidth];
#pragma unroll
        for (int c = 0; c < kWidth; ++c) x[c] = x_from[i * kWidth + c];
#pragma unroll
        for (int kh = 0; kh < K::kH; ++kh) {
          const int row = i + M::kPaddingH - kh;
          if (row < 0 || row >= kOutHeight) continue;
#pragma unroll
          for (int c = 0; c < kWidth; ++c)
#pragma unroll
            for (int kw = 0; kw < K::kW; ++kw) {
              const int column = c + M::kPaddingW - kw;
              if (column >= 0 && column < kOutWidth) sums[kh * K::kW + kw] += x[c] * g[row][column];
            }
        }
      }
    }
    synchronize_warp();
    request(image + kPages, cursor.slot);
    cursor.next();
  }
  if (first >= last || lane >= planes) return;
  float* const to = work.parts + (static_cast<Int64>(part) * work.channels + first_channel + lane) * kAll;
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) to[k] = sums[k];
  to[K::kTaps] = total;
}

}  // namespace lamella::depthwise
