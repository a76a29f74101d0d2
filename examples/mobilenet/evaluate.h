#pragma once

#include <lamella/lamella.h>

#include <string>
#include <vector>

/// How well a network does on labelled images.
struct Evaluation {
  double loss = 0;
  lamella::train::ConfusionMatrix confusion;
  // One per image, in order.
  std::vector<std::int64_t> predictions = {};
  std::vector<double> probabilities = {};  ///< of the predictions, in [0, 1]
  std::vector<double> losses = {};         ///< −log of the true class's probability

  /// "accuracy 98.33 % (354 of 360), loss 0.0612".
  std::string summary() const;
};

/// Runs `network` in eval mode over all batches and leaves it in the mode it had. `label` names the work in
/// the progress line; empty: no such line. Stops early, with what it has, when interrupted().
Evaluation evaluate(lamella::Module& network, lamella::data::DataLoader& loader,
                    const std::string& label = "");
