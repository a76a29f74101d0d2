#include "optim/cuda/update.cuh"
#include "optim/kernels.h"

namespace lamella::cuda {

namespace {

struct Ema {
  static constexpr int kOperands = 2;
  static constexpr unsigned kWritten = 0b01;
  const std::int64_t* updates;  ///< before this one
  double decay;
  bool warm_up;

  template <class T>
  struct Constants {
    T kept, taken;
  };
  template <class T>
  __device__ Constants<T> constants(void* const*, const std::int64_t*) const {
    const double n = static_cast<double>(*updates);
    const double keep = warm_up ? min(decay, (1 + n) / (10 + n)) : decay;
    return {static_cast<T>(keep), static_cast<T>(1 - keep)};
  }

  template <class T>
  __device__ static void apply(const Constants<T>& c, T (&numbers)[kOperands]) {
    numbers[0] = c.kept * numbers[0] + c.taken * numbers[1];
  }
};

__global__ void count_update(std::int64_t* updates) {
  detail::cuda::wait_for_stream();
  ++*updates;
}

}  // namespace

void ema_step(const std::vector<detail::EmaPair>& pairs, std::int64_t* updates, double decay, bool warm_up) {
  WalkItems<Ema::kOperands> items(pairs.size());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    items[i].set(0, pairs[i].average);
    items[i].set(1, pairs[i].value);
  }
  update("ema_step", items, Ema{updates, decay, warm_up});
  // Only now, after all have read it.
  detail::cuda::launch_early("ema_step", launching_device(), 1, 1, 0, count_update, updates);
}

}  // namespace lamella::cuda
