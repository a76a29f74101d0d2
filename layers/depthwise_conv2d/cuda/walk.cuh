#pragma once

/// The arithmetic of the fast kernels, for any memory layout. A thread owns a tile of some columns by some
/// lanes (channels side by side in memory; planar tiles have one) and walks down the rows of a strip. A
/// source row is loaded once, kept packed until its turn, and added to all the target rows it belongs to; the
/// rows after it are already on their way.
///
/// A source has `Row`, `load(s)` for row s of the strip (zeros for a row that does not exist or that no
/// target needs) and `unpack(row, x)` for the tile's window of columns. A target has `store(t, values)`.
namespace lamella::cuda::depthwise {

template <int H, int W, int Stride>
struct Kernel {
  static constexpr int kH = H, kW = W, kTaps = H * W, kStride = Stride;
  static_assert(H >= Stride && W >= Stride);
};

/// target[t] = Σ taps[k] · source[t · stride + k]: in batches of kRows target rows.
template <class K, int kRows>
struct Gathering {
  /// Source rows of a target row that came with the batch before.
  static constexpr int kBefore = K::kH - K::kStride;
  /// Target rows that a batch begins and a later one completes.
  static constexpr int kCarried = (kBefore + K::kStride - 1) / K::kStride;
  /// Source rows of a batch.
  static constexpr int kNew = kRows * K::kStride;
  /// The batches begin here, so that the rows above the strip's first new one are seen too.
  static constexpr int kFirst = -((kBefore + kNew - 1) / kNew) * kRows;
};

template <class K, int kColumns>
inline constexpr int kGatherWindow = (kColumns - 1) * K::kStride + K::kW;

template <class K, int kRows, int kColumns, int kLanes, class Source, class Target>
__device__ inline void gather(const Source& source, const Target& target, int rows,
                              const float (&taps)[K::kTaps][kLanes], const float (&bias)[kLanes]) {
  using G = Gathering<K, kRows>;
  constexpr int kSums = kRows + G::kCarried;
  float sums[kSums][kColumns][kLanes];
#pragma unroll
  for (int o = 0; o < G::kCarried; ++o)
#pragma unroll
    for (int t = 0; t < kColumns; ++t)
#pragma unroll
      for (int l = 0; l < kLanes; ++l) sums[o][t][l] = bias[l];
  typename Source::Row raw[G::kNew];
#pragma unroll
  for (int j = 0; j < G::kNew; ++j) raw[j] = source.load(G::kFirst * K::kStride + G::kBefore + j);
#pragma unroll 1
  for (int first = G::kFirst; first < rows; first += kRows) {
#pragma unroll
    for (int o = G::kCarried; o < kSums; ++o)
#pragma unroll
      for (int t = 0; t < kColumns; ++t)
#pragma unroll
        for (int l = 0; l < kLanes; ++l) sums[o][t][l] = bias[l];
#pragma unroll
    for (int j = 0; j < G::kNew; ++j) {
      float x[kGatherWindow<K, kColumns>][kLanes];
      source.unpack(raw[j], x);
      raw[j] = source.load((first + kRows) * K::kStride + G::kBefore + j);
#pragma unroll
      for (int o = 0; o < kSums; ++o) {
        const int kh = G::kBefore + j - o * K::kStride;
        if (kh < 0 || kh >= K::kH) continue;
#pragma unroll
        for (int kw = 0; kw < K::kW; ++kw)
#pragma unroll
          for (int t = 0; t < kColumns; ++t)
#pragma unroll
            for (int l = 0; l < kLanes; ++l)
              sums[o][t][l] += taps[kh * K::kW + kw][l] * x[t * K::kStride + kw][l];
        if (kh == K::kH - 1 && first + o >= 0 && first + o < rows) target.store(first + o, sums[o]);
      }
    }
#pragma unroll
    for (int o = 0; o < G::kCarried; ++o)
#pragma unroll
      for (int t = 0; t < kColumns; ++t)
#pragma unroll
        for (int l = 0; l < kLanes; ++l) sums[o][t][l] = sums[o + kRows][t][l];
  }
}

/// The transpose at stride 2, target[s · stride + k] += taps[k] · source[s]: in batches of kRows source rows,
/// each of which completes `stride` target rows. Target column t of a tile is column t + kPhase of those that
/// source column 0 begins.
template <class K, int kRows>
struct Scattering {
  /// Target rows that a batch begins and a later one completes.
  static constexpr int kCarried = K::kH - K::kStride;
  /// Source rows above a target row that reach it.
  static constexpr int kLead = (kCarried + K::kStride - 1) / K::kStride;
  static constexpr int kFirst = -((kLead + kRows - 1) / kRows) * kRows;
};

/// The window of source columns of kWidth target columns: kLow … kLow + kSize - 1.
template <class K, int kWidth, int kPhase>
struct ScatterWindow {
  static constexpr int kLow = -((K::kW - 1 - kPhase) / K::kStride);
  static constexpr int kSize = (kWidth - 1 + kPhase) / K::kStride - kLow + 1;
};

/// `rows` counts source rows of the strip; target.store(t, …) gets t from 0 to rows · stride - 1.
template <class K, int kRows, int kWidth, int kLanes, int kPhase, class Source, class Target>
__device__ inline void scatter(const Source& source, const Target& target, int rows,
                               const float (&taps)[K::kTaps][kLanes]) {
  using S = Scattering<K, kRows>;
  using Window = ScatterWindow<K, kWidth, kPhase>;
  constexpr int kDone = kRows * K::kStride, kSums = kDone + S::kCarried;
  float sums[kSums][kWidth][kLanes];
#pragma unroll
  for (int o = 0; o < S::kCarried; ++o)
#pragma unroll
    for (int t = 0; t < kWidth; ++t)
#pragma unroll
      for (int l = 0; l < kLanes; ++l) sums[o][t][l] = 0;
  typename Source::Row raw[kRows];
#pragma unroll
  for (int j = 0; j < kRows; ++j) raw[j] = source.load(S::kFirst + j);
#pragma unroll 1
  for (int first = S::kFirst; first < rows; first += kRows) {
#pragma unroll
    for (int o = S::kCarried; o < kSums; ++o)
#pragma unroll
      for (int t = 0; t < kWidth; ++t)
#pragma unroll
        for (int l = 0; l < kLanes; ++l) sums[o][t][l] = 0;
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      float x[Window::kSize][kLanes];
      source.unpack(raw[j], x);
      raw[j] = source.load(first + kRows + j);
#pragma unroll
      for (int kh = 0; kh < K::kH; ++kh)
#pragma unroll
        for (int kw = 0; kw < K::kW; ++kw)
#pragma unroll
          for (int t = 0; t < kWidth; ++t) {
            const int distance = t + kPhase - kw - Window::kLow * K::kStride;
            if (distance % K::kStride != 0) continue;
#pragma unroll
            for (int l = 0; l < kLanes; ++l)
              sums[j * K::kStride + kh][t][l] += taps[kh * K::kW + kw][l] * x[distance / K::kStride][l];
          }
      if (first + j < 0 || first + j >= rows) continue;
#pragma unroll
      for (int s = 0; s < K::kStride; ++s)
        target.store((first + j) * K::kStride + s, sums[j * K::kStride + s]);
    }
#pragma unroll
    for (int o = 0; o < S::kCarried; ++o)
#pragma unroll
      for (int t = 0; t < kWidth; ++t)
#pragma unroll
        for (int l = 0; l < kLanes; ++l) sums[o][t][l] = sums[o + kDone][t][l];
  }
}

