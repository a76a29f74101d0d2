#pragma once

#include <cstdint>

#include "core/allocator.h"

namespace lamella::cpu {

/// Memory for the length of a kernel, from the CPU's allocator: 64-byte aligned, uninitialised, counted like
/// a tensor's.
class Workspace {
 public:
  explicit Workspace(std::int64_t bytes)
      : allocator_(detail::allocator_of(Device::cpu())),
        block_(bytes > 0 ? allocator_.allocate(static_cast<std::size_t>(bytes), Stream{}) : detail::Block{}) {
  }
  ~Workspace() {
    if (block_.data != nullptr) allocator_.deallocate(block_, Stream{});
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(block_.data);
  }

 private:
  detail::Allocator& allocator_;
  detail::Block block_;
};

}  // namespace lamella::cpu
