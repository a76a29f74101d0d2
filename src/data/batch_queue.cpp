#include "data/batch_queue.h"

#include <algorithm>
#include <utility>

namespace lamella::data::detail {

BatchQueue::BatchQueue(int workers, int prefetch, std::int64_t begin, std::int64_t end, Load load)
    : load_(std::move(load)),
      end_(end),
      slots_(static_cast<std::size_t>(workers) * static_cast<std::size_t>(prefetch)),
      started_(begin),
      taken_(begin) {
  const auto count = static_cast<std::size_t>(std::clamp<std::int64_t>(end - begin, 0, workers));
  threads_.reserve(count);
  try {
    for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this] { work(); });
  } catch (...) {
    stop_and_join();
    throw;
  }
}

BatchQueue::~BatchQueue() { stop_and_join(); }

void BatchQueue::stop_and_join() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  room_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BatchQueue::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    room_.wait(lock, [&] {
      return stop_ || started_ == end_ || started_ < taken_ + static_cast<std::int64_t>(slots_.size());
    });
    if (stop_ || started_ == end_) return;
    const std::int64_t number = started_++;
    lock.unlock();
    Batch batch;
    std::exception_ptr error;
    try {
      batch = load_(number, stop_);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    Slot& mine = slot(number);
    mine.batch = std::move(batch);
    // Moved: the last reference to the exception must be dropped by the thread that takes it.
    mine.error = std::move(error);
    mine.ready = true;
    ready_.notify_one();
  }
}

Batch BatchQueue::take(std::int64_t number) {
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [&] { return slot(number).ready; });
  Slot taken = std::exchange(slot(number), Slot{});
  taken_ = number + 1;
  lock.unlock();
  room_.notify_all();
  if (taken.error) std::rethrow_exception(std::move(taken.error));
  return std::move(taken.batch);
}

}  // namespace lamella::data::detail
