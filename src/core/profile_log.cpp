#include "core/profile_log.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <utility>

#include "core/check.h"
#include "core/cuda/recording.h"
#include "core/environment.h"
#include "core/profiling_bytes.h"

namespace lamella::detail::profiling {

namespace {

// LAMELLA_NVTX=1: ranges for NVIDIA's tools in any program, without a profile.
unsigned bits_at_start() { return environment_says("LAMELLA_NVTX", "1") ? kRanges : 0; }

std::mutex& current_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}
std::shared_ptr<Log>& current_slot() {
  static std::shared_ptr<Log>& log = *new std::shared_ptr<Log>;  // tensors may outlive main
  return log;
}
std::shared_ptr<Log> current() {
  const std::lock_guard lock(current_mutex());
  return current_slot();
}

/// What this thread is doing.
struct State {
  Pass pass = Pass::Forward;
  const char* op = nullptr;
  std::shared_ptr<Log> log;          ///< while its kernels are logged
  std::vector<std::size_t> open;     ///< calls of kernels, the innermost last; they have a begin and no end
  std::vector<bool> in_log;          ///< for each KernelScope that is open
  std::vector<std::size_t> unnamed;  ///< calls and blocks of an operator that has not said its name
  std::vector<std::size_t> unnamed_blocks;
  std::int64_t read = 0, written = 0;  ///< handed out since the last call
  std::size_t around = 0;              ///< calls in `open` that what is handed out is none of: see BytesApart

  bool in_call() const { return open.size() > around; }
};
State& state() {
  thread_local State of_this_thread;
  return of_this_thread;
}

bool is_set(unsigned bit) { return (on_bits.load(std::memory_order_relaxed) & bit) != 0; }

void name_all(State& now, const char* op) {
  if (now.log) {
    for (const std::size_t i : now.unnamed) {
      KernelCall& call = now.log->kernels[i];
      if (call.op == nullptr) call.op = op;
    }
    const std::lock_guard lock(now.log->mutex);
    for (const std::size_t i : now.unnamed_blocks) {
      BlockUse& block = now.log->blocks[i];
      if (block.op == nullptr) block.op = op;
    }
  }
  now.unnamed.clear();
  now.unnamed_blocks.clear();
  if (now.open.empty()) now.read = now.written = 0;
}

void log_call(State& thread, Device device, const char* call) {
  KernelCall entry{
      .op = thread.pass == Pass::Forward ? nullptr : thread.op, .call = call, .pass = thread.pass};
  if (!thread.open.empty()) entry.around = static_cast<std::int64_t>(thread.open.back());
  entry.read = std::exchange(thread.read, 0);
  entry.written = std::exchange(thread.written, 0);
  Log& log = *thread.log;
  if (log.clock) {
    const Stream stream = current_stream(device);
    entry.stream = stream.handle;
    entry.first_mark = log.clock->mark(stream);
  }
  const std::size_t index = log.kernels.size();
  log.kernels.push_back(entry);  // first: what is open must be there
  if (entry.op == nullptr) thread.unnamed.push_back(index);
  thread.open.push_back(index);
  log.kernels[index].begin = profiling::now();
}

}  // namespace

std::atomic<unsigned> on_bits{bits_at_start()};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string name_of_call(const char* call) {
  const char* const end = std::strchr(call, '(');
  return end == nullptr ? std::string(call) : std::string(call, end);
}

void KernelScope::begin(Device device, const char* call) {
  State& thread = state();
  // A recording's launches run later, and as often as it is replayed.
  const bool logged =
      thread.log && thread.log->is_open && device == thread.log->device && !cuda::is_recording();
  if (logged) log_call(thread, device, call);
  thread.in_log.push_back(logged);
  if (is_set(kRanges)) cuda::push_range(name_of_call(call).c_str());
  is_open_ = true;
}

void KernelScope::end() noexcept {
  State& thread = state();
  if (is_set(kRanges)) cuda::pop_range();
  if (thread.in_log.empty()) return;
  const bool logged = thread.in_log.back();
  thread.in_log.pop_back();
  if (!logged || thread.open.empty()) return;
  Log& log = *thread.log;
  KernelCall& entry = log.kernels[thread.open.back()];
  entry.end = profiling::now();
  thread.open.pop_back();
  if (entry.around >= 0)
    log.kernels[static_cast<std::size_t>(entry.around)].inside += entry.end - entry.begin;
  if (log.clock) try {
      entry.last_mark = log.clock->mark({log.device, entry.stream});
    } catch (const std::exception&) {  // what went wrong is thrown by the next launch
      entry.first_mark = -1;
    }
  // Of an operator that throws, nothing is left for the next one.
  if (std::uncaught_exceptions() > 0) name_all(thread, nullptr);
}

