#include "lamella/train/profile.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/memory.h"
#include "lamella/core/stream.h"
#include "lamella/tensor/create.h"
#include "tensor/door.h"
#include "train/profile_record.h"

namespace lamella::train {

namespace profiling = lamella::detail::profiling;
using profiling::BlockUse;
using profiling::KernelCall;

const char* name(ProfiledPass pass) {
  static constexpr const char* kNames[] = {"forward", "gradient", "update"};
  return kNames[static_cast<int>(pass)];
}

const char* name(MemoryPurpose purpose) {
  static constexpr const char* kNames[] = {"parameters", "gradients", "activations",
                                           "optimizer",  "workspace", "other"};
  return kNames[static_cast<int>(purpose)];
}

MemoryPurpose purpose_of(const BlockUse& block) {
  if (block.purpose >= 0) return static_cast<MemoryPurpose>(block.purpose);
  if (!block.is_tensor) return MemoryPurpose::Workspace;
  if (block.pass == profiling::Pass::Gradient) return MemoryPurpose::Gradients;
  if (block.pass == profiling::Pass::Update) return MemoryPurpose::Optimizer;
  return block.op != nullptr ? MemoryPurpose::Activations : MemoryPurpose::Other;
}

std::string operator_of(const KernelCall& call) {
  return call.op != nullptr ? call.op : profiling::name_of_call(call.call);
}

namespace {

/// Bytes a second that copying a tensor, too large for caches, reads and writes; 0 where there is no memory
/// for it.
double measure_bandwidth(Device device, profiling::Log& log) {
  constexpr int kTimes = 5;
  const std::int64_t floats = std::int64_t{1} << (device.is_cuda() ? 26 : 24);
  double best = 0;
  try {
    const NoGrad no_grad;
    const Tensor from = zeros({floats}, {.device = device});
    Tensor to = zeros({floats}, {.device = device});
    for (int i = 0; i < kTimes; ++i) {
      double seconds = 0;
      if (log.clock) {
        const int before = log.clock->mark(current_stream(device));
        to.copy_(from);
        const int behind = log.clock->mark(current_stream(device));
        synchronize(device);
        seconds = log.clock->seconds_between(before, behind);
      } else {
        const double before = profiling::now();
        to.copy_(from);
        seconds = profiling::now() - before;
      }
      if (seconds > 0) best = std::max(best, 2.0 * sizeof(float) * static_cast<double>(floats) / seconds);
    }
  } catch (const OutOfMemoryError&) {
    return 0;
  }
  return best;
}

}  // namespace

Profile::Profile(Device device, const ProfileOptions& options) : record_(std::make_unique<Record>()) {
  record_->options = options;
  record_->log = std::make_shared<profiling::Log>();
  record_->log->device = device;
  const std::size_t before = memory_stats(device).in_use;  // says what is missing
  record_->log->in_use_before = before;
  profiling::open_log(record_->log);
}

Profile::~Profile() {
  try {
    record_->options.bandwidth = false;
    stop();
  } catch (const std::exception&) {  // a GPU's error, which whatever comes next on it throws again
    // Or this is another thread than that which called start(): it logs nothing more.
    if (!record_->is_stopped) profiling::close_log();
  }
}

void Profile::watch(const Tensor& tensor, MemoryPurpose purpose, const std::string& name) {
  if (!tensor.defined()) return;
  const void* const data = lamella::detail::TensorDoor::impl(tensor).storage->block.data;
  profiling::Log& log = *record_->log;
  const std::lock_guard lock(log.mutex);
  const auto found = log.in_use.find(data);
  if (found == log.in_use.end()) return;
  log.blocks[found->second].purpose = static_cast<int>(purpose);
  log.blocks[found->second].name = name;
}

void Profile::watch(const Module& network) {
  for (const auto& [name, parameter] : network.named_parameters()) {
    watch(parameter, MemoryPurpose::Parameters, name);
    watch(parameter.grad(), MemoryPurpose::Gradients, name);
  }
  for (const auto& [name, buffer] : network.named_buffers()) watch(buffer, MemoryPurpose::Parameters, name);
}

void Profile::start() {
  Record& record = *record_;
  LAMELLA_CHECK(Error, !record.is_stopped, "Profile::start: the profile was stopped; make another one");
  LAMELLA_CHECK(Error, !record.running, "Profile::start: it was started before");
  profiling::Log& log = *record.log;
  if (log.device.is_cuda()) {
    log.clock = lamella::detail::cuda::make_gpu_clock(log.device);
    record.clock_zero = profiling::now();
    if (record.options.head_start) log.clock->hold(current_stream(log.device), record.shortest_step);
  }
  {
    // What came and went in the meantime.
    const std::lock_guard lock(log.mutex);
    std::erase_if(log.blocks, [](const BlockUse& block) { return block.until >= 0; });
    log.in_use.clear();
    for (std::size_t i = 0; i < log.blocks.size(); ++i) log.in_use[log.blocks[i].data] = i;
  }
  record.running = true;
  record.thread = std::this_thread::get_id();
  record.marks.push_back(profiling::now());
  profiling::log_kernels(record.log, true);
}

void Profile::step() {
  Record& record = *record_;
  LAMELLA_CHECK(Error, record.running, "Profile::step: the profile is not between start() and stop()");
  LAMELLA_CHECK(Error, record.thread == std::this_thread::get_id(),
                "Profile::step: another thread called start(), and its operators are watched");
  profiling::drop_unfinished();
  const double now = profiling::now();
  record.shortest_step = std::min(record.shortest_step, now - record.marks.back());
  record.marks.push_back(now);
  profiling::Log& log = *record.log;
  if (log.clock && record.options.head_start)
    log.clock->hold(current_stream(log.device), record.shortest_step);
}

void Profile::stop() {
  Record& record = *record_;
  if (record.is_stopped) return;
  // That thread may be adding to what is read here.
  LAMELLA_CHECK(Error, !record.running || record.thread == std::this_thread::get_id(),
                "Profile::stop: another thread called start(), and has to call stop()");
  record.is_stopped = true;
  if (record.running) profiling::log_kernels(record.log, false);
  record.running = false;
  profiling::close_log();
  if (record.marks.empty()) record.marks.push_back(profiling::now());
  profiling::Log& log = *record.log;
  const double last = record.marks.back();
  while (!log.kernels.empty() && (log.kernels.back().begin > last || log.kernels.back().end == 0))
    log.kernels.pop_back();
  // One that never ended, because of what was thrown as it began.
  for (KernelCall& call : log.kernels) call.end = std::max(call.end, call.begin);
  record.gpu.spans.resize(log.kernels.size());
  record.gpu.alone.resize(log.kernels.size(), 0);
  if (log.clock) {
    synchronize(log.device);
    if (record.options.bandwidth) record.bandwidth = measure_bandwidth(log.device, log);
    record.gpu = event_times(log.kernels, *log.clock);
    for (EventTimes::Span& span : record.gpu.spans)
      span = {record.clock_zero + span.begin, record.clock_zero + span.end};
    log.clock = nullptr;
  } else if (record.options.bandwidth) {
    record.bandwidth = measure_bandwidth(log.device, log);
  }
}

std::int64_t Profile::steps() const { return std::max<std::int64_t>(0, std::ssize(record_->marks) - 1); }

double Profile::seconds() const {
  return record_->marks.empty() ? 0 : record_->marks.back() - record_->marks.front();
}

double Profile::bandwidth() const { return record_->bandwidth; }

std::vector<ProfiledKernel> Profile::kernels() const {
  const Record& record = *record_;
  if (!record.is_over()) return {};
  const bool on_gpu = record.log->device.is_cuda();
  std::map<std::tuple<std::string, std::string, int>, ProfiledKernel> sums;
  for (std::size_t i = 0; i < record.log->kernels.size(); ++i) {
    const KernelCall& call = record.log->kernels[i];
    const std::string kernel = profiling::name_of_call(call.call);
    ProfiledKernel& sum = sums[{operator_of(call), kernel, static_cast<int>(call.pass)}];
    sum.op = operator_of(call);
    sum.kernel = kernel;
    sum.pass = static_cast<ProfiledPass>(call.pass);
    ++sum.calls;
    sum.cpu_seconds += std::max(0.0, call.end - call.begin - call.inside);
    sum.gpu_seconds += record.gpu.alone[i];
    sum.bytes += call.read + call.written;
  }
  std::vector<ProfiledKernel> all;
  for (auto& [key, sum] : sums) {
    const double seconds = on_gpu ? sum.gpu_seconds : sum.cpu_seconds;
    // What goes from one device to another is not bounded by the memory of either.
    const bool stays = !sum.kernel.starts_with("copy_to_");
    if (record.bandwidth > 0 && seconds > 0 && sum.bytes > 0 && stays) {
      const double share = static_cast<double>(sum.bytes) / seconds / record.bandwidth;
      if (share <= 1) sum.share_of_bandwidth = share;
    }
    all.push_back(std::move(sum));
  }
  std::stable_sort(all.begin(), all.end(), [&](const ProfiledKernel& a, const ProfiledKernel& b) {
    return on_gpu ? a.gpu_seconds > b.gpu_seconds : a.cpu_seconds > b.cpu_seconds;
  });
  return all;
}

std::vector<MemoryMoment> Profile::memory() const {
  const Record& record = *record_;
  if (!record.is_over()) return {};
  const profiling::Log& log = *record.log;
  struct Change {
    double when;
    std::size_t purpose;
    std::int64_t bytes;
  };
  std::vector<Change> changes;
  for (const BlockUse& block : log.blocks) {
    const auto purpose = static_cast<std::size_t>(purpose_of(block));
    changes.push_back({block.from, purpose, static_cast<std::int64_t>(block.bytes)});
    if (block.until >= 0) changes.push_back({block.until, purpose, -static_cast<std::int64_t>(block.bytes)});
  }
  for (const auto& [when, bytes] : log.returned_earlier)
    changes.push_back(
        {when, static_cast<std::size_t>(MemoryPurpose::Other), -static_cast<std::int64_t>(bytes)});
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& a, const Change& b) { return a.when < b.when; });
  const double first = record.marks.front(), last = record.marks.back();
  MemoryMoment now{.in_use = std::vector<std::int64_t>(kPurposes, 0)};
  now.total = now.in_use[static_cast<std::size_t>(MemoryPurpose::Other)] =
      static_cast<std::int64_t>(log.in_use_before);
  std::vector<MemoryMoment> moments;
  for (const Change& change : changes) {
    if (change.when > last) break;
    if (moments.empty() && change.when > first) moments.push_back(now);  // as it began
    now.seconds = std::max(0.0, change.when - first);
    now.in_use[change.purpose] += change.bytes;
    now.total += change.bytes;
    if (change.when > first) moments.push_back(now);
  }
  if (moments.empty()) moments.push_back(now);
  return moments;
}

