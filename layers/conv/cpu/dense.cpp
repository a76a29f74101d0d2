#include "layers/conv/cpu/dense.h"

#include <algorithm>
#include <cstddef>

#include "core/parallel.h"
#include "layers/conv/cpu/columns.h"
#include "layers/conv/cpu/operands.h"
#include "tensor/cpu/workspace.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"
#include "tensor/kernels/gemm.h"

namespace lamella::cpu {

using detail::ConstTensorView;
using detail::Gemm;
using detail::GemmOperand;
using detail::GradientWrite;
using detail::TensorView;

namespace {

constexpr std::int64_t kBlockPixels = 256;           // of one block of columns, about
constexpr std::int64_t kBlockElements = 1 << 18;     // at most, unless a single row has more
constexpr std::int64_t kImageElements = 1 << 20;     // of a float32 copy of part of a half-precision image
constexpr std::int64_t kPartialElements = 16 << 20;  // of all partial weight gradients
constexpr std::int64_t kMaxParts = 16;

/// The weight as [O][taps][C/groups] for channels-last columns or [O][C/groups][taps], in a copy where it
/// lies otherwise.
class WeightMatrix {
 public:
  WeightMatrix(const ConstTensorView& weight, bool channels_last)
      : layout_(channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous),
        dense_(detail::is_dense(weight.shape, weight.strides, layout_)),
        memory_(dense_ ? 0 : weight.numel() * static_cast<std::int64_t>(size_of(weight.dtype))),
        dtype_(weight.dtype),
        data_(dense_ ? weight.data : memory_.as<void>()) {
    if (dense_) return;
    copy(weight,
         TensorView{memory_.as<void>(), weight.shape, dense_strides(weight.shape, layout_), dtype_,
                    weight.device},
         GradientWrite::Overwrite);
  }
  /// From element `offset` on.
  GemmOperand operand(std::int64_t offset, std::int64_t row, std::int64_t column,
                      const Strides& batch) const {
    return {static_cast<const std::byte*>(data_) + offset * static_cast<std::int64_t>(size_of(dtype_)),
            dtype_, row, column, batch};
  }

 private:
  MemoryFormat layout_;
  bool dense_;
  Workspace memory_;
  DType dtype_;
  const void* data_;
};

/// Cuts the output rows of one image into blocks of columns.
struct Blocks {
  Conv2dGeometry geometry;
  bool channels_last;
  std::int64_t channels;  ///< of a group, or a part of them
  std::int64_t rows;      ///< of a block
  std::int64_t count;     ///< per image

