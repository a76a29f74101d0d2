#include "epoch_sums.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace lm = lamella;

namespace {

/// The one list of names.
template <class Sums, class Visit>
void for_each(Sums& sums, Visit&& visit) {
  visit("images", sums.images);
  visit("loss", sums.loss);
  visit("right", sums.right);
  visit("seconds", sums.seconds);
  visit("learning_rate", sums.learning_rate);
}

}  // namespace

void to_json(nlohmann::json& json, const EpochSums& sums) {
  json = nlohmann::json::object();
  for_each(sums, [&](const char* name, double value) { json[name] = value; });
}

void from_json(const nlohmann::json& json, EpochSums& sums) {
  for_each(sums, [&](const char* name, double& value) {
    const nlohmann::json& found = json.at(name);
    value = found.is_null() ? std::nan("") : found.get<double>();
  });
}

RunningSum::RunningSum(double start, lm::Device device) {
  // On a GPU the sum begins there: added to in the same order, it has the bits of one that never stopped.
  if (device.is_cpu())
    here_ = start;
  else
    there_ = lm::full({}, start, {.dtype = lm::float64, .device = device});
}

void RunningSum::add(const lm::Tensor& value, double times) {
  if (!there_.defined()) {
    here_ += value.detach().item() * times;
    return;
  }
  const lm::NoGrad no_grad;
  there_ = there_ + lm::mul(value.detach().reshape({}).to(lm::float64), times);
}

double RunningSum::value() const { return there_.defined() ? there_.item() : here_; }
