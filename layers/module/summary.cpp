#include "lamella/layers/summary.h"

#include <algorithm>
#include <cstdio>
#include <unordered_map>
#include <unordered_set>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/layers/modules/conv.h"
#include "lamella/layers/modules/linear.h"
#include "layers/module/observe.h"
#include "layers/module/state.h"
#include "tensor/door.h"

namespace lamella {

namespace {

using detail::ModuleState;

/// Multiply-adds per element of the output, where the module is of a kind that counts.
std::int64_t products_per_output(const Module& module) {
  if (const auto* conv = dynamic_cast<const Conv2d*>(&module))
    return conv->weight().numel() / conv->weight().size(0);
  if (const auto* conv = dynamic_cast<const DepthwiseConv2d*>(&module))
    return conv->weight().numel() / conv->weight().size(0);
  if (const auto* linear = dynamic_cast<const Linear*>(&module)) return linear->weight().size(1);
  return 0;
}

/// Adds up the calls of each module.
class Calls final : public detail::CallObserver {
 public:
  void called(const Module& module, const Tensor& output) override {
    LayerSummary& row = rows_[ModuleState::of(module)];
    ++row.calls;
    row.output = output.shape();
    row.multiply_adds += output.numel() * products_per_output(module);
    row.activation_bytes += output.numel() * static_cast<std::int64_t>(size_of(output.dtype()));
  }
  /// Empty if it was not called.
  LayerSummary of(const Module& module) const {
    const auto found = rows_.find(ModuleState::of(module));
    return found == rows_.end() ? LayerSummary() : found->second;
  }

 private:
  std::unordered_map<const ModuleState*, LayerSummary> rows_;
};

/// Eval mode, and the mode that each module had afterwards.
class EvalMode {
 public:
  explicit EvalMode(Module& module) {
    module.apply(
        [&](const std::string&, Module& below) { before_.emplace_back(&below, below.is_training()); });
    module.eval();
  }
  ~EvalMode() {
    // Parents come first: what they set below is put right when the children's turn comes.
    for (const auto& [module, training] : before_) module->train(training);
  }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  std::vector<std::pair<Module*, bool>> before_;
};

}  // namespace

Summary summarize(Module& module, const Tensor& input) {
  detail::check_defined("summarize", "input", input);
  Calls calls;
  {
    const NoGrad no_grad;
    const EvalMode eval(module);
    module(input);
  }

  Summary summary{.rows = {}, .input = input.shape()};
  std::unordered_set<const detail::TensorImpl*> counted;
  module.apply([&](const std::string& path, Module& below) {
    LayerSummary row = calls.of(below);
    bool owns_parameters = false;
    for (const auto& [name, parameter] : below.named_parameters()) {
      if (name.find('.') != std::string::npos) continue;  // a child's
      owns_parameters = true;
      if (counted.insert(&detail::TensorDoor::impl(parameter)).second) row.parameters += parameter.numel();
    }
    if (!owns_parameters && (row.calls == 0 || !below.children().empty())) return;
    row.path = path;
    row.kind = below.type_name();
    row.settings = below.settings();
    summary.multiply_adds += row.multiply_adds;
    summary.activation_bytes += row.activation_bytes;
    summary.rows.push_back(std::move(row));
  });
  for (const Tensor& parameter : module.parameters()) {
    summary.parameters += parameter.numel();
    if (parameter.requires_grad()) summary.trainable_parameters += parameter.numel();
    summary.parameter_bytes += parameter.numel() * static_cast<std::int64_t>(size_of(parameter.dtype()));
  }
  return summary;
}

// ---- Printing ----

namespace {

/// 3504872 as "3,504,872".
std::string grouped(std::int64_t number) {
  std::string text = std::to_string(number);
  for (std::ptrdiff_t i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > 0; i -= 3)
    text.insert(static_cast<std::size_t>(i), 1, ',');
  return text;
}

std::string mebibytes(std::int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

}  // namespace

std::string Summary::to_string() const {
  constexpr std::size_t kColumns = 6, kLeft = 2;  // the first two begin at the left
  using Line = std::vector<std::string>;
  std::vector<Line> lines = {{"layer", "kind", "output", "parameters", "multiply-adds", "activation bytes"}};
  for (const LayerSummary& row : rows)
    lines.push_back({row.path.empty() ? "(itself)" : row.path, row.kind,
                     row.calls == 0 ? "not called" : row.output.to_string(), grouped(row.parameters),
                     grouped(row.multiply_adds), grouped(row.activation_bytes)});
  lines.push_back({"total", "", "", grouped(parameters), grouped(multiply_adds), grouped(activation_bytes)});
  std::size_t widths[kColumns] = {};
  for (const Line& line : lines)
    for (std::size_t c = 0; c < kColumns; ++c) widths[c] = std::max(widths[c], line[c].size());

  std::string text;
  for (const Line& line : lines) {
    for (std::size_t c = 0; c < kColumns; ++c) {
      const std::string space(widths[c] - line[c].size(), ' ');
      text += (c == 0 ? "" : "  ") + (c < kLeft ? line[c] + space : space + line[c]);
    }
    text += '\n';
  }
  return text + detail::concat("input ", input.to_string(), "; parameters ", grouped(trainable_parameters),
                               " trainable, ", mebibytes(parameter_bytes), "; multiply-adds ",
                               grouped(multiply_adds), "; activations ", mebibytes(activation_bytes), '\n');
}

}  // namespace lamella
