#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "core/allocator.h"
#include "core/check.h"
#include "core/growing_space.h"
#include "core/profiling.h"
#include "core/readable.h"

namespace lamella::detail {
namespace {

constexpr std::size_t kLarge = std::size_t{1} << 20;  // from here on blocks are cut from growing spaces
constexpr std::size_t kLargest = std::size_t{1} << 62;

// Multiples of 512 bytes; from 4 KiB on, eight sizes per power of two, so at most an eighth of a block is
// unused.
std::size_t size_class(std::size_t bytes) {
  return round_up(bytes, std::max(GrowingSpace::kGranule, std::bit_floor(bytes) / 8));
}

thread_local const Allocator* pool_owner = nullptr;
thread_local std::uint64_t current_pool = 0;

class CachingAllocator final : public Allocator {
 public:
  CachingAllocator(Device device, std::unique_ptr<RawMemory> raw) : device_(device), raw_(std::move(raw)) {}
  ~CachingAllocator() override {
    for (const Waiting& waiting : waiting_)
      if (space_of(waiting.block) == nullptr) release(waiting.block.data, waiting.block.bytes);
    raw_->wait_for_device();
    spaces_.clear();
    pools_.clear();
    release_cache();
  }

  Block allocate(std::size_t bytes, Stream stream) override {
    if (bytes == 0) return {};
    std::lock_guard lock(mutex_);
    if (bytes > kLargest) throw_out_of_memory(bytes);
    const bool is_cut = bytes >= kLarge && raw_->chunk_bytes() != 0;
    const std::size_t block_bytes = is_cut ? round_up(bytes, GrowingSpace::kGranule) : size_class(bytes);
    const std::uint64_t pool = pool_owner == this ? current_pool : 0;
    collect_waiting();
    const Key key{pool, stream.handle, block_bytes};
    const auto take = [&] { return is_cut ? take_piece(key) : nullptr; };
    const auto take_new = [&] { return is_cut ? grow(key) : take_raw(block_bytes); };
    void* data = take();
    if (data == nullptr) data = take_cached(key);
    if (data == nullptr) data = take_new();
    if (data == nullptr) {
      release_cache();
      data = take_new();
    }
    if (data == nullptr && wait_for_waiting()) {
      data = take();
      if (data == nullptr) data = take_cached(key);
      if (data == nullptr) {
        release_cache();
        data = take_new();
      }
    }
    // There may be less than a chunk, and yet enough.
    if (data == nullptr && is_cut) data = take_raw(block_bytes);
    if (data == nullptr) throw_out_of_memory(bytes);
    ++stats_.allocations;
    stats_.in_use += block_bytes;
    stats_.peak_in_use = std::max(stats_.peak_in_use, stats_.in_use);
    raw_->mark_usable(data, bytes, block_bytes);
    if (profiling::on()) profiling::block_taken(device_, data, block_bytes);
    return {data, block_bytes, pool};
  }

  void deallocate(Block block, Stream stream) noexcept override {
    if (block.data == nullptr) return;
    std::lock_guard lock(mutex_);
    if (profiling::on()) profiling::block_returned(device_, block.data, block.bytes);
    stats_.in_use -= block.bytes;
    const auto used = used_on_.extract(block.data);
    try {
      if (used.empty()) {
        keep(block, stream);
        return;
      }
      Waiting waiting{block, stream, used.mapped(), {}};
      if (raw_->may_ask()) mark(waiting);
      waiting_.push_back(std::move(waiting));
    } catch (const std::exception&) {
      if (GrowingSpace* const space = space_of(block)) {
        raw_->wait_for_device();
        space->give_back(block.data);
      } else {
        release(block.data, block.bytes);
      }
    }
  }

  void record_stream(const Block& block, Stream stream) override {
    if (block.data == nullptr) return;
    std::lock_guard lock(mutex_);
    std::vector<Stream>& streams = used_on_[block.data];
    if (std::find(streams.begin(), streams.end(), stream) == streams.end()) streams.push_back(stream);
  }

  std::uint64_t new_pool() override {
    std::lock_guard lock(mutex_);
    pools_.insert(++last_pool_);
    return last_pool_;
  }

