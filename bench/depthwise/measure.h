#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../gpu_machine.h"
#include "cases.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "layers/depthwise_conv2d/cuda/tuning.h"
#include "layers/depthwise_conv2d/kernels.h"

/// One cell's buffers and its times.
namespace lamella::bench {

/// The tensors of a cell: `buffers` sets of what is large, one of what is small, in the arena.
class Tensors {
 public:
  /// Places only, at addresses that mean nothing: enough to see how they would be planned.
  explicit Tensors(const Cell& cell);
  /// Filled with random numbers.
  Tensors(const Cell& cell, const Arena& arena, std::size_t buffers);
  /// What the arena must have for that.
  static std::size_t bytes(const Cell& cell, std::size_t buffers);

  /// The pass, with set number i % buffers.
  void run(std::size_t i) const;
  void run(std::size_t i, Pass pass) const;
  /// The same by a plan of plans_for(). False, with nothing done, where it does not suit these tensors.
  bool run(std::size_t i, const cuda::depthwise::Chosen& chosen) const;
  /// What the choice depends on; false: there are only the generic kernels.
  bool describe(depthwise::Problem& problem) const;

 private:
  struct Set {
    detail::TensorView x, y, dx;  ///< y: the output, or its gradient
  };
  Tensors(const Cell& cell, std::byte* base, std::size_t buffers);
  cuda::depthwise::Operands operands(std::size_t i, Pass pass) const;
  void run_fused(std::size_t i, Pass pass) const;

  Cell cell_;
  std::vector<Set> sets_;
  detail::TensorView weight_, dweight_;
  detail::DepthwiseFusion fusion_;
  cuda::depthwise::Parts to_;
};

/// The plan that a cell's pass is run by, in words.
std::string plan_of(const Cell& cell);

/// The problem on a GPU of this architecture, whatever is here.
void suppose_architecture(int architecture, depthwise::Problem& problem);

/// What is compiled for it: with the first plan's kernel first, none for the generic kernels.
std::vector<depthwise::Plan> plans_of(const Cell& cell, const depthwise::Tuning& tuning, int architecture);

}  // namespace lamella::bench
