#pragma once

#include <lamella/lamella.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "dataset.h"
#include "recipe.h"

/// How far training has come: enough to go on as if it had never stopped.
struct TrainingPosition {
  std::int64_t epoch = 0;    ///< the one to go on with
  std::int64_t batches = 0;  ///< of that epoch that were used
  lamella::RandomState random = {};
};

/// A checkpoint: a safetensors file. The network's tensors have the names "network.<name>", averaged weights
/// "ema.module.<name>", everything else "optimizer.<name>" and "schedule.<name>"; recipe, input format and
/// position are JSON in its metadata.
struct Checkpoint {
  std::filesystem::path path = {};  ///< where it was read
  std::string source = {};          ///< of the images
  Recipe recipe = {};
  InputFormat format = {};
  TrainingPosition position = {};
  lamella::StateDict tensors = {};

  /// The tensors whose names begin with `prefix` and a dot, without these. Empty if there are none.
  lamella::StateDict part(const std::string& prefix) const;
};

/// Adds `part` under `prefix` and a dot.
void add_part(lamella::StateDict& tensors, const std::string& prefix, const lamella::StateDict& part);

/// Writes the file at once or not at all. Throws lamella::IoError; lamella::train::NonFiniteError, the old
/// file still there, if a tensor of the network is not finite.
void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

/// Throws lamella::IoError naming the path where it is no checkpoint or does not hold together.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// The network of a checkpoint, with the averaged weights if there are any, in eval mode on `device`.
std::unique_ptr<lamella::Module> trained_network(const Checkpoint& checkpoint, lamella::Device device);
