#include <cmath>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/workspace.h"
#include "layers/loss/cuda/samples.cuh"
#include "layers/loss/kernels.h"
#include "tensor/functions.h"

/// The CPU checks labels before a kernel runs; a GPU cannot without waiting for it. There, a label that is
/// neither a class nor ignored makes its sample's loss NaN, counts for nothing in the mean's divisor, and
/// gives that sample a gradient of zeros; nothing is read at its place.
namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::CrossEntropyShape;
using detail::GradientWrite;
using detail::TensorView;
using detail::Workspace;
using detail::cuda::from_compute;
using detail::cuda::launch_early;
using detail::cuda::to_compute;
using detail::cuda::wait_for_stream;
using detail::cuda::write_number;

namespace {

/// Blocks for the samples, whatever the GPU: the order of sums must not depend on it.
constexpr std::int64_t kMostBlocks = 1024;

unsigned blocks_of(const Samples& samples) {
  return static_cast<unsigned>(std::min(samples.groups(), kMostBlocks));
}

struct Maximum {
  __device__ double operator()(double a, double b) const { return b > a ? b : a; }
};
struct Plus {
  __device__ double operator()(double a, double b) const { return a + b; }
};

/// Factors of the classes, of any floating type.
struct ClassWeights {
  const void* data;  ///< null: 1
  DType dtype;
  std::int64_t stride;

  __device__ double operator[](std::int64_t c) const {
    return data == nullptr ? 1.0 : detail::cuda::load_number<double>(dtype, data, c * stride);
  }
};
ClassWeights weights_of(const ConstTensorView& weight) {
  if (weight.data == nullptr) return {nullptr, DType::Float32, 0};
  return {weight.data, weight.dtype, weight.strides[0]};
}

/// What the samples' losses are made of.
template <class T>
struct Terms {
  using C = ComputeType<T>;
  Samples samples;
  const T* logits;
  const std::int64_t* labels;  ///< null: probabilities
  const C* probabilities;
  ClassWeights weight;
  double smoothing, share;  ///< share: of each class in a smoothed target
  std::int64_t ignore_index;

