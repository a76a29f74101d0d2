#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lamella/core/dtype.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/shape.h"
#include "layers/depthwise_conv2d/cuda/plan.h"

/// What is measured.
namespace lamella::bench {

using depthwise::Pass;
inline constexpr Pass kPasses[] = {Pass::Forward, Pass::Input, Pass::Weight, Pass::Both};
/// "forward", "input", "weight", "both".
const char* name(Pass pass);

/// What a batch norm and ReLU6 have a pass do beside: transform the input; that, and the statistics of the
/// output; or that, mask the input's gradient and leave its sums.
enum class With : std::uint8_t { Nothing, Transform, Statistics, Sums };
/// "", "transform", "statistics", "sums".
const char* name(With with);

struct Case {
  std::string name;
  std::vector<std::string> sets;  ///< core, source, kernelbench, mobilenet, multiplier, batch1, random
  Conv2dGeometry geometry;
  std::optional<DType> dtype;  ///< drawn with a random geometry; else all that are asked for
  std::optional<MemoryFormat> format;

  bool is_in(const std::string& set) const;
};

/// One number of the table.
struct Cell {
  const Case* what = nullptr;
  DType dtype = DType::Float32;
  MemoryFormat format = MemoryFormat::Contiguous;
  Pass pass = Pass::Forward;
  With with = With::Nothing;
  bool hardswish = false;  ///< `with` that, in place of ReLU6

  /// Whether there is such a pass.
  bool exists() const;
  /// Of the table: "forward+statistics".
  std::string label() const;
  /// Each input read once and each output written once; without the taps.
  double bytes() const;
  /// Those of the useful multiply-adds: with taps that lie in the input.
  double multiply_adds() const;
};

/// The fixed shapes.
std::vector<Case> fixed_cases();

/// `count` geometries that move at least 50 MB forward, their type and format among those given. The same
/// seed draws the same on every machine.
std::vector<Case> random_cases(int count, std::uint64_t seed, const std::vector<DType>& types,
                               const std::vector<MemoryFormat>& formats);

}  // namespace lamella::bench
