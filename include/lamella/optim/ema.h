#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/layers/module.h"
#include "lamella/layers/state_dict.h"
#include "lamella/tensor/tensor.h"

namespace lamella::optim {

/// How Ema averages.
struct EmaOptions {
  double decay = 0.9999;  ///< share of the old average that stays in each update, in [0, 1]
  bool warm_up = false;   ///< use min(decay, (1 + n) / (10 + n)) after n updates, as TensorFlow does
};

/// A module whose parameters and buffers are exponential moving averages of another one's, which is being
/// trained: average ← decay · average + (1 − decay) · value. Tensors of other than floating type (counters)
/// are copied. Call update() after each step of the optimizer, and evaluate module().
class LAMELLA_API Ema {
 public:
  /// Starts from a copy of `module` (lamella::clone), which is in evaluation mode and wants no gradients.
  /// Follows the module's own tensors from then on, also when Module::to() moves or converts them. Throws
  /// Error unless 0 <= decay <= 1 and for a module without tensors; DTypeError for half-type tensors: they
  /// cannot hold a slow average.
  template <class M>
  explicit Ema(const M& module, const EmaOptions& options = {})
      : Ema(module, std::make_shared<M>(clone(module)), options) {}

  /// Takes the module's present numbers into the averages. Throws DTypeError if they became a half type,
  /// DeviceError if they lie on several devices, with nothing changed.
  void update();

  /// The averaged module: a handle, valid and following later updates for as long as it lives.
  Module& module() { return *averaged_; }
  /// The same for reading.
  const Module& module() const { return *averaged_; }
  /// The same as the class that was given to the constructor. Throws std::bad_cast if M is another one.
  template <class M>
  M& module_as() {
    return dynamic_cast<M&>(*averaged_);
  }
  /// Number of calls of update(). Waits for a GPU.
  std::int64_t updates() const;

  /// Copies: "updates" (int64) and every parameter and buffer as "module.<name>".
  StateDict state_dict() const;
  /// Takes over what state_dict() gave. Throws Error naming what is missing or left over, ShapeError naming
  /// what has another shape, with nothing changed.
  void load_state_dict(const StateDict& dict);

 private:
  struct Pair {
    std::string name;
    Tensor average;
    Tensor value;
  };
  Ema(const Module& module, std::shared_ptr<Module> averaged, const EmaOptions& options);
  void follow();

  EmaOptions options_;
  std::shared_ptr<Module> averaged_;
  std::vector<Pair> pairs_;
  Tensor updates_;  ///< int64 [], read by kernels
};

}  // namespace lamella::optim
