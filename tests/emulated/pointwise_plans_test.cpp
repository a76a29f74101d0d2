#include <gtest/gtest.h>

#include <string>

#include "layers/conv/cuda/pointwise/plan.h"

namespace lamella::pointwise::checks {
namespace {

constexpr int kMostShared = 227 << 10;

/// Calls check(problem) for what MobileNets have, and for odd ones.
template <class Check>
void for_problems(const Check& check) {
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight})
    for (const int in : {8, 16, 24, 32, 72, 96, 160, 512, 1280})
      for (const int out : {8, 16, 24, 40, 128, 184, 576, 1024})
        for (const std::int64_t pixels : {1, 49, 12544, 802816, 3211264}) {
          Problem problem;
          problem.pass = pass, problem.pixels = pixels;
          problem.in_channels = in, problem.out_channels = out;
          for (const bool folds_in : {false, true}) {
            if (pass != Pass::Input && folds_in) problem.load = Load::Clamp;
            if (pass == Pass::Forward && folds_in) problem.hook = Hook::Moments;
            if (pass == Pass::Input && folds_in) problem.hook = Hook::ClampSums;
            problem.bias = pass == Pass::Weight && folds_in;
            SCOPED_TRACE(std::to_string(in) + " to " + std::to_string(out) + " channels, " +
                         std::to_string(pixels) + " pixels, pass " + std::to_string(static_cast<int>(pass)));
            check(problem);
            if (::testing::Test::HasFailure()) return;
          }
        }
}

TEST(Plans, every_problem_has_some_that_fit_the_gpu) {
  for_problems([](Problem problem) {
    problem.shared_bytes = 99 << 10;  // as GPUs of compute capability 12.0 have it
    ASSERT_FALSE(plans_for(problem).empty());
    for (const Plan& plan : plans_for(problem)) EXPECT_LE(plan.launch.shared_bytes, problem.shared_bytes);
    problem.shared_bytes = kMostShared;
    const std::vector<Plan> plans = plans_for(problem);
    ASSERT_FALSE(plans.empty());
    for (const Plan& plan : plans) {
      EXPECT_GT(plan.launch.blocks, 0) << plan.what;
      EXPECT_LE(plan.launch.shared_bytes * plan.blocks_of_sm, kMostShared) << plan.what;
      EXPECT_LE(plan.launch.threads, 512) << plan.what;
      EXPECT_GT(plan.cost, 0) << plan.what;
      EXPECT_GE(plan.cost, plans.front().cost) << plan.what;
    }
  });
}

TEST(Plans, every_pixel_is_in_one_item) {
  for_problems([](const Problem& problem) {
    for (const Plan& plan : plans_for(problem)) {
      const bool weight = problem.pass == Pass::Weight;
      const int items = weight ? plan.weigh.items : plan.work.items,
                of_part = weight ? plan.weigh.items_per_part : plan.work.items_per_part;
      EXPECT_GE(std::int64_t{items} * plan.item_pixels, problem.pixels) << plan.what;
      EXPECT_LT(std::int64_t{items - 1} * plan.item_pixels, problem.pixels) << plan.what;
      // No part is empty: its mean would be no number.
      EXPECT_GE(std::int64_t{plan.launch.parts} * of_part, items) << plan.what;
      EXPECT_LT(std::int64_t{plan.launch.parts - 1} * of_part, items) << plan.what;
    }
  });
}

TEST(Plans, boxes_are_such_as_the_copy_engine_moves) {
  for_problems([](const Problem& problem) {
    for (const Plan& plan : plans_for(problem))
      for (const BoxShape& box : {plan.x, plan.weights, plan.y, plan.z, plan.g}) {
        if (box.channels == 0) continue;
        EXPECT_LE(box.rows, 256) << plan.what;
        EXPECT_TRUE(box.channels == 16 || box.channels == 32 || box.channels == 64) << plan.what;
        EXPECT_EQ(problem.pixels % box.fold, 0) << plan.what;
      }
  });
}

TEST(Plans, other_channels_and_types_have_none) {
  Problem problem;
  problem.pixels = 100, problem.in_channels = 16, problem.out_channels = 24;
  EXPECT_TRUE(can_plan(problem));
  problem.in_channels = 20;
  EXPECT_TRUE(plans_for(problem).empty());
  problem.in_channels = 16, problem.dtype = DType::Float32;
  EXPECT_TRUE(plans_for(problem).empty());
  problem.dtype = DType::Float16, problem.pixels = 0;
  EXPECT_TRUE(plans_for(problem).empty());
}

}  // namespace
}  // namespace lamella::pointwise::checks
