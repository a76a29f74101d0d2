#include <type_traits>

#include "core/workspace.h"
#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/parameters.cuh"
#include "layers/norm/cuda/streams.cuh"

namespace lamella::cuda {

using detail::BatchNormForward;
using detail::NormParameterGradients;

namespace {

/// A running estimate that moves towards the batch's.
struct Running {
  explicit Running(const TensorView& view)
      : data(view.data), stride(view.data != nullptr ? view.strides[0] : 0), dtype(view.dtype) {}
  __device__ BegunNumber load(std::int64_t channel) const {
    return data != nullptr ? BegunNumber::load(dtype, data, channel * stride) : BegunNumber::of(0);
  }
  __device__ void move(std::int64_t channel, BegunNumber before, double momentum, double batch) const {
    if (data == nullptr) return;
    detail::cuda::store_number(dtype, (1 - momentum) * before.value() + batch, data, channel * stride);
  }

  void* data;
  std::int64_t stride;
  DType dtype;
};

/// Parts of two sums or of moments as a kernel of another family left them: see LeftParts.
template <class T>
struct LeftView {
  LeftView(const ConstTensorView& view, std::int64_t of_part, std::int64_t total)
      : numbers(view.as<T>()),
        part_count(view.shape[0]),
        counted(view.shape[1] == 3),
        part_step(view.strides[0]),
        number_step(view.strides[1]),
        channel_step(view.strides[2]),
        of_part(of_part),
        total(total) {}

  __host__ __device__ std::int64_t parts() const { return part_count; }
  __device__ double count(std::int64_t part, std::int64_t c) const {
    if (counted) return static_cast<double>(numbers[part * part_step + c * channel_step]);
    return static_cast<double>(min(of_part, total - part * of_part));
  }
  __device__ Pair pair(std::int64_t part, std::int64_t c) const {
    const T* const from = numbers + part * part_step + c * channel_step + (counted ? number_step : 0);
    return {static_cast<double>(from[0]), static_cast<double>(from[number_step])};
  }

  const T* numbers;
  std::int64_t part_count;
  bool counted;  ///< the first of three numbers is the count
  std::int64_t part_step, number_step, channel_step;
  std::int64_t of_part, total;
};

/// What batch norm makes of a channel's mean and 1 / σ. C: what the arithmetic rounds to.
template <class C>
struct BatchAffine {
  BatchAffine(const BatchNormForward& norm)
      : statistics(norm.statistics.as<double>()),
        channels(norm.statistics.shape[1]),
        weight(norm.weight, 1),
        bias(norm.bias, 0),
        scale(norm.scale.as<C>()),
        shift(norm.shift.as<C>()),
        center(norm.center.as<C>()) {}

  struct Parameters {
    BegunNumber weight, bias;
  };
  __device__ Parameters load(std::int64_t c) const { return {weight.load(c), bias.load(c)}; }
  __device__ void operator()(std::int64_t c, const Parameters& of, double mean, double inverse) const {
    statistics[c] = mean;
    statistics[channels + c] = inverse;
    const C rounded = static_cast<C>(of.weight.value() * inverse);
    scale[c] = rounded;
    shift[c] = static_cast<C>(of.bias.value() - mean * static_cast<double>(rounded));
    if (center != nullptr) center[c] = static_cast<C>(mean);
  }

  double* statistics;
  std::int64_t channels;
  ChannelNumbers weight, bias;
  C *scale, *shift, *center;
};

/// Everything that a batch's moments change.
template <class C>
struct BatchStatistics {
  BatchStatistics(const BatchNormForward& norm, std::int64_t numbers)
      : affine(norm),
        count(static_cast<double>(numbers)),
        eps(norm.eps),
        momentum(norm.momentum),
        mean(norm.running_mean),
        var(norm.running_var),
        tracked(norm.tracked.as<std::int64_t>()) {}

