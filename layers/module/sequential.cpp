#include "lamella/layers/sequential.h"

#include <typeinfo>

#include "core/check.h"
#include "layers/module/folded.h"
#include "layers/module/state.h"
#include "tensor/moments.h"

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
  const auto& children = state_->children;
  for (std::size_t i = 0; i < children.size(); ++i) {
    Module& module = *children[i].second.module;
    bool before_norm = false;
    if (i + 1 < children.size() && typeid(module) == typeid(Conv2d)) {
      const Module& next = *children[i + 1].second.module;
      const auto& conv = static_cast<const Conv2d&>(module);
      before_norm = typeid(next) == typeid(BatchNorm2d) && next.is_training();
      if (typeid(next) == typeid(BatchNorm2d) &&
          detail::is_folded(conv, static_cast<const BatchNorm2d&>(next))) {
        y = detail::folded_conv(conv, static_cast<const BatchNorm2d&>(next), y);
        ++i;
        continue;
      }
    }
    const detail::MomentsRequest request(before_norm);
    y = module(y);
  }
  return y;
}

}  // namespace lamella
