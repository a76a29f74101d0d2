#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "train.h"

/// The subcommands. Each prints its result on standard output and returns the program's exit status: 0, or
/// 130 when interrupted; errors are thrown.

/// Trains, tests after each epoch, and saves a checkpoint after each.
int run_train(TrainOptions options);

struct EvalOptions {
  std::filesystem::path checkpoint;
  std::string data;         ///< empty: what the network was trained on
  bool confusion = false;   ///< print the confusion matrix, too
  ProfileRun profile = {};  ///< with a folder: profile some batches instead
  RunOptions run;
};
/// Accuracy of each class and of all (also that of the five most probable classes) and loss on the test
/// images.
int run_eval(const EvalOptions& options);

struct PredictOptions {
  std::filesystem::path checkpoint;
  std::vector<std::filesystem::path> images;
  int top = 3;        ///< classes printed for each image
  bool draw = false;  ///< draw the images, too
  RunOptions run;
};
/// The most probable classes of each image. Images that cannot be read are reported on standard error; the
/// exit status is then 1.
int run_predict(const PredictOptions& options);

struct SummaryOptions {
  std::filesystem::path checkpoint = {};  ///< empty: the network of `recipe`, for the images below
  Recipe recipe = {};                     ///< its network; image_size 0: 224, or the checkpoint's
  int classes = 1000;
  int channels = 3;
  int batch = 1;
};
/// A table of the network's layers: see lamella::summarize().
int run_summary(const SummaryOptions& options);

/// What this program was built with and what it can run on, a line each.
int run_info();

/// Trains a small MobileNetV2 on the digits and shows what it learned.
int run_demo(const RunOptions& run);