/// sums[k] += Σ g[t] · x[t · stride + k] over the rows of a strip, and total += Σ g[t]: gather() with the
/// roles of its target and its taps exchanged.
template <class K, int kRows, int kColumns, int kLanes, class Input, class Gradient>
__device__ inline void weigh(const Input& input, const Gradient& gradient, int rows,
                             float (&sums)[K::kTaps][kLanes], float (&total)[kLanes]) {
  using G = Gathering<K, kRows>;
  constexpr int kHeld = kRows + G::kCarried;
  float g[kHeld][kColumns][kLanes];
#pragma unroll
  for (int o = 0; o < G::kCarried; ++o)
#pragma unroll
    for (int t = 0; t < kColumns; ++t)
#pragma unroll
      for (int l = 0; l < kLanes; ++l) g[o][t][l] = 0;
  typename Input::Row raw[G::kNew];
  typename Gradient::Row raw_g[kRows];
#pragma unroll
  for (int o = 0; o < kRows; ++o) raw_g[o] = gradient.load(G::kFirst + G::kCarried + o);
#pragma unroll
  for (int j = 0; j < G::kNew; ++j) raw[j] = input.load(G::kFirst * K::kStride + G::kBefore + j);
#pragma unroll 1
  for (int first = G::kFirst; first < rows; first += kRows) {
#pragma unroll
    for (int o = 0; o < kRows; ++o) {
      float(&fresh)[kColumns][kLanes] = g[G::kCarried + o];
      gradient.unpack(raw_g[o], fresh);
      raw_g[o] = gradient.load(first + kRows + G::kCarried + o);
#pragma unroll
      for (int t = 0; t < kColumns; ++t)
#pragma unroll
        for (int l = 0; l < kLanes; ++l) total[l] += fresh[t][l];
    }
#pragma unroll
    for (int j = 0; j < G::kNew; ++j) {
      float x[kGatherWindow<K, kColumns>][kLanes];
      input.unpack(raw[j], x);
      raw[j] = input.load((first + kRows) * K::kStride + G::kBefore + j);
#pragma unroll
      for (int o = 0; o < kHeld; ++o) {
        const int kh = G::kBefore + j - o * K::kStride;
        if (kh < 0 || kh >= K::kH) continue;
#pragma unroll
        for (int kw = 0; kw < K::kW; ++kw)
#pragma unroll
          for (int t = 0; t < kColumns; ++t)
#pragma unroll
            for (int l = 0; l < kLanes; ++l)
              sums[kh * K::kW + kw][l] += g[o][t][l] * x[t * K::kStride + kw][l];
      }
    }
#pragma unroll
    for (int o = 0; o < G::kCarried; ++o)
#pragma unroll
      for (int t = 0; t < kColumns; ++t)
#pragma unroll
        for (int l = 0; l < kLanes; ++l) g[o][t][l] = g[o + kRows][t][l];
  }
}

}  // namespace lamella::cuda::depthwise
