#pragma once

#include "diagonals_walks.cuh"

/// The weight's gradient by diagonals of products (diagonals.cuh).
namespace lamella::depthwise {

/// The work of a block, which leaves a part of dw.
template <class T, class K, class S, class Sizes, class Tile, int kPaddingH, int kPaddingW, bool kBias,
          int kTransforms, int kThreads>
__device__ __forceinline__ void weigh_diagonals(const PlaneWork& work, int number_of_block) {
  using Kinds = DiagonalKinds<T, K, S, Sizes, Tile, kPaddingH, kPaddingW, kBias, kTransforms>;
  using Rows = typename Kinds::Rows;
  using Order = typename Kinds::Order;
  constexpr int kPlanes = Tile::kPlanes, kRepeat = K::kRepeat, kPhases = Kinds::kPhases;
  constexpr int kPages = Tile::kPages, kShifts = Kinds::kShifts, kNumber = Kinds::kNumber;
  constexpr int kConsumers = kThreads / 32 - 1, kAll = K::kTaps + 1;
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  const char* const zeros = reinterpret_cast<const char*>(shared);
  char* const bytes = reinterpret_cast<char*>(shared) + cut.zeros * kNumber;
  const unsigned pages = shared_address(bytes);
  const int g_bytes = cut.output_numbers * kNumber, page_bytes = g_bytes + cut.input_numbers * kNumber;
  const unsigned full = pages + kPages * page_bytes, empty = full + 8 * kPages;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  for (int i = thread; i < cut.zeros * kNumber / 4; i += kThreads) reinterpret_cast<unsigned*>(shared)[i] = 0;
  wait_for_stream();
  synchronize_block(kThreads);

  const int groups = (work.channels + cut.planes - 1) / cut.planes;
  const int first_channel = number_of_block % groups * cut.planes;
  const int planes = min(cut.planes, work.channels - first_channel);
  const int part = number_of_block / groups;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_width = Sizes::kKnown ? Sizes::kW : work.w.input,
            out_width = Sizes::kKnown ? Sizes::kOutW : work.w.output,
            in_plane = (Sizes::kKnown ? Sizes::kH : work.h.input) * in_width,
            out_plane = (Sizes::kKnown ? Sizes::kOutH : work.h.output) * out_width;
  const int bands = Sizes::kKnown ? 1 : cut.bands;
  using Band = DiagonalBand;
  const auto band_of = [&](int number) {
    Band band;
    band.row = number * cut.band_rows, band.rows = min(cut.band_rows, work.h.input - band.row);
    const int low = band.row / kPhases + Kinds::kFirst,
              high = low + (band.rows + kPhases - 1) / kPhases + Rows::kReach;
    band.low = bands > 1 ? min(max(low, 0), work.h.output) : 0;
    band.high = bands > 1 ? max(min(high, work.h.output), band.low) : work.h.output;
    return band;
  };
  // Where an item's numbers begin.
  const auto g_at = [&](int image, const Band& band) {
    return (static_cast<Int64>(image) * work.channels + first_channel) * kRepeat * out_plane +
           band.low * out_width;
  };
  const auto x_at = [&](int image, const Band& band) {
    return (static_cast<Int64>(image) * work.channels + first_channel) * in_plane + band.row * in_width;
  };
  int image = bands > 1 ? first_item / bands : first_item, number = bands > 1 ? first_item % bands : 0;
  const auto advance = [&] {
    if (bands == 1)
      ++image;
    else if (++number == bands)
      number = 0, ++image;
  };
  PageCursor<kPages> cursor;
  float totals[kPlanes][kRepeat][kShifts][2];
#pragma unroll
  for (int n = 0; n < kPlanes; ++n)
#pragma unroll
    for (int j = 0; j < kRepeat; ++j)
#pragma unroll
      for (int k = 0; k < kShifts; ++k) totals[n][j][k][0] = totals[n][j][k][1] = 0;
  const int row_groups = Sizes::kKnown ? 1 : cut.row_groups;
  const int per_plane = Tile::kGroups * row_groups, sets = kConsumers / per_plane;  // warps
  const int set = warp / per_plane, place = warp - set * per_plane;

  if (warp == kConsumers) {
#pragma unroll 1
    for (int i = first_item; lane == 0 && i < last_item; ++i, advance()) {
      const Band band = band_of(number);
      const T* const g = static_cast<const T*>(work.y) + g_at(image, band);
      const T* const x = static_cast<const T*>(work.x) + x_at(image, band);
      // Of several outputs a channel there are no bands.
      const LineRun<T> g_run(g,
                             bands > 1 ? (band.high - band.low) * out_width : planes * kRepeat * out_plane);
      const LineRun<T> x_run(x, bands > 1 ? band.rows * in_width : planes * in_plane);
      const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * page_bytes;
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      expect_bytes(barrier, g_run.loaded_bytes() + x_run.loaded_bytes());
      g_run.load(to, g, barrier);
      x_run.load(to + g_bytes, x, barrier);
      cursor.next();
    }
    synchronize_warp();  // one lane was away; the block meets below
  } else {
    const int row_group = place / Tile::kGroups;
    const DiagonalLane my{Order::row(lane / 4), lane % 4 * Kinds::Products::kColumns, row_group,
                          place - row_group * Tile::kGroups, set * kPlanes};
    const bool works = set < sets && my.first_plane < planes;
    typename Kinds::Transforms transforms;
#pragma unroll
    for (int n = 0; n < kPlanes; ++n)
      transforms[n].begin(work.transform, first_channel + min(my.first_plane + n, planes - 1));
    typename Kinds::Sums sums;
    const auto clear = [&] {
#pragma unroll
      for (int n = 0; n < kPlanes; ++n)
#pragma unroll
        for (int j = 0; j < kRepeat; ++j)
#pragma unroll
          for (int k = 0; k < kShifts; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[n][j][k][i] = 0;
    };
    clear();
    // The matrix units do not round sums to nearest: long sums are kept elsewhere. Of the diagonals a lane
    // has numbers of its upper row or of its lower.
    const bool is_upper[2] = {my.row >= Order::row(lane % 4 * 2), my.row >= Order::row(lane % 4 * 2 + 1)};
    int chain = 0;
    const auto end_chain = [&] {
#pragma unroll
      for (int n = 0; n < kPlanes; ++n)
#pragma unroll
        for (int j = 0; j < kRepeat; ++j)
#pragma unroll
          for (int k = 0; k < kShifts; ++k)
#pragma unroll
            for (int i = 0; i < 2; ++i)
              totals[n][j][k][i] += is_upper[i] ? sums[n][j][k][i] : sums[n][j][k][2 + i];
      clear();
      chain = 0;
    };
    // Numbers from a line to where an item begins: of addresses, the last bits are all that counts.
    constexpr unsigned kLine = kLineBytes / kNumber;
    const unsigned g_first = static_cast<unsigned>(reinterpret_cast<unsigned long long>(work.y)) / kNumber,
                   x_first = static_cast<unsigned>(reinterpret_cast<unsigned long long>(work.x)) / kNumber;
    const auto g_page_of = [&](const Band& band) {
      const int from_line = static_cast<int>((g_first + static_cast<unsigned>(g_at(image, band))) % kLine);
      return bytes + cursor.slot * page_bytes + from_line * kNumber;
    };
    const auto x_page_of = [&](const Band& band) {
      const int from_line = static_cast<int>((x_first + static_cast<unsigned>(x_at(image, band))) % kLine);
      return bytes + cursor.slot * page_bytes + g_bytes + from_line * kNumber;
    };

    const auto make_walk = [&] {
      if constexpr (Sizes::kKnown)
        return WalkKnownPlanes<Kinds>(my);
      else
        return WalkPlanes<Kinds>{my,         in_width, out_width, in_plane, out_plane, planes,
                                 row_groups, zeros,    {},        {},       {}};
    };
    auto walk = make_walk();
#pragma unroll 1
    for (int i = first_item; i < last_item; ++i, advance()) {
      const Band band = band_of(number);
      walk.begin(g_page_of(band), x_page_of(band), band);
      wait_for_phase(full + 8 * cursor.slot, cursor.parity);
      if (works) {
        walk.add(transforms, sums);
        if (++chain == cut.chain) end_chain();
      }
      synchronize_warp();
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
    }
    end_chain();
  }

  // Of each plane of g in turn, warps and rows of x in their order.
  float* const block_sums = reinterpret_cast<float*>(bytes);
  float* const to = work.parts + (static_cast<Int64>(part) * work.channels + first_channel) * kRepeat * kAll;
#pragma unroll
  for (int n = 0; n < kPlanes * kRepeat; ++n) {
    synchronize_block(kThreads);
    if (warp < kConsumers) {
#pragma unroll
      for (int k = 0; k < kShifts; ++k)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd)
          block_sums[((warp * kShifts + k) * 2 + odd) * 32 + lane] = totals[n / kRepeat][n % kRepeat][k][odd];
    }
    synchronize_block(kThreads);
    for (int i = thread; i < sets * kAll; i += kThreads) {
      const int of_set = i / kAll, tap = i - of_set * kAll, plane = of_set * kPlanes + n / kRepeat;
      if (plane >= planes) continue;
      const bool is_tap = tap < K::kTaps;
      const int tap_row = tap / K::kW;
      const int shift = is_tap ? Rows::phase(tap_row) * K::kW + tap % K::kW : kShifts - 1;
      const int down = is_tap ? Rows::kHighest - Rows::down(tap_row) : Rows::kHighest;
      float sum = 0;
      for (int w = of_set * per_plane; (is_tap || kBias) && w < (of_set + 1) * per_plane; ++w)
        for (int row = 0; row < 8; ++row) {
          const int of_x = Order::place(row), of_g = Order::place((row + down) % 8);
          sum += block_sums[((w * kShifts + shift) * 2 + of_x % 2) * 32 + of_g * 4 + of_x / 2];
        }
      to[(plane * kRepeat + n % kRepeat) * kAll + tap] = sum;
    }
  }
}

template <class T, class K, class S, class Sizes, class Tile, int kPaddingH, int kPaddingW, bool kBias,
          int kTransforms, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_diagonals(const PlaneWork work) {
  weigh_diagonals<T, K, S, Sizes, Tile, kPaddingH, kPaddingW, kBias, kTransforms, kThreads>(
      work, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
