#include "lamella/core/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "core/philox.h"
#include "lamella/core/error.h"

namespace lamella {
namespace {

using detail::next_random_key;
using detail::PhiloxBlock;
using detail::RandomKey;

class RandomTest : public testing::Test {
 protected:
  void TearDown() override { set_random_state(before_); }

 private:
  const RandomState before_ = random_state();
};

std::vector<std::uint32_t> lanes(const PhiloxBlock& block) { return {block.lane, block.lane + 4}; }

// The known answers that Random123 publishes for philox4x32 with 10 rounds.
TEST(PhiloxTest, gives_the_published_answers) {
  using Lanes = std::vector<std::uint32_t>;
  EXPECT_EQ(lanes(detail::philox4x32(0, 0, 0)), (Lanes{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(lanes(detail::philox4x32(~0ull, ~0ull, ~0ull)),
            (Lanes{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(lanes(detail::philox4x32(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e)),
            (Lanes{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, uniforms_fill_the_unit_interval) {
  EXPECT_EQ(detail::uniform01(0), 0.0f);
  EXPECT_EQ(detail::uniform01(0xffffffffu), 1.0f - 0x1p-24f);
  EXPECT_EQ(detail::uniform01(0x80000000u), 0.5f);
  int histogram[16] = {};
  constexpr int kBlocks = 1 << 14;
  for (int block = 0; block < kBlocks; ++block)
    for (const std::uint32_t bits : detail::philox4x32(3, static_cast<std::uint64_t>(block), 0).lane)
      ++histogram[static_cast<int>(detail::uniform01(bits) * 16)];
  const double expected = kBlocks * 4 / 16.0;
  double chi_square = 0;
  for (const int count : histogram) chi_square += (count - expected) * (count - expected) / expected;
  EXPECT_LT(chi_square, 45);  // 15 degrees of freedom: exceeded by chance once in ten thousand
}

TEST(PhiloxTest, step_and_operator_choose_other_numbers) {
  std::set<std::vector<std::uint32_t>> seen;
  for (const std::uint64_t step : {0, 1, 2})
    for (const std::uint32_t op : {0u, 1u, 0xffffffffu})
      for (const std::uint64_t block : {0ull, 1ull, 1ull << 40}) {
        RandomKey key;
        key.op = op;
        seen.insert(lanes(detail::random_block(key, step, block)));
      }
  EXPECT_EQ(seen.size(), 27u);
}

TEST_F(RandomTest, keys_count_operators_within_the_step) {
  manual_seed(42);
  EXPECT_EQ(random_state(), (RandomState{.seed = 42, .step = 0, .op = 0}));
  const RandomKey first = next_random_key(Device::cpu()), second = next_random_key(Device::cpu());
  EXPECT_EQ(first.seed, 42u);
  EXPECT_EQ(first.op, 0u);
  EXPECT_EQ(second.op, 1u);
  EXPECT_EQ(first.step(), 0u);
  next_random_step();
  EXPECT_EQ(random_state(), (RandomState{.seed = 42, .step = 1, .op = 0}));
  EXPECT_EQ(next_random_key(Device::cpu()).step(), 1u);
  EXPECT_EQ(random_state().op, 1u);
}

TEST_F(RandomTest, seeding_restarts_the_sequence) {
  manual_seed(~0ull);
  next_random_step();
  next_random_key(Device::cpu());
  manual_seed(7);
  EXPECT_EQ(random_state(), (RandomState{.seed = 7, .step = 0, .op = 0}));
  EXPECT_EQ(next_random_key(Device::cpu()).step(), 0u);
}

TEST_F(RandomTest, a_restored_state_draws_the_same) {
  manual_seed(5);
  next_random_step();
  next_random_key(Device::cpu());
  const RandomState state = random_state();
  const auto draw = [] {
    const RandomKey key = next_random_key(Device::cpu());
    return lanes(detail::random_block(key, key.step(), 3));
  };
  const auto first = draw(), second = draw();
  EXPECT_NE(first, second);
  manual_seed(999);
  EXPECT_NE(draw(), first);
  set_random_state(state);
  EXPECT_EQ(draw(), first);
  EXPECT_EQ(draw(), second);
}

TEST_F(RandomTest, threads_never_share_a_key) {
  manual_seed(1);
  std::vector<std::vector<std::uint32_t>> taken(4);
  std::vector<std::thread> threads;
  for (auto& ops : taken)
    threads.emplace_back([&ops] {
      for (int i = 0; i < 1000; ++i) ops.push_back(next_random_key(Device::cpu()).op);
    });
  for (std::thread& thread : threads) thread.join();
  std::set<std::uint32_t> all;
  for (const auto& ops : taken) all.insert(ops.begin(), ops.end());
  EXPECT_EQ(all.size(), 4000u);
  EXPECT_EQ(*all.rbegin(), 3999u);
}

TEST_F(RandomTest, a_key_keeps_the_step_it_was_taken_in) {
  manual_seed(1);
  next_random_step();
  const RandomKey key = next_random_key(Device::cpu());
  next_random_step();
  EXPECT_EQ(key.step(), 1u);
}

TEST_F(RandomTest, no_draw_repeats_while_another_thread_steps) {
  manual_seed(1);
  std::vector<std::vector<std::pair<std::uint64_t, std::uint32_t>>> taken(3);
  std::atomic<bool> done{false};
  std::thread stepping([&] {
    while (!done) next_random_step();
  });
  std::vector<std::thread> threads;
  for (auto& keys : taken)
    threads.emplace_back([&keys] {
      for (int i = 0; i < 2000; ++i) {
        const RandomKey key = next_random_key(Device::cpu());
        keys.emplace_back(key.drawn_step, key.op);
      }
    });
  for (std::thread& thread : threads) thread.join();
  done = true;
  stepping.join();
  std::set<std::pair<std::uint64_t, std::uint32_t>> all;
  for (const auto& keys : taken) all.insert(keys.begin(), keys.end());
  EXPECT_EQ(all.size(), 6000u);
}

TEST_F(RandomTest, an_absent_gpu_takes_no_key) {
  const RandomState before = random_state();
  EXPECT_THROW(next_random_key(Device::cuda(cuda_device_count())), DeviceError);
  EXPECT_EQ(random_state(), before);
}

}  // namespace
}  // namespace lamella
