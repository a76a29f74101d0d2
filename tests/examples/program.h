#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace lamella::test {

struct Outcome {
  int status = -1;    ///< as exit() was given it; 128 + n when signal n ended the program
  std::string out;    ///< standard output
  std::string error;  ///< standard error
};
std::ostream& operator<<(std::ostream& stream, const Outcome& outcome);

struct RunConditions {
  std::uint64_t largest_file = 0;    ///< bytes that a file may grow to, as on a full disk; 0: any
  std::string interrupt_after = {};  ///< a signal is sent when standard output has held this text
  int signal = 2;                    ///< which: SIGINT
  /// Called at that moment, before the signal.
  std::function<void()> then = nullptr;
  /// Called in the program's process, whose number it has already, before the program.
  std::function<void()> first = nullptr;
  bool as_user = false;  ///< without root's right to write everywhere
};

/// Runs the example with `arguments`.
Outcome mobilenet(const std::vector<std::string>& arguments, const RunConditions& conditions = {});

/// A folder with train/ and test/ of 8x8 PNG images in three classes that differ clearly.
void make_small_dataset(const std::filesystem::path& folder);

}  // namespace lamella::test