  struct Before {
    typename BatchAffine<C>::Parameters parameters;
    BegunNumber mean, var;
    std::int64_t tracked;
  };
  __device__ Before load(std::int64_t c) const {
    return {affine.load(c), mean.load(c), var.load(c), c == 0 && tracked != nullptr ? *tracked : 0};
  }
  __device__ void operator()(std::int64_t c, const Before& before, Pair moments) const {
    if (c == 0 && tracked != nullptr) *tracked = before.tracked + 1;
    affine(c, before.parameters, moments.x, 1 / sqrt((count > 0 ? moments.y / count : 0) + eps));
    if (count == 0) return;
    mean.move(c, before.mean, momentum, momentum * moments.x);
    var.move(c, before.var, momentum, momentum * moments.y * (1 / (count - 1)));
  }

  BatchAffine<C> affine;
  double count, eps, momentum;
  Running mean, var;
  std::int64_t* tracked;
};

/// Where a gradient of a parameter goes.
struct ParameterGradient {
  ParameterGradient(const TensorView& view, GradientWrite write)
      : data(view.data),
        stride(view.data != nullptr ? view.strides[0] : 0),
        dtype(view.dtype),
        add(write == GradientWrite::Accumulate) {}
  __device__ BegunNumber load(std::int64_t channel) const {
    return add && data != nullptr ? BegunNumber::load(dtype, data, channel * stride) : BegunNumber::of(0);
  }
  __device__ void write(std::int64_t channel, BegunNumber before, double value) const {
    if (data == nullptr) return;
    if (add) value += before.value();
    detail::cuda::store_number(dtype, value, data, channel * stride);
  }

  void* data;
  std::int64_t stride;
  DType dtype;
  bool add;
};

/// From the sums of a channel its parameters' gradients and the factors of dx.
template <class C>
struct BatchGradient {
  const double* statistics;
  ChannelNumbers weight;
  std::int64_t channels;
  double count;
  bool training;
  ParameterGradient grad_weight, grad_bias;
  C* factors;

  struct Before {
    double mean, inverse;
    BegunNumber weight, grad_weight, grad_bias;
  };
  __device__ Before load(std::int64_t c) const {
    return {statistics[c], statistics[channels + c], weight.load(c), grad_weight.load(c), grad_bias.load(c)};
  }
  /// dx = a · g + p · (x − center) + q.
  struct Factors {
    C a, p, q, center;
  };
  __device__ Factors factors_of(const Before& before, Pair pair) const {
    const double mean = before.mean, inverse = before.inverse;
    const double center = static_cast<C>(mean), sum = pair.x;
    const double product = product_of(before, pair);
    const double a = before.weight.value() * inverse;
    const double p = training ? -a * product * inverse / count : 0, q = training ? -a * sum / count : 0;
    return {static_cast<C>(a), static_cast<C>(p), static_cast<C>(q + p * (center - mean)),
            static_cast<C>(center)};
  }
  __device__ void write_parameters(std::int64_t c, const Before& before, Pair pair) const {
    grad_weight.write(c, before.grad_weight, product_of(before, pair));
    // Weight and bias may be one tensor.
    grad_bias.write(c, grad_bias.data == grad_weight.data ? grad_bias.load(c) : before.grad_bias, pair.x);
  }
  __device__ void operator()(std::int64_t c, const Before& before, Pair pair) const {
    write_parameters(c, before, pair);
    if (count == 0) return;
    const Factors of = factors_of(before, pair);
    factors[c] = of.a;
    factors[channels + c] = of.p;
    factors[2 * channels + c] = of.q;
    factors[3 * channels + c] = of.center;
  }

