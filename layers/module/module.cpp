#include "lamella/layers/module.h"

#include <unordered_set>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "layers/module/observe.h"
#include "layers/module/state.h"
#include "tensor/door.h"

namespace lamella {

using detail::ModuleState;

namespace {

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + '.' + name;
}

/// Remembers tensors that were met already.
class Seen {
 public:
  bool first(const Tensor& tensor) { return seen_.insert(&detail::TensorDoor::impl(tensor)).second; }

 private:
  std::unordered_set<const detail::TensorImpl*> seen_;
};

}  // namespace

Module::Module(std::string type_name) : state_(std::make_shared<ModuleState>()) {
  state_->type_name = std::move(type_name);
}

Module::~Module() = default;

Module& Module::operator=(const Module& other) {
  if (this == &other) return *this;
  LAMELLA_CHECK(
      Error, state_ == other.state_ || !state_->has_parent || other.state_->has_parent, type_name(),
      ": assigning to a module that is part of another one would leave the old one there; change it through "
      "load_state_dict(), or build the whole anew");
  state_ = other.state_;
  return *this;
}

Tensor Module::forward(const Tensor& x) {
  throw Error(detail::concat(type_name(), ": has no forward() for one tensor (got ", x.describe(), ')'));
}

Tensor Module::operator()(const Tensor& x) {
  Tensor y = forward(x);
  detail::notify_call(*this, y);
  return y;
}

const std::string& Module::type_name() const { return state_->type_name; }
std::string Module::settings() const { return {}; }

// ---- Registration ----

void Module::check_name(const std::string& name) const {
  LAMELLA_CHECK(Error, !name.empty() && name.find('.') == std::string::npos, type_name(), ": \"", name,
                "\" is no name for a part of a module: it must not be empty or hold a dot");
  bool taken = false;
  for (const auto& entry : state_->parameters) taken = taken || entry.first == name;
  for (const auto& entry : state_->buffers) taken = taken || entry.name == name;
  for (const auto& entry : state_->children) taken = taken || entry.first == name;
  LAMELLA_CHECK(Error, !taken, type_name(), ": has a \"", name, "\" already");
}

Parameter Module::add_parameter(const std::string& name, const Tensor& tensor) {
  check_name(name);
  if (!tensor.defined()) return Parameter();
  Tensor handle = tensor;
  if (is_floating(tensor.dtype())) handle.set_requires_grad();
  state_->parameters.emplace_back(name, handle);
  return Parameter(handle);
}

Buffer Module::add_buffer(const std::string& name, const Tensor& tensor, bool persistent) {
  check_name(name);
  if (!tensor.defined()) return Buffer();
  state_->buffers.push_back({name, tensor, persistent});
  return Buffer(tensor);
}

void Module::add_child(const std::string& name, Child child, bool exact) {
  check_name(name);
  LAMELLA_CHECK(Error, exact, type_name(), ": \"", name, "\" (", child.module->type_name(),
                ") must be added as the class it is of, not as a base of it");
  child.module->apply([&](const std::string&, Module& below) {
    LAMELLA_CHECK(Error, below.state_ != state_, type_name(), ": cannot be part of itself (\"", name, "\")");
  });
  child.module->state_->has_parent = true;
  state_->children.emplace_back(name, std::move(child));
}

// ---- The tree ----

std::vector<std::pair<std::string, Module*>> Module::children() const {
  std::vector<std::pair<std::string, Module*>> result;
  for (const auto& [name, child] : state_->children) result.emplace_back(name, child.module.get());
  return result;
}

Module& Module::child(const std::string& path) {
  Module* at = this;
  std::size_t begin = 0;
  while (begin < path.size()) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    Module* next = nullptr;
    std::string names;
    for (const auto& [child_name, child] : at->state_->children) {
      if (child_name == name) next = child.module.get();
      names += (names.empty() ? "" : ", ") + child_name;
    }
    LAMELLA_CHECK(Error, next != nullptr, type_name(), ": no module \"", path, "\"; ", at->type_name(),
                  names.empty() ? std::string(" has none below it") : " has " + names);
    at = next;
    begin = end + 1;
  }
  return *at;
}

void Module::apply(const std::function<void(const std::string&, Module&)>& fn) {
  std::unordered_set<const ModuleState*> seen;
  const auto visit = [&](const auto& self, const std::string& path, Module& module) -> void {
    if (!seen.insert(module.state_.get()).second) return;
    fn(path, module);
    for (const auto& [name, child] : module.state_->children) self(self, join(path, name), *child.module);
  };
  visit(visit, "", *this);
}

namespace {

/// Calls fn(path, state) for a state and every one below it, each as often as it is held.
template <class Fn>
void walk(const std::string& path, const ModuleState& state, const auto& state_of, const Fn& fn) {
  fn(path, state);
  for (const auto& [name, child] : state.children) walk(join(path, name), state_of(child), state_of, fn);
}

}  // namespace

std::vector<std::pair<std::string, Tensor>> Module::named_parameters() const {
  std::vector<std::pair<std::string, Tensor>> result;
  Seen seen;
  const auto state_of = [](const Child& child) -> const ModuleState& { return *child.module->state_; };
  walk("", *state_, state_of, [&](const std::string& path, const ModuleState& state) {
    for (const auto& [name, tensor] : state.parameters)
      if (seen.first(tensor)) result.emplace_back(join(path, name), tensor);
  });
  return result;
}

