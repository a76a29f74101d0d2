#pragma once

#include <lamella/lamella.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "dataset.h"
#include "epoch_sums.h"
#include "recipe.h"

/// How far training has come: enough to go on as if it had never stopped.
struct TrainingPosition {
  std::int64_t epoch = 0;    ///< the one to go on with
  std::int64_t batches = 0;  ///< of that epoch that were used
  EpochSums so_far = {};     ///< of those batches; format 1 and the first files of format 2 do not say
  lamella::RandomState random = {};
  std::int64_t images = 0;      ///< to train on; 0: a file of format 1 does not say
  std::int64_t best_epoch = 0;  ///< from 1: the first of the highest test accuracy; 0: none yet
  double best_accuracy = 0;     ///< in [0, 1]
};

/// A checkpoint: a safetensors file. The network's tensors have the names "network.<name>", averaged weights
/// "ema.module.<name>", everything else "optimizer.<name>" and "schedule.<name>"; recipe, input format and
/// position are JSON in its metadata. Since format 2 it has a checksum.
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

/// Whether the file begins as a checkpoint does, of any version, whole or not.
bool is_checkpoint(const std::filesystem::path& path);

/// Throws lamella::IoError naming the path where it is no checkpoint, one of a newer program, or damaged.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// `given`, or where it is empty the folder that `checkpoint` was trained on. Throws lamella::IoError where
/// that is no longer there.
std::string source_of_images(const std::string& given, const Checkpoint& checkpoint);

/// Throws lamella::Error, saying what differs, where the training of `checkpoint` cannot go on with `data`,
/// the images of `source`.
void check_resumes(const Checkpoint& checkpoint, const ImageData& data, const std::string& source);

/// The network of a checkpoint, with the averaged weights if there are any, in eval mode on `device`.
std::unique_ptr<lamella::Module> trained_network(const Checkpoint& checkpoint, lamella::Device device);