  __device__ bool is_class(std::int64_t label) const {
    return label != ignore_index && label >= 0 && label < samples.classes;
  }
  __device__ C logit(std::int64_t at) const { return to_compute(logits[at]); }
  /// The weighted, smoothed target of class c, by its probability at `at`.
  __device__ double q(std::int64_t c, std::int64_t at) const {
    return weight[c] * ((1 - smoothing) * static_cast<double>(probabilities[at]) + share);
  }
};

template <class T>
Terms<T> make_terms(const ConstTensorView& logits, const ConstTensorView& target,
                    const ConstTensorView& weight, const CrossEntropyShape& shape) {
  return {make_samples(shape),
          logits.as<T>(),
          shape.indices ? target.as<std::int64_t>() : nullptr,
          shape.indices ? nullptr : target.as<ComputeType<T>>(),
          weights_of(weight),
          shape.smoothing,
          shape.smoothing / static_cast<double>(shape.classes),
          shape.ignore_index};
}

/// log Σ exp(logit) of a sample that begins at `offset`, for all its lanes; `valid`: there is such a sample.
template <class T>
__device__ double log_sum_exp(const Terms<T>& terms, std::int64_t offset, bool valid,
                              double (&shared)[kLossThreads]) {
  using C = ComputeType<T>;
  const Samples& samples = terms.samples;
  const std::int64_t first = samples.lane();
  C largest = -static_cast<C>(INFINITY);
  for (std::int64_t c = first; valid && c < samples.classes; c += samples.lanes) {
    const C z = terms.logit(offset + c * samples.inner);
    largest = z > largest ? z : largest;  // a NaN shows in the sum
  }
  largest = static_cast<C>(samples.over_lanes(static_cast<double>(largest), shared, Maximum()));
  double total = 0;
  for (std::int64_t c = first; valid && c < samples.classes; c += samples.lanes)
    total += static_cast<double>(detail::exponential(terms.logit(offset + c * samples.inner) - largest));
  total = samples.over_lanes(total, shared, Plus());
  return static_cast<double>(largest) + std::log(total);
}

/// −Σ_c q_c · (logit_c − log_sum) of a sample, for all its lanes.
template <class T>
__device__ double loss_of(const Terms<T>& terms, std::int64_t offset, std::int64_t label, double log_sum,
                          bool valid, double (&shared)[kLossThreads]) {
  const Samples& samples = terms.samples;
  const bool indices = terms.labels != nullptr;
  double total = 0;
  if (!indices || terms.smoothing != 0) {
    double rest = 0;
    for (std::int64_t c = samples.lane(); valid && c < samples.classes; c += samples.lanes) {
      const std::int64_t at = offset + c * samples.inner;
      const double q = indices ? terms.weight[c] : terms.q(c, at);
      rest += q * (log_sum - static_cast<double>(terms.logit(at)));
    }
    rest = samples.over_lanes(rest, shared, Plus());
    total = indices ? terms.share * rest : rest;
  }
  if (!valid || !indices) return total;
  if (label == terms.ignore_index) return 0;
  if (!terms.is_class(label)) return static_cast<double>(NAN);
  const double z = static_cast<double>(terms.logit(offset + label * samples.inner));
  return (1 - terms.smoothing) * terms.weight[label] * (log_sum - z) + total;
}

/// A block's samples: losses[s] = their losses, if there is a place for them; partial[2 · block] and the one
/// after = the sum of its losses and of its labels' weights.
template <class T>
__global__ void __launch_bounds__(kLossThreads)
    forward(const Terms<T> terms, double* log_sums, T* losses, double* partial) {
  wait_for_stream();
  __shared__ double shared[kLossThreads];
  const Samples& samples = terms.samples;
  const bool first = samples.lane() == 0;
  double loss_sum = 0, weight_sum = 0;
  for (std::int64_t s = std::int64_t{blockIdx.x} * samples.together + samples.slot();
       s - samples.slot() < samples.count; s += std::int64_t{gridDim.x} * samples.together) {
    const bool valid = s < samples.count;
    const std::int64_t offset = valid ? samples.offset(s) : 0;
    const std::int64_t label = valid && terms.labels != nullptr ? terms.labels[s] : 0;
    const double log_sum = log_sum_exp(terms, offset, valid, shared);
    const double loss = loss_of(terms, offset, label, log_sum, valid, shared);
    if (!valid || !first) continue;  // no barrier is left in this round
    log_sums[s] = log_sum;
    if (losses != nullptr) losses[s] = from_compute<T>(static_cast<ComputeType<T>>(loss));
    loss_sum += loss;
    if (terms.labels != nullptr && terms.is_class(label)) weight_sum += terms.weight[label];
  }
  loss_sum = sum_over_block(loss_sum, shared);
  weight_sum = sum_over_block(weight_sum, shared);
  if (threadIdx.x != 0) return;
  partial[2 * blockIdx.x] = loss_sum;
  partial[2 * blockIdx.x + 1] = weight_sum;
}

/// What a mean divides by, and the loss if it is a single number; by one block. Where `summed`, the divisor
/// is the sum of the labels' weights.
template <class T>
__global__ void __launch_bounds__(kLossThreads) finish(const double* partial, std::int64_t parts, bool summed,
                                                       double given_divisor, double* divisor, T* loss) {
  wait_for_stream();
  __shared__ double shared[kLossThreads];
  const double total = sum_in_block(partial, parts, 2, shared);
  const double weight = sum_in_block(partial + 1, parts, 2, shared);
  if (threadIdx.x != 0) return;
  const double divide_by = summed ? weight : given_divisor;
  *divisor = divide_by;
  if (loss != nullptr) *loss = from_compute<T>(static_cast<ComputeType<T>>(total / divide_by));
}

/// A scalar, or one per sample, and what it is divided by.
struct Upstream {
  const void* grad;
  DType dtype;
  bool each;
  const double* divisor;
  const double* log_sums;

