#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

/// A CSV file of a training: epoch, train_loss, test_accuracy, seconds; a line for each epoch, written as
/// soon as it is over.
class Curve {
 public:
  /// Keeps the lines of the first `epochs` epochs, if the file has them. An empty path: nothing is written.
  /// Throws lamella::IoError naming the path.
  Curve(const std::filesystem::path& path, std::int64_t epochs);

  struct Line {
    std::int64_t epoch = 0;    ///< from 1
    double train_loss = 0;     ///< mean over the images, as the network was when it saw them
    double test_accuracy = 0;  ///< in [0, 1]
    double seconds = 0;        ///< of training, without the test
  };
  /// Throws lamella::IoError naming the path.
  void add(const Line& line);

 private:
  void write(const std::string& text);

  std::filesystem::path path_;
  std::ofstream file_;
};