  void release_pool(std::uint64_t pool, Stream stream) noexcept override {
    std::lock_guard lock(mutex_);
    pools_.erase(pool);
    of_ended_pools_ = stream;
    for (auto entry = spaces_.begin(); entry != spaces_.end();) {
      if (entry->first.first != pool) {
        ++entry;
        continue;
      }
      try {
        Spaces& common = spaces_[{0, stream.handle}];
        common.splice(common.end(), entry->second);
        entry = spaces_.erase(entry);
      } catch (const std::bad_alloc&) {
        ++entry;  // nobody gets blocks from there any more, but release_cache() unmaps it
      }
    }
    for (auto entry = cache_.begin(); entry != cache_.end();) {
      if (std::get<0>(entry->first) != pool) {
        ++entry;
        continue;
      }
      try {
        std::vector<void*>& common = cache_[{0, stream.handle, std::get<2>(entry->first)}];
        common.insert(common.end(), entry->second.begin(), entry->second.end());
      } catch (const std::bad_alloc&) {
        for (void* data : entry->second) release(data, std::get<2>(entry->first));
      }
      entry = cache_.erase(entry);
    }
  }

  MemoryStats stats() const override {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() override {
    std::lock_guard lock(mutex_);
    stats_.peak_in_use = stats_.in_use;
    stats_.peak_reserved = stats_.reserved;
  }

  void empty_cache() override {
    std::lock_guard lock(mutex_);
    release_cache();
  }

  void set_limit(std::size_t bytes) override {
    std::lock_guard lock(mutex_);
    stats_.limit = bytes;
    if (bytes != 0 && stats_.reserved > bytes) release_cache();
  }

 private:
  // Pool, stream, and size class, or bytes of a cut block.
  using Key = std::tuple<std::uint64_t, void*, std::size_t>;

  using Spaces = std::list<std::unique_ptr<GrowingSpace>>;

  /// A block that other streams were using when it was taken back.
  struct Waiting {
    Block block;
    Stream stream;
    std::vector<Stream> unmarked;  // as long as asking is forbidden: a mark would be recorded
    std::vector<void*> marks;
  };

  void mark(Waiting& waiting) {
    while (!waiting.unmarked.empty()) {
      waiting.marks.push_back(raw_->mark_stream(waiting.unmarked.back()));
      waiting.unmarked.pop_back();
    }
  }

  void keep(const Block& block, Stream stream) {
    if (GrowingSpace* const space = space_of(block)) {
      space->give_back(block.data);
      raw_->mark_usable(block.data, 0, block.bytes);
      return;
    }
    const bool has_ended = block.pool != 0 && !pools_.contains(block.pool);
    const std::uint64_t pool = has_ended ? 0 : block.pool;
    cache_[{pool, (has_ended ? of_ended_pools_ : stream).handle, block.bytes}].push_back(block.data);
    raw_->mark_usable(block.data, 0, block.bytes);
  }

  void collect_waiting() {
    if (waiting_.empty() || !raw_->may_ask()) return;
    for (auto waiting = waiting_.begin(); waiting != waiting_.end();) {
      mark(*waiting);
      std::erase_if(waiting->marks, [&](void* mark) { return mark == nullptr || raw_->reached(mark); });
      if (waiting->marks.empty()) {
        keep(waiting->block, waiting->stream);
        waiting = waiting_.erase(waiting);
      } else {
        ++waiting;
      }
    }
  }

  /// Waits for the other streams' work on blocks that were taken back. False if there are none, or if asking
  /// is forbidden.
  bool wait_for_waiting() {
    if (waiting_.empty() || !raw_->may_ask()) return false;
    for (Waiting& waiting : waiting_) {
      mark(waiting);
      for (void* mark : waiting.marks)
        if (mark != nullptr) raw_->wait_for(mark);
    }
    collect_waiting();
    return true;
  }

  void* take_cached(const Key& key) {
    const auto found = cache_.find(key);
    if (found == cache_.end() || found->second.empty()) return nullptr;
    void* data = found->second.back();
    found->second.pop_back();
    return data;
  }

  void* take_raw(std::size_t bytes) {
    if (!is_within_limit(bytes)) return nullptr;
    void* data = raw_->allocate(bytes);
    if (data != nullptr) count_taken(bytes, 1);
    return data;
  }

  bool is_within_limit(std::size_t bytes) const {
    return stats_.limit == 0 || (stats_.reserved <= stats_.limit && bytes <= stats_.limit - stats_.reserved);
  }

  void count_taken(std::size_t bytes, std::size_t requests) {
    stats_.device_allocations += requests;
    stats_.reserved += bytes;
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
  }

  /// Of the spaces that the key's pool and stream have; more than one if pools have ended.
  void* take_piece(const Key& key) {
    const auto& [pool, stream, bytes] = key;
    const auto found = spaces_.find({pool, stream});
    if (found == spaces_.end()) return nullptr;
    for (const auto& space : found->second)
      if (void* const data = space->take(bytes)) return data;
    return nullptr;
  }

  /// A block of the space that must grow least for it.
  void* grow(const Key& key) {
    const std::size_t bytes = std::get<2>(key);
    Spaces& spaces = spaces_[{std::get<0>(key), std::get<1>(key)}];
    GrowingSpace* best = nullptr;
    std::size_t least = 0;
    const auto consider = [&](GrowingSpace& space) {
      const std::optional<std::size_t> growth = space.growth(bytes);
      if (!growth || (best != nullptr && *growth >= least)) return;
      best = &space;
      least = *growth;
    };
    for (const auto& space : spaces) consider(*space);
    if (best == nullptr && bytes <= raw_->capacity()) {
      auto space = GrowingSpace::make(*raw_);
      if (space == nullptr) return nullptr;
      consider(*spaces.emplace_back(std::move(space)));
    }
    if (best == nullptr || !is_within_limit(least)) return nullptr;
    const std::size_t chunks = best->chunks();
    void* const data = best->grow_and_take(bytes);
    if (data != nullptr) count_taken(least, best->chunks() - chunks);
    return data;
  }

  GrowingSpace* space_of(const Block& block) const noexcept {
    if (block.bytes < kLarge) return nullptr;
    for (const auto& [key, spaces] : spaces_)
      for (const auto& space : spaces)
        if (space->contains(block.data)) return space.get();
    return nullptr;
  }

  void release(void* data, std::size_t bytes) noexcept {
    raw_->mark_usable(data, bytes, bytes);
    raw_->release(data, bytes);
    ++stats_.device_releases;
    stats_.reserved -= bytes;
  }

  /// All but what belongs to a pool in use: recorded work may write there at any time.
  void release_cache() noexcept {
    release_idle_chunks();
    for (auto entry = cache_.begin(); entry != cache_.end();) {
      if (pools_.contains(std::get<0>(entry->first))) {
        ++entry;
        continue;
      }
      for (void* data : entry->second) release(data, std::get<2>(entry->first));
      entry = cache_.erase(entry);
    }
  }

  void release_idle_chunks() noexcept {
    bool has_waited = false;
    for (auto entry = spaces_.begin(); entry != spaces_.end();) {
      Spaces& spaces = entry->second;
      if (pools_.contains(entry->first.first)) {
        ++entry;
        continue;
      }
      for (const auto& space : spaces) {
        if (!space->has_idle()) continue;
        if (!std::exchange(has_waited, true)) raw_->wait_for_device();
        const std::size_t bytes = space->mapped(), chunks = space->chunks();
        space->unmap_idle();
        stats_.device_releases += chunks - space->chunks();
        stats_.reserved -= bytes - space->mapped();
      }
      spaces.remove_if([](const auto& space) { return space->mapped() == 0; });
      entry = spaces.empty() ? spaces_.erase(entry) : std::next(entry);
    }
  }

  [[noreturn]] void throw_out_of_memory(std::size_t bytes) const {
    const std::size_t capacity = stats_.limit != 0 ? stats_.limit : raw_->capacity();
    const OutOfMemoryError::Report report{.requested = bytes,
                                          .in_use = stats_.in_use,
                                          .cached = stats_.reserved - stats_.in_use,
                                          .peak = stats_.peak_in_use,
                                          .capacity = capacity};
    std::string message = concat("out of memory on ", device_.to_string(), ": requested ", readable(bytes),
                                 " (", bytes, " bytes); in use ", readable(report.in_use), ", cached ",
                                 readable(report.cached), ", peak ", readable(report.peak));
    if (stats_.limit != 0) {
      message += ", limit " + readable(capacity) + " (set_memory_limit)";
    } else if (capacity != 0) {
      message += ", capacity " + readable(capacity);
    }
    throw OutOfMemoryError(message, report);
  }

  const Device device_;
  const std::unique_ptr<RawMemory> raw_;
  mutable std::mutex mutex_;
  MemoryStats stats_;
  std::map<Key, std::vector<void*>> cache_;
  std::map<std::pair<std::uint64_t, void*>, Spaces> spaces_;  // by pool and stream
  std::map<void*, std::vector<Stream>> used_on_;              // beyond the streams they were allocated for
  std::list<Waiting> waiting_;
  std::set<std::uint64_t> pools_;
  std::uint64_t last_pool_ = 0;
  Stream of_ended_pools_;  // whose blocks theirs become: their work is done
};

}  // namespace

PoolGuard::PoolGuard(const Allocator& allocator, std::uint64_t pool)
    : allocator_before_(std::exchange(pool_owner, &allocator)),
      pool_before_(std::exchange(current_pool, pool)) {}

PoolGuard::~PoolGuard() {
  pool_owner = allocator_before_;
  current_pool = pool_before_;
}

std::unique_ptr<Allocator> make_caching_allocator(Device device, std::unique_ptr<RawMemory> raw) {
  return std::make_unique<CachingAllocator>(device, std::move(raw));
}

}  // namespace lamella::detail