  __device__ double scale(std::int64_t sample) const {
    return detail::cuda::load_number<double>(dtype, grad, each ? sample : 0) / *divisor;
  }
};
Upstream upstream_of(const ConstTensorView& grad, const CrossEntropyShape& shape,
                     const ConstTensorView& divisor, const ConstTensorView& log_sum) {
  return {grad.data, grad.dtype, shape.reduction == Reduction::None, divisor.as<double>(),
          log_sum.as<double>()};
}

/// d/dz_c of −Σ q · (z − log Σ exp z) is p_c · Σ q − q_c.
template <class T>
__global__ void __launch_bounds__(kLossThreads)
    backward(const Terms<T> terms, const Upstream upstream, T* dlogits, bool accumulate) {
  wait_for_stream();
  using C = ComputeType<T>;
  __shared__ double shared[kLossThreads];
  const Samples& samples = terms.samples;
  const bool indices = terms.labels != nullptr;
  double all_weights = 0;  // only smoothing asks for them
  if (indices && terms.smoothing != 0) {
    for (std::int64_t c = threadIdx.x; c < samples.classes; c += kLossThreads) all_weights += terms.weight[c];
    all_weights = sum_over_block(all_weights, shared);
  }
  for (std::int64_t s = std::int64_t{blockIdx.x} * samples.together + samples.slot();
       s - samples.slot() < samples.count; s += std::int64_t{gridDim.x} * samples.together) {
    const bool valid = s < samples.count;
    const std::int64_t offset = valid ? samples.offset(s) : 0;
    const std::int64_t label = valid && indices ? terms.labels[s] : 0;
    const bool counts = !indices || terms.is_class(label);
    double total_q = 0;
    if (!indices) {
      for (std::int64_t c = samples.lane(); valid && c < samples.classes; c += samples.lanes)
        total_q += terms.q(c, offset + c * samples.inner);
      total_q = samples.over_lanes(total_q, shared, Plus());
    } else if (counts) {
      total_q = (1 - terms.smoothing) * terms.weight[label] + terms.share * all_weights;
    }
    if (!valid) continue;  // no barrier is left in this round
    const double scale = counts ? upstream.scale(s) : 0, log_sum = upstream.log_sums[s];
    const C factor = static_cast<C>(total_q * scale);
    for (std::int64_t c = samples.lane(); c < samples.classes; c += samples.lanes) {
      const std::int64_t at = offset + c * samples.inner;
      C value = 0;
      if (counts) {
        const double z = static_cast<double>(terms.logit(at));
        value = factor * detail::exponential(static_cast<C>(z - log_sum));
        if (!indices)
          value -= static_cast<C>(terms.q(c, at) * scale);
        else if (terms.smoothing != 0)
          value -= static_cast<C>(terms.share * terms.weight[c] * scale);
        if (indices && c == label)
          value -= static_cast<C>((1 - terms.smoothing) * terms.weight[label] * scale);
      }
      write_number(dlogits[at], value, accumulate);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kLossThreads)
    backward_target(const Terms<T> terms, const Upstream upstream, ComputeType<T>* dtarget, bool accumulate) {
  wait_for_stream();
  using C = ComputeType<T>;
  const Samples& samples = terms.samples;
  for (std::int64_t s = std::int64_t{blockIdx.x} * samples.together + samples.slot(); s < samples.count;
       s += std::int64_t{gridDim.x} * samples.together) {
    const std::int64_t offset = samples.offset(s);
    const double scale = (1 - terms.smoothing) * upstream.scale(s), log_sum = upstream.log_sums[s];
    for (std::int64_t c = samples.lane(); c < samples.classes; c += samples.lanes) {
      const std::int64_t at = offset + c * samples.inner;
      const double value = scale * terms.weight[c] * (log_sum - static_cast<double>(terms.logit(at)));
      write_number(dtarget[at], static_cast<C>(value), accumulate);
    }
  }
}

}  // namespace

void cross_entropy_forward(const ConstTensorView& logits, const ConstTensorView& target,
                           const ConstTensorView& weight, const CrossEntropyShape& shape,
                           const TensorView& loss, const TensorView& log_sum, const TensorView& divisor) {
  const bool each = shape.reduction == Reduction::None, mean = shape.reduction == Reduction::Mean;
  const Device device = divisor.device;
  detail::dispatch_floating(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Terms<T> terms = make_terms<T>(logits, target, weight, shape);
    const unsigned blocks = blocks_of(terms.samples);
    const Workspace partial(device, std::int64_t{blocks} * 2 * static_cast<std::int64_t>(sizeof(double)));
    launch_early("cross_entropy", device, blocks, kLossThreads, 0, forward<T>, terms, log_sum.as<double>(),
                 each ? loss.as<T>() : nullptr, partial.as<double>());
    launch_early("cross_entropy", device, 1, kLossThreads, 0, finish<T>, partial.as<double>(),
                 std::int64_t{blocks}, mean && shape.indices,
                 mean ? static_cast<double>(shape.samples()) : 1.0, divisor.as<double>(),
                 each ? nullptr : loss.as<T>());
  });
}

void cross_entropy_backward(const ConstTensorView& grad, const ConstTensorView& logits,
                            const ConstTensorView& target, const ConstTensorView& weight,
                            const CrossEntropyShape& shape, const ConstTensorView& log_sum,
                            const ConstTensorView& divisor, const TensorView& dlogits, GradientWrite write) {
  detail::dispatch_floating(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Terms<T> terms = make_terms<T>(logits, target, weight, shape);
    launch_early("cross_entropy backward", dlogits.device, blocks_of(terms.samples), kLossThreads, 0,
                 backward<T>, terms, upstream_of(grad, shape, divisor, log_sum), dlogits.as<T>(),
                 write == GradientWrite::Accumulate);
  });
}

void cross_entropy_backward_target(const ConstTensorView& grad, const ConstTensorView& logits,
                                   const ConstTensorView& weight, const CrossEntropyShape& shape,
                                   const ConstTensorView& log_sum, const ConstTensorView& divisor,
                                   const TensorView& dtarget, GradientWrite write) {
  detail::dispatch_floating(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Terms<T> terms = make_terms<T>(logits, {}, weight, shape);
    launch_early("cross_entropy backward", dtarget.device, blocks_of(terms.samples), kLossThreads, 0,
                 backward_target<T>, terms, upstream_of(grad, shape, divisor, log_sum),
                 dtarget.as<ComputeType<T>>(), write == GradientWrite::Accumulate);
  });
}

}  // namespace lamella::cuda
