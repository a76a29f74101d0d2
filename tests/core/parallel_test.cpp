#include "core/parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "lamella/core/error.h"
#include "lamella/core/threads.h"

namespace lamella {
namespace {

using detail::parallel_for;
using Range = std::pair<std::int64_t, std::int64_t>;

class ParallelTest : public testing::Test {
 protected:
  void TearDown() override { set_num_threads(before_); }

 private:
  const int before_ = num_threads();
};

std::vector<Range> cut(std::int64_t n, std::int64_t grain) {
  std::mutex mutex;
  std::vector<Range> ranges;
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    std::lock_guard lock(mutex);
    ranges.emplace_back(begin, end);
  });
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

// Waits, as long as a test may, until `flag` is set by another thread.
bool wait_for(const std::atomic<bool>& flag) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!flag && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  return flag;
}

TEST_F(ParallelTest, covers_every_index_once) {
  set_num_threads(4);
  for (const std::int64_t n : {1, 2, 7, 64, 1000})
    for (const std::int64_t grain : {1, 3, 64, 5000}) {
      std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
      parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
      });
      for (const auto& count : hits) ASSERT_EQ(count, 1) << n << " by " << grain;
    }
}

TEST_F(ParallelTest, the_cut_depends_on_sizes_alone) {
  set_num_threads(1);
  const auto alone = cut(103, 10);
  ASSERT_EQ(alone.size(), 11u);
  EXPECT_EQ(alone[3], (Range{30, 40}));
  EXPECT_EQ(alone[10], (Range{100, 103}));
  for (const int threads : {2, 3, 8, 64}) {
    set_num_threads(threads);
    EXPECT_EQ(cut(103, 10), alone);
  }
}

TEST_F(ParallelTest, takes_temporaries_variables_and_constants) {
  set_num_threads(2);
  std::atomic<std::int64_t> sum{0};
  auto variable = [&](std::int64_t begin, std::int64_t end) { sum += end - begin; };
  const auto constant = variable;
  parallel_for(10, 3, variable);
  parallel_for(10, 3, constant);
  parallel_for(10, 3, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum, 30);
}

TEST_F(ParallelTest, nothing_to_do_calls_nothing) {
  EXPECT_TRUE(cut(0, 4).empty());
  EXPECT_TRUE(cut(-5, 4).empty());
}

TEST_F(ParallelTest, sizes_near_the_end_of_64_bits_do_not_overflow) {
  set_num_threads(2);
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  const std::int64_t half = kMost / 2;  // kMost = 2 * half + 1
  EXPECT_EQ(cut(kMost, half), (std::vector<Range>{{0, half}, {half, 2 * half}, {2 * half, kMost}}));
  EXPECT_EQ(cut(kMost, kMost), (std::vector<Range>{{0, kMost}}));
}

TEST_F(ParallelTest, a_grain_below_one_is_an_error) {
  EXPECT_THROW(cut(4, 0), Error);
  EXPECT_THROW(cut(4, -1), Error);
}

TEST_F(ParallelTest, uses_the_threads_it_was_given) {
  for (const int threads : {2, 4}) {
    set_num_threads(threads);
    // Each chunk waits for the others: only as many threads as chunks can finish.
    std::atomic<int> arrived{0};
    std::atomic<bool> all{false};
    std::mutex mutex;
    std::set<std::thread::id> ids;
    parallel_for(threads, 1, [&](std::int64_t, std::int64_t) {
      if (++arrived == threads) all = true;
      EXPECT_TRUE(wait_for(all));
      std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
    });
    EXPECT_EQ(static_cast<int>(ids.size()), threads);
    EXPECT_EQ(ids.count(std::this_thread::get_id()), 1u) << "the caller takes part";
  }
}

TEST_F(ParallelTest, one_thread_means_the_caller) {
  set_num_threads(1);
  parallel_for(10, 1, [caller = std::this_thread::get_id()](std::int64_t, std::int64_t) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
  });
}

TEST_F(ParallelTest, rethrows_the_failure_of_the_lowest_chunk) {
  for (const int threads : {1, 2, 4}) {
    set_num_threads(threads);
    for (int round = 0; round < 200; ++round) {
      try {
        parallel_for(100, 1, [&](std::int64_t begin, std::int64_t) {
          if (begin == 5 + round % 7) std::this_thread::yield();
          if (begin >= 5 + round % 7) throw std::runtime_error(std::to_string(begin));
        });
        FAIL() << "no exception";
      } catch (const std::runtime_error& error) {
        EXPECT_EQ(error.what(), std::to_string(5 + round % 7));
      }
    }
    EXPECT_EQ(cut(10, 1).size(), 10u) << "goes on after a failure";
  }
}

TEST_F(ParallelTest, a_slow_failure_of_a_lower_chunk_wins) {
  set_num_threads(2);
  std::atomic<bool> second_failed{false};
  try {
    parallel_for(2, 1, [&](std::int64_t begin, std::int64_t) {
      if (begin == 0) {
        EXPECT_TRUE(wait_for(second_failed));
        throw std::runtime_error("low");
      }
      second_failed = true;
      throw std::logic_error("high");
    });
    FAIL() << "no exception";
  } catch (const std::exception& error) {
    EXPECT_STREQ(error.what(), "low");
  }
}

TEST_F(ParallelTest, every_chunk_has_ended_when_an_exception_leaves) {
  set_num_threads(4);
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> running{0};
    EXPECT_THROW(parallel_for(64, 1,
                              [&](std::int64_t begin, std::int64_t) {
                                ++running;
                                if (begin != 0) std::this_thread::yield();
                                --running;
                                if (begin == 0) throw 1;
                              }),
                 int);
    EXPECT_EQ(running, 0);
  }
}

