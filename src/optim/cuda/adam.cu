#include <cmath>

#include "optim/cuda/updates.cuh"

namespace lamella::cuda {

namespace {

/// State: m, v, the largest v.
struct Adam : UpdateOperands<3> {
  detail::AdamSettings settings;
  const double* lr;

  template <class T>
  struct Constants {
    T shrink;  ///< what decoupled decay leaves of the parameter
    T decay;   ///< what goes into the gradient
    T keep1, take1, keep2, take2;
    T rate;        ///< lr / (1 − β1^t)
    T root_scale;  ///< 1 / √(1 − β2^t)
    T eps;
    bool amsgrad;
  };
  template <class T>
  __device__ Constants<T> constants(void* const*, const std::int64_t* step) const {
    const double t = static_cast<double>(*step);
    return {static_cast<T>(settings.decoupled ? 1 - *lr * settings.weight_decay : 1),
            static_cast<T>(settings.decoupled ? 0 : settings.weight_decay),
            static_cast<T>(settings.beta1),
            static_cast<T>(1 - settings.beta1),
            static_cast<T>(settings.beta2),
            static_cast<T>(1 - settings.beta2),
            static_cast<T>(*lr / (1 - std::pow(settings.beta1, t))),
            static_cast<T>(1 / std::sqrt(1 - std::pow(settings.beta2, t))),
            static_cast<T>(settings.eps),
            settings.amsgrad};
  }

  template <class T>
  __device__ static void apply(const Constants<T>& c, T (&numbers)[kOperands]) {
    T &p = numbers[kParam], &m = numbers[kState], &v = numbers[kState + 1], &largest = numbers[kState + 2];
    const T param = p * c.shrink;
    const T grad = c.decay != 0 ? numbers[kGrad] + c.decay * param : numbers[kGrad];
    m = c.keep1 * m + c.take1 * grad;
    v = c.keep2 * v + c.take2 * grad * grad;
    T square = v;
    if (c.amsgrad) {
      square = largest > square ? largest : square;  // a NaN stays one
      largest = square;
    }
    p = param - c.rate * (m / (std::sqrt(square) * c.root_scale + c.eps));
  }
};

}  // namespace

void adam_step(const detail::ParamUpdates& updates, const double* lr, const std::int32_t* skip,
               const detail::AdamSettings& settings) {
  update("adam_step", Adam::items(updates), Adam{{skip}, settings, lr});
}

}  // namespace lamella::cuda
