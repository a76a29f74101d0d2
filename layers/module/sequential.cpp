#include "lamella/layers/sequential.h"

#include "core/check.h"
#include "layers/module/state.h"

namespace lamella {

std::size_t Sequential::size() const { return state_->children.size(); }

Module& Sequential::operator[](std::size_t i) {
  LAMELLA_CHECK(Error, i < size(), type_name(), ": no module ", i, " among ", size());
  return *state_->children[i].second.module;
}

void Sequential::throw_other_class(std::size_t i) {
  throw Error(detail::concat(type_name(), ": module ", i, " is of another class than asked for, ",
                             (*this)[i].type_name()));
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& [name, child] : state_->children) y = (*child.module)(y);
  return y;
}

}  // namespace lamella
