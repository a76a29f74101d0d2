#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lamella/core/export.h"

namespace lamella::train {

/// One line about work under way. On a terminal it is redrawn in place, at most ten times a second: a bar,
/// the count, the given figures, the rate and the time left. Elsewhere (a pipe, a file) it is a plain line
/// now and then, and one at the end. Where nobody reads it any more nothing is written, and the program goes
/// on.
class LAMELLA_API Progress {
 public:
  /// Name and text pairs.
  using Figures = std::vector<std::pair<std::string, std::string>>;

  /// What is shown, and where.
  struct Options {
    std::string label = {};       ///< such as "epoch 3/10"
    std::int64_t total = 0;       ///< units of work; 0: unknown
    std::string unit = "images";  ///< what is counted, for the rate
    double plain_seconds = 10;    ///< between plain lines
    int file_descriptor = 2;      ///< where it is written: standard error
  };
  /// Draws nothing yet; the clock starts.
  explicit Progress(const Options& options);
  /// Ends the line on a terminal if finish() was not called.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Adds `count` units done and sets the figures shown: name and text pairs, such as {"loss", "0.123"};
  /// without any, the old ones stay.
  void add(std::int64_t count, const Figures& figures = {});
  /// The same for figures that cost something, such as waiting for a GPU: asked for when a line is drawn.
  /// `figures` must be callable until the next add() or finish().
  void add(std::int64_t count, std::function<Figures()> figures);
  /// Prints the line for good, with the time it took. Once; later calls do nothing.
  void finish();
  /// Units per second since the start.
  double rate() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lamella::train
