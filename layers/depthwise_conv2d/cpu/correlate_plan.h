#pragma once

#include <cstdint>
#include <vector>

#include "layers/depthwise_conv2d/cpu/correlate.h"
#include "layers/depthwise_conv2d/cpu/packing.h"
#include "layers/depthwise_conv2d/cpu/source_rows.h"

namespace lamella::cpu {

/// Columns [first, last) of every column class and how their source rows are read.
template <class T>
struct Strip {
  std::int64_t first;
  std::int64_t last;
  ColumnWindow<T> window;
  /// Where a row holds what each tap of output `first` reads; the taps of all column classes, one after the
  /// other.
  std::vector<std::int64_t> offsets;
};

/// How a correlation is cut, from the shapes alone: planes (an image and channel; channels-last: an image),
/// strips of columns, ranges of rows.
template <class T>
class CorrelationPlan {
 public:
  explicit CorrelationPlan(const Correlation& problem);
  std::int64_t tasks() const {
    return (planes + planes_per_task - 1) / planes_per_task * static_cast<std::int64_t>(strips.size()) *
           row_tasks;
  }

  const Correlation& p;
  const bool planar;
  const PackedTaps<T> taps;
  const std::int64_t channels;
  const std::int64_t row_classes, column_classes;
  std::int64_t row_count = 0, column_count = 0;  // of the largest class
  bool write_in_place = false;
  bool collect = false;  // the rows of a block are collected side by side and copied in one run
  bool stream = false;   // too much output for the caches: the copy goes past them
  std::vector<Strip<T>> strips;
  std::int64_t piece_columns = 0;  // columns of a strip that are worked on at a time
  std::int64_t block_rows = 0;     // rows of each class that are worked on at a time
  std::int64_t planes = 0, planes_per_task = 1, rows_per_task = 0, row_tasks = 1;
  std::int64_t table_rows = 0;  // source rows that a block reads
  std::int64_t rows_ahead = 0;  // channels-last: rows after these, to be prefetched
  std::int64_t line_size = 0;   // elements of an output row that cannot be written directly
  std::int64_t zeros_size = 0;

 private:
  void choose_writing();
  void add_strip(std::int64_t first, std::int64_t last);
  void cut_columns();
  void cut_rows();
};

}  // namespace lamella::cpu
