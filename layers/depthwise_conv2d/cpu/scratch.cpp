#include "layers/depthwise_conv2d/cpu/scratch.h"

#include <memory>
#include <new>

#include "core/check.h"

namespace lamella::cpu {
namespace {

struct Release {
  void operator()(std::byte* data) const { ::operator delete (data, std::align_val_t{64}); }
};

}  // namespace

std::byte* thread_scratch(std::size_t bytes) {
  thread_local std::unique_ptr<std::byte, Release> memory;
  thread_local std::size_t capacity = 0;
  if (bytes > capacity) {
    memory.reset();
    capacity = 0;
    memory.reset(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}, std::nothrow)));
    if (!memory)
      throw OutOfMemoryError(detail::concat("depthwise_conv2d: no ", bytes,
                                            " bytes of working memory for the rows of one block"),
                             {.requested = bytes});
    capacity = bytes;
  }
  return memory.get();
}

}  // namespace lamella::cpu
