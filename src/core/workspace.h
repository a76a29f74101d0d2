#pragma once

#include <cstdint>

#include "core/allocator.h"

namespace lamella::detail {

/// Memory for the length of a kernel, from the allocator of its device: 64-byte aligned, uninitialised,
/// counted like a tensor's. Of a GPU, it is for work on the current stream, and what is queued there may use
/// it after this object is gone.
class Workspace {
 public:
  Workspace(Device device, std::int64_t bytes)
      : allocator_(allocator_of(device)),
        stream_(current_stream(device)),
        block_(bytes > 0 ? allocator_.allocate(static_cast<std::size_t>(bytes), stream_) : Block{}) {}
  ~Workspace() {
    if (block_.data != nullptr) allocator_.deallocate(block_, stream_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(block_.data);
  }

 private:
  Allocator& allocator_;
  Stream stream_;
  Block block_;
};

}  // namespace lamella::detail