std::vector<MemoryShare> Profile::peak() const {
  const std::vector<MemoryMoment> moments = memory();
  if (moments.empty()) return {};
  const auto most = std::max_element(moments.begin(), moments.end(),
                                     [](const auto& a, const auto& b) { return a.total < b.total; });
  const profiling::Log& log = *record_->log;
  const double when = record_->marks.front() + most->seconds;
  std::map<std::pair<int, std::string>, MemoryShare> shares;
  std::map<std::pair<int, std::string>, std::size_t> largest;
  std::int64_t known = 0;
  // As memory() added it up: rounded, the moment may lie before what made it.
  constexpr double kRounding = 1e-9;
  for (const BlockUse& block : log.blocks) {
    if (block.from > when + kRounding || (block.until >= 0 && block.until <= when + kRounding)) continue;
    const MemoryPurpose purpose = purpose_of(block);
    const std::pair<int, std::string> key{static_cast<int>(purpose), block.op != nullptr ? block.op : ""};
    MemoryShare& share = shares[key];
    share.purpose = purpose;
    share.op = key.second;
    share.bytes += static_cast<std::int64_t>(block.bytes);
    ++share.blocks;
    known += static_cast<std::int64_t>(block.bytes);
    if (block.bytes <= largest[key]) continue;
    largest[key] = block.bytes;
    share.largest.clear();
    if (!block.is_tensor) continue;
    const std::span<const std::int64_t> sizes(block.sizes.data(), static_cast<std::size_t>(block.axes));
    share.largest = Shape(sizes).to_string() + ' ' + lamella::name(block.dtype);
    if (!block.name.empty()) share.largest += ' ' + block.name;
  }
  if (most->total > known)
    shares[{static_cast<int>(MemoryPurpose::Other), "before the profile"}] = {
        MemoryPurpose::Other, "before the profile", most->total - known, 0, ""};
  std::vector<MemoryShare> all;
  for (auto& [key, share] : shares) all.push_back(std::move(share));
  std::stable_sort(all.begin(), all.end(),
                   [](const MemoryShare& a, const MemoryShare& b) { return a.bytes > b.bytes; });
  return all;
}

}  // namespace lamella::train
