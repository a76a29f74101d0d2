#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "core/allocator.h"
#include "core/check.h"
#include "core/cuda_backend.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1  // Clang's way of saying it
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace lamella::detail {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

class CpuMemory final : public RawMemory {
 public:
  void* allocate(std::size_t bytes) override {
    // An overcommitting kernel would grant more than there is and kill the process on first touch.
    if (capacity() != 0 && bytes > capacity()) return nullptr;
    const bool huge = bytes >= 2 * kHugePage;
    void* data = nullptr;
    if (posix_memalign(&data, huge ? kHugePage : kAlignment, bytes) != 0) return nullptr;
    // Only advice: fewer TLB misses where the kernel follows it. Whole huge pages alone, for the tail is
    // shared with the heap.
    if (huge) madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    return data;
  }

  void release(void* data, std::size_t) noexcept override { std::free(data); }

  std::size_t capacity() const override { return capacity_; }

  void mark_usable([[maybe_unused]] void* data, [[maybe_unused]] std::size_t usable,
                   [[maybe_unused]] std::size_t bytes) noexcept override {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(data, usable);
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(data) + usable, bytes - usable);
#endif
  }

 private:
  static std::size_t physical_memory() {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page) : 0;
  }
  const std::size_t capacity_ = physical_memory();
};

}  // namespace

Allocator& allocator_of(Device device, const char* op) {
  if (device.is_cuda()) return cuda::allocator(device, op);
  LAMELLA_CHECK(DeviceError, device == Device::cpu(), op, ": there is no device ", device.to_string(),
                "; the only CPU is cpu");
  static Allocator& cpu = *make_caching_allocator(Device::cpu(), std::make_unique<CpuMemory>()).release();
  return cpu;
}

}  // namespace lamella::detail
