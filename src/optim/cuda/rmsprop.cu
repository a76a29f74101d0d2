#include <cmath>

#include "optim/cuda/updates.cuh"

namespace lamella::cuda {

namespace {

/// State: s, then b and a where they are used.
struct Rmsprop : UpdateOperands<3> {
  detail::RmspropSettings settings;
  const double* lr;

  template <class T>
  struct Constants {
    T lr, keep, take, eps, decay, momentum;
    bool has_momentum, centered, inside;
  };
  template <class T>
  __device__ Constants<T> constants(void* const*, const std::int64_t*) const {
    return {static_cast<T>(*lr),
            static_cast<T>(settings.alpha),
            static_cast<T>(1 - settings.alpha),
            static_cast<T>(settings.eps),
            static_cast<T>(settings.weight_decay),
            static_cast<T>(settings.momentum),
            settings.momentum > 0,
            settings.centered,
            settings.eps_inside_sqrt};
  }

  template <class T>
  __device__ static void apply(const Constants<T>& c, T (&numbers)[kOperands]) {
    T &p = numbers[kParam], &s = numbers[kState];
    const T grad = c.decay != 0 ? numbers[kGrad] + c.decay * p : numbers[kGrad];
    s = c.keep * s + c.take * grad * grad;
    T spread = s;
    if (c.centered) {
      // Without momentum, a takes b's place.
      const T before = c.has_momentum ? numbers[kState + 2] : numbers[kState + 1];
      const T mean = c.keep * before + c.take * grad;
      (c.has_momentum ? numbers[kState + 2] : numbers[kState + 1]) = mean;
      spread -= mean * mean;
      spread = spread < 0 ? T(0) : spread;
    }
    T change = grad / (c.inside ? std::sqrt(spread + c.eps) : std::sqrt(spread) + c.eps);
    if (c.has_momentum) {
      T& b = numbers[kState + 1];
      change += c.momentum * b;
      b = change;
    }
    p -= c.lr * change;
  }
};

}  // namespace

void rmsprop_step(const detail::ParamUpdates& updates, const double* lr, const std::int32_t* skip,
                  const detail::RmspropSettings& settings) {
  update("rmsprop_step", Rmsprop::items(updates), Rmsprop{{skip}, settings, lr});
}

}  // namespace lamella::cuda
