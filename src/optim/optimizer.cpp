#include "lamella/optim/optimizer.h"

#include <algorithm>
#include <functional>
#include <set>

#include "core/check.h"
#include "core/profiling.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "optim/batch.h"
#include "optim/kernels.h"
#include "optim/match.h"
#include "optim/options.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"

namespace lamella::optim {

namespace {

void check_type(const char* kind, const Tensor& param) {
  LAMELLA_CHECK(DTypeError, is_supported(param.dtype()), kind, ": parameter ", param.describe(),
                " must be float32 or float64; keep the parameters of half-type training in float32");
}

std::string lr_key(std::size_t group) { return detail::concat("param_groups.", group, ".lr"); }
std::string state_prefix(std::size_t index) { return detail::concat("state.", index, '.'); }

const Tensor* find_defined(const StateDict& dict, const std::string& key) {
  const Tensor* const found = dict.find(key);
  return found != nullptr && found->defined() ? found : nullptr;
}

}  // namespace

std::vector<ParamGroup> no_decay_groups(const std::vector<std::pair<std::string, Tensor>>& named_parameters,
                                        double weight_decay) {
  ParamGroup decayed{.weight_decay = weight_decay}, plain{.weight_decay = 0.0};
  for (const auto& [name, param] : named_parameters) {
    const bool bias = name == "bias" || name.ends_with(".bias");
    (param.dim() > 1 && !bias ? decayed : plain).params.push_back(param);
  }
  std::vector<ParamGroup> groups;
  for (ParamGroup* const group : {&decayed, &plain})
    if (!group->params.empty()) groups.push_back(std::move(*group));
  return groups;
}

Optimizer::Optimizer(const char* kind, std::vector<ParamGroup> groups, double lr, double weight_decay)
    : kind_(kind) {
  LAMELLA_CHECK(Error, !groups.empty(), kind, ": no parameters");
  std::set<std::pair<const void*, std::int64_t>> seen;
  for (ParamGroup& given : groups) {
    Group group;
    group.lr = given.lr.value_or(lr);
    group.weight_decay = given.weight_decay.value_or(weight_decay);
    check_option(kind, "lr", group.lr);
    check_option(kind, "weight_decay", group.weight_decay);
    LAMELLA_CHECK(Error, !given.params.empty(), kind, ": parameter group ", groups_.size(),
                  " is empty; of a module, it has what was registered by add() and add_parameter()");
    for (const Tensor& param : given.params) {
      detail::check_defined(kind, "a parameter", param);
      check_type(kind, param);
      LAMELLA_CHECK(Error, param.is_leaf(), kind, ": parameter ", param.describe(),
                    " is the result of an operator; it must be a leaf");
      const detail::TensorImpl& impl = detail::TensorDoor::impl(param);
      bool repeats = false;
      for (int axis = 0; axis < param.dim(); ++axis)
        repeats = repeats || (param.size(axis) > 1 && param.strides()[axis] == 0);
      LAMELLA_CHECK(Error, !repeats, kind, ": parameter ", param.describe(),
                    " holds the same element several times; contiguous() gives a tensor of its own");
      LAMELLA_CHECK(Error, param.numel() == 0 || seen.emplace(impl.storage.get(), impl.offset).second, kind,
                    ": parameter ", param.describe(), " is given twice");
    }
    group.params = std::move(given.params);
    group.state.resize(group.params.size());
    groups_.push_back(std::move(group));
  }
}

Optimizer::~Optimizer() = default;

const Optimizer::Group& Optimizer::group_at(std::size_t group) const {
  LAMELLA_CHECK(Error, group < groups_.size(), kind_, ": no parameter group ", group, "; there are ",
                groups_.size());
  return groups_[group];
}

const Tensors& Optimizer::params(std::size_t group) const { return group_at(group).params; }
double Optimizer::lr(std::size_t group) const { return group_at(group).lr; }
double Optimizer::weight_decay(std::size_t group) const { return group_at(group).weight_decay; }

void Optimizer::set_lr(std::size_t group, double lr) {
  group_at(group);
  check_option(kind_, "lr", lr);
  groups_[group].lr = lr;
  if (groups_[group].device_lr.defined()) groups_[group].device_lr.fill_(lr);
}

void Optimizer::set_lr(double lr) {
  for (std::size_t group = 0; group < groups_.size(); ++group) set_lr(group, lr);
}

std::int64_t Optimizer::steps() const {
  std::int64_t most = 0;
  for (const Group& group : groups_)
    for (const ParamState& state : group.state)
      if (state.step.defined()) most = std::max(most, state.step.item<std::int64_t>());
  return most;
}

void Optimizer::zero_grad() {
  for (Group& group : groups_)
    for (Tensor& param : group.params) param.zero_grad();
}

// ---- A step ----

/// Positions of the parameters that have a gradient.
std::vector<std::size_t> Optimizer::ready(const Group& group) const {
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < group.params.size(); ++i) {
    const Tensor &param = group.params[i], grad = param.grad();
    if (!grad.defined()) continue;
    check_type(kind_, param);
    LAMELLA_CHECK(DTypeError, grad.dtype() == param.dtype(), kind_, ": gradient ", grad.describe(),
                  " of parameter ", param.describe(), "; it must have the parameter's type");
    detail::check_same_device(kind_, param, grad);
    if (!which.empty()) detail::check_same_device(kind_, group.params[which.front()], param);
    which.push_back(i);
  }
  return which;
}

