#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "lamella/data/transforms.h"

namespace lamella::data::detail {

/// Threads that make batches ahead of the one who takes them, in order. Destruction stops and joins them.
class BatchQueue {
 public:
  /// Makes batch `number`; may give up with any result once `stop` is set. Called by several threads at a
  /// time.
  using Load = std::function<Batch(std::int64_t number, const std::atomic<bool>& stop)>;

  /// For the numbers begin … end - 1; at most workers * prefetch batches are finished or under way.
  BatchQueue(int workers, int prefetch, std::int64_t begin, std::int64_t end, Load load);
  ~BatchQueue();
  BatchQueue(const BatchQueue&) = delete;
  BatchQueue& operator=(const BatchQueue&) = delete;

  /// Waits for the next batch, `number`, or throws what its making threw.
  Batch take(std::int64_t number);

 private:
  struct Slot {
    bool ready = false;
    Batch batch;
    std::exception_ptr error;
  };
  Slot& slot(std::int64_t number) { return slots_[static_cast<std::size_t>(number) % slots_.size()]; }
  void work();
  void stop_and_join() noexcept;

  const Load load_;
  const std::int64_t end_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable room_, ready_;
  std::int64_t started_ = 0, taken_ = 0;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace lamella::data::detail
