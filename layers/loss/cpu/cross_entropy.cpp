#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "layers/loss/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"
#include "tensor/functions.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::CrossEntropyShape;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// Samples taken together where their classes do not lie side by side: one cache line of each class.
constexpr std::int64_t kTogether = 16;

std::vector<double> class_weights(const ConstTensorView& weight, std::int64_t classes) {
  std::vector<double> result(static_cast<std::size_t>(classes), 1.0);
  if (weight.data == nullptr) return result;
  detail::dispatch_floating(weight.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (std::int64_t c = 0; c < classes; ++c)
      result[static_cast<std::size_t>(c)] =
          static_cast<double>(static_cast<ComputeType<T>>(weight.as<T>()[c * weight.strides[0]]));
  });
  return result;
}

/// Walks over samples, each a row of its classes' numbers.
struct Samples {
  explicit Samples(const CrossEntropyShape& shape)
      : classes(shape.classes), inner(shape.channels_last ? 1 : shape.inner), count(shape.samples()) {}

  /// Calls body(first, n, offset, step) for n samples from `first`; class c of sample first + k lies at
  /// offset + c · step + k (step > 1, n <= kTogether) or, for step 1, n is 1.
  template <class Body>
  void each(const Body& body) const {
    const std::int64_t grain = std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(1, classes));
    detail::parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
      while (begin < end) {
        const std::int64_t n = begin / inner, i = begin % inner;
        const std::int64_t together = std::min({kTogether, end - begin, inner - i});
        body(begin, together, n * classes * inner + i, inner);
        begin += together;
      }
    });
  }

  std::int64_t classes, inner, count;
};

/// Rows of up to kTogether samples in the compute type; `rows` stays the caller's where they lie so already.
template <class T, class C>
const C* gather(const T* from, std::int64_t n, std::int64_t classes, std::int64_t step,
                std::vector<C>& buffer) {
  if constexpr (std::is_same_v<T, C>)
    if (step == 1) return from;
  buffer.resize(static_cast<std::size_t>(kTogether * classes));
  for (std::int64_t c = 0; c < classes; ++c)
    for (std::int64_t k = 0; k < n; ++k)
      buffer[static_cast<std::size_t>(k * classes + c)] = static_cast<C>(from[c * step + k]);
  return buffer.data();
}

template <class T, class C>
void scatter(const C* rows, T* to, std::int64_t n, std::int64_t classes, std::int64_t step, bool accumulate) {
  for (std::int64_t c = 0; c < classes; ++c)
    for (std::int64_t k = 0; k < n; ++k) {
      T& at = to[c * step + k];
      const C value = rows[k * classes + c];
      at = static_cast<T>(accumulate ? value + static_cast<C>(at) : value);
    }
}

template <class C>
double log_sum_exp(const C* row, std::int64_t classes) {
  C largest = row[0];
  for (std::int64_t c = 1; c < classes; ++c) largest = row[c] > largest ? row[c] : largest;
  constexpr std::int64_t kBlock = 256;
  double total = 0;
  for (std::int64_t from = 0; from < classes; from += kBlock) {
    C exps[kBlock];
    const std::int64_t n = std::min(kBlock, classes - from);
    for (std::int64_t c = 0; c < n; ++c) exps[c] = detail::exponential(row[from + c] - largest);
    for (std::int64_t c = 0; c < n; ++c) total += static_cast<double>(exps[c]);
  }
  return static_cast<double>(largest) + std::log(total);
}

/// What a sample's loss weighs its terms with.
struct Terms {
  const CrossEntropyShape& shape;
  const std::vector<double>& weight;
  double share() const { return shape.smoothing / static_cast<double>(shape.classes); }