/// Makes state, or lets it follow a parameter that was moved or converted.
void Optimizer::prepare(Group& group, const std::vector<std::size_t>& which) {
  if (which.empty()) return;
  const std::size_t count = state_names().size();
  for (const std::size_t i : which) {
    const Tensor& param = group.params[i];
    ParamState& state = group.state[i];
    if (!state.step.defined() || state.step.device() != param.device()) ++revision_;
    if (!state.step.defined()) {
      Tensors values(count);
      for (Tensor& value : values) value = zeros_like(param);
      state.values = std::move(values);
      state.step = full({}, 0, {.dtype = DType::Int64, .device = param.device()});
    }
    state.step = state.step.to(param.device());
    for (Tensor& value : state.values) value = match(value, param);
  }
  const Device device = group.params[which.front()].device();
  if (!group.device_lr.defined() || group.device_lr.device() != device)
    group.device_lr = full({}, group.lr, {.dtype = DType::Float64, .device = device});
}

void Optimizer::step() { step_unless({}); }

/// `skip`: see UpdateBatch; on the device of all parameters.
void Optimizer::step_unless(Tensor skip) {
  const NoGrad no_grad;
  const detail::profiling::PassScope pass(detail::profiling::Pass::Update, kind_);
  if (skip.defined() && !reads_skip()) {
    if (skip.item() != 0) return;
    skip = {};
  }
  // Everything that may fail comes before anything changes.
  std::vector<std::vector<std::size_t>> which;
  for (const Group& group : groups_) {
    which.push_back(ready(group));
    if (skip.defined() && !which.back().empty())
      detail::check_same_device(kind_, skip, group.params[which.back().front()]);
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) prepare(groups_[g], which[g]);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (which[g].empty()) continue;
    const Group& group = groups_[g];
    UpdateBatch batch{.lr = group.device_lr, .weight_decay = group.weight_decay, .skip = skip};
    std::vector<std::int64_t*> counts;
    for (const std::size_t i : which[g]) {
      batch.params.push_back(group.params[i]);
      batch.state.push_back(group.state[i].values);
      batch.steps.push_back(group.state[i].step);
      counts.push_back(detail::write(group.state[i].step, kind_).as<std::int64_t>());
    }
    LAMELLA_KERNEL(batch.lr.device(), advance_steps(counts, skip_of(batch)));
    update(batch);
  }
}

// ---- Saving ----

