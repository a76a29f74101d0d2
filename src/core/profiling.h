#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "lamella/core/device.h"
#include "lamella/core/dtype.h"

/// Where the library tells a profile (lamella/train/profile.h) what it does: see docs/architecture.md. While
/// there is none, each of these costs one load of `on_bits`.
namespace lamella::detail::profiling {

/// What a thread is doing.
enum class Pass : std::uint8_t { Forward, Gradient, Update };

inline constexpr unsigned kLog = 1;     ///< there is a log
inline constexpr unsigned kRanges = 2;  ///< NVTX ranges are made
extern std::atomic<unsigned> on_bits;
inline bool on() { return on_bits.load(std::memory_order_relaxed) != 0; }

/// A call of a kernel, or of something else that takes a device's time. `call` has static lifetime; its name
/// is what stands before the first parenthesis.
class KernelScope {
 public:
  KernelScope(Device device, const char* call) {
    if (on()) begin(device, call);
  }
  ~KernelScope() {
    if (is_open_) end();
  }
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  void begin(Device device, const char* call);
  void end() noexcept;
  bool is_open_ = false;
};

/// What this thread does while it lives is a pass of `op`, which has static lifetime. Of Forward, it is that
/// of operators that name themselves, and `op` may be null.
class PassScope {
 public:
  PassScope(Pass pass, const char* op) {
    if (on()) begin(pass, op);
  }
  ~PassScope() {
    if (is_open_) end();
  }
  PassScope(const PassScope&) = delete;
  PassScope& operator=(const PassScope&) = delete;

 private:
  void begin(Pass pass, const char* op);
  void end() noexcept;
  bool is_open_ = false;
  Pass pass_before_ = Pass::Forward;
  const char* op_before_ = nullptr;
};

// To be called only while on().

/// The kernel whose arguments are being made reads and writes so many bytes.
void count_bytes(std::int64_t read, std::int64_t written);
/// An operator of the forward pass has launched its kernels: those since the last one that said so.
void end_operator(const char* op);
/// The next kernel changes a tensor in place for `op`.
void name_in_place(const char* op);
/// A block that an allocator handed out or took back.
void block_taken(Device device, const void* data, std::size_t bytes);
void block_returned(Device device, const void* data, std::size_t bytes) noexcept;
/// The block at `data` is the memory of a tensor. Without this it is a workspace.
void block_is_tensor(const void* data, const std::int64_t* sizes, int axes, DType dtype);

}  // namespace lamella::detail::profiling
