#include "lamella/core/random.h"

#include <mutex>

#include "core/cuda_backend.h"
#include "core/philox.h"

namespace lamella {
namespace {

struct Sequence {
  std::mutex mutex;
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint32_t op = 0;

  void move_to(const RandomState& state) {
    seed = state.seed;
    op = state.op;
    if (step != state.step) {
      step = state.step;
      detail::cuda::set_random_step(step);
    }
  }
};

Sequence& sequence() {
  static Sequence& instance = *new Sequence;  // never destroyed: static objects may draw after main
  return instance;
}

}  // namespace

void manual_seed(std::uint64_t seed) { set_random_state({.seed = seed, .step = 0, .op = 0}); }

void next_random_step() {
  Sequence& s = sequence();
  std::lock_guard lock(s.mutex);
  s.move_to({.seed = s.seed, .step = s.step + 1, .op = 0});
}

RandomState random_state() {
  Sequence& s = sequence();
  std::lock_guard lock(s.mutex);
  return {.seed = s.seed, .step = s.step, .op = s.op};
}

void set_random_state(const RandomState& state) {
  Sequence& s = sequence();
  std::lock_guard lock(s.mutex);
  s.move_to(state);
}

namespace detail {

RandomKey next_random_key(Device device) {
  Sequence& s = sequence();
  const std::uint64_t* const recorded = device.is_cuda() ? cuda::recorded_random_step(device) : nullptr;
  std::lock_guard lock(s.mutex);
  return {.seed = s.seed, .op = s.op++, .drawn_step = s.step, .recorded_step = recorded};
}

}  // namespace detail
}  // namespace lamella