StateDict Optimizer::state_dict() const {
  const NoGrad no_grad;
  StateDict dict;
  const std::vector<std::string> names = state_names();
  for (std::size_t g = 0; g < groups_.size(); ++g)
    dict.set(lr_key(g), full({}, groups_[g].lr, {.dtype = DType::Float64}));
  std::size_t index = 0;
  for (const Group& group : groups_)
    for (const ParamState& state : group.state) {
      const std::string prefix = state_prefix(index++);
      if (!state.step.defined()) continue;
      dict.set(prefix + "step", state.step.clone());
      for (std::size_t i = 0; i < names.size(); ++i) dict.set(prefix + names[i], state.values[i].clone());
    }
  return dict;
}

/// What `dict` holds for one parameter; counts the entries used.
Optimizer::ParamState Optimizer::load_param(const StateDict& dict, const std::string& prefix,
                                            const Tensor& param, std::size_t& used) const {
  const Tensor* const step = find_defined(dict, prefix + "step");
  if (step == nullptr) return {};
  LAMELLA_CHECK(Error, step->dtype() == DType::Int64 && step->numel() == 1, kind_, ": ", prefix, "step is ",
                step->describe(), "; it must be one int64");
  const std::int64_t count = step->item<std::int64_t>();
  LAMELLA_CHECK(Error, count >= 0, kind_, ": ", prefix, "step is ", count, "; it must not be negative");
  ++used;
  ParamState state{.step = full({}, 0, {.dtype = DType::Int64, .device = param.device()}), .values = {}};
  state.step.copy_(step->detach().reshape({}));
  for (const std::string& name : state_names()) {
    const Tensor* const value = find_defined(dict, prefix + name);
    LAMELLA_CHECK(Error, value != nullptr, kind_, ": the state has no ", prefix, name);
    LAMELLA_CHECK(ShapeError, value->shape() == param.shape(), kind_, ": ", prefix, name, " is ",
                  value->describe(), "; parameter ", param.describe(), " needs its own shape");
    LAMELLA_CHECK(DTypeError, is_floating(value->dtype()), kind_, ": ", prefix, name, " is ",
                  value->describe(), "; it must be floating");
    state.values.push_back(empty_like(param).copy_(value->detach()));
    ++used;
  }
  return state;
}

void Optimizer::load_state_dict(const StateDict& dict) {
  const NoGrad no_grad;
  std::vector<double> rates;
  std::vector<std::vector<ParamState>> loaded;
  std::size_t index = 0, used = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Tensor* const lr = find_defined(dict, lr_key(g));
    LAMELLA_CHECK(Error, lr != nullptr, kind_, ": the state has no ", lr_key(g));
    LAMELLA_CHECK(Error, lr->numel() == 1 && is_floating(lr->dtype()), kind_, ": ", lr_key(g), " is ",
                  lr->describe(), "; it must be one floating number");
    rates.push_back(lr->item());
    check_option(kind_, lr_key(g).c_str(), rates.back());
    ++used;
    loaded.emplace_back();
    for (const Tensor& param : groups_[g].params)
      loaded.back().push_back(load_param(dict, state_prefix(index++), param, used));
  }
  if (used != dict.size()) {
    // Something is left over: of another optimizer, or of more parameters.
    StateDict known;
    for (std::size_t g = 0; g < groups_.size(); ++g) known.set(lr_key(g), {});
    index = 0;
    for (const auto& group : loaded)
      for (const ParamState& state : group) {
        const std::string prefix = state_prefix(index++);
        if (!state.step.defined()) continue;
        known.set(prefix + "step", {});
        for (const std::string& name : state_names()) known.set(prefix + name, {});
      }
    for (const auto& [name, tensor] : dict)
      LAMELLA_CHECK(Error, known.contains(name), kind_, ": the state has ", name,
                    ", which does not belong to these ", index, " parameters in ", groups_.size(),
                    " groups and their options");
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    groups_[g].state = std::move(loaded[g]);
    set_lr(g, rates[g]);
  }
  ++revision_;
}

}  // namespace lamella::optim
