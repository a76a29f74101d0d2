#include "lamella/optim/grad_scaler.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/profiling.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "optim/adapt.h"
#include "optim/kernels.h"
#include "optim/match.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"

namespace lamella::optim {

namespace {

constexpr const char* kName = "GradScaler";

bool in_range(double scale) { return scale >= detail::kLeastScale && scale <= detail::kLargestScale; }

std::int64_t* counter(const Tensor& tensor) { return detail::write(tensor, kName).as<std::int64_t>(); }

/// A number of a state that is being loaded.
const Tensor& number_of(const StateDict& dict, const char* key) {
  const Tensor* const found = dict.find(key);
  LAMELLA_CHECK(Error, found != nullptr && found->defined(), kName, ": the state has no ", key);
  return *found;
}

std::int64_t count_of(const StateDict& dict, const char* key) {
  const Tensor& tensor = number_of(dict, key);
  LAMELLA_CHECK(Error, tensor.dtype() == DType::Int64 && tensor.numel() == 1, kName, ": ", key, " is ",
                tensor.describe(), "; it must be one int64");
  const std::int64_t count = tensor.item<std::int64_t>();
  LAMELLA_CHECK(Error, count >= 0, kName, ": ", key, " is ", count, "; it must not be negative");
  return count;
}

}  // namespace

GradScaler::GradScaler(const GradScalerOptions& options) : options_(options) {
  LAMELLA_CHECK(Error, in_range(options.init_scale), kName, ": init_scale is ", options.init_scale,
                "; it must be in [2^-126, 2^126]");
  LAMELLA_CHECK(Error, std::isfinite(options.growth_factor) && options.growth_factor > 1, kName,
                ": growth_factor is ", options.growth_factor, "; it must be finite and above 1");
  LAMELLA_CHECK(Error, options.backoff_factor > 0 && options.backoff_factor < 1, kName,
                ": backoff_factor is ", options.backoff_factor, "; it must be in (0, 1)");
  LAMELLA_CHECK(Error, options.growth_interval >= 1, kName, ": growth_interval is ", options.growth_interval,
                "; it must be at least 1");
  scale_ = full({}, options.init_scale, {.dtype = DType::Float32});
  tracker_ = full({}, 0, {.dtype = DType::Int64});
  skipped_ = full({}, 0, {.dtype = DType::Int64});
  found_ = zeros({1}, {.dtype = DType::Int32});
}

Tensor GradScaler::scale(const Tensor& loss) {
  detail::check_floating(kName, "loss", loss);
  const Device device = loss.device();
  if (scale_.device() != device) {
    LAMELLA_CHECK(DeviceError, uses_.empty(), kName, ": loss ", loss.describe(),
                  "; optimizers were unscaled on ", scale_.device().to_string(),
                  " since the last update(), and all must be on one device");
    const NoGrad no_grad;
    for (Tensor* const own : {&scale_, &tracker_, &skipped_, &found_}) *own = own->to(device);
    ++revision_;
  }
  scaled_ = true;
  return mul(loss, scale_);
}

std::size_t GradScaler::find(const Optimizer& optimizer) const {
  const auto same = [&](const Use& use) { return use.optimizer == &optimizer; };
  return static_cast<std::size_t>(std::find_if(uses_.begin(), uses_.end(), same) - uses_.begin());
}

/// For the flag of one optimizer more.
void GradScaler::make_room() {
  if (abandoned_) found_.fill_(0);
  abandoned_ = false;
  const auto used = static_cast<std::int64_t>(uses_.size());
  if (used < found_.numel()) return;
  Tensor more = zeros({2 * used}, {.dtype = DType::Int32, .device = found_.device()});
  more.slice(0, {.end = used}).copy_(found_);
  found_ = more;
  ++revision_;
}

void GradScaler::unscale(const char* caller, Optimizer& optimizer) {
  const NoGrad no_grad;
  const detail::profiling::PassScope pass(detail::profiling::Pass::Update, kName);
  LAMELLA_CHECK(Error, scaled_, kName, ": ", caller, " for ", optimizer.kind(),
                ", but no loss was scaled since the last update(); call scale(loss).backward() first");
  Tensors gradients;
  for (std::size_t group = 0; group < optimizer.groups(); ++group)
    for (const Tensor& param : optimizer.params(group)) {
      const Tensor gradient = param.grad();
      if (!gradient.defined()) continue;
      LAMELLA_CHECK(DTypeError, is_supported(gradient.dtype()), kName, ": gradient ", gradient.describe(),
                    " of ", optimizer.kind(), " must be float32 or float64");
      LAMELLA_CHECK(DeviceError, gradient.device() == scale_.device(), kName, ": gradient ",
                    gradient.describe(), " of ", optimizer.kind(), "; the scaled loss is on ",
                    scale_.device().to_string(), ", and all gradients must be there");
      gradients.push_back(gradient);
    }
  LAMELLA_CHECK(Error, !gradients.empty(), kName, ": ", caller, " for ", optimizer.kind(),
                ", none of whose parameters has a gradient; call scale(loss).backward() first");
  make_room();
  std::vector<detail::TensorView> views;
  for (const Tensor& gradient : gradients) views.push_back(detail::write(gradient, kName));
  const Tensor flag = found_.select(0, static_cast<std::int64_t>(uses_.size()));
  std::int32_t* const found = detail::write(flag, kName).as<std::int32_t>();
  const float* const scale = detail::read(scale_).as<float>();
  LAMELLA_KERNEL(scale_.device(), unscale_gradients(views, scale, found));
  uses_.push_back({&optimizer, false});
}

void GradScaler::unscale_(Optimizer& optimizer) {
  const std::size_t use = find(optimizer);
  LAMELLA_CHECK(Error, use == uses_.size(), kName, ": unscale_() for ", optimizer.kind(),
                uses_[use].stepped ? " after its step()" : " twice", " since the last update()");
  unscale("unscale_()", optimizer);
}

void GradScaler::step(Optimizer& optimizer) {
  const std::size_t use = find(optimizer);
  LAMELLA_CHECK(Error, use == uses_.size() || !uses_[use].stepped, kName, ": step() for ", optimizer.kind(),
                " twice since the last update()");
  if (use == uses_.size()) unscale("step()", optimizer);
  optimizer.step_unless(found_.select(0, static_cast<std::int64_t>(use)));
  uses_[use].stepped = true;
}

void GradScaler::update() {
  const NoGrad no_grad;
  const detail::profiling::PassScope pass(detail::profiling::Pass::Update, kName);
  LAMELLA_CHECK(Error, !uses_.empty(), kName,
                ": update(), but no optimizer was unscaled since the last one; call step() first");
  const detail::ScalerState state{.scale = detail::write(scale_, kName).as<float>(),
                                  .tracker = counter(tracker_),
                                  .skipped = counter(skipped_),
                                  .found = detail::write(found_, kName).as<std::int32_t>(),
                                  .optimizers = found_.numel()};
  const detail::ScalerSettings settings{.growth = options_.growth_factor,
                                        .backoff = options_.backoff_factor,
                                        .interval = options_.growth_interval};
  LAMELLA_KERNEL(scale_.device(), update_scale(state, settings));
  uses_.clear();
  scaled_ = false;
}

void GradScaler::abandon() {
  // The flags are cleared later: a device that just failed may take no work.
  abandoned_ = abandoned_ || !uses_.empty();
  uses_.clear();
  scaled_ = false;
}

double GradScaler::scale() const { return scale_.item(); }
std::int64_t GradScaler::growth_tracker() const { return tracker_.item<std::int64_t>(); }
std::int64_t GradScaler::skipped() const { return skipped_.item<std::int64_t>(); }

StateDict GradScaler::state_dict() const {
  const NoGrad no_grad;
  return {{"scale", scale_.clone()}, {"growth_tracker", tracker_.clone()}, {"skipped", skipped_.clone()}};
}

void GradScaler::load_state_dict(const StateDict& dict) {
  const NoGrad no_grad;
  const Tensor& scale = number_of(dict, "scale");
  LAMELLA_CHECK(Error, scale.numel() == 1 && is_floating(scale.dtype()), kName, ": scale is ",
                scale.describe(), "; it must be one floating number");
  const double value = scale.item();
  LAMELLA_CHECK(Error, in_range(value), kName, ": scale is ", value, "; it must be in [2^-126, 2^126]");
  const std::int64_t tracker = count_of(dict, "growth_tracker"), skipped = count_of(dict, "skipped");
  for (const auto& [name, tensor] : dict)
    LAMELLA_CHECK(Error, name == "scale" || name == "growth_tracker" || name == "skipped", kName,
                  ": the state has ", name, ", which is none of scale, growth_tracker and skipped");
  abandon();
  scale_.fill_(value);
  tracker_.fill_(static_cast<double>(tracker));
  skipped_.fill_(static_cast<double>(skipped));
}

}  // namespace lamella::optim
