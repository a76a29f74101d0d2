#pragma once

#include <lamella/lamella.h>

#include <nlohmann/json_fwd.hpp>

/// What an epoch has come to so far, as numbers that the rest of it can be added to: a checkpoint within an
/// epoch has them, so that the epoch's figures are those of the whole of it.
struct EpochSums {
  double images = 0;
  double loss = 0;           ///< summed over the images
  double right = 0;          ///< images that were recognised
  double seconds = 0;        ///< of training
  double learning_rate = 0;  ///< of the last step
};

/// Numbers that are not finite become null, and null becomes NaN: JSON has no others.
void to_json(nlohmann::json& json, const EpochSums& sums);
void from_json(const nlohmann::json& json, EpochSums& sums);

/// A sum that is added to where its numbers lie: nothing waits for a GPU.
class RunningSum {
 public:
  /// Begins with `start`, for numbers on `device`.
  RunningSum(double start, lamella::Device device);
  /// Adds a tensor's only number, as if it came `times` times.
  void add(const lamella::Tensor& value, double times);
  /// Waits for a GPU.
  double value() const;

 private:
  double here_ = 0;
  lamella::Tensor there_;  ///< float64 [], on a GPU
};
