#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "layers/depthwise_conv2d/cuda/planning.h"

/// What the planners of pixels and planes share, where every thread moves numbers and computes its own
/// results.
namespace lamella::depthwise {

inline constexpr std::int64_t kPartsBlocks = 2112;  // a number of its own, so that no sum depends on the GPU

/// What a variant is made of.
struct ThreadConfig {
  TileSizes tile{};
  int tap_rows = 0, threads = 128;
  int channels = 0, stages = 2, strip = 0;  // of pixels
  bool is_double = false;                   // of planes
  std::int64_t bytes = 0;
  std::int64_t rounds = 1;
  int apart = 1;  ///< of planes: a launch for each of so many outputs of a channel
  int steps = 1;  ///< of planes: so many outputs of a channel in one launch, one after the other
};

/// Registers that a thread will want.
int registers(const Problem& p, const Shape& s, const ThreadConfig& c);

/// Multiply-adds of a thread and step: the length of its code.
int products(const Shape& s, const ThreadConfig& c);

/// The expression that names a kernel: of a function's template, with `rest` of its arguments behind the
/// tile.
std::string expression(const Problem& p, const Shape& s, const ThreadConfig& c, const char* function,
                       const std::string& rest);

/// Blocks that launch bounds promise to a multiprocessor: as many as the registers allow that the kernel
/// wants.
int promised_blocks(const Problem& p, const Shape& s, const ThreadConfig& c);

/// Rows of taps that a thread has at once: all, or so many that they fit into registers.
std::vector<int> tap_rows_of(const Problem& p, const Shape& s);

/// add(configuration) for each tile that threads have the registers for, whose code is not too long; `from`
/// has the rest.
template <class Add>
void each_tile(const Problem& p, const Shape& s, const std::vector<int>& columns,
               const std::vector<int>& lanes, const ThreadConfig& from, const Add& add) {
  constexpr int kLongestCode = 1600, kMostRegisters = 200;
  for (const int tap_rows : tap_rows_of(p, s))
    for (const int rows : {1, 2, 4, 7, 8, 14})
      for (const int width : columns)
        for (const int lane : lanes) {
          ThreadConfig c = from;
          c.tile = {rows, width, lane};
          // Sums that are kept are of whole strides.
          c.tap_rows = c.steps > 1 ? static_cast<int>(round_up(tap_rows, s.kernel.stride_h)) : tap_rows;
          if (products(s, c) <= kLongestCode && registers(p, s, c) <= kMostRegisters) add(c);
        }
}

}  // namespace lamella::depthwise
