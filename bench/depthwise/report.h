#pragma once

#include <algorithm>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "../gpu_machine.h"
#include "cases.h"

/// The table, the groups at its end, and JSON.
namespace lamella::bench {

struct Result {
  Cell cell;
  std::string plan;
  double ms = 0;
  double memory_ms = 0, arithmetic_ms = 0;       ///< what the roofline and the multiply-adds take at least
  std::optional<double> peer_ms, peer_other_ms;  ///< PyTorch's, in the same format and in the other
  double share() const { return std::max(memory_ms, arithmetic_ms) / ms; }
};

/// "NCHW" or "NHWC".
const char* letters(MemoryFormat format);

void print_head(int name_width, bool peer);
void print_row(const Result& result, int name_width, bool peer);

/// By group: how many cells have the share that is wanted of them, and the geometric mean; of random ones the
/// 5th percentile; one pass for both gradients against two; PyTorch. Returns the same as JSON.
nlohmann::json print_groups(const std::vector<Result>& results);

nlohmann::json json_of(const std::vector<Result>& results);
nlohmann::json json_of(const Machine& machine);
nlohmann::json json_of(const Roofline& roofline);

}  // namespace lamella::bench
