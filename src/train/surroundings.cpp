#include "train/surroundings.h"

#include "core/profiling_bytes.h"
#include "lamella/autograd/autocast.h"
#include "lamella/core/precision.h"
#include "lamella/core/random.h"
#include "layers/module/folded.h"
#include "layers/module/state.h"
#include "tensor/door.h"

namespace lamella::train {

namespace {

Surroundings::Place place_of(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  const auto view = lamella::detail::read(tensor);
  return {view.data, view.dtype, view.shape, view.strides, tensor.requires_grad()};
}

std::uint64_t version_of(const Tensor& tensor) {
  return lamella::detail::TensorDoor::impl(tensor).storage->version.load(std::memory_order_relaxed);
}

}  // namespace

Surroundings surroundings_of(Module& network, const Tensors& tensors) {
  const lamella::detail::profiling::BytesApart no_kernel_reads_them;
  Surroundings all{.tf32 = allow_tf32(),
                   .fusion = lamella::detail::fusion_enabled(),
                   .autocast = autocast_dtype(),
                   .seed = random_state().seed};
  for (const Tensor& tensor : tensors) all.tensors.push_back(place_of(tensor));
  network.apply([&](const std::string&, Module& module) {
    const auto* const norm = dynamic_cast<const BatchNorm2d*>(&module);
    all.modules.push_back({lamella::detail::ModuleState::of(module), module.is_training(),
                           norm != nullptr && lamella::detail::is_addition(*norm)});
  });
  return all;
}

Tensors tensors_of(const Module& network) {
  Tensors all = network.parameters();
  for (const auto& [name, buffer] : network.named_buffers()) all.push_back(buffer);
  return all;
}

ChangeWatch::ChangeWatch(const Tensors& tensors) {
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    tensors_.push_back(tensor);
    versions_.push_back(version_of(tensor));
  }
}

Tensors ChangeWatch::changed() const {
  Tensors result;
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    if (version_of(tensors_[i]) != versions_[i]) result.push_back(tensors_[i]);
  return result;
}

}  // namespace lamella::train
