#include "optim/adapt.h"
#include "optim/cuda/update.cuh"
#include "optim/kernels.h"

namespace lamella::cuda {

namespace {

struct Unscale {
  static constexpr int kOperands = 1;
  static constexpr unsigned kWritten = 0b1;
  const float* scale;
  std::int32_t* found;

  template <class T>
  struct Constants {
    T factor;
    std::int32_t* found;
  };
  template <class T>
  __device__ Constants<T> constants(void* const*, const std::int64_t*) const {
    return {static_cast<T>(1.0 / static_cast<double>(*scale)), found};
  }
  template <class T>
  __device__ static void apply(const Constants<T>& c, T (&numbers)[kOperands]) {
    numbers[0] *= c.factor;
    // Whoever stores, stores the same.
    if (!isfinite(numbers[0])) *c.found = 1;
  }
};

__global__ void adapt_scale(const detail::ScalerState state, const detail::ScalerSettings settings) {
  detail::cuda::wait_for_stream();
  detail::adapt(state, settings);
}

}  // namespace

void unscale_gradients(const std::vector<detail::TensorView>& gradients, const float* scale,
                       std::int32_t* found) {
  WalkItems<Unscale::kOperands> items(gradients.size());
  for (std::size_t i = 0; i < items.size(); ++i) items[i].set(0, gradients[i]);
  update("unscale_gradients", items, Unscale{scale, found});
}

void update_scale(const detail::ScalerState& state, const detail::ScalerSettings& settings) {
  detail::cuda::launch_early("update_scale", launching_device(), 1, 1, 0, adapt_scale, state, settings);
}

}  // namespace lamella::cuda
