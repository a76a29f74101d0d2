#include "measure.h"

#include <algorithm>
#include <cstdint>

#include "lamella/tensor/create.h"
#include "layers/conv/kernels.h"
#include "tensor/door.h"

namespace lamella::bench {
namespace {

using detail::GradientWrite;
using detail::TensorView;

std::size_t padded(std::int64_t count) {
  constexpr std::size_t kLine = 512;
  return (static_cast<std::size_t>(count) * 2 + kLine - 1) / kLine * kLine;
}
std::size_t set_bytes(const Cell& cell) {
  const std::size_t x = padded(cell.layer->pixels() * cell.layer->in_channels),
                    y = padded(cell.layer->pixels() * cell.layer->out_channels);
  return x + y + (pointwise::has_sums(cell.variant->hook) ? x : 0);
}
Conv2dGeometry geometry_of(const Layer& layer) {
  return make_conv2d_geometry("conv2d", {kBatch, layer.in_channels, layer.size, layer.size},
                              {layer.out_channels, layer.in_channels, 1, 1}, 1, 0, 1, 1);
}

}  // namespace

std::size_t Buffers::bytes(const Cell& cell, std::size_t buffers) {
  return buffers * set_bytes(cell) +
         2 * padded(std::int64_t{cell.layer->in_channels} * cell.layer->out_channels);
}

Buffers::Buffers(const Cell& cell, const Arena& arena, std::size_t buffers) : cell_(cell), sets_(buffers) {
  arena.fill(cell.dtype, bytes(cell, buffers));
  const Layer& layer = *cell.layer;
  std::byte* base = arena.at(0);
  const auto view = [&](const Shape& shape) {
    const TensorView made{base, shape, dense_strides(shape, MemoryFormat::ChannelsLast), cell.dtype,
                          Device::cuda()};
    base += padded(shape.product());
    return made;
  };
  for (Set& set : sets_) {
    set.x = view({kBatch, layer.in_channels, layer.size, layer.size});
    set.y = view({kBatch, layer.out_channels, layer.size, layer.size});
    if (pointwise::has_sums(cell.variant->hook)) set.z = view(set.x.shape);
  }
  weight_ = view({layer.out_channels, layer.in_channels, 1, 1});
  dweight_ = view(weight_.shape);
  const std::int64_t most = std::max(layer.in_channels, layer.out_channels);
  factors_ = ones({3, most}, {.dtype = DType::Float32, .device = Device::cuda()});
}

bool Buffers::run(std::size_t i) const {
  namespace points = cuda::pointwise;
  const Set& set = sets_[i % sets_.size()];
  const Variant& variant = *cell_.variant;
  const auto* const factors = detail::read(factors_).as<float>();
  const std::int64_t most = factors_.shape()[1];
  constexpr float kLow = 0, kHigh = 6;
  const points::Transform transform{variant.load, factors, factors + most, kLow, kHigh};
  switch (variant.pass) {
    case Pass::Forward: {
      detail::LeftParts moments(Device::cuda(), cell_.layer->out_channels);
      points::ForwardOperands o{set.x, weight_, {}, set.y, transform};
      if (variant.hook == Hook::Moments) o.moments = &moments;
      return points::forward(o);
    }
    case Pass::Input: {
      detail::LeftParts sums(Device::cuda(), cell_.layer->in_channels);
      points::NormSums of{set.z, transform, factors + 2 * most, &sums};
      of.of.load = variant.hook == Hook::HardSwishSums ? Load::HardSwish : Load::Clamp;
      return points::backward_input(
          {set.y, weight_, set.x, pointwise::has_sums(variant.hook) ? &of : nullptr});
    }
    case Pass::Weight: {
      points::WeightOperands o;
      o.grad_output = set.y, o.input = set.x, o.transform = transform, o.grad_weight = dweight_;
      return points::backward_weight(o);
    }
  }
  return false;
}

void Buffers::run_library(std::size_t i) const {
  const Set& set = sets_[i % sets_.size()];
  const Conv2dGeometry g = geometry_of(*cell_.layer);
  switch (cell_.variant->pass) {
    case Pass::Forward:
      return cuda::conv2d_forward(g, set.x, weight_, {}, set.y);
    case Pass::Input:
      return cuda::conv2d_backward_input(g, set.y, weight_, set.x, GradientWrite::Overwrite);
    case Pass::Weight:
      return cuda::conv2d_backward_weight(g, set.y, set.x, dweight_, GradientWrite::Overwrite, {},
                                          GradientWrite::Overwrite);
  }
}

}  // namespace lamella::bench
