#include <unordered_map>
#include <utility>

#include "lamella/autograd/autograd.h"
#include "layers/module/state.h"
#include "tensor/door.h"

namespace lamella {
namespace detail {

namespace {
thread_local CloneScope* innermost = nullptr;
}

struct CloneScope::Map {
  std::unordered_map<const TensorImpl*, Tensor> tensors;
  std::unordered_map<const ModuleState*, std::shared_ptr<ModuleState>> states;
};

CloneScope::CloneScope() : map_(std::make_unique<Map>()), before_(std::exchange(innermost, this)) {}
CloneScope::~CloneScope() { innermost = before_; }
CloneScope* CloneScope::current() { return innermost; }

Tensor CloneScope::copy_of(const Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  Tensor& copy = map_->tensors[&TensorDoor::impl(tensor)];
  if (!copy.defined()) {
    const NoGrad no_grad;
    copy = tensor.detach().clone();
    if (tensor.requires_grad()) copy.set_requires_grad();
  }
  return copy;
}

std::shared_ptr<ModuleState> CloneScope::copy_of(const std::shared_ptr<ModuleState>& state) {
  const auto known = map_->states.find(state.get());
  if (known != map_->states.end()) return known->second;
  auto copy = std::make_shared<ModuleState>();
  map_->states.emplace(state.get(), copy);
  copy->type_name = state->type_name;
  copy->training = state->training;
  for (const auto& [name, tensor] : state->parameters) copy->parameters.emplace_back(name, copy_of(tensor));
  for (const auto& buffer : state->buffers)
    copy->buffers.push_back({buffer.name, copy_of(buffer.tensor), buffer.persistent});
  for (const auto& [name, child] : state->children) {
    copy->children.emplace_back(name, Module::Child{child.copy(*child.module), child.copy});
    copy->children.back().second.module->state_->has_parent = true;
  }
  return copy;
}

HeldTensor::HeldTensor(const HeldTensor& other)
    : tensor_(innermost != nullptr ? innermost->copy_of(other.tensor_) : other.tensor_) {}

}  // namespace detail

Module::Module(const Module& other)
    : state_(detail::CloneScope::current() != nullptr ? detail::CloneScope::current()->copy_of(other.state_)
                                                      : other.state_) {}

}  // namespace lamella