  /// −Σ_c q_c · (row_c − log_sum), where q are the weighted, smoothed targets.
  template <class C>
  double loss(const C* row, double log_sum, std::int64_t label, const C* probabilities) const {
    if (shape.indices) {
      if (label == shape.ignore_index) return 0;
      const auto y = static_cast<std::size_t>(label);
      double total = (1 - shape.smoothing) * weight[y] * (log_sum - static_cast<double>(row[label]));
      if (shape.smoothing == 0) return total;
      double rest = 0;
      for (std::int64_t c = 0; c < shape.classes; ++c)
        rest += weight[static_cast<std::size_t>(c)] * (log_sum - static_cast<double>(row[c]));
      return total + share() * rest;
    }
    double total = 0;
    for (std::int64_t c = 0; c < shape.classes; ++c)
      total += q(c, probabilities) * (log_sum - static_cast<double>(row[c]));
    return total;
  }
  template <class C>
  double q(std::int64_t c, const C* probabilities) const {
    return weight[static_cast<std::size_t>(c)] *
           ((1 - shape.smoothing) * static_cast<double>(probabilities[c]) + share());
  }
};

double gradient_scale(const ConstTensorView& grad, const CrossEntropyShape& shape, double divisor,
                      std::int64_t sample) {
  double value = 0;
  detail::dispatch_floating(grad.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    value = static_cast<double>(
        static_cast<ComputeType<T>>(grad.as<T>()[shape.reduction == Reduction::None ? sample : 0]));
  });
  return value / divisor;
}

template <class T>
void store_loss(const std::vector<double>& losses, const CrossEntropyShape& shape, double divisor,
                const TensorView& loss) {
  using C = ComputeType<T>;
  if (shape.reduction == Reduction::None) {
    for (std::size_t s = 0; s < losses.size(); ++s)
      loss.as<T>()[s] = static_cast<T>(static_cast<C>(losses[s]));
    return;
  }
  double total = 0;
  for (const double value : losses) total += value;
  *loss.as<T>() = static_cast<T>(static_cast<C>(total / divisor));
}

}  // namespace

void find_bad_label(const ConstTensorView& target, const CrossEntropyShape& shape, std::int64_t* bad) {
  const auto* labels = target.as<std::int64_t>();
  *bad = -1;
  for (std::int64_t s = 0; s < shape.samples() && *bad < 0; ++s)
    if ((labels[s] < 0 || labels[s] >= shape.classes) && labels[s] != shape.ignore_index) *bad = s;
}

void cross_entropy_forward(const ConstTensorView& logits, const ConstTensorView& target,
                           const ConstTensorView& weight, const CrossEntropyShape& shape,
                           const TensorView& loss, const TensorView& log_sum, const TensorView& divisor) {
  const std::vector<double> weights = class_weights(weight, shape.classes);
  std::vector<double> losses(static_cast<std::size_t>(shape.samples()));
  const auto* labels = shape.indices ? target.as<std::int64_t>() : nullptr;
  double divide_by = 1;
  if (shape.reduction == Reduction::Mean) {
    divide_by = shape.indices ? 0 : static_cast<double>(shape.samples());
    for (std::int64_t s = 0; shape.indices && s < shape.samples(); ++s)
      if (labels[s] != shape.ignore_index) divide_by += weights[static_cast<std::size_t>(labels[s])];
  }
  *divisor.as<double>() = divide_by;
  detail::dispatch_floating(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Terms terms{shape, weights};
    Samples(shape).each([&](std::int64_t first, std::int64_t n, std::int64_t offset, std::int64_t step) {
      std::vector<C> row_buffer, probability_buffer;
      const C* const rows = gather(logits.as<T>() + offset, n, shape.classes, step, row_buffer);
      const C* const probabilities =
          shape.indices ? nullptr
                        : gather(target.as<C>() + offset, n, shape.classes, step, probability_buffer);
      for (std::int64_t k = 0; k < n; ++k) {
        const C* const row = rows + k * shape.classes;
        const double sum = log_sum_exp(row, shape.classes);
        log_sum.as<double>()[first + k] = sum;
        losses[static_cast<std::size_t>(first + k)] =
            terms.loss(row, sum, labels ? labels[first + k] : 0,
                       probabilities ? probabilities + k * shape.classes : nullptr);
      }
    });
    store_loss<T>(losses, shape, divide_by, loss);
  });
}

