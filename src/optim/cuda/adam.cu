#include <cmath>

#include "optim/adam_constants.h"
#include "optim/cuda/updates.cuh"

namespace lamella::cuda {

namespace {

/// State: m, v, the largest v.
struct Adam : UpdateOperands<3> {
  detail::AdamSettings settings;
  const double* lr;

  template <class T>
  using Constants = detail::AdamConstants<T>;
  template <class T>
  __device__ Constants<T> constants(void* const*, const std::int64_t* step) const {
    return detail::adam_constants<T>(settings, *lr, *step);
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