  Blocks(const Conv2dGeometry& g, bool channels_last, std::int64_t channels)
      : geometry(g), channels_last(channels_last), channels(channels) {
    const std::int64_t row_elements = g.out.w * g.kernel.h * g.kernel.w * channels;
    const std::int64_t wanted = (kBlockPixels + g.out.w - 1) / g.out.w;
    rows = std::clamp<std::int64_t>(std::min(wanted, kBlockElements / row_elements), 1, g.out.h);
    count = (g.out.h + rows - 1) / rows;
  }
  ColumnBlock block(std::int64_t index) const {
    return {geometry, channels_last, channels, index * rows, std::min((index + 1) * rows, geometry.out.h)};
  }
  std::int64_t largest() const { return block(0).size(); }
};

/// Columns of a block as [inputs × pixels]. In elements of the compute type.
template <class T>
GemmOperand column_matrix(const ColumnBlock& block, const T* columns) {
  const std::int64_t inputs = block.taps() * block.channels;
  if (block.channels_last) return {columns, dtype_of<T>, 1, inputs, {}};
  return {columns, dtype_of<T>, block.pixels(), 1, {}};
}

/// [channels of a group × pixels of a block] of a dense [N,C,H,W] tensor.
GemmOperand block_matrix(const ConstTensorView& x, std::int64_t image, std::int64_t channel,
                         const ColumnBlock& block) {
  const std::int64_t plane = x.shape[2] * x.shape[3], channels = x.shape[1], pixel = block.first * x.shape[3];
  const std::int64_t offset =
      image * channels * plane + (block.channels_last ? pixel * channels + channel : channel * plane + pixel);
  const void* const data =
      static_cast<const std::byte*>(x.data) + offset * static_cast<std::int64_t>(size_of(x.dtype));
  return {data, x.dtype, block.channels_last ? 1 : plane, block.channels_last ? channels : 1, {}};
}

/// First pixel of a channel of an image.
template <class S>
S* image_at(S* data, const Conv2dGeometry& g, bool channels_last, std::int64_t image, std::int64_t channel) {
  const std::int64_t plane = g.in.h * g.in.w;
  return data + image * g.in_channels * plane + (channels_last ? channel : channel * plane);
}

template <class S>
void forward_columns(const Conv2dGeometry& g, const ConstTensorView& input, const WeightMatrix& weight,
                     const ConstTensorView& bias, const TensorView& output, bool channels_last) {
  using T = detail::ComputeType<S>;
  const std::int64_t in_group = g.in_channels / g.groups, out_group = g.out_channels / g.groups;
  const Blocks blocks(g, channels_last, in_group);
  const std::int64_t inputs = in_group * g.kernel.h * g.kernel.w;
  detail::parallel_for(g.batch * g.groups * blocks.count, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace memory(blocks.largest() * static_cast<std::int64_t>(sizeof(T)));
    T* const columns = memory.as<T>();
    for (std::int64_t task = begin; task < end; ++task) {
      const ColumnBlock block = blocks.block(task % blocks.count);
      const std::int64_t group = task / blocks.count % g.groups, image = task / blocks.count / g.groups;
      gather_columns(block, image_at(input.as<S>(), g, channels_last, image, group * in_group), columns);
      Gemm product;
      product.m = out_group;
      product.n = block.pixels();
      product.k = inputs;
      product.a = weight.operand(group * out_group * inputs, inputs, 1, {});
      product.b = column_matrix(block, columns);
      if (bias.data != nullptr) {
        const std::int64_t offset = group * out_group * bias.strides[0];
        product.bias = {static_cast<const std::byte*>(bias.data) +
                            offset * static_cast<std::int64_t>(size_of(bias.dtype)),
                        bias.dtype,
                        bias.strides[0],
                        0,
                        {}};
      }
      set_target(product, block_matrix(output, image, group * out_group, block));
      gemm(product);
    }
  });
}

template <class S>
void backward_input_columns(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                            const WeightMatrix& weight, const TensorView& grad_input, GradientWrite write,
                            bool channels_last) {
  using T = detail::ComputeType<S>;
  constexpr bool kConverts = !std::is_same_v<S, T>;
  const std::int64_t in_group = g.in_channels / g.groups, out_group = g.out_channels / g.groups;
  const std::int64_t taps = g.kernel.h * g.kernel.w, inputs = in_group * taps, plane = g.in.h * g.in.w;
  // A task owns some channels of an image, so that no two add to one element.
  const std::int64_t most = kConverts ? std::clamp<std::int64_t>(kImageElements / plane, 1, 64) : 64;
  const std::int64_t parts = (in_group + most - 1) / most, channels = (in_group + parts - 1) / parts;
  detail::parallel_for(g.batch * g.groups * parts, 1, [&](std::int64_t begin, std::int64_t end) {
    const Blocks sizes(g, channels_last, channels);
    const std::int64_t column_elements = (sizes.largest() + 15) / 16 * 16;
    const Workspace memory((column_elements + (kConverts ? channels * plane : 0)) *
                           static_cast<std::int64_t>(sizeof(T)));
    T* const columns = memory.as<T>();
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t first = task % parts * channels, count = std::min(channels, in_group - first);
      const std::int64_t group = task / parts % g.groups, image = task / parts / g.groups;
      if (count <= 0) continue;
      S* const target = image_at(grad_input.as<S>(), g, channels_last, image, group * in_group + first);
      const std::int64_t lines = channels_last ? plane : count, length = channels_last ? count : plane;
      const std::int64_t target_step = channels_last ? g.in_channels : plane;
      T* sums = columns + column_elements;
      if constexpr (kConverts) {
        std::fill_n(sums, lines * length, T(0));
      } else {
        sums = target;
        if (write == GradientWrite::Overwrite)
          for (std::int64_t i = 0; i < lines; ++i) std::fill_n(target + i * target_step, length, T(0));
      }
      Blocks blocks = sizes;
      blocks.channels = count;
      for (std::int64_t index = 0; index < blocks.count; ++index) {
        const ColumnBlock block = blocks.block(index);
        Gemm product;
        product.m = channels_last ? count : count * taps;
        product.n = block.pixels();
        product.k = out_group;
        if (channels_last) {
          product.batch = {taps};
          product.a = weight.operand(group * out_group * inputs + first, 1, inputs, {in_group});
        } else {
          product.batch = {1};
          product.a = weight.operand(group * out_group * inputs + first * taps, 1, inputs, {0});
        }
        product.b = block_matrix(grad_output, image, group * out_group, block);
        product.b.batch = {0};
        GemmOperand target_columns = column_matrix(block, columns);
        target_columns.batch = {count};
        set_target(product, target_columns);
        gemm(product);
        scatter_columns(block, columns, sums, kConverts ? count : g.in_channels);
      }
      if constexpr (kConverts) {
        for (std::int64_t i = 0; i < lines; ++i)
          for (std::int64_t j = 0; j < length; ++j) {
            S& to = target[i * target_step + j];
            const T sum = sums[i * length + j];
            to = S(write == GradientWrite::Accumulate ? static_cast<T>(to) + sum : sum);
          }
      }
    }
  });
}

