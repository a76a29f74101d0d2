#include "lamella/train/inference.h"

#include "autograd/autocast.h"
#include "core/check.h"
#include "core/cuda_backend.h"
#include "core/profiling_bytes.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "tensor/door.h"
#include "train/surroundings.h"

namespace lamella::train {

/// Made by a run as always; the next one is recorded.
struct Inference::Recorded {
  Surroundings surroundings;
  std::unique_ptr<lamella::detail::cuda::Recording> launches;  ///< null: not yet
  Tensor input, output;
};

namespace {

Device device_of(const Module& network) {
  const Tensors parameters = network.parameters();
  LAMELLA_CHECK(Error, !parameters.empty(), "train::Inference: the network has no parameters");
  return parameters.front().device();
}

bool alike(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && a.memory_format() == b.memory_format();
}

}  // namespace

Inference::Inference(Module& network, InferenceOptions options) : network_(network), options_(options) {
  const Device device = device_of(network);
  LAMELLA_CHECK(DeviceError, !options.capture || device.is_cuda(),
                "train::Inference: only a GPU can capture, and the network is on ", device.to_string());
}

Inference::~Inference() = default;

Tensor Inference::run(const Tensor& input) {
  std::optional<Autocast> mixed;
  if (options_.autocast) mixed.emplace(*options_.autocast);
  lamella::detail::round_together(rounded_);
  Tensor output = network_(input);
  if (autocast_dtype()) rounded_ = lamella::detail::rounded_among(network_.parameters());
  return output;
}

Tensor Inference::operator()(const Tensor& input) {
  const NoGrad no_grad;
  network_.eval();
  const Tensor x = input.to(device_of(network_));
  if (!options_.capture) return run(x);
  Surroundings now = surroundings_of(network_, tensors_of(network_));
  const bool known = recorded_ && recorded_->surroundings == now;
  // What is made at the first use, such as cuBLAS, must exist before it is recorded.
  if (!known) {
    recorded_ = nullptr;
    const Tensor y = run(x);
    recorded_ = std::make_unique<Recorded>();
    recorded_->surroundings = std::move(now);
    return y;
  }
  Recorded& recorded = *recorded_;
  if (recorded.launches && !alike(x, recorded.input)) return run(x);
  if (!recorded.launches) {
    recorded.input = empty_like(x);
    recorded.input.copy_(x);
    recorded.launches = lamella::detail::cuda::record_launches(x.device(), [&] {
      const lamella::detail::FreshRounding replays_round_anew;
      recorded.output = run(recorded.input);
      const lamella::detail::profiling::BytesApart no_kernel_reads_it;
      lamella::detail::read(recorded.output);  // if it is pending, each replay must compute it
    });
  } else {
    recorded.input.copy_(x);
  }
  recorded.launches->replay();
  ++replayed_;
  return recorded.output.clone();
}

}  // namespace lamella::train
