#include "measure.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace lamella::bench {
namespace {

using detail::GradientWrite;
using detail::TensorView;

std::size_t padded(std::int64_t count, DType dtype) {
  constexpr std::size_t kLine = 512;
  return (static_cast<std::size_t>(count) * size_of(dtype) + kLine - 1) / kLine * kLine;
}

/// Whether the input and its gradient have places of their own.
bool has_both(const Cell& cell) {
  return cell.pass == Pass::Both || (cell.pass == Pass::Input && cell.with == With::Sums);
}

std::size_t set_bytes(const Cell& cell) {
  const Conv2dGeometry& g = cell.what->geometry;
  const std::size_t x = padded(g.input_shape().product(), cell.dtype),
                    y = padded(g.output_shape().product(), cell.dtype);
  return has_both(cell) ? 2 * x + y : x + y;
}

/// Of what a batch norm has: scale, shift, and up to three that hooks read and write.
constexpr std::size_t kVectors = 5;
std::size_t vector_bytes(const Cell& cell) {
  return padded(cell.what->geometry.out_channels, DType::Float32);
}

}  // namespace

std::size_t Tensors::bytes(const Cell& cell, std::size_t buffers) {
  return buffers * set_bytes(cell) + 2 * padded(cell.what->geometry.weight_shape().product(), cell.dtype) +
         kVectors * vector_bytes(cell);
}

Tensors::Tensors(const Cell& cell)
    : Tensors(cell, reinterpret_cast<std::byte*>(std::uintptr_t{1} << 20), 1) {}

Tensors::Tensors(const Cell& cell, const Arena& arena, std::size_t buffers)
    : Tensors(cell, arena.at(0), buffers) {
  arena.fill(cell.dtype, bytes(cell, buffers));
}

Tensors::Tensors(const Cell& cell, std::byte* base, std::size_t buffers) : cell_(cell), sets_(buffers) {
  const Conv2dGeometry& g = cell.what->geometry;
  const auto view = [&](const Shape& shape, MemoryFormat format) {
    const TensorView made{base, shape, dense_strides(shape, format), cell.dtype, Device::cuda()};
    base += padded(shape.product(), cell.dtype);
    return made;
  };
  for (Set& set : sets_) {
    set.x = view(g.input_shape(), cell.format);
    set.y = view(g.output_shape(), cell.format);
    if (has_both(cell))
      set.dx = view(g.input_shape(), cell.format);
    else if (cell.pass == Pass::Input)
      std::swap(set.x, set.dx);
  }
  weight_ = view(g.weight_shape(), MemoryFormat::Contiguous);
  dweight_ = view(g.weight_shape(), MemoryFormat::Contiguous);
  if (cell.with != With::Nothing) {
    const auto floats = [&] {
      auto* const made = reinterpret_cast<float*>(base);
      base += vector_bytes(cell);
      return made;
    };
    constexpr float kMost = 6;  // of ReLU6
    fusion_.scale = floats(), fusion_.shift = floats(), fusion_.low = 0, fusion_.high = kMost;
    if (cell.with == With::Statistics) fusion_.mean = floats(), fusion_.variance = floats();
    if (cell.with == With::Sums)
      fusion_.center = floats(), fusion_.sum = floats(), fusion_.product = floats();
  }
  to_.device = Device::cuda();
  to_.channels = g.out_channels;
  to_.kernel = g.kernel;
  to_.weight = dweight_;
}

void Tensors::run(std::size_t i) const { run(i, cell_.pass); }

