#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/parallel.h"
#include "lamella/core/log.h"
#include "lamella/core/threads.h"

namespace lamella {
namespace {

constexpr int kMaxThreads = 1024;
// Operators come densely: a worker that spins this long mostly meets the next one without the cost of waking
// up.
constexpr auto kSpin = std::chrono::microseconds(20);

thread_local bool inside_chunk = false;

struct InsideChunk {
  const bool before = inside_chunk;
  InsideChunk() { inside_chunk = true; }
  ~InsideChunk() { inside_chunk = before; }
};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <class Condition>
bool spin_until(bool may_spin, Condition condition) {
  if (condition()) return true;
  if (!may_spin) return false;
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      pause();
      if (condition()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

int available_cores() {
  // A mask of the kernel's size, which may exceed cpu_set_t's 1024 bits.
  for (std::size_t count = 1024; count <= (std::size_t{1} << 20); count *= 2) {
    cpu_set_t* const set = CPU_ALLOC(count);
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(count);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    const int cores = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (known) return std::clamp(cores, 1, kMaxThreads);
  }
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
}

int initial_threads() {
  const char* const text = std::getenv("LAMELLA_NUM_THREADS");
  if (text == nullptr || *text == '\0') return available_cores();
  int count = 0;
  const char* const last = text + std::strlen(text);
  const auto [end, error] = std::from_chars(text, last, count);
  if (error == std::errc() && end == last && count >= 1 && count <= kMaxThreads) return count;
  const int cores = available_cores();
  log_message(LogLevel::Warning,
              detail::concat("LAMELLA_NUM_THREADS=\"", text, "\" is not a number from 1 to ", kMaxThreads,
                             "; using ", cores));
  return cores;
}

struct Job {
  std::int64_t n = 0;
  std::int64_t grain = 1;
  std::int64_t chunks = 0;
  detail::ChunkFn fn = nullptr;
  void* context = nullptr;
  std::atomic<std::int64_t> next{0};

  std::mutex failure_mutex;
  std::int64_t failed_chunk = std::numeric_limits<std::int64_t>::max();
  std::exception_ptr failure;

  void run_chunk(std::int64_t chunk) const {
    const std::int64_t begin = chunk * grain;
    fn(context, begin, n - begin > grain ? begin + grain : n);
  }

  // Takes chunks in ascending order until none is left. After a failure no further chunk is begun; those
  // below the failed one have been, so the lowest failing chunk is found whatever the timing.
  void work() {
    const InsideChunk guard;
    for (;;) {
      const std::int64_t chunk = next.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= chunks) return;
      try {
        run_chunk(chunk);
      } catch (...) {
        std::lock_guard lock(failure_mutex);
        if (chunk < failed_chunk) {
          failed_chunk = chunk;
          failure = std::current_exception();
        }
        next.store(chunks, std::memory_order_relaxed);
      }
    }
  }
};

// One job at a time. `gate_` says all that a worker must know: which job (upper half), whether it is open,
// and how many workers are in it. Only entering by a compare-exchange on an open gate lets a worker see the
// job's fields, and the owner touches them only while the gate is closed with nobody inside.
class ThreadPool {
 public:
  ThreadPool() : threads_(initial_threads()) {}

  int threads() const { return threads_.load(std::memory_order_relaxed); }

  void set_threads(int count) {
    std::lock_guard owner(owner_mutex_);
    stop_workers();
    threads_.store(count, std::memory_order_relaxed);
  }

  // False when the pool is taken.
  bool try_run(std::int64_t n, std::int64_t grain, std::int64_t chunks, detail::ChunkFn fn, void* context) {
    std::unique_lock owner(owner_mutex_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    if (workers_.empty()) start_workers();
    job_.n = n;
    job_.grain = grain;
    job_.chunks = chunks;
    job_.fn = fn;
    job_.context = context;
    job_.next.store(0, std::memory_order_relaxed);
    gate_.store(((gate_.load(std::memory_order_relaxed) >> 32) + 1) << 32 | kOpen);
    wake(chunks - 1);
    job_.work();
    close();
    if (job_.failure) {
      const std::exception_ptr failure = std::exchange(job_.failure, nullptr);
      job_.failed_chunk = std::numeric_limits<std::int64_t>::max();
      owner.unlock();
      std::rethrow_exception(failure);
    }
    return true;
  }

 private:
  static constexpr std::uint64_t kOpen = std::uint64_t{1} << 31;
  static constexpr std::uint64_t kInside = kOpen - 1;

  void start_workers() {
    const int count = threads() - 1;
    may_spin_ = count < available_cores();
    // Signals are the user's threads' business.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      workers_.reserve(static_cast<std::size_t>(count));
      const std::uint64_t seen = gate_.load() >> 32;
      while (static_cast<int>(workers_.size()) < count) workers_.emplace_back([this, seen] { serve(seen); });
    } catch (const std::system_error&) {
      // Fewer threads than wished: slower, the results are the same.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void stop_workers() {
    {
      std::lock_guard lock(sleep_mutex_);
      stop_.store(true);
    }
    wake_up_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stop_.store(false);
  }

  void serve(std::uint64_t seen) {
    const auto called = [&] {
      const std::uint64_t gate = gate_.load();
      return ((gate >> 32) != seen && (gate & kOpen) != 0) || stop_.load();
    };
    for (;;) {
      if (!spin_until(may_spin_, called)) {
        std::unique_lock lock(sleep_mutex_);
        sleepers_.fetch_add(1);
        wake_up_.wait(lock, called);
        sleepers_.fetch_sub(1);
      }
      if (stop_.load()) return;
      std::uint64_t gate = gate_.load();
      bool entered = false;
      while ((gate & kOpen) != 0 && !(entered = gate_.compare_exchange_weak(gate, gate + 1))) {
      }
      seen = gate >> 32;
      if (!entered) continue;
      job_.work();
      const std::uint64_t left = gate_.fetch_sub(1) - 1;
      if ((left & (kOpen | kInside)) == 0 && owner_waits_.load()) {
        std::lock_guard lock(done_mutex_);
        done_.notify_one();
      }
    }
  }

  void wake(std::int64_t wanted) {
    // A worker counts itself a sleeper before its last look at the gate, so either it sees the job or we see
    // it.
    const std::int64_t sleepers = sleepers_.load();
    if (sleepers == 0) return;
    { std::lock_guard lock(sleep_mutex_); }
    if (wanted >= sleepers) {
      wake_up_.notify_all();
    } else {
      for (std::int64_t i = 0; i < wanted; ++i) wake_up_.notify_one();
    }
  }

  void close() {
    gate_.fetch_and(~kOpen);
    const auto alone = [this] { return (gate_.load() & kInside) == 0; };
    if (spin_until(may_spin_, alone)) return;
    owner_waits_.store(true);
    {
      std::unique_lock lock(done_mutex_);
      done_.wait(lock, alone);
    }
    owner_waits_.store(false);
  }

  std::atomic<int> threads_;
  std::mutex owner_mutex_;  // held while a job runs or the workers change
  std::vector<std::thread> workers_;
  bool may_spin_ = false;
  Job job_;
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::atomic<std::int64_t> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> owner_waits_{false};
  std::mutex sleep_mutex_, done_mutex_;
  std::condition_variable wake_up_, done_;
};

ThreadPool& pool() {
  // Never destroyed: workers may still look at it while main ends.
  static ThreadPool& instance = *new ThreadPool;
  return instance;
}

}  // namespace

int num_threads() { return pool().threads(); }

void set_num_threads(int count) {
  LAMELLA_CHECK(Error, count >= 1 && count <= kMaxThreads, "set_num_threads: ", count, " is not from 1 to ",
                kMaxThreads);
  LAMELLA_CHECK(Error, !inside_chunk, "set_num_threads: called from inside an operator");
  pool().set_threads(count);
}

namespace detail {

void run_chunks(std::int64_t n, std::int64_t grain, ChunkFn fn, void* context) {
  LAMELLA_CHECK(Error, grain >= 1, "parallel_for: grain ", grain, " is below 1");
  if (n <= 0) return;
  const std::int64_t chunks = (n - 1) / grain + 1;
  if (chunks > 1 && !inside_chunk && num_threads() > 1 && pool().try_run(n, grain, chunks, fn, context))
    return;
  const InsideChunk guard;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t begin = chunk * grain;
    fn(context, begin, n - begin > grain ? begin + grain : n);
  }
}

}  // namespace detail
}  // namespace lamella