 private:
  /// Σ g · x̂.
  __device__ double product_of(const Before& before, Pair pair) const {
    const double center = static_cast<C>(before.mean);
    return count > 0 ? (pair.y + (center - before.mean) * pair.x) * before.inverse : 0;
  }
};

/// dx = a · g + p · (x − center) + q.
template <class T>
struct FactorsFormula {
  using C = detail::ComputeType<T>;
  static constexpr bool kReadsGradient = true;
  using Lane = typename BatchGradient<C>::Factors;
  __device__ C operator()(const Lane& lane, C g, C x) const {
    return lane.a * g + (lane.p * (x - lane.center) + lane.q);
  }
};

/// Few parts are added up, and the factors made of them, by every block for its channels: small tensors
/// would take longer over another launch.
constexpr std::int64_t kFewParts = 16;

template <class T, class Parts>
__global__ void __launch_bounds__(kNormThreads, 2)
    write_rows_of_few(const Streams<T> streams, const RowCut cut, const Parts parts,
                      const BatchGradient<detail::ComputeType<T>> gradient) {
  using Formula = FactorsFormula<T>;
  constexpr int kSize = Numbers<T>::kSize;
  static_assert(32 * kSize <= kNormThreads);  // the channels of a tile at most
  __shared__ typename Formula::Lane shared[kNormThreads];
  const RowItem<kSize> item(cut, blockIdx.x);
  const std::int64_t first = item.tile * cut.across * kSize, channel = first + threadIdx.x;
  detail::cuda::wait_for_stream();
  if (threadIdx.x < cut.across * kSize && channel < cut.lanes) {
    const auto before = gradient.load(channel);
    SumsTally tally = SumsTally::around(0);
#pragma unroll 4
    for (std::int64_t part = 0; part < parts.parts(); ++part) tally.add(0, parts.pair(part, channel));
    if (item.part == 0) gradient.write_parameters(channel, before, tally.result());
    shared[threadIdx.x] = gradient.factors_of(before, tally.result());
  }
  __syncthreads();
  if (item.count == 0) return;
  typename Formula::Lane lanes[kSize];
#pragma unroll
  for (int k = 0; k < kSize; ++k) lanes[k] = shared[item.lane - first + k];
  const auto at = [&](unsigned i) { return item.offset + i * item.step; };
  in_batches<Packets<T>>(
      item.count, [&](unsigned i) { return load_streams<true, T, Formula>(streams, at(i), kSize); },
      [&](const Packets<T>& packets, unsigned i) {
        write_packet<true, 1>(streams, packets, at(i), kSize, Formula(), lanes);
      });
}

template <class C>
__global__ void running_statistics(const ChannelNumbers mean, const ChannelNumbers var, double eps,
                                   const BatchAffine<C> affine) {
  detail::cuda::wait_for_stream();
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c < affine.channels) affine(c, affine.load(c), mean.at(c), 1 / sqrt(var.at(c) + eps));
}

/// finish_parts() of what another kernel left.
template <class Tally, class Done>
void finish_left(const char* what, const ConstTensorView& left, std::int64_t of_part, std::int64_t total,
                 const Done& done) {
  const auto finish_type = [&](auto number) {
    using T = decltype(number);
    finish_parts<Tally>(what, left.device, LeftView<T>(left, of_part, total), left.shape[2], done);
  };
  left.dtype == DType::Float64 ? finish_type(double()) : finish_type(float());
}

/// dx and the parameters' gradients from the sums that another kernel left, in one launch; false, with
/// nothing done, where that is not for the better.
template <class C>
bool gradient_of_few(const ConstTensorView& grad, const ConstTensorView& x, const ChannelCut& cut,
                     const ConstTensorView& known, const TensorView& dx, GradientWrite write,
                     const BatchGradient<C>& gradient) {
  if (known.shape[0] > kFewParts || cut.empty() || !cut.layout.channels_last || !cut.whole ||
      cut.rows.segments != 1)
    return false;
  for (const void* address : {grad.data, x.data, static_cast<const void*>(dx.data)})
    if (!detail::cuda::is_aligned(address)) return false;
  bool done = false;
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<detail::ComputeType<T>, C> && !std::is_same_v<T, double>) {
      const Streams<T> streams{grad.as<T>(), x.as<T>(), dx.as<T>(), write == GradientWrite::Accumulate};
      const auto run = [&](auto number) {
        using Parts = LeftView<decltype(number)>;
        detail::cuda::launch_early("batch_norm_backward", dx.device, grid_of(cut.rows.blocks()), kNormThreads,
                                   0, write_rows_of_few<T, Parts>, streams, cut.rows, Parts(known, 0, 0),
                                   gradient);
      };
      known.dtype == DType::Float64 ? run(double()) : run(float());
      done = true;
    }
  });
  return done;
}

}  // namespace

