#pragma once

#include "primitives.cuh"

/// Which sixteen-bit numbers an activation with bounds lets through, so that a gradient can be masked by
/// comparing what lies in memory.
namespace lamella::depthwise {

template <class T>
inline constexpr int kInfinity = 0x7f80;
template <>
inline constexpr int kInfinity<Float16> = 0x7c00;

template <class T>
struct Range {
  T least, most;
};

/// The sixteen-bit numbers z for which low < scale · z + shift < high, as transforms round the sum: those of
/// [least, most], which is empty if there are none. Sums of rising numbers rise or fall, so that a search
/// finds both ends, close to where the bounds are without rounding.
template <class T>
__device__ __forceinline__ Range<T> find_range(float scale, float shift, float low, float high) {
  // Numbers in their order: place 0x8000 is zero.
  const auto number = [](int place) {
    return T{static_cast<unsigned short>(place >= 0x8000 ? place ^ 0x8000 : ~place)};
  };
  const auto place_of = [](T z) { return z.bits >= 0x8000 ? 0xffff - z.bits : z.bits + 0x8000; };
  constexpr int kLast = kInfinity<T> + 0x8000, kFirst = 0x10000 - kLast, kNear = 2;
  const bool rises = scale >= 0;
  int begin[2], end[2];
#pragma unroll
  for (int bound = 0; bound < 2; ++bound) {
    // Before the first number that passes, or up to the last.
    const auto is_before = [&](int place) {
      const float y = fmaf(scale, widen(number(place)), shift);
      return bound == 0 ? !(rises ? y > low : y < high) : (rises ? y < high : y > low);
    };
    const float limit = (bound == 0) == rises ? low : high;
    const int guess = place_of(narrow<T>((limit - shift) / scale));
    begin[bound] = min(max(guess - kNear, kFirst), kLast),
    end[bound] = max(min(guess + kNear, kLast), kFirst);
    const bool brackets = (begin[bound] == kFirst || is_before(begin[bound] - 1)) &&
                          (end[bound] == kLast || !is_before(end[bound]));
    if (!brackets) begin[bound] = kFirst, end[bound] = kLast;
#pragma unroll 1
    while (begin[bound] < end[bound]) {
      const int middle = (begin[bound] + end[bound]) / 2;
      if (is_before(middle))
        begin[bound] = middle + 1;
      else
        end[bound] = middle;
    }
  }
  const bool empty = begin[0] >= begin[1];
  return {empty ? number(kLast) : number(begin[0]), empty ? number(0xffff - kLast) : number(begin[1] - 1)};
}

}  // namespace lamella::depthwise
