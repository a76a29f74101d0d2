#pragma once

#include <cuda_runtime.h>

/// How partial results are added up: always in float64 and in a fixed order.
namespace lamella::cuda {

/// What a part of a statistic's values gives: mean and M2 (the sum of squared deviations from it), or two
/// sums.
using Pair = double2;

/// M2 from sums of deviations; keeps NaN.
__device__ inline Pair moments_from(double pivot, double count, double sum, double square) {
  if (count == 0) return {0, 0};
  const double moved = sum / count, m2 = square - sum * moved;
  return {pivot + moved, m2 < 0 ? 0 : m2};
}

/// Adds up parts of known count, mean and M2 (Chan, Golub & LeVeque, "Algorithms for computing the sample
/// variance", 1983), without a division for each: around a pivot that is the mean of one of them.
struct MomentsTally {
  double pivot, count, sum, square;

  __device__ static MomentsTally around(double pivot) { return {pivot, 0, 0, 0}; }
  __device__ void add(double n, Pair part) {
    const double d = part.x - pivot;
    count += n;
    sum += n * d;
    square += part.y + n * d * d;
  }
  /// Of the same pivot.
  __device__ void merge(const MomentsTally& other) {
    count += other.count;
    sum += other.sum;
    square += other.square;
  }
  __device__ Pair result() const { return moments_from(pivot, count, sum, square); }
  /// That of the lane whose number differs by the bits of `distance`.
  __device__ MomentsTally of_lane(int distance) const {
    return {pivot, __shfl_xor_sync(0xffffffffu, count, distance), __shfl_xor_sync(0xffffffffu, sum, distance),
            __shfl_xor_sync(0xffffffffu, square, distance)};
  }
};

/// Adds up pairs of sums.
struct SumsTally {
  double first, second;

  __device__ static SumsTally around(double /*pivot*/) { return {0, 0}; }
  __device__ void add(double /*n*/, Pair part) {
    first += part.x;
    second += part.y;
  }
  __device__ void merge(const SumsTally& other) {
    first += other.first;
    second += other.second;
  }
  __device__ Pair result() const { return {first, second}; }
  __device__ SumsTally of_lane(int distance) const {
    return {__shfl_xor_sync(0xffffffffu, first, distance), __shfl_xor_sync(0xffffffffu, second, distance)};
  }
};

/// The total over lanes that differ in the bits below `width`, a power of two; all of them have it, with the
/// same bits.
template <class Tally>
__device__ Tally over_lanes(Tally tally, int width) {
  for (int distance = width / 2; distance > 0; distance /= 2) tally.merge(tally.of_lane(distance));
  return tally;
}

}  // namespace lamella::cuda