std::vector<std::pair<std::string, Tensor>> Module::named_buffers() const {
  std::vector<std::pair<std::string, Tensor>> result;
  Seen seen;
  const auto state_of = [](const Child& child) -> const ModuleState& { return *child.module->state_; };
  walk("", *state_, state_of, [&](const std::string& path, const ModuleState& state) {
    for (const auto& buffer : state.buffers)
      if (seen.first(buffer.tensor)) result.emplace_back(join(path, buffer.name), buffer.tensor);
  });
  return result;
}

Tensors Module::parameters() const {
  Tensors result;
  for (auto& [name, tensor] : named_parameters()) result.push_back(std::move(tensor));
  return result;
}

std::int64_t Module::num_parameters() const {
  std::int64_t count = 0;
  for (const Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

// ---- Mode ----

void Module::train(bool on) {
  apply([on](const std::string&, Module& module) { module.state_->training = on; });
}

bool Module::is_training() const { return state_->training; }

void Module::set_requires_grad(bool on) {
  for (Tensor& parameter : parameters())
    if (is_floating(parameter.dtype())) parameter.set_requires_grad(on);
}

void Module::zero_grad() {
  for (Tensor& parameter : parameters()) parameter.zero_grad();
}

// ---- Conversions ----

namespace {

/// Lets the tensor, and all who hold it, stand for converted numbers; its gradient likewise.
template <class Convert>
void convert_in_place(const Tensor& tensor, const Convert& convert) {
  const NoGrad no_grad;
  const Tensor converted = convert(tensor.detach());
  const Tensor gradient = tensor.grad();
  const Tensor converted_gradient = gradient.defined() ? convert(gradient) : Tensor();
  detail::replace_values(tensor, converted);
  Tensor handle = tensor;
  handle.set_grad(converted_gradient);
}

}  // namespace

void Module::for_each_tensor(const std::function<void(const Tensor&)>& fn) const {
  for (const auto& [name, tensor] : named_parameters()) fn(tensor);
  for (const auto& [name, tensor] : named_buffers()) fn(tensor);
}

void Module::to(Device device) {
  for_each_tensor([device](const Tensor& tensor) {
    if (tensor.device() == device) return;
    convert_in_place(tensor, [device](const Tensor& from) { return from.to(device); });
  });
}

void Module::to(DType dtype) {
  LAMELLA_CHECK(DTypeError, is_floating(dtype), type_name(), ": to: ", name(dtype),
                " is not floating; parameters are");
  for_each_tensor([dtype](const Tensor& tensor) {
    if (!is_floating(tensor.dtype()) || tensor.dtype() == dtype) return;
    convert_in_place(tensor, [dtype](const Tensor& from) { return from.to(dtype); });
  });
}

void Module::to(MemoryFormat format) {
  for_each_tensor([format](const Tensor& tensor) {
    if (tensor.dim() != 4 || tensor.is_contiguous(format)) return;
    convert_in_place(tensor, [format](const Tensor& from) { return from.contiguous(format); });
  });
}

// ---- Saving ----

StateDict Module::state_dict() const {
  StateDict dict;
  const auto state_of = [](const Child& child) -> const ModuleState& { return *child.module->state_; };
  walk("", *state_, state_of, [&](const std::string& path, const ModuleState& state) {
    for (const auto& [name, tensor] : state.parameters) dict.set(join(path, name), tensor.detach());
    for (const auto& buffer : state.buffers)
      if (buffer.persistent) dict.set(join(path, buffer.name), buffer.tensor.detach());
  });
  return dict;
}

LoadReport Module::load_state_dict(const StateDict& dict, const LoadOptions& options) {
  const StateDict own = state_dict();
  LoadReport report;
  std::vector<std::pair<Tensor, Tensor>> copies;
  for (const auto& [name, target] : own) {
    const Tensor* const source = dict.find(name);
    if (source == nullptr || !source->defined())
      report.missing.push_back(name);
    else if (source->shape() != target.shape())
      report.mismatched.push_back({name, target.shape(), source->shape()});
    else
      copies.emplace_back(target, *source);
  }
  for (const auto& [name, tensor] : dict)
    if (!own.contains(name)) report.unexpected.push_back(name);
  LAMELLA_CHECK(Error, report.ok() || !options.strict, type_name(),
                ": load_state_dict: ", report.to_string());
  // What fits is converted before anything is changed, so that running out of memory changes nothing either.
  const NoGrad no_grad;
  for (auto& [target, source] : copies) source = source.detach().to(target.dtype()).to(target.device());
  for (auto& [target, source] : copies) target.copy_(source);
  return report;
}

// ---- Printing ----

std::string Module::to_string() const {
  std::string text = type_name() + '(' + settings();
  if (state_->children.empty()) return text + ')';
  if (!settings().empty()) text += ',';
  text += '\n';
  for (const auto& [name, child] : state_->children) {
    text += "  (" + name + "): ";
    for (const char c : child.module->to_string()) {
      text += c;
      if (c == '\n') text += "  ";
    }
    text += '\n';
  }
  return text + ')';
}

}  // namespace lamella
