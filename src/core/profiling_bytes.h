#pragma once

#include <cstddef>
#include <cstdint>

#include "core/profiling.h"

namespace lamella::detail::profiling {

/// What read() and write() give out while it lives counts for the kernels called meanwhile or for none: not
/// for the call around it, nor for the next one. For what the CPU reads itself, and for work of its own
/// between a kernel's arguments. While there is no profile it costs one load of `on_bits`.
class BytesApart {
 public:
  BytesApart() {
    if (on()) begin();
  }
  ~BytesApart() {
    if (log_ != nullptr) end();
  }
  BytesApart(const BytesApart&) = delete;
  BytesApart& operator=(const BytesApart&) = delete;

 private:
  void begin();
  void end() noexcept;
  const void* log_ = nullptr;
  std::int64_t read_ = 0, written_ = 0;
  std::size_t around_ = 0;
};

}  // namespace lamella::detail::profiling
