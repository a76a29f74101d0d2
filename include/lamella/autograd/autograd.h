#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// True while operators of this thread record how to differentiate (the default).
LAMELLA_API bool grad_enabled();

/// While it lives, operators of this thread record nothing. Guards nest.
class LAMELLA_API NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// While it lives, operators of this thread record again (inside a NoGrad).
class LAMELLA_API EnableGrad {
 public:
  EnableGrad();
  ~EnableGrad();
  EnableGrad(const EnableGrad&) = delete;
  EnableGrad& operator=(const EnableGrad&) = delete;

 private:
  bool before_;
};

/// While it lives, every operator of this thread, forward and backward, checks what it made and throws Error
/// naming itself at the first NaN (infinities pass: they may be meant). Slow: it reads every result.
class LAMELLA_API AnomalyMode {
 public:
  AnomalyMode();
  ~AnomalyMode();
  AnomalyMode(const AnomalyMode&) = delete;
  AnomalyMode& operator=(const AnomalyMode&) = delete;

 private:
  bool before_;
};

/// Tensor::backward() from several roots at once. `gradients` has one entry per root, undefined ones meaning
/// 1 for single-element roots; it may be empty. Throws as Tensor::backward(), and ShapeError for another
/// number of gradients than roots.
LAMELLA_API void backward(const Tensors& roots, const Tensors& gradients = {}, bool retain_graph = false);

/// Gradients of `roots` with respect to `inputs` (leaves or results), returned instead of accumulated; no
/// grad() of any tensor changes. An input that no root depends on gives an undefined tensor. Throws as
/// backward(), and Error for an undefined input.
LAMELLA_API Tensors gradients_of(const Tensors& roots, const Tensors& inputs, const Tensors& gradients = {},
                                 bool retain_graph = false);

/// A user's own operator. One object serves one call: forward() may keep what it likes in members or with
/// save_for_backward(), which also notices in-place changes; backward() runs under NoGrad.
class LAMELLA_API Function {
 public:
  virtual ~Function();
  /// Name in messages.
  virtual std::string name() const = 0;
  /// Results for `inputs`; runs under NoGrad. None may be undefined.
  virtual Tensors forward(const Tensors& inputs) = 0;
  /// One gradient per input (undefined: none) from one per result (undefined: zero). Their number, shapes,
  /// types and devices must be the inputs'; otherwise the backward that runs this throws Error, ShapeError,
  /// DTypeError or DeviceError.
  virtual Tensors backward(const Tensors& grad_outputs) = 0;

 protected:
  /// Keeps tensors for backward(), instead of those of an earlier call. To be called in forward() only.
  void save_for_backward(Tensors tensors);
  /// What was saved. Throws Error if one was changed in place since, after the graph was freed, or before
  /// forward().
  Tensors saved_tensors() const;
  /// In backward(): whether input i wants a gradient; false for an i that there is not.
  bool needs_input_grad(std::size_t input) const;

 private:
  friend LAMELLA_API Tensors apply_function(std::shared_ptr<Function> function, const Tensors& inputs);
  struct State;
  std::shared_ptr<State> state_;
};

/// Runs `function` and records its backward. Throws Error if it is null, has served a call before or gives an
/// undefined result; and what its forward() throws.
LAMELLA_API Tensors apply_function(std::shared_ptr<Function> function, const Tensors& inputs);
/// apply_function() with a new F: apply<MyFunction>({x, y}, constructor arguments…).
template <class F, class... Args>
Tensors apply(const Tensors& inputs, Args&&... args) {
  return apply_function(std::make_shared<F>(std::forward<Args>(args)...), inputs);
}

/// Runs `block` on `inputs` without keeping what lies between, and runs it a second time in backward to get
/// it back ("Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174). Random draws repeat, and
/// running statistics are updated once. Parameters that the block uses get their gradients as usual. Throws
/// Error if the block returns an undefined tensor; in backward, also if an input was changed in place since.
LAMELLA_API Tensor recompute(const std::function<Tensor(const Tensors&)>& block, const Tensors& inputs);

/// True while recompute() runs a block the second time: operators with side effects then leave them out.
LAMELLA_API bool recomputing();

}  // namespace lamella
