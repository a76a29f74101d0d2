#include "machine.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

dim3 threadIdx, blockIdx;

namespace lamella::depthwise {
// What device code declares as its shared memory.
alignas(1024) uint4 shared[emulated::kSharedBytes / sizeof(uint4)];
}  // namespace lamella::depthwise

namespace lamella::emulated {
namespace {

struct Copy {
  void* to;
  const void* from;
  std::size_t count, zeros;
};

enum class Waits : std::uint8_t { No, Block, Warp, Some, Phase };

struct Thread {
  Fiber fiber;
  Waits waits = Waits::No;
  int name = 0;                      // of Some
  unsigned barrier = 0, parity = 0;  // of Phase
  bool done = false;
  unsigned exchanges = 0;
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

struct Barrier {
  unsigned threads = 0, left = 0, phase = 0;
  std::size_t bytes = 0;

  void end_if_complete() {
    if (left != 0 || bytes != 0) return;
    ++phase;
    left = threads;
  }
};

struct Store {
  std::size_t thread;
  bool has_ended;  // its group has
  std::function<void()> store;
};

constexpr std::size_t kWarp = 32, kExchanged = 8;
unsigned char* const memory = reinterpret_cast<unsigned char*>(depthwise::shared);
std::size_t memory_bytes = 0;
std::vector<Thread> threads;
std::size_t current = 0;
const std::function<void()>* job = nullptr;
std::exception_ptr failure;
std::map<unsigned, Barrier> barriers;
std::map<int, int> named_threads;
std::vector<Store> stores;
std::deque<std::function<void()>> loads;  // under way
bool copies_at_once = false;
std::vector<Readable> readable;
std::uint32_t boxes[kWarp][2][kWarp][kExchanged];  // of each warp, two in turn

[[noreturn]] void fault(const std::string& what) {
  throw Fault("block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(current) + ": " + what);
}

void pause(Waits waits) {
  Thread& thread = threads[current];
  thread.waits = waits;
  thread.fiber.leave(false);
}

void entry() {
  try {
    (*job)();
  } catch (...) {
    failure = std::current_exception();
  }
  threads[current].done = true;
  threads[current].fiber.leave(true);
}

void begin_thread(Thread& thread) {
  thread.waits = Waits::No;
  thread.done = false;
  thread.exchanges = 0;
  thread.open.clear();
  thread.groups.clear();
  thread.fiber.begin(entry);
}

void copy(const Copy& copy) {
  if (copy.count > 0) std::memcpy(copy.to, copy.from, copy.count);
  std::memset(static_cast<unsigned char*>(copy.to) + copy.count, 0, copy.zeros);
}

/// Lets those go on whose barriers are complete; false: none.
bool release(std::size_t count) {
  bool any = false;
  const auto count_if = [&](std::size_t from, std::size_t to, const auto& is) {
    std::size_t found = 0;
    for (std::size_t t = from; t < to; ++t) found += !threads[t].done && is(threads[t]) ? 1 : 0;
    return found;
  };
  const auto go_on = [&](std::size_t from, std::size_t to, const auto& is) {
    for (std::size_t t = from; t < to; ++t)
      if (!threads[t].done && is(threads[t])) threads[t].waits = Waits::No;
    any = true;
  };
  const auto at_warp = [](const Thread& thread) { return thread.waits == Waits::Warp; };
  for (std::size_t first = 0; first < count; first += kWarp) {
    const std::size_t last = std::min(first + kWarp, count);
    if (count_if(first, last, at_warp) == last - first) go_on(first, last, at_warp);
  }
  for (const auto& named : named_threads) {
    const auto at_name = [&](const Thread& thread) {
      return thread.waits == Waits::Some && thread.name == named.first;
    };
    const std::size_t waiting = count_if(0, count, at_name);
    if (waiting != 0 && waiting == static_cast<std::size_t>(named.second)) go_on(0, count, at_name);
  }
  const auto at_block = [](const Thread& thread) { return thread.waits == Waits::Block; };
  if (count_if(0, count, at_block) == count) go_on(0, count, at_block);
  const auto has_ended = [](const Thread& thread) {
    return thread.waits == Waits::Phase && barriers[thread.barrier].phase % 2 != thread.parity;
  };
  if (count_if(0, count, has_ended) > 0) go_on(0, count, has_ended);
  return any;
}

/// Barriers of threads take whole warps: none may be at one while a lane of its warp waits for a phase.
void check_warps(std::size_t count) {
  for (std::size_t first = 0; first < count; first += kWarp) {
    bool at_barrier = false, away = false;
    for (std::size_t t = first; t < std::min(first + kWarp, count); ++t) {
      const Waits waits = threads[t].done ? Waits::No : threads[t].waits;
      at_barrier = at_barrier || waits == Waits::Block || waits == Waits::Some;
      away = away || waits == Waits::Phase;
      current = t;
    }
    if (at_barrier && away) fault("its warp is at a barrier that a lane is away from");
  }
}

void run_block(std::size_t count, bool backwards) {
  barriers.clear();
  named_threads.clear();
  loads.clear();
  stores.clear();
  std::memset(memory, 0xff, memory_bytes);  // no numbers, until somebody writes some
  for (std::size_t t = 0; t < count; ++t) begin_thread(threads[t]);
  for (bool all_done = false; !all_done;) {
    bool ran = false;
    all_done = true;
    for (std::size_t i = 0; i < count; ++i) {
      current = backwards ? count - 1 - i : i;
      Thread& thread = threads[current];
      if (!thread.done && thread.waits == Waits::No) {
        threadIdx.x = static_cast<unsigned>(current);
        thread.fiber.enter();
        if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
        ran = true;
      }
      all_done = all_done && thread.done;
    }
    if (release(count) || ran || all_done) continue;
    check_warps(count);
    if (loads.empty()) fault("threads wait for others that never come");
    loads.front()();
    loads.pop_front();
  }
  if (!loads.empty() || !stores.empty()) fault("copies that nobody waited for");
}

}  // namespace

namespace {

/// Shared memory ends behind what a launch has asked for, as far as AddressSanitizer is there to see it.
void bound_shared_memory([[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  ASAN_POISON_MEMORY_REGION(memory + bytes, kSharedBytes - bytes);
#endif
}

}  // namespace

void run(std::int64_t blocks, int count, std::size_t shared_bytes, const std::function<void()>& kernel) {
  if (blocks < 1 || count < 1 || count > 1024 || shared_bytes > kSharedBytes)
    throw Fault("a launch that no GPU takes");
  memory_bytes = shared_bytes;
  job = &kernel;
  failure = nullptr;
  if (threads.size() < static_cast<std::size_t>(count)) threads.resize(static_cast<std::size_t>(count));
  bound_shared_memory(shared_bytes);
  for (std::int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    copies_at_once = (blocks + block) / 2 % 2 == 1;
    run_block(static_cast<std::size_t>(count), block % 2 == 1);
  }
}

unsigned char* shared_memory() { return memory; }

void check_alignment(const void* address, std::size_t alignment, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0)
    fault(std::string(what) + " is not aligned");
}
void check_shared(const void* address, std::size_t count, std::size_t alignment, const char* what) {
  const auto* const at = static_cast<const unsigned char*>(address);
  if (at < memory || at + count > memory + memory_bytes)
    fault(std::string(what) + " is outside shared memory");
  check_alignment(address, alignment, what);
}

void let_copies_read(std::initializer_list<Readable> tensors) { readable = tensors; }
void copy_later(void* to, const void* from, std::size_t count, std::size_t zeros) {
  const auto place = [](const void* at) { return reinterpret_cast<std::uintptr_t>(at); };
  const auto has = [&](const Readable& tensor) {
    return place(from) >= place(tensor.begin) / 16 * 16 && place(from) + count <= place(tensor.end);
  };
  if (count > 0 && !readable.empty() && std::none_of(readable.begin(), readable.end(), has))
    fault("a copy reads outside of the tensors");
  const Copy later{to, from, count, zeros};
  copies_at_once ? copy(later) : threads[current].open.push_back(later);
}
void end_copies() {
  Thread& thread = threads[current];
  thread.groups.push_back(std::exchange(thread.open, {}));
}
void wait_for_copies(std::size_t groups) {
  Thread& thread = threads[current];
  for (; thread.groups.size() > groups; thread.groups.pop_front())
    for (const Copy& later : thread.groups.front()) copy(later);
}

void wait_for_warp() { pause(Waits::Warp); }
void wait_for_some(int name, int count) {
  named_threads[name] = count;
  threads[current].name = name;
  pause(Waits::Some);
}
Exchanged exchange(const std::uint32_t* words, std::size_t count) {
  auto& box = boxes[current / kWarp][threads[current].exchanges++ % 2];
  std::memcpy(box[current % kWarp], words, count * sizeof(std::uint32_t));
  wait_for_warp();
  return box;
}
int lane() { return static_cast<int>(current % kWarp); }

void make_barrier(unsigned address, unsigned count) { barriers[address] = {count, count, 0, 0}; }
void arrive(unsigned address, std::size_t expected_bytes) {
  const auto found = barriers.find(address);
  if (found == barriers.end() || found->second.left == 0)
    fault("arrives where there is no barrier, or too often");
  found->second.bytes += expected_bytes;
  --found->second.left;
  found->second.end_if_complete();
}
void bytes_arrive(unsigned address, std::size_t count) {
  Barrier& barrier = barriers[address];
  if (barrier.bytes < count) fault("more bytes arrive than were expected");
  barrier.bytes -= count;
  barrier.end_if_complete();
}
void wait_for_phase(unsigned address, unsigned parity) {
  const auto found = barriers.find(address);
  if (found == barriers.end()) fault("waits where there is no barrier");
  if (found->second.phase % 2 != parity) return;
  threads[current].barrier = address, threads[current].parity = parity;
  pause(Waits::Phase);
}

void load_later(std::function<void()> load) {
  if (copies_at_once)
    load();
  else
    loads.push_back(std::move(load));
}
void store_later(std::function<void()> store) { stores.push_back({current, false, std::move(store)}); }
void end_stores() {
  for (Store& store : stores) store.has_ended = store.has_ended || store.thread == current;
}
void finish_stores() {
  const auto is_mine = [](const Store& store) { return store.thread == current && store.has_ended; };
  for (const Store& store : stores)
    if (is_mine(store)) store.store();
  std::erase_if(stores, is_mine);
}

}  // namespace lamella::emulated

void __syncthreads() { lamella::emulated::pause(lamella::emulated::Waits::Block); }
