#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lamella/core/dtype.h"

/// The GPU: its memory, its clock, and what it could do at best.
namespace lamella::bench {

/// The GPU's memory for all that is measured, taken once.
class Arena {
 public:
  explicit Arena(std::size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::byte* at(std::size_t offset) const { return static_cast<std::byte*>(data_) + offset; }
  std::size_t bytes() const { return bytes_; }
  /// Writes random numbers in [-1, 1) to the first `bytes`.
  void fill(DType dtype, std::size_t bytes) const;

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// What rotates through the buffers: enough of them that no call finds its data in a cache, and enough calls
/// that a replay takes a while.
struct Rotation {
  std::size_t buffers = 1, calls = 1;
};
Rotation rotation_for(double bytes_of_call);

/// Median times on Lamella's stream.
class Timer {
 public:
  explicit Timer(int repetitions) : repetitions_(repetitions) {}
  int repetitions() const { return repetitions_; }
  /// Milliseconds of one of `calls` calls, fewer where they are slow, captured in a graph; call(i) is the
  /// i-th.
  double of_graph(std::size_t calls, const std::function<void(std::size_t)>& call) const;
  /// The same without a graph, for what the GPU does in another way when it is captured.
  double of_calls(std::size_t calls, const std::function<void(std::size_t)>& call) const;

 private:
  double median(std::size_t calls, const std::function<void()>& work) const;
  int repetitions_;
};

/// The fastest that the GPU does, each measured once in a run.
class Roofline {
 public:
  Roofline(const Timer& timer, const Arena& arena) : timer_(timer), arena_(arena) {}
  /// Bytes per second of the fastest of some kernels that only read, or that copy, when `bytes` move in all.
  /// Sizes within 2 % share a measurement.
  double read(double bytes) { return measured(bytes, false).best; }
  double copy(double bytes) { return measured(bytes, true).best; }
  /// Multiply-adds per second in float32.
  double multiply_adds();

  struct Measured {
    double bytes = 0, best = 0;
    std::map<std::string, double> each;  ///< bytes per second, by kernel
  };
  const std::map<int, Measured>& all(bool copies) const { return copies ? copies_ : reads_; }

 private:
  const Measured& measured(double bytes, bool copies);
  Timer timer_;
  const Arena& arena_;
  std::map<int, Measured> copies_, reads_;
  double multiply_adds_ = 0;
};

/// The GPU in words.
struct Machine {
  std::string gpu, driver, clocks;  ///< the clocks as nvidia-smi has them now; empty: not known
  int architecture = 0;             ///< 90 for compute capability 9.0
  int multiprocessors = 0;
  int cuda_driver = 0, cuda_runtime = 0;  ///< such as 13000
  std::size_t cache_bytes = 0;            ///< of the second level
};
Machine this_machine();

void check_cuda(int status);

}  // namespace lamella::bench
