#pragma once

#include "layers/depthwise_conv2d/cuda/device/vector.cuh"
#include "point_tile.cuh"

/// Numbers on their way from shared memory to a product.
namespace lamella::pointwise {

/// The bounds of Clamp, or what HardSwish does.
template <class T, Load kLoad>
struct Activate {
  unsigned low, high;  ///< twice each

  __device__ __forceinline__ void begin(const Factors& from) {
    low = narrow_pair(from.low, from.low, T{}), high = narrow_pair(from.high, from.high, T{});
  }
  /// f(scale · x + shift) of two numbers in a word. To bound a rounded number by rounded bounds is to round
  /// one that was bounded before, and takes half of the instructions. NaN stays NaN.
  __device__ __forceinline__ unsigned apply(unsigned pair, float scale0, float shift0, float scale1,
                                            float shift1) const {
    float first, second;
    widen_pair(pair, T{}, first, second);
    first = fmaf(scale0, first, shift0), second = fmaf(scale1, second, shift1);
    if constexpr (kLoad == Load::HardSwish)
      return narrow_pair(hardswish(first), hardswish(second), T{});
    else
      return clamp_pair(narrow_pair(first, second, T{}), low, high, T{});
  }
};

/// Factors of the channels along a product's depth, in the order in which lanes need them: of each sixteen
/// channels, for each l % 4, those of its four numbers: 2 · (l % 4), the next, and both + 8; first the
/// scales.
template <class T, Load kLoad, int kSteps>
struct DepthFactors {
  static constexpr int kBytes = kSteps * 128;
  const float* factors;  ///< of this lane
  Activate<T, kLoad> activate;

  /// By all of `threads`; for `channels` channels, zeros behind them. To be followed by a barrier.
  __device__ void begin(unsigned char* at, const Factors& from, int channels, int threads) {
    float* const to = reinterpret_cast<float*>(at);
    for (int i = static_cast<int>(threadIdx.x); i < kSteps * 32; i += threads) {
      const int in_lane = i % 4, channel = i / 32 * 16 + i / 8 % 4 * 2 + in_lane % 2 + in_lane / 2 * 8;
      const float* const source = i / 4 % 2 == 0 ? from.scale : from.shift;
      to[i] = channel < channels ? source[channel] : 0.0f;
    }
    factors = to + threadIdx.x % 4 * 8;
    activate.begin(from);
  }
  /// To the second factors of products with kTiles times eight pixels, of channels from 16 · step on.
  template <int kTiles>
  __device__ __forceinline__ void apply(unsigned (&x)[kTiles][2], int step) const {
    float scale[4], shift[4];
    load<float>(factors + step * 32, scale);
    load<float>(factors + step * 32 + 4, shift);
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        x[n][half] = activate.apply(x[n][half], scale[2 * half], shift[2 * half], scale[2 * half + 1],
                                    shift[2 * half + 1]);
  }
};
template <class T, int kSteps>
struct DepthFactors<T, Load::Plain, kSteps> {
  static constexpr int kBytes = 0;
  __device__ void begin(unsigned char*, const Factors&, int, int) {}
  template <int kTiles>
  __device__ __forceinline__ void apply(unsigned (&)[kTiles][2], int) const {}
};

}  // namespace lamella::pointwise
