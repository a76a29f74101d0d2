#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "cells.h"
#include "lamella/core/device.h"
#include "lamella/core/memory.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/tensor.h"
#include "lamella/train/step.h"

/// Training steps, and how long they take.
namespace lamella::bench {

inline constexpr std::array<const char*, 4> kPhases = {"forward", "backward", "optimizer", "step"};
/// Milliseconds; on a GPU of the whole step alone, the others 0.
using Phases = std::array<double, kPhases.size()>;

/// What turns have measured. On the CPU a sample is a step; on a GPU the mean of a block of steps between two
/// waits, as a wait after each step would show launching, which training does ahead.
struct Samples {
  std::vector<Phases> times;
  std::int64_t steps = 0;
};

/// Medians and minima over the samples.
struct Summary {
  Phases median{}, best{};

  explicit Summary(const Samples& samples);
  double images_per_second(std::int64_t batch) const {
    return static_cast<double>(batch) / median.back() * 1e3;
  }
  nlohmann::json json(std::int64_t batch, const Samples& samples) const;
};

/// About 50 ms of steps that take `milliseconds`, at most 100 of them.
std::int64_t steps_of_block(double milliseconds);

/// Lamella's side: forward, cross-entropy, backward, SGD with momentum and weight decay, on one random batch.
class Trainer {
 public:
  /// Builds and warms up, which records the step if the cell is captured.
  Trainer(const Cell& cell, Device device);

  const Cell& cell() const { return cell_; }
  Device device() const { return device_; }
  Module& network() { return *network_; }
  optim::SGD& optimizer() { return *sgd_; }
  const Tensor& images() const { return images_; }
  const Tensor& labels() const { return labels_; }
  std::int64_t parameters() const { return network_->num_parameters(); }
  /// What the allocator of the device holds, and has held since the network was built.
  MemoryStats memory() const { return memory_stats(device_); }

  /// About so long, at least two samples, after a step that is not counted: another program has just left the
  /// caches. Throws std::runtime_error if the loss is not finite.
  void train(double seconds, Samples& samples);
  /// A step on another batch of the same size, with the same recording.
  train::Step::Result step(const Tensor& images, const Tensor& labels) { return (*step_)(images, labels); }
  /// The last loss of train().
  double loss() const { return loss_.item<float>(); }

 private:
  Phases step_on_cpu();
  void queue_step();

  Cell cell_;
  Device device_;
  std::unique_ptr<Module> network_;
  Tensor images_, labels_, loss_;
  std::optional<optim::SGD> sgd_;
  std::optional<train::Step> step_;
};

/// Milliseconds from then to now.
double milliseconds_since(std::chrono::steady_clock::time_point then);

}  // namespace lamella::bench
