#pragma once

#include <lamella/lamella.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint.h"
#include "checkpoint_files.h"
#include "curve.h"
#include "dataset.h"
#include "evaluate.h"
#include "profile.h"
#include "recipe.h"

/// Where and how a command runs; nothing here changes what it computes, but that devices round differently.
struct RunOptions {
  std::string device = "auto";  ///< auto, cpu, cuda or cuda:1
  int workers = 2;              ///< threads that load images
};

struct TrainOptions {
  std::string data = {};  ///< see open_images()
  Recipe recipe = {};
  std::filesystem::path checkpoint = {};  ///< written after each epoch and when interrupted; empty: none
  std::filesystem::path initial = {};     ///< weights to start with: see load_initial(); empty: random ones
  bool resume = false;                    ///< go on from `checkpoint`, with its recipe
  int checkpoint_every = 0;  ///< steps between checkpoints, counted from the start; 0: after epochs only
  int keep = 1;              ///< checkpoints that are kept, the newest with them: see CheckpointFiles
  bool keep_best = false;    ///< keep that of the best epoch, too
  std::filesystem::path csv = {};     ///< see Curve; empty: none
  std::string options_text = {};      ///< kept beside `checkpoint`, with .toml; empty: not
  std::filesystem::path events = {};  ///< folder of TensorBoard's files, a point per epoch; empty: none
  std::filesystem::path report = {};  ///< see report_html(); written by run_train(); empty: none
  bool capture = false;     ///< record a step's launches and replay them, on a GPU; the bits are the same
  ProfileRun profile = {};  ///< with a folder: profile some steps in place of training, and save nothing
  RunOptions run = {};
};

struct Trained {
  /// Of the last finished epoch, with averaged weights if the recipe has them. Where no epoch was left to
  /// train, it is empty unless there is a report to be written.
  Evaluation test;
  bool interrupted = false;
  double train_accuracy = 0;  ///< in [0, 1], of the last finished epoch: of its images as they were changed
  std::int64_t steps = 0;     ///< of the optimizer, from the training's beginning
  std::vector<Curve::Line> history = {};  ///< of the epochs trained, and those before that the CSV file had
};

/// Trains as `options` say, from the beginning or from a checkpoint of this training, and keeps it in
/// `files`. Progress goes to standard error, a line per epoch to standard output. Throws
/// lamella::train::NonFiniteError when the loss or a parameter is no longer finite: the checkpoint is then
/// still the last good one.
Trained train(const ImageData& data, const TrainOptions& options, const CheckpointFiles& files = {},
              std::optional<Checkpoint> from = std::nullopt);

/// Profiles steps of that training: see profile_steps(). Steps are launched one by one, whatever
/// TrainOptions::capture says, and nothing is saved.
bool profile_training(const ImageData& data, const TrainOptions& options,
                      std::optional<Checkpoint> from = std::nullopt);
