#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lamella/core/dtype.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/tensor.h"

namespace lamella::train {

/// What recorded launches take for granted and a replay cannot see: where tensors lie and how, what kinds of
/// launches the network asks for, and settings of the thread. A recording is good as long as this is equal;
/// the numbers in the tensors are no part of it.
struct Surroundings {
  struct Place {
    const void* data = nullptr;  ///< null: undefined
    DType dtype = DType::Float32;
    Shape shape;
    Strides strides;
    bool requires_grad = false;
    bool operator==(const Place&) const = default;
  };
  struct Mode {
    const void* module = nullptr;
    bool training = false;
    bool folded = false;  ///< a norm that its convolution does the work of
    bool operator==(const Mode&) const = default;
  };
  std::vector<Place> tensors{};  ///< that launches use
  std::vector<Mode> modules{};
  bool tf32 = false, fusion = false;
  std::optional<DType> autocast{};
  std::uint64_t seed = 0;
  bool operator==(const Surroundings&) const = default;
};

/// Those of `network` and of this thread now. `tensors` are what launches use, undefined ones, too.
Surroundings surroundings_of(Module& network, const Tensors& tensors);
/// All parameters, then all buffers.
Tensors tensors_of(const Module& network);

/// Which tensors are changed in place while this lives.
class ChangeWatch {
 public:
  /// Of these; undefined ones are left out.
  explicit ChangeWatch(const Tensors& tensors);
  Tensors changed() const;

 private:
  Tensors tensors_;
  std::vector<std::uint64_t> versions_;
};

}  // namespace lamella::train