TEST_F(ParallelTest, a_nested_call_stays_in_its_thread) {
  for (const int threads : {1, 4}) {
    set_num_threads(threads);
    std::atomic<int> inner{0};
    parallel_for(8, 1, [&](std::int64_t, std::int64_t) {
      const auto outer = std::this_thread::get_id();
      std::int64_t next = 0;
      parallel_for(10, 3, [&](std::int64_t begin, std::int64_t end) {
        EXPECT_EQ(std::this_thread::get_id(), outer);
        EXPECT_EQ(begin, next);
        next = end;
        ++inner;
      });
    });
    EXPECT_EQ(inner, 8 * 4);
  }
}

TEST_F(ParallelTest, a_call_from_a_lone_chunk_stays_in_its_thread) {
  set_num_threads(4);
  parallel_for(1, 1, [](std::int64_t, std::int64_t) {
    const auto outer = std::this_thread::get_id();
    parallel_for(20, 1, [&](std::int64_t, std::int64_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // long enough for another thread to join in
      EXPECT_EQ(std::this_thread::get_id(), outer);
    });
  });
}

TEST_F(ParallelTest, begins_no_more_chunks_after_a_failure) {
  set_num_threads(2);
  std::atomic<int> begun{0};
  EXPECT_THROW(parallel_for(2000, 1,
                            [&](std::int64_t begin, std::int64_t) {
                              ++begun;
                              if (begin == 0) throw Error("first");
                              std::this_thread::sleep_for(std::chrono::milliseconds(1));
                            }),
               Error);
  EXPECT_LT(begun, 1000);
}

TEST_F(ParallelTest, a_nested_failure_reaches_the_outer_caller) {
  set_num_threads(4);
  EXPECT_THROW(parallel_for(8, 1,
                            [](std::int64_t, std::int64_t) {
                              parallel_for(2, 1, [](std::int64_t, std::int64_t) { throw Error("inner"); });
                            }),
               Error);
}

TEST_F(ParallelTest, a_busy_pool_leaves_the_work_to_the_caller) {
  set_num_threads(2);
  std::atomic<bool> busy{false}, done{false};
  std::thread owner([&] {
    parallel_for(2, 1, [&](std::int64_t, std::int64_t) {
      busy = true;
      EXPECT_TRUE(wait_for(done));
    });
  });
  ASSERT_TRUE(wait_for(busy));
  int chunks = 0;  // unguarded: one thread only
  parallel_for(10, 1, [&, caller = std::this_thread::get_id()](std::int64_t, std::int64_t) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    ++chunks;
  });
  EXPECT_EQ(chunks, 10);
  done = true;
  owner.join();
}

TEST_F(ParallelTest, many_callers_at_once_each_get_their_sum) {
  set_num_threads(4);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller)
    callers.emplace_back([caller] {
      for (int round = 0; round < 500; ++round) {
        const std::int64_t n = 1 + (caller * 131 + round) % 97;
        std::vector<std::int64_t> parts(
            static_cast<std::size_t>((n - 1) / 5 + 1));  // plain: a race would show
        parallel_for(n, 5, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) parts[static_cast<std::size_t>(begin / 5)] += i;
        });
        std::int64_t sum = 0;
        for (const std::int64_t part : parts) sum += part;
        ASSERT_EQ(sum, n * (n - 1) / 2);
      }
    });
  for (std::thread& caller : callers) caller.join();
}

TEST_F(ParallelTest, dense_and_sparse_calls_lose_nothing) {
  set_num_threads(3);
  std::int64_t total = 0;
  for (int round = 0; round < 3000; ++round) {
    std::int64_t parts[4] = {};
    parallel_for(4, 1, [&](std::int64_t begin, std::int64_t) { parts[begin] = begin + round; });
    for (const std::int64_t part : parts) total += part;
    if (round % 500 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the workers fall asleep
  }
  EXPECT_EQ(total, 3000ll * 6 + 4ll * 3000 * 2999 / 2);
}

TEST_F(ParallelTest, the_number_of_threads_may_change_between_calls) {
  for (const int threads : {1, 5, 2, 9, 1, 3}) {
    set_num_threads(threads);
    EXPECT_EQ(num_threads(), threads);
    EXPECT_EQ(cut(50, 1).size(), 50u);
  }
}

TEST_F(ParallelTest, refuses_absurd_numbers_of_threads) {
  const int before = num_threads();
  for (const int count : {0, -1, 1025}) EXPECT_THROW(set_num_threads(count), Error);
  EXPECT_EQ(num_threads(), before);
  set_num_threads(2);
  EXPECT_THROW(parallel_for(4, 1, [](std::int64_t, std::int64_t) { set_num_threads(3); }), Error);
  EXPECT_EQ(num_threads(), 2);
}

// The start value is read once, so it is asked of fresh processes: this program again, in a death test.
TEST(ParallelStartDeathTest, reads_the_environment) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const auto report = [] {
    std::fprintf(stderr, "started with %d.\n", num_threads());
    std::exit(0);
  };
  const auto expect = [&](const char* text, const std::string& warning, int threads) {
    SCOPED_TRACE(text);
    setenv("LAMELLA_NUM_THREADS", text, 1);
    EXPECT_EXIT(report(), testing::ExitedWithCode(0),
                warning + "started with " + std::to_string(threads) + "\\.");
    unsetenv("LAMELLA_NUM_THREADS");
  };
  expect("3", "^", 3);
  expect("1", "^", 1);
  expect("1024", "^", 1024);
  expect("", "^", cores);
  for (const char* text : {"0", "-1", "1025", "2x", "many"})
    expect(text, "warning: LAMELLA_NUM_THREADS=\"" + std::string(text) + "\" is not a number.*\n", cores);
}

}  // namespace
}  // namespace lamella
