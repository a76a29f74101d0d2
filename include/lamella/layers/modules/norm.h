#pragma once

#include <cstdint>

#include "lamella/layers/module.h"

namespace lamella {

/// How a BatchNorm2d is built; names and defaults are PyTorch's.
struct BatchNorm2dOptions {
  double eps = 1e-5;      ///< added to the variance under the root
  double momentum = 0.1;  ///< of the running estimates
  bool affine = true;     ///< learn weight and bias
  /// Keep running estimates; without them, evaluation uses the batch's, too.
  bool track_running_stats = true;
};

/// Batch normalisation of [N,C,H,W] over N, H and W: see batch_norm(). Parameters weight (1) and bias (0),
/// buffers running_mean (0), running_var (1) and num_batches_tracked (int64, counts training batches). In
/// training it uses the batch's statistics and moves the running ones; in evaluation it uses those. Throws
/// ShapeError for channels below 1, eps that is not positive, or momentum outside [0, 1].
class LAMELLA_API BatchNorm2d : public Module {
 public:
  /// For [N,channels,H,W].
  explicit BatchNorm2d(std::int64_t channels, const BatchNorm2dOptions& options = {});
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

  /// C, the number of channels.
  std::int64_t channels() const { return channels_; }
  /// As given.
  const BatchNorm2dOptions& options() const { return options_; }
  /// [C]; undefined unless affine.
  const Tensor& weight() const { return weight_; }
  /// [C]; undefined unless affine.
  const Tensor& bias() const { return bias_; }
  /// [C]; undefined unless track_running_stats, as the next two.
  const Tensor& running_mean() const { return running_mean_; }
  /// [C], unbiased.
  const Tensor& running_var() const { return running_var_; }
  /// int64, without axes.
  const Tensor& num_batches_tracked() const { return num_batches_tracked_; }

 private:
  std::int64_t channels_;
  BatchNorm2dOptions options_;
  Parameter weight_;
  Parameter bias_;
  Buffer running_mean_;
  Buffer running_var_;
  Buffer num_batches_tracked_;
};

/// Normalises the channels of each pixel of [N,C,H,W]: layer_norm() over C. Parameters weight (1) and bias
/// (0), [C]. Throws ShapeError for channels below 1 or eps that is not positive.
class LAMELLA_API LayerNorm2d : public Module {
 public:
  /// For [N,channels,H,W].
  explicit LayerNorm2d(std::int64_t channels, double eps = 1e-5);
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

  /// [C].
  const Tensor& weight() const { return weight_; }
  /// [C].
  const Tensor& bias() const { return bias_; }

 private:
  double eps_;
  Parameter weight_;
  Parameter bias_;
};

/// Normalises each sample of [N,C,…] in `groups` groups of channels: see group_norm(). Parameters weight (1)
/// and bias (0), [C]. Throws ShapeError unless groups divides channels, and as LayerNorm2d.
class LAMELLA_API GroupNorm : public Module {
 public:
  /// For [N,channels,…].
  GroupNorm(std::int64_t groups, std::int64_t channels, double eps = 1e-5);
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

  /// [C].
  const Tensor& weight() const { return weight_; }
  /// [C].
  const Tensor& bias() const { return bias_; }

 private:
  std::int64_t groups_;
  double eps_;
  Parameter weight_;
  Parameter bias_;
};

}  // namespace lamella
