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
  int top = 1;              ///< 5, or one less than there are classes: with all of them nothing is wrong
  std::int64_t in_top = 0;  ///< images whose class is among the `top` most probable

  /// "accuracy 98.33 % (354 of 360), loss 0.0612".
  std::string summary() const;
  /// "top-5 accuracy 99.72 % (359 of 360)".
  std::string top_summary() const;
  /// A line for each class: its images, the share of them that was found (recall), and the share of what was
  /// taken for it that is right (precision).
  std::string per_class(const std::vector<std::string>& classes) const;
  /// How often each class (a row) was taken for each other: ConfusionMatrix::to_string() for names that may
  /// hold any characters.
  std::string confusion_table(const std::vector<std::string>& classes) const;
};

/// Runs `network` in eval mode over all batches and leaves it in the mode it had. `label` names the work in
/// the progress line; empty: no such line. Stops early, with what it has, when interrupted().
Evaluation evaluate(lamella::Module& network, lamella::data::DataLoader& loader,
                    const std::string& label = "");