/// grad_weight = or += sums, [O][inputs] in the order of the columns.
template <class T>
void store_weight_gradient(const T* sums, const TensorView& grad_weight, bool channels_last,
                           GradientWrite write) {
  const Strides order =
      dense_strides(grad_weight.shape, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  const Shape& shape = grad_weight.shape;
  const Strides& strides = grad_weight.strides;
  detail::dispatch_floating(grad_weight.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    for (std::int64_t o = 0; o < shape[0]; ++o)
      for (std::int64_t c = 0; c < shape[1]; ++c)
        for (std::int64_t kh = 0; kh < shape[2]; ++kh)
          for (std::int64_t kw = 0; kw < shape[3]; ++kw) {
            T sum = sums[o * order[0] + c * order[1] + kh * order[2] + kw * order[3]];
            S& to = grad_weight.as<S>()[o * strides[0] + c * strides[1] + kh * strides[2] + kw * strides[3]];
            if (write == GradientWrite::Accumulate) sum += static_cast<T>(to);
            to = static_cast<S>(static_cast<detail::ComputeType<S>>(sum));
          }
  });
}

template <class S>
void backward_weight_columns(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                             const ConstTensorView& input, const TensorView& grad_weight, GradientWrite write,
                             bool channels_last) {
  using T = detail::ComputeType<S>;
  const std::int64_t in_group = g.in_channels / g.groups, out_group = g.out_channels / g.groups;
  const std::int64_t inputs = in_group * g.kernel.h * g.kernel.w, size = g.out_channels * inputs;
  const Blocks blocks(g, channels_last, in_group);
  const std::int64_t total = g.batch * blocks.count;
  const std::int64_t parts =
      std::clamp<std::int64_t>(std::min({total, kMaxParts, kPartialElements / size}), 1, kMaxParts);
  const Workspace memory(parts * size * static_cast<std::int64_t>(sizeof(T)));
  T* const partials = memory.as<T>();
  detail::parallel_for(parts * g.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(blocks.largest() * static_cast<std::int64_t>(sizeof(T)));
    T* const columns = scratch.as<T>();
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t group = task % g.groups, part = task / g.groups;
      T* const sums = partials + part * size + group * out_group * inputs;
      const std::int64_t first = total * part / parts, last = total * (part + 1) / parts;
      if (first == last) std::fill_n(sums, out_group * inputs, T(0));
      for (std::int64_t index = first; index < last; ++index) {
        const std::int64_t image = index / blocks.count;
        const ColumnBlock block = blocks.block(index % blocks.count);
        gather_columns(block, image_at(input.as<S>(), g, channels_last, image, group * in_group), columns);
        Gemm product;
        product.m = out_group;
        product.n = inputs;
        product.k = block.pixels();
        product.a = block_matrix(grad_output, image, group * out_group, block);
        product.b = transposed(column_matrix(block, columns));
        product.c = sums;
        product.c_dtype = dtype_of<T>;
        product.c_row = inputs;
        product.write = index == first ? GradientWrite::Overwrite : GradientWrite::Accumulate;
        gemm(product);
      }
    }
  });
  detail::parallel_for(size, 16384, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = 1; part < parts; ++part)
      for (std::int64_t i = begin; i < end; ++i) partials[i] += partials[part * size + i];
  });
  store_weight_gradient(partials, grad_weight, channels_last, write);
}

}  // namespace

void dense_forward(const Conv2dGeometry& g, const ConstTensorView& input, const ConstTensorView& weight,
                   const ConstTensorView& bias, const TensorView& output) {
  const bool channels_last = is_channels_last(input, output);
  const WeightMatrix matrix(weight, channels_last);
  detail::dispatch_floating(input.dtype, [&](auto tag) {
    forward_columns<typename decltype(tag)::type>(g, input, matrix, bias, output, channels_last);
  });
}

void dense_backward_input(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                          const ConstTensorView& weight, const TensorView& grad_input, GradientWrite write) {
  const bool channels_last = is_channels_last(grad_input, grad_output);
  const WeightMatrix matrix(weight, channels_last);
  detail::dispatch_floating(grad_input.dtype, [&](auto tag) {
    backward_input_columns<typename decltype(tag)::type>(g, grad_output, matrix, grad_input, write,
                                                         channels_last);
  });
}

void dense_backward_weight(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                           const ConstTensorView& input, const TensorView& grad_weight, GradientWrite write) {
  const bool channels_last = is_channels_last(input, grad_output);
  detail::dispatch_floating(input.dtype, [&](auto tag) {
    backward_weight_columns<typename decltype(tag)::type>(g, grad_output, input, grad_weight, write,
                                                          channels_last);
  });
}

}  // namespace lamella::cpu
