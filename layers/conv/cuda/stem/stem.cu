#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/cuda/launch.cuh"
#include "core/workspace.h"
#include "layers/conv/cuda/results.h"
#include "layers/conv/cuda/stem/cut.h"
#include "layers/conv/cuda/stem/device/stem_multiply.cuh"
#include "layers/conv/cuda/stem/device/stem_multiply32.cuh"
#include "layers/conv/cuda/stem/device/stem_weigh.cuh"
#include "layers/conv/cuda/stem/device/stem_weigh32.cuh"
#include "layers/conv/cuda/stem/stem.h"
#include "layers/dense.h"

namespace lamella::cuda::stem {

using detail::ConstTensorView;
using detail::TensorView;
using lamella::stem::Cut;
using lamella::stem::Image;
using lamella::stem::MultiplyWork;
using lamella::stem::Sizes;
using lamella::stem::WeighWork;

namespace {

bool fits_int(std::int64_t number) { return number >= 0 && number <= std::numeric_limits<int>::max(); }

bool describe(const Conv2dGeometry& g, Sizes& sizes) {
  constexpr std::int64_t kMost = 1 << 15;
  for (const Size2 size : {g.in, g.out, g.kernel, g.stride, g.padding})
    if (size.h > kMost || size.w > kMost) return false;
  if (g.groups != 1 || g.dilation != Size2(1) || g.in_channels > kMost || g.out_channels > kMost)
    return false;
  sizes.channels = static_cast<int>(g.in_channels), sizes.outputs = static_cast<int>(g.out_channels);
  sizes.in_h = static_cast<int>(g.in.h), sizes.in_w = static_cast<int>(g.in.w);
  sizes.out_h = static_cast<int>(g.out.h), sizes.out_w = static_cast<int>(g.out.w);
  sizes.kernel_h = static_cast<int>(g.kernel.h), sizes.kernel_w = static_cast<int>(g.kernel.w);
  sizes.stride_h = static_cast<int>(g.stride.h), sizes.stride_w = static_cast<int>(g.stride.w);
  sizes.pad_h = static_cast<int>(g.padding.h), sizes.pad_w = static_cast<int>(g.padding.w);
  sizes.batch = g.batch;
  return lamella::stem::fits(sizes);
}

bool describe(const ConstTensorView& view, DType type, Image& image) {
  if (view.dtype != type && view.dtype != DType::Float32) return false;
  std::int64_t last = 0;
  for (int axis = 1; axis < 4; ++axis) {
    if (!fits_int(view.strides[axis])) return false;
    last += (view.shape[axis] - 1) * view.strides[axis];
  }
  if (!fits_int(last)) return false;
  image.data = view.data;
  image.is_float32 = view.dtype == DType::Float32;
  image.image_step = view.strides[0];
  image.channel_step = static_cast<int>(view.strides[1]);
  image.row_step = static_cast<int>(view.strides[2]);
  image.pixel_step = static_cast<int>(view.strides[3]);
  return true;
}

/// Pixels of channels without gaps, at sixteen bytes, of a type that there are kernels for.
bool is_matrix(const ConstTensorView& view) {
  constexpr std::uintptr_t kAligned = 16;
  return (view.dtype == DType::BFloat16 || view.dtype == DType::Float16 || view.dtype == DType::Float32) &&
         reinterpret_cast<std::uintptr_t>(view.data) % kAligned == 0 &&
         detail::is_dense(view.shape, view.strides, MemoryFormat::ChannelsLast);
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

/// run(type, the number that suffices of `sizes` as a constant, `few` or `many` as one)
template <const int (&kSizes)[3], int kFew, int kMany, class Run>
void choose(DType type, int wanted, bool few, const Run& run) {
  const auto with_size = [&](auto number, auto size) {
    if (few)
      run(number, size, Constant<kFew>());
    else
      run(number, size, Constant<kMany>());
  };
  const auto with_type = [&](auto number) {
    switch (lamella::stem::enough(kSizes, wanted)) {
      case kSizes[0]:
        return with_size(number, Constant<kSizes[0]>());
      case kSizes[1]:
        return with_size(number, Constant<kSizes[1]>());
      default:
        return with_size(number, Constant<kSizes[2]>());
    }
  };
  if (type == DType::BFloat16)
    with_type(lamella::depthwise::BFloat16());
  else
    with_type(lamella::depthwise::Float16());
}

/// run(channels, stride, `few` or `many`) as constants, of what fits_float32().
template <int kFew, int kMany, class Run>
void choose32(const Sizes& sizes, const Run& run) {
  const auto with_stride = [&](auto channels, auto stride) {
    if (lamella::stem::output_eights(sizes) == 2)
      run(channels, stride, Constant<kFew>());
    else
      run(channels, stride, Constant<kMany>());
  };
  const auto with_channels = [&](auto channels) {
    if (sizes.stride_w == 1)
      with_stride(channels, Constant<1>());
    else
      with_stride(channels, Constant<2>());
  };
  if (sizes.channels == 1)
    with_channels(Constant<1>());
  else
    with_channels(Constant<3>());
}

template <class Work>
void launch(Device device, const Cut& cut, void (*kernel)(Work), const Work& work) {
  detail::cuda::launch_early("conv2d (few channels)", device,
                             dim3(static_cast<unsigned>(cut.parts) * static_cast<unsigned>(cut.groups)),
                             dim3(lamella::stem::kThreads), static_cast<std::size_t>(cut.shared_bytes),
                             kernel, work);
}

}  // namespace

bool forward(const Conv2dGeometry& geometry, const ForwardOperands& o) {
  MultiplyWork work;
  const DType type = o.output.dtype;
  const auto is_parameter = [&](const ConstTensorView& view) {
    return view.dtype == type || view.dtype == DType::Float32;
  };
  if (!describe(geometry, work.sizes) || !describe(o.input, type, work.image) || !is_matrix(o.output) ||
      !is_parameter(o.weight))
    return false;
  if (o.bias.data != nullptr && (!is_parameter(o.bias) || o.bias.strides[0] != 1)) return false;
  const bool in_float32 = type == DType::Float32;
  if (in_float32 && !lamella::stem::fits_float32(work.sizes)) return false;
  work.cut = in_float32 ? lamella::stem::cut_multiply32(work.sizes) : lamella::stem::cut_multiply(work.sizes);
  work.weight = o.weight.data;
  work.weight_is_float32 = o.weight.dtype == DType::Float32;
  for (int axis = 0; axis < 4; ++axis) work.weight_steps[axis] = o.weight.strides[axis];
  work.bias = o.bias.data;
  work.bias_is_float32 = o.bias.dtype == DType::Float32;
  work.output = o.output.data;
  if (o.moments != nullptr)
    work.moments = static_cast<double*>(o.moments->take(DType::Float64, work.cut.parts, 3));
  if (in_float32) {
    choose32<2, lamella::stem::kMostEights>(work.sizes, [&](auto channels, auto stride, auto eights) {
      launch(o.output.device, work.cut,
             lamella::stem::multiply_windows32<decltype(channels)::value, decltype(stride)::value,
                                               decltype(eights)::value>,
             work);
    });
    return true;
  }
  const int eights = lamella::stem::output_eights(work.sizes);
  choose<lamella::stem::kSteps, 2, lamella::stem::kMostEights>(
      type, lamella::stem::window_steps(work.sizes), eights == 2, [&](auto number, auto steps, auto mine) {
        launch(
            o.output.device, work.cut,
            lamella::stem::multiply_windows<decltype(number), decltype(steps)::value, decltype(mine)::value>,
            work);
      });
  return true;
}

bool backward_weight(const Conv2dGeometry& geometry, const WeightOperands& o) {
  WeighWork work;
  const DType type = o.grad_output.dtype;
  if (!describe(geometry, work.sizes) || !describe(o.input, type, work.image) || !is_matrix(o.grad_output))
    return false;
  const bool in_float32 = type == DType::Float32;
  if (in_float32 && !lamella::stem::fits_float32(work.sizes)) return false;
  work.cut = in_float32 ? lamella::stem::cut_weigh32(work.sizes) : lamella::stem::cut_weigh(work.sizes);
  work.gradient = o.grad_output.data;
  const Device device = o.grad_output.device;
  const std::int64_t outputs = work.sizes.outputs, numbers = work.sizes.numbers();
  const detail::Workspace own(
      device, o.parts == nullptr ? work.cut.parts * outputs * numbers * std::int64_t{sizeof(float)} : 0);
  work.parts =
      o.parts != nullptr ? o.parts->take(work.cut.parts, outputs, numbers, numbers) : own.as<float>();
  if (in_float32)
    choose32<4, 8>(work.sizes, [&](auto channels, auto stride, auto quads) {
      launch(device, work.cut,
             lamella::stem::weigh_windows32<decltype(channels)::value, decltype(stride)::value,
                                            decltype(quads)::value>,
             work);
    });
  else
    choose<lamella::stem::kWindowEights, 1, 2>(
        type, lamella::stem::ceiling(work.sizes.numbers(), 8), lamella::stem::output_eights(work.sizes) == 2,
        [&](auto number, auto eights, auto sixteens) {
          launch(device, work.cut,
                 lamella::stem::weigh_windows<decltype(number), decltype(eights)::value,
                                              decltype(sixteens)::value>,
                 work);
        });
  if (o.parts != nullptr) return true;
  const std::int64_t taps = work.sizes.taps(), across = work.sizes.kernel_w;
  add_partial_sums(
      {work.parts, DType::Float32, work.cut.parts, outputs * numbers, {numbers, taps, across, 1}},
      o.grad_weight, o.write);
  return true;
}

}  // namespace lamella::cuda::stem