void cross_entropy_backward(const ConstTensorView& grad, const ConstTensorView& logits,
                            const ConstTensorView& target, const ConstTensorView& weight,
                            const CrossEntropyShape& shape, const ConstTensorView& log_sum,
                            const ConstTensorView& divisor, const TensorView& dlogits, GradientWrite write) {
  const std::vector<double> weights = class_weights(weight, shape.classes);
  double all_weights = 0;
  for (const double w : weights) all_weights += w;
  const auto* labels = shape.indices ? target.as<std::int64_t>() : nullptr;
  detail::dispatch_floating(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Terms terms{shape, weights};
    Samples(shape).each([&](std::int64_t first, std::int64_t n, std::int64_t offset, std::int64_t step) {
      std::vector<C> row_buffer, probability_buffer, result(static_cast<std::size_t>(n * shape.classes));
      const C* const rows = gather(logits.as<T>() + offset, n, shape.classes, step, row_buffer);
      const C* const all_probabilities =
          shape.indices ? nullptr
                        : gather(target.as<C>() + offset, n, shape.classes, step, probability_buffer);
      for (std::int64_t k = 0; k < n; ++k) {
        const C* const row = rows + k * shape.classes;
        C* const to = result.data() + k * shape.classes;
        const std::int64_t label = labels ? labels[first + k] : 0;
        if (shape.indices && label == shape.ignore_index) {
          std::fill_n(to, shape.classes, C(0));
          continue;
        }
        const double scale = gradient_scale(grad, shape, *divisor.as<double>(), first + k);
        const double sum = log_sum.as<double>()[first + k];
        // d/dz_c of −Σ q · (z − log Σ exp z) is p_c · Σ q − q_c.
        const C* const probabilities = all_probabilities ? all_probabilities + k * shape.classes : nullptr;
        double total_q = 0;
        if (shape.indices)
          total_q =
              (1 - shape.smoothing) * weights[static_cast<std::size_t>(label)] + terms.share() * all_weights;
        else
          for (std::int64_t c = 0; c < shape.classes; ++c) total_q += terms.q(c, probabilities);
        const C factor = static_cast<C>(total_q * scale);
        for (std::int64_t c = 0; c < shape.classes; ++c)
          to[c] = factor * detail::exponential(static_cast<C>(static_cast<double>(row[c]) - sum));
        if (!shape.indices) {
          for (std::int64_t c = 0; c < shape.classes; ++c)
            to[c] -= static_cast<C>(terms.q(c, probabilities) * scale);
          continue;
        }
        if (shape.smoothing != 0)
          for (std::int64_t c = 0; c < shape.classes; ++c)
            to[c] -= static_cast<C>(terms.share() * weights[static_cast<std::size_t>(c)] * scale);
        to[label] -= static_cast<C>((1 - shape.smoothing) * weights[static_cast<std::size_t>(label)] * scale);
      }
      scatter(result.data(), dlogits.as<T>() + offset, n, shape.classes, step,
              write == GradientWrite::Accumulate);
    });
  });
}

void cross_entropy_backward_target(const ConstTensorView& grad, const ConstTensorView& logits,
                                   const ConstTensorView& weight, const CrossEntropyShape& shape,
                                   const ConstTensorView& log_sum, const ConstTensorView& divisor,
                                   const TensorView& dtarget, GradientWrite write) {
  const std::vector<double> weights = class_weights(weight, shape.classes);
  detail::dispatch_floating(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    Samples(shape).each([&](std::int64_t first, std::int64_t n, std::int64_t offset, std::int64_t step) {
      for (std::int64_t k = 0; k < n; ++k) {
        const double scale =
            (1 - shape.smoothing) * gradient_scale(grad, shape, *divisor.as<double>(), first + k);
        const double sum = log_sum.as<double>()[first + k];
        for (std::int64_t c = 0; c < shape.classes; ++c) {
          const std::int64_t at = offset + c * step + k;
          C& to = dtarget.as<C>()[at];
          const double z = static_cast<double>(static_cast<C>(logits.as<T>()[at]));
          const C value = static_cast<C>(scale * weights[static_cast<std::size_t>(c)] * (sum - z));
          to = write == GradientWrite::Accumulate ? to + value : value;
        }
      }
    });
  });
}

}  // namespace lamella::cpu
