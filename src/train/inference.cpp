#include "lamella/train/inference.h"

#include "core/check.h"
#include "core/cuda_backend.h"
#include "lamella/autograd/autocast.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/precision.h"
#include "lamella/tensor/create.h"
#include "tensor/door.h"

namespace lamella::train {

struct Inference::Recorded {
  std::unique_ptr<lamella::detail::cuda::Recording> launches;
  Tensor input, output;
  std::vector<const void*> surroundings;
  bool tf32 = false, fusion = false;
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

/// Where everything lies that recorded launches read, besides their own.
std::vector<const void*> Inference::surroundings() const {
  std::vector<const void*> all;
  for (const Tensor& parameter : network_.parameters()) all.push_back(lamella::detail::read(parameter).data);
  for (const auto& [name, buffer] : network_.named_buffers())
    all.push_back(lamella::detail::read(buffer).data);
  return all;
}

Tensor Inference::run(const Tensor& input) {
  std::optional<Autocast> mixed;
  if (options_.autocast) mixed.emplace(*options_.autocast);
  return network_(input);
}

Tensor Inference::operator()(const Tensor& input) {
  const NoGrad no_grad;
  network_.eval();
  const Tensor x = input.to(device_of(network_));
  if (!options_.capture) return run(x);
  const bool tf32 = allow_tf32(), fusion = lamella::detail::fusion_enabled();
  if (recorded_ &&
      (recorded_->tf32 != tf32 || recorded_->fusion != fusion || recorded_->surroundings != surroundings())) {
    recorded_ = nullptr;
    has_run_ = false;
  }
  // What is made at the first use, such as cuBLAS, must exist before it is recorded.
  if (!has_run_ || (recorded_ && !alike(x, recorded_->input))) {
    has_run_ = true;
    return run(x);
  }
  if (!recorded_) {
    auto recorded = std::make_unique<Recorded>();
    recorded->input = empty_like(x);
    recorded->input.copy_(x);
    recorded->surroundings = surroundings();
    recorded->tf32 = tf32;
    recorded->fusion = fusion;
    recorded->launches = lamella::detail::cuda::record_launches(x.device(), [&] {
      recorded->output = run(recorded->input);
      lamella::detail::read(recorded->output);  // if it is pending, each replay must compute it
    });
    recorded_ = std::move(recorded);
  } else {
    recorded_->input.copy_(x);
  }
  recorded_->launches->replay();
  ++replayed_;
  return recorded_->output.clone();
}

}  // namespace lamella::train
