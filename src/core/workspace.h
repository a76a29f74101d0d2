#pragma once

#include <cstdint>

#include "core/allocator.h"
#include "core/check.h"

namespace lamella::detail {

/// Memory that a caller lends to kernels: while this lives, this thread's Workspaces of `device` lie in it,
/// one after the other, in place of memory from Lamella's allocator.
class LentMemory {
 public:
  LentMemory(Device device, void* data, std::int64_t bytes)
      : device_(device), next_(static_cast<char*>(data)), left_(bytes), before_(current_) {
    current_ = this;
  }
  ~LentMemory() { current_ = before_; }
  LentMemory(const LentMemory&) = delete;
  LentMemory& operator=(const LentMemory&) = delete;

  /// Null where nobody lends any of `device`. Throws Error where what was lent does not suffice.
  static void* take(Device device, std::int64_t bytes) {
    if (current_ == nullptr || current_->device_ != device) return nullptr;
    const std::int64_t taken = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    LAMELLA_CHECK(Error, bytes <= current_->left_, "workspace: ", bytes, " bytes are needed, and ",
                  current_->left_, " are left of what the caller gave");
    void* const data = current_->next_;
    current_->next_ += taken;
    current_->left_ -= taken;
    return data;
  }

 private:
  static constexpr std::int64_t kAlignment = 256;
  static inline thread_local LentMemory* current_ = nullptr;
  Device device_;
  char* next_;
  std::int64_t left_;
  LentMemory* before_;
};

/// Memory for the length of a kernel, from the allocator of its device: 64-byte aligned, uninitialised,
/// counted like a tensor's; or lent by a caller, see LentMemory. Of a GPU, it is for work on the current
/// stream, and what is queued there may use it after this object is gone.
class Workspace {
 public:
  Workspace(Device device, std::int64_t bytes)
      : allocator_(allocator_of(device)),
        stream_(current_stream(device)),
        lent_(bytes > 0 ? LentMemory::take(device, bytes) : nullptr),
        block_(bytes > 0 && lent_ == nullptr ? allocator_.allocate(static_cast<std::size_t>(bytes), stream_)
                                             : Block{}) {}
  ~Workspace() {
    if (block_.data != nullptr) allocator_.deallocate(block_, stream_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(lent_ != nullptr ? lent_ : block_.data);
  }

 private:
  Allocator& allocator_;
  Stream stream_;
  void* lent_;
  Block block_;
};

}  // namespace lamella::detail
