#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lamella/layers/module.h"

namespace lamella::detail {

struct Storage;

/// What all handles on one module share.
struct ModuleState {
  struct BufferEntry {
    std::string name;
    Tensor tensor;
    bool persistent = true;
  };

  /// What a tensor was when it was folded.
  struct FoldedTensor {
    std::weak_ptr<Storage> storage;
    std::uint64_t version = 0;
  };

  /// The one that `module` is a handle on.
  static ModuleState* of(const Module& module) { return module.state_.get(); }

  std::string type_name;
  std::vector<std::pair<std::string, Tensor>> parameters;
  std::vector<BufferEntry> buffers;
  std::vector<std::pair<std::string, Module::Child>> children;
  bool training = true;
  bool has_parent = false;
  std::vector<FoldedTensor> folded;  ///< of a norm: see fold_batch_norms()
};

}  // namespace lamella::detail
