#include "lamella/layers/state_dict.h"

#include "core/check.h"
#include "core/shown.h"
#include "lamella/autograd/autograd.h"

namespace lamella {

StateDict::StateDict(std::initializer_list<Entry> entries) {
  for (const auto& [name, tensor] : entries) set(name, tensor);
}

void StateDict::set(const std::string& name, const Tensor& tensor) {
  const auto [position, fresh] = positions_.try_emplace(name, entries_.size());
  if (fresh)
    entries_.emplace_back(name, tensor);
  else
    entries_[position->second].second = tensor;
}

const Tensor* StateDict::find(const std::string& name) const {
  const auto position = positions_.find(name);
  return position == positions_.end() ? nullptr : &entries_[position->second].second;
}

const Tensor& StateDict::at(const std::string& name) const {
  const Tensor* const tensor = find(name);
  LAMELLA_CHECK(Error, tensor != nullptr, "state dictionary: no \"", name, "\" among its ", size(),
                " tensors");
  return *tensor;
}

StateDict StateDict::clone() const {
  const NoGrad no_grad;
  StateDict copy;
  for (const auto& [name, tensor] : entries_)
    copy.set(name, tensor.defined() ? tensor.detach().clone() : tensor);
  return copy;
}

std::string LoadReport::to_string() const {
  std::string text;
  const auto line = [&text](const std::string& part) { text += (text.empty() ? "" : "\n  ") + part; };
  if (ok()) return "everything fits";
  line(detail::concat(missing.size(), " missing, ", unexpected.size(), " unexpected, ", mismatched.size(),
                      " of another shape"));
  for (const std::string& name : missing) line("missing: " + name);
  for (const std::string& name : unexpected) line("unexpected: " + detail::shown(name));  // from a file
  for (const ShapeMismatch& entry : mismatched)
    line(detail::concat("another shape: ", entry.name, " is ", entry.found.to_string(), ", must be ",
                        entry.expected.to_string()));
  return text;
}

}  // namespace lamella
