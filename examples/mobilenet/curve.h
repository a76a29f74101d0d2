#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

/// What is known of each epoch of a training, and a CSV file of it: a line for each epoch, written as soon as
/// it is over.
class Curve {
 public:
  /// A line of the file; its columns stand in the order of the file's first line.
  struct Line {
    std::int64_t epoch = 0;    ///< from 1
    double train_loss = 0;     ///< mean over the images, as the network was when it saw them
    double test_accuracy = 0;  ///< in [0, 1]
    double seconds = 0;        ///< of training, without the test
    double test_loss = 0;
    double learning_rate = 0;  ///< of the epoch's last step
    double images = 0;         ///< trained on in `seconds`
  };

  /// Begins with the first `epochs` epochs that the file has; numbers that it lacks are NaN. An empty path:
  /// nothing is read or written. Throws lamella::IoError naming the path, which may hold another curve, but
  /// nothing else.
  Curve(const std::filesystem::path& path, std::int64_t epochs);

  /// Throws lamella::IoError naming the path.
  void add(const Line& line);

  /// Those that the file had, and those added.
  const std::vector<Line>& lines() const { return lines_; }

 private:
  void write(const std::string& text);

  std::filesystem::path path_;
  std::ofstream file_;
  std::vector<Line> lines_;
};
