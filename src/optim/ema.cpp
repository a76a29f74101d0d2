#include "lamella/optim/ema.h"

#include "core/check.h"
#include "core/profiling.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "optim/kernels.h"
#include "optim/match.h"
#include "optim/options.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"

namespace lamella::optim {

namespace {

using Named = std::vector<std::pair<std::string, Tensor>>;

Named all_tensors(const Module& module) {
  Named tensors = module.named_parameters();
  for (auto& entry : module.named_buffers()) tensors.push_back(std::move(entry));
  return tensors;
}

void check_type(const std::string& name, const Tensor& tensor) {
  LAMELLA_CHECK(DTypeError, !is_floating(tensor.dtype()) || is_supported(tensor.dtype()), "Ema: ", name, ' ',
                tensor.describe(), " must be float32 or float64; a half type cannot hold a slow average");
}

}  // namespace

Ema::Ema(const Module& module, std::shared_ptr<Module> averaged, const EmaOptions& options)
    : options_(options), averaged_(std::move(averaged)) {
  check_option_closed("Ema", "decay", options.decay, 0, 1);
  averaged_->eval();
  averaged_->set_requires_grad(false);
  const Named values = all_tensors(module), averages = all_tensors(*averaged_);
  for (std::size_t i = 0; i < values.size(); ++i) {
    check_type(values[i].first, values[i].second);
    pairs_.push_back({values[i].first, averages[i].second, values[i].second});
  }
  LAMELLA_CHECK(Error, !pairs_.empty(), "Ema: ", module.type_name(), " has no parameters and no buffers");
  updates_ = full({}, 0, {.dtype = DType::Int64, .device = pairs_.front().value.device()});
}

/// Lets the averages have their values' types, devices and formats.
void Ema::follow() {
  for (const Pair& pair : pairs_) {
    check_type(pair.name, pair.value);
    detail::check_same_device("Ema", pairs_.front().value, pair.value);
  }
  std::vector<Tensor> matched;
  for (const Pair& pair : pairs_) matched.push_back(match(pair.average, pair.value));
  updates_ = updates_.to(pairs_.front().value.device());
  for (std::size_t i = 0; i < pairs_.size(); ++i)
    if (&detail::TensorDoor::impl(matched[i]) != &detail::TensorDoor::impl(pairs_[i].average))
      detail::replace_values(pairs_[i].average, matched[i]);
}

void Ema::update() {
  const NoGrad no_grad;
  const detail::profiling::PassScope pass(detail::profiling::Pass::Update, "Ema");
  follow();
  for (const Pair& pair : pairs_) {
    if (is_floating(pair.value.dtype())) continue;
    Tensor average = pair.average;
    average.copy_(pair.value);
  }
  std::vector<detail::EmaPair> views;
  for (const Pair& pair : pairs_)
    if (is_floating(pair.value.dtype()))
      views.push_back({detail::write(pair.average, "Ema"), detail::read(pair.value)});
  std::int64_t* const count = detail::write(updates_, "Ema").as<std::int64_t>();
  LAMELLA_KERNEL(updates_.device(), ema_step(views, count, options_.decay, options_.warm_up));
}

std::int64_t Ema::updates() const { return updates_.item<std::int64_t>(); }

StateDict Ema::state_dict() const {
  const NoGrad no_grad;
  StateDict dict;
  dict.set("updates", updates_.clone());
  for (const Pair& pair : pairs_) dict.set("module." + pair.name, pair.average.detach().clone());
  return dict;
}

void Ema::load_state_dict(const StateDict& dict) {
  const NoGrad no_grad;
  const Tensor* const updates = dict.find("updates");
  LAMELLA_CHECK(Error, updates != nullptr && updates->defined(), "Ema: the state has no updates");
  LAMELLA_CHECK(Error, updates->dtype() == DType::Int64 && updates->numel() == 1, "Ema: updates is ",
                updates->describe(), "; it must be one int64");
  const std::int64_t count = updates->item<std::int64_t>();
  LAMELLA_CHECK(Error, count >= 0, "Ema: updates is ", count, "; it must not be negative");
  StateDict known{{"updates", *updates}};
  std::vector<Tensor> loaded;
  for (const Pair& pair : pairs_) {
    const std::string key = "module." + pair.name;
    const Tensor* const found = dict.find(key);
    LAMELLA_CHECK(Error, found != nullptr && found->defined(), "Ema: the state has no ", key);
    LAMELLA_CHECK(ShapeError, found->shape() == pair.average.shape(), "Ema: ", key, " is ", found->describe(),
                  "; it must have the shape of ", pair.average.describe());
    loaded.push_back(empty_like(pair.average).copy_(found->detach()));
    known.set(key, *found);
  }
  for (const auto& [name, tensor] : dict)
    LAMELLA_CHECK(Error, known.contains(name), "Ema: the state has ", name,
                  ", which is no tensor of the module");
  updates_.copy_(updates->detach().reshape({}));
  for (std::size_t i = 0; i < pairs_.size(); ++i) pairs_[i].average.copy_(loaded[i]);
}

}  // namespace lamella::optim