void PassScope::begin(Pass pass, const char* op) {
  State& thread = state();
  name_all(thread, nullptr);
  is_open_ = true;
  pass_before_ = std::exchange(thread.pass, pass);
  op_before_ = std::exchange(thread.op, op);
  if (is_set(kRanges)) {
    const char* const kind = pass == Pass::Gradient ? "gradient of " : "";
    cuda::push_range(concat(kind, op == nullptr ? "forward" : op).c_str());
  }
}

void PassScope::end() noexcept {
  State& thread = state();
  name_all(thread, nullptr);
  thread.pass = pass_before_;
  thread.op = op_before_;
  if (is_set(kRanges)) cuda::pop_range();
}

void count_bytes(std::int64_t read, std::int64_t written) {
  State& thread = state();
  if (!thread.log) return;
  const bool in_call = thread.in_call();
  KernelCall* const call = in_call ? &thread.log->kernels[thread.open.back()] : nullptr;
  // An update reads what it changes.
  if (thread.pass == Pass::Update) read += written;
  (in_call ? call->read : thread.read) += read;
  (in_call ? call->written : thread.written) += written;
}

void BytesApart::begin() {
  State& thread = state();
  if (!thread.log) return;
  log_ = thread.log.get();
  read_ = std::exchange(thread.read, 0);
  written_ = std::exchange(thread.written, 0);
  around_ = std::exchange(thread.around, thread.open.size());
}

void BytesApart::end() noexcept {
  State& thread = state();
  if (thread.log.get() != log_) return;  // another profile has begun meanwhile
  thread.read = read_;
  thread.written = written_;
  thread.around = around_;
}

void end_operator(const char* op) {
  State& thread = state();
  if (thread.pass == Pass::Forward) name_all(thread, op);
}

void name_in_place(const char* op) {
  State& thread = state();
  if (!thread.log || !thread.in_call() || *op == '\0') return;
  KernelCall& call = thread.log->kernels[thread.open.back()];
  if (call.op == nullptr) call.op = op;
}

void block_taken(Device device, const void* data, std::size_t bytes) {
  const std::shared_ptr<Log> log = current();
  if (!log || !(device == log->device)) return;
  State& thread = state();
  const std::lock_guard lock(log->mutex);
  if (!log->is_open) return;
  const std::size_t index = log->blocks.size();
  const bool is_known = thread.pass != Pass::Forward;
  log->blocks.push_back({.data = data,
                         .bytes = bytes,
                         .pass = thread.pass,
                         .op = is_known ? thread.op : nullptr,
                         .from = profiling::now()});
  log->in_use[data] = index;
  if (!is_known && thread.log == log) thread.unnamed_blocks.push_back(index);
}

void block_returned(Device device, const void* data, std::size_t bytes) noexcept {
  const std::shared_ptr<Log> log = current();
  if (!log || !(device == log->device)) return;
  const std::lock_guard lock(log->mutex);
  if (!log->is_open) return;
  const auto found = log->in_use.find(data);
  if (found == log->in_use.end()) {  // from before the log
    log->returned_earlier.emplace_back(profiling::now(), bytes);
    return;
  }
  log->blocks[found->second].until = profiling::now();
  log->in_use.erase(found);
}

void block_is_tensor(const void* data, const std::int64_t* sizes, int axes, DType dtype) {
  const std::shared_ptr<Log> log = current();
  if (!log || data == nullptr) return;
  const std::lock_guard lock(log->mutex);
  if (!log->is_open) return;
  const auto found = log->in_use.find(data);
  if (found == log->in_use.end()) return;
  BlockUse& block = log->blocks[found->second];
  block.is_tensor = true;
  block.axes = axes;
  block.dtype = dtype;
  std::copy(sizes, sizes + axes, block.sizes.begin());
}

void open_log(const std::shared_ptr<Log>& log) {
  const std::lock_guard lock(current_mutex());
  LAMELLA_CHECK(Error, !current_slot(), "Profile: there is one already, and one is all that a process has");
  current_slot() = log;
  log->is_open = true;
  on_bits.fetch_or(kLog | kRanges);
}

void log_kernels(const std::shared_ptr<Log>& log, bool on) {
  State& thread = state();
  name_all(thread, nullptr);
  thread.open.clear();
  thread.in_log.clear();
  thread.read = thread.written = 0;
  thread.around = 0;
  thread.log = on ? log : nullptr;
}

void drop_unfinished() { name_all(state(), nullptr); }

void close_log() {
  const std::lock_guard lock(current_mutex());
  if (const std::shared_ptr<Log>& log = current_slot()) {
    const std::lock_guard blocks(log->mutex);  // a thread may still have it at hand
    log->is_open = false;
  }
  current_slot() = nullptr;
  on_bits.store(bits_at_start());
}

}  // namespace lamella::detail::profiling
