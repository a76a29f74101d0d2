#pragma once

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "lamella/core/export.h"
#include "lamella/layers/module.h"

namespace lamella {

/// Modules run one after the other, named "0", "1", … as in PyTorch:
///
///   lm::Sequential net(lm::Conv2d(1, 8, 3), lm::ReLU(), lm::Flatten(), lm::Linear(8 * 26 * 26, 10));
class LAMELLA_API Sequential : public Module {
 public:
  Sequential() : Module("Sequential") {}
  /// push_back() of each.
  template <class... Modules>
  requires(sizeof...(Modules) > 0 && (std::is_base_of_v<Module, Modules> && ...) &&
           !(sizeof...(Modules) == 1 &&
             (std::is_same_v<Sequential, Modules> && ...))) explicit Sequential(const Modules&... modules)
      : Module("Sequential") {
    (push_back(modules), ...);
  }

  /// Appends a handle on `module`.
  template <class M>
  void push_back(const M& module) {
    add(std::to_string(size()), module);
  }
  /// Number of modules.
  std::size_t size() const;
  /// The i-th module. Throws Error out of range.
  Module& operator[](std::size_t i);
  /// The i-th module as an M. Throws Error if it is of another class, or out of range.
  template <class M>
  M& at(std::size_t i) {
    M* const module = dynamic_cast<M*>(&(*this)[i]);
    if (module == nullptr) throw_other_class(i);
    return *module;
  }

  /// The output of the last module; x itself if there is none.
  Tensor forward(const Tensor& x) override;

 private:
  [[noreturn]] void throw_other_class(std::size_t i);
};

}  // namespace lamella