void Tensors::run(std::size_t i, Pass pass) const {
  if (cell_.hardswish) {
    if (!cuda::depthwise::run_planned(cell_.what->geometry, operands(i, pass)))
      throw std::runtime_error(cell_.what->name + ", " + cell_.label() + ": no kernel");
    return;
  }
  if (fusion_.any()) return run_fused(i, pass);
  const Set& set = sets_[i % sets_.size()];
  const Conv2dGeometry& g = cell_.what->geometry;
  constexpr auto kWrite = GradientWrite::Overwrite;
  switch (pass) {
    case Pass::Forward:
      return cuda::depthwise_conv2d_forward(g, set.x, weight_, {}, set.y);
    case Pass::Input:
      return cuda::depthwise_conv2d_backward_input(g, set.y, weight_, set.dx, kWrite);
    case Pass::Weight:
      return cuda::depthwise_conv2d_backward_weight(g, set.y, set.x, dweight_, kWrite, {}, kWrite);
    case Pass::Both:
      return cuda::depthwise_conv2d_backward(g, set.y, set.x, weight_, set.dx, kWrite, dweight_, kWrite, {},
                                             kWrite);
  }
}

void Tensors::run_fused(std::size_t i, Pass pass) const {
  const Set& set = sets_[i % sets_.size()];
  const Conv2dGeometry& g = cell_.what->geometry;
  constexpr auto kWrite = GradientWrite::Overwrite;
  if (pass == Pass::Forward)
    return cuda::depthwise_conv2d_forward_fused(g, fusion_, set.x, weight_, {}, set.y);
  const bool input = pass != Pass::Weight, weight = pass != Pass::Input;
  cuda::depthwise_conv2d_backward_fused(g, fusion_, set.y, set.x, weight_, input ? set.dx : TensorView{},
                                        kWrite, weight ? dweight_ : TensorView{}, kWrite, {}, kWrite);
}

bool Tensors::run(std::size_t i, const cuda::depthwise::Chosen& chosen) const {
  return cuda::depthwise::run_plan(chosen.plan, chosen.kernel, cell_.what->geometry, operands(i, cell_.pass));
}

cuda::depthwise::Operands Tensors::operands(std::size_t i, Pass pass) const {
  const Set& set = sets_[i % sets_.size()];
  cuda::depthwise::Operands operands;
  const bool forward = pass == Pass::Forward;
  const bool sums = fusion_.sum != nullptr && (pass == Pass::Input || pass == Pass::Both);
  if (pass != Pass::Weight) operands.weight = weight_;
  if (pass != Pass::Input || sums) {
    operands.input = set.x;
    operands.transform = {fusion_.scale, fusion_.shift, fusion_.low, fusion_.high, cell_.hardswish};
  }
  if (forward && fusion_.mean != nullptr) operands.hook = depthwise::Hook::Statistics;
  if (sums) operands.hook = depthwise::Hook::NormSums;
  operands.results = {fusion_.mean, fusion_.variance, fusion_.center, fusion_.sum, fusion_.product};
  if (forward) operands.output = set.y;
  if (!forward) operands.grad_output = set.y;
  if (pass == Pass::Input || pass == Pass::Both) operands.grad_input = set.dx;
  if (pass == Pass::Weight || pass == Pass::Both) operands.to = &to_;
  return operands;
}

bool Tensors::describe(depthwise::Problem& problem) const {
  return cuda::depthwise::describe_problem(cell_.what->geometry, operands(0, cell_.pass), problem);
}

std::string plan_of(const Cell& cell) {
  depthwise::Problem problem;
  if (!Tensors(cell).describe(problem)) return "generic";
  if (const auto* const chosen = cuda::depthwise::choose(problem, Device::cuda())) return chosen->plan.what;
  return cell.pass == Pass::Both ? "two passes" : "generic";
}

void suppose_architecture(int architecture, depthwise::Problem& problem) {
  problem.boxes = architecture >= 90;
  problem.shared_bytes = detail::cuda::shared_bytes_of_architecture(architecture);
}

std::vector<depthwise::Plan> plans_of(const Cell& cell, const depthwise::Tuning& tuning, int architecture) {
  depthwise::Problem problem;
  if (!Tensors(cell).describe(problem)) return {};
  suppose_architecture(architecture, problem);
  return depthwise::plans_to_try(problem, tuning);
}

}  // namespace lamella::bench
