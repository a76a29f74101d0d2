#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lamella/core/dtype.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/shape.h"

/// What the benchmark trains.
namespace lamella::bench {

/// A network, its batch, and how it is trained.
struct Cell {
  std::string name = {};  ///< as `--cell` takes it; empty: put together from options
  std::string model = "v2";
  double width = 1;
  std::int64_t size = 224, batch = 256, classes = 1000;
  bool small_stem = false;
  std::string type = "float32";  ///< or "tf32", or "bfloat16": mixed, beside float32 weights
  MemoryFormat format = MemoryFormat::ChannelsLast;
  bool capture = false;
  bool input = false;  ///< not the step: images on their way to it
  std::string note = {};

  /// Of Autocast, if there is one.
  std::optional<DType> autocast() const;
  /// Bytes of a number between two layers.
  std::int64_t element_size() const { return type == "bfloat16" ? 2 : 4; }
};

/// The cells that have a name.
const std::vector<Cell>& named_cells();
std::vector<std::string> cell_names();
/// Of named_cells(); the name must be one.
Cell cell_of(const std::string& name);
/// A line for each named cell, for people.
std::string list_of_cells();

/// "MobileNet v2 1, 224x224 pixels, batch 256, 1000 classes, bfloat16, captured".
std::string describe(const Cell& cell);

/// The cell's network, without dropout, on the CPU.
std::unique_ptr<Module> build(const Cell& cell);

}  // namespace lamella::bench
