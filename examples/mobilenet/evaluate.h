#pragma once

#include <lamella/lamella.h>

#include <string>
#include <vector>

/// How well a network does on labelled images.
struct Evaluation {
  double loss = 0;
  lamella::train::ConfusionMatrix confusion;
  std::vector<std::int64_t> predictions = {};  ///< one per image, in order

  /// "accuracy 98.33 % (354 of 360), loss 0.0612".
  std::string summary() const;
};

/// Runs `network` in eval mode over all batches and leaves it in the mode it had. `label` names the work in
/// the progress line; empty: no such line. Stops early, with what it has, when interrupted().
Evaluation evaluate(lamella::Module& network, lamella::data::DataLoader& loader,
                    const std::string& label = "");
