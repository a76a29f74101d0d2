#pragma once

#include <csetjmp>
#include <cstddef>
#include <memory>

namespace lamella::emulated {

/// A function on a stack of its own, which its caller enters and it leaves by turns.
class Fiber {
 public:
  /// Makes `function` what the next enter() calls. It must end in leave(), too.
  void begin(void (*function)());
  /// Goes on where the fiber left, until it leaves again.
  void enter();
  /// Back to enter(); `ends`: for good.
  void leave(bool ends);

 private:
  [[noreturn]] static void start();

  std::unique_ptr<std::byte[]> stack_;
  void (*function_)() = nullptr;
  bool has_begun_ = false;
  std::jmp_buf inside_{}, outside_{};
  const void* outer_stack_ = nullptr;  // for AddressSanitizer alone, as is its size
  std::size_t outer_size_ = 0;
};

}  // namespace lamella::emulated
