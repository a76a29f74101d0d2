#pragma once

#include <cstdint>

#include "lamella/core/dtype.h"

/// Moving rows between tensors (any floating type, any strides) and the rows of T that the vector loops work
/// on. T is double for float64 and float otherwise.
namespace lamella::cpu {

template <class T>
struct StageArgs {
  const void* source = nullptr;  ///< first column to copy of the first row
  DType dtype = DType::Float32;
  std::int64_t row_count = 0;
  std::int64_t row_step = 0;
  std::int64_t columns = 0;
  std::int64_t column_step = 1;
  std::int64_t channels = 1;  ///< neighbours in memory; planar rows have one
  std::int64_t repeat = 1;    ///< each channel is written so often (channel multiplier)
  T* out = nullptr;
  std::int64_t out_row_step = 0;
  /// Planar rows may be split by the remainder of the column: column first + j goes to
  /// out[((first + j) % phases) * phase_size + (first + j) / phases]. Otherwise columns follow each other
  /// from `first`.
  std::int64_t first = 0;
  std::int64_t phases = 1;
  std::int64_t phase_size = 0;
};
template <class T>
void stage_rows(const StageArgs<T>& args);

template <class T>
struct StoreArgs {
  const T* source = nullptr;
  /// Planar: column p comes from source[(p % phases) * phase_size + p / phases].
  std::int64_t phases = 1;
  std::int64_t phase_size = 0;
  std::int64_t columns = 0;
  std::int64_t channels = 1;  ///< written per column, neighbours in memory
  std::int64_t reduce = 1;    ///< so many neighbours of the source are added into one channel
  void* out = nullptr;
  DType dtype = DType::Float32;
  std::int64_t out_column_step = 1;
  bool accumulate = false;
  bool stream = false;  ///< write past the caches
};
template <class T>
void store_row(const StoreArgs<T>& args);
/// To be called by a thread that stored with `stream` before others may read.
void flush_streams();

}  // namespace lamella::cpu