void batch_norm_statistics(const ConstTensorView& x, const ChannelLayout& layout,
                           const BatchNormForward& norm) {
  const ChannelCut cut(layout, x.dtype);
  const detail::Workspace pairs(x.device, cut.pair_bytes());
  channel_moments(x, cut, pairs.as<Pair>());
  detail::dispatch_compute_floating(norm.scale.dtype, [&](auto tag) {
    finish_parts<MomentsTally>("batch_norm_statistics", x.device, pairs.as<Pair>(), cut.counts(),
                               layout.channels,
                               BatchStatistics<typename decltype(tag)::type>(norm, layout.count()));
  });
}

void batch_norm_statistics_of(const ConstTensorView& parts, std::int64_t of_part, std::int64_t count,
                              const BatchNormForward& norm) {
  detail::dispatch_compute_floating(norm.scale.dtype, [&](auto tag) {
    finish_left<MomentsTally>("batch_norm_statistics", parts, of_part, count,
                              BatchStatistics<typename decltype(tag)::type>(norm, count));
  });
}

void batch_norm_running_statistics(const ConstTensorView& running_mean, const ConstTensorView& running_var,
                                   const BatchNormForward& norm) {
  constexpr int kThreads = 128;
  const std::int64_t channels = norm.statistics.shape[1];
  detail::dispatch_compute_floating(norm.scale.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    detail::cuda::launch_early("batch_norm_running_statistics", norm.statistics.device,
                               grid_of((channels + kThreads - 1) / kThreads), kThreads, 0,
                               running_statistics<C>, ChannelNumbers(running_mean, 0),
                               ChannelNumbers(running_var, 1), norm.eps, BatchAffine<C>(norm));
  });
}

void batch_norm_backward(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                         const ConstTensorView& statistics, const ConstTensorView& weight, bool training,
                         const ConstTensorView& known, const NormParameterGradients& parameters,
                         const TensorView& dx, GradientWrite write, const ActivationSlope& slope) {
  const ChannelCut cut(layout, x.dtype);
  const detail::Workspace pairs(x.device, known.data == nullptr ? cut.pair_bytes() : 0);
  // Both passes go back through the activation themselves, so that nothing has to lie in slope.passed.
  if (known.data == nullptr)
    channel_products(grad, x, cut, Means{statistics.as<double>()}, slope, pairs.as<Pair>());
  detail::dispatch_compute_floating(x.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    const detail::Workspace factors(x.device, 4 * layout.channels * static_cast<std::int64_t>(sizeof(C)));
    const BatchGradient<C> done{statistics.as<double>(),
                                ChannelNumbers(weight, 1),
                                layout.channels,
                                static_cast<double>(layout.count()),
                                training,
                                {parameters.weight, parameters.weight_write},
                                {parameters.bias, parameters.bias_write},
                                factors.as<C>()};
    if (known.data != nullptr && dx.data != nullptr && gradient_of_few(grad, x, cut, known, dx, write, done))
      return;
    if (known.data != nullptr)
      finish_left<SumsTally>("batch_norm_backward", known, 0, 0, done);
    else
      finish_parts<SumsTally>("batch_norm_backward", x.device, pairs.as<Pair>(), cut.counts(),
                              layout.channels, done);
    // What left the sums has gone back through the activation.
    detail::ActivationSlope rest = slope;
    if (known.data != nullptr) rest.activation = detail::PendingActivation::None;
    if (dx.data != nullptr) channel_gradient(grad, x, cut, factors.as<C>(), rest, dx, write);
  });
}

}  // namespace lamella::cuda
