#include "optim/cuda/updates.cuh"

namespace lamella::cuda {

namespace {

struct Sgd : UpdateOperands<1> {
  detail::SgdSettings settings;
  const double* lr;

  template <class T>
  struct Constants {
    T lr, decay, keep, take;  ///< keep, take: what v keeps of itself and takes of the gradient
    bool momentum, first, nesterov;
  };
  template <class T>
  __device__ Constants<T> constants(void* const* operands, const std::int64_t* step) const {
    const bool momentum = operands[kState] != nullptr;
    return {static_cast<T>(*lr),
            static_cast<T>(settings.weight_decay),
            static_cast<T>(settings.momentum),
            static_cast<T>(1 - settings.dampening),
            momentum,
            momentum && *step == 1,
            settings.nesterov};
  }

  template <class T>
  __device__ static void apply(const Constants<T>& c, T (&numbers)[kOperands]) {
    T& p = numbers[kParam];
    const T grad = c.decay != 0 ? numbers[kGrad] + c.decay * p : numbers[kGrad];
    if (!c.momentum) {
      p -= c.lr * grad;
      return;
    }
    const T velocity = c.first ? grad : c.keep * numbers[kState] + c.take * grad;
    numbers[kState] = velocity;
    p -= c.lr * (c.nesterov ? grad + c.keep * velocity : velocity);
  }
};

struct Steps {
  static constexpr int kMost = 448;  // threads of a block, and 3.5 KB of launch parameters
  std::int64_t* at[kMost];
  int count;
};

/// One block.
__global__ void advance(const Steps steps, const std::int32_t* skip) {
  detail::cuda::wait_for_stream();
  if (is_set(skip)) return;
  if (static_cast<int>(threadIdx.x) < steps.count) ++*steps.at[threadIdx.x];
}

}  // namespace

void advance_steps(const std::vector<std::int64_t*>& all, const std::int32_t* skip) {
  for (std::size_t first = 0; first < all.size(); first += Steps::kMost) {
    Steps steps{};
    steps.count = static_cast<int>(std::min<std::size_t>(all.size() - first, Steps::kMost));
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(first), steps.count, steps.at);
    detail::cuda::launch_early("advance_steps", launching_device(), 1, Steps::kMost, 0, advance, steps, skip);
  }
}

void sgd_step(const detail::ParamUpdates& updates, const double* lr, const std::int32_t* skip,
              const detail::SgdSettings& settings) {
  update("sgd_step", Sgd::items(updates), Sgd{{skip}, settings, lr});
}

}  // namespace lamella::cuda
