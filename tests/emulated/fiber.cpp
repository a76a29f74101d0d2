// Where it is on, longjmp() takes another stack for a mistake.
#undef _FORTIFY_SOURCE

#include "fiber.h"

#include <ucontext.h>

#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define LAMELLA_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LAMELLA_ADDRESS_SANITIZER
#endif
#endif
#ifdef LAMELLA_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace lamella::emulated {
namespace {

constexpr std::size_t kStackBytes = 1 << 18;
Fiber* starting = nullptr;

// AddressSanitizer must know on which stack it is.
void before_switch([[maybe_unused]] void** own, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] std::size_t size) {
#ifdef LAMELLA_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(own, stack, size);
#endif
}
void after_switch([[maybe_unused]] void* own, [[maybe_unused]] const void** stack,
                  [[maybe_unused]] std::size_t* size) {
#ifdef LAMELLA_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(own, stack, size);
#endif
}

}  // namespace

void Fiber::begin(void (*function)()) {
  if (!stack_) stack_ = std::make_unique<std::byte[]>(kStackBytes);
#ifdef LAMELLA_ADDRESS_SANITIZER
  if (has_begun_) ASAN_UNPOISON_MEMORY_REGION(stack_.get(), kStackBytes);  // it never ended
#endif
  function_ = function;
  has_begun_ = false;
}

void Fiber::start() {
  Fiber& fiber = *starting;
  after_switch(nullptr, &fiber.outer_stack_, &fiber.outer_size_);
  fiber.function_();
  std::abort();
}

void Fiber::enter() {
  void* own = nullptr;
  before_switch(&own, stack_.get(), kStackBytes);
  // ucontext makes the stack. To switch it would ask the kernel for the signals each time, ten times as slow.
  if (_setjmp(outside_) == 0) {
    if (has_begun_) _longjmp(inside_, 1);
    has_begun_ = true;
    starting = this;
    ucontext_t context{};
    getcontext(&context);
    context.uc_stack.ss_sp = stack_.get();
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, start, 0);
    setcontext(&context);
  }
  after_switch(own, nullptr, nullptr);
}

void Fiber::leave(bool ends) {
  void* own = nullptr;
  before_switch(ends ? nullptr : &own, outer_stack_, outer_size_);
  has_begun_ = !ends;
  if (_setjmp(inside_) == 0) _longjmp(outside_, 1);
  after_switch(own, &outer_stack_, &outer_size_);
}

}  // namespace lamella::emulated
