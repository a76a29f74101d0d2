#pragma once

#include <cstddef>
#include <cstdint>

namespace lamella::cpu {

/// Working memory of the calling thread, 64-byte aligned. It grows on demand and is kept, so that small tasks
/// do not pay for page faults; the next call on the same thread takes it over.
std::byte* thread_scratch(std::size_t bytes);

/// Cuts one block of scratch into aligned arrays. Call `reserve` for all of them, then `allocate`, then
/// `take` in any order with the same total.
class ScratchPlan {
 public:
  template <class T>
  void reserve(std::int64_t count) {
    bytes_ += rounded<T>(count);
  }
  void allocate() { next_ = thread_scratch(bytes_); }
  template <class T>
  T* take(std::int64_t count) {
    T* result = reinterpret_cast<T*>(next_);
    next_ += rounded<T>(count);
    return result;
  }

 private:
  template <class T>
  static std::size_t rounded(std::int64_t count) {
    return (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
  }
  std::size_t bytes_ = 0;
  std::byte* next_ = nullptr;
};

}  // namespace lamella::cpu
