#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lamella/layers/module.h"

namespace lamella::detail {

/// What all handles on one module share.
struct ModuleState {
  struct BufferEntry {
    std::string name;
    Tensor tensor;
    bool persistent = true;
  };

  /// The one that `module` is a handle on.
  static const ModuleState* of(const Module& module) { return module.state_.get(); }

  std::string type_name;
  std::vector<std::pair<std::string, Tensor>> parameters;
  std::vector<BufferEntry> buffers;
  std::vector<std::pair<std::string, Module::Child>> children;
  bool training = true;
  bool has_parent = false;
};

}  // namespace lamella::detail
