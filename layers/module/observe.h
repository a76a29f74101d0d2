#pragma once

#include "lamella/layers/module.h"

namespace lamella::detail {

/// While it lives, sees the calls of modules that this thread makes; of several, the one made last does.
class CallObserver {
 public:
  CallObserver();
  virtual ~CallObserver();
  CallObserver(const CallObserver&) = delete;
  CallObserver& operator=(const CallObserver&) = delete;
  /// `module` has been called and gave `output`; modules that it called itself came before.
  virtual void called(const Module& module, const Tensor& output) = 0;

 private:
  CallObserver* before_;
};

/// Tells the observer, if there is one. For those who compute what a module would, instead of calling it.
void notify_call(const Module& module, const Tensor& output);

}  // namespace lamella::detail
