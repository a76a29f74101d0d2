#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "autograd/record.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/memory.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::random_tensor;

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Tensor leaf(std::initializer_list<double> values) {
  return tensor(values, {.dtype = float64, .requires_grad = true});
}

TEST(EngineTest, adds_up_every_path) {
  const Tensor x = leaf({3});
  const Tensor y = x * x;
  (y * x + y).backward();  // x³ + x²
  EXPECT_THAT(x.grad(), IsClose(tensor({33})));
}

TEST(EngineTest, gradients_add_until_zeroed_and_then_overwrite) {
  Tensor x = leaf({1, 2});
  const auto run = [&] { sum(x * 3.0).backward(); };
  run();
  run();
  EXPECT_THAT(x.grad(), IsClose(tensor({6, 6})));
  x.grad().fill_(NAN);
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  const void* memory = nullptr;
  run();
  memory = x.grad().data<double>();
  EXPECT_THAT(x.grad(), IsClose(tensor({3, 3})));
  x.zero_grad();
  run();
  EXPECT_EQ(x.grad().data<double>(), memory) << "zero_grad keeps the memory";
}

TEST(EngineTest, one_tensor_may_be_both_operands) {
  const Tensor x = leaf({2, 5});
  sum(x * x).backward();
  EXPECT_THAT(x.grad(), IsClose(tensor({4, 10})));
  const Tensor y = leaf({2, 5});
  sum(y + y).backward();
  EXPECT_THAT(y.grad(), IsClose(tensor({2, 2})));
  const Tensor z = leaf({2, 5});
  sum(z / z).backward();
  EXPECT_THAT(z.grad(), IsClose(tensor({0, 0}), {0, 1e-12}));
}

TEST(EngineTest, a_gradient_handed_to_two_tensors_is_not_shared) {
  const Tensor a = leaf({1}), b = leaf({2});
  const Tensor s = a + b;  // both edges get the same tensor
  (s * 1.0).reshape({}).backward();
  Tensor grad = a.grad();
  grad.fill_(100);
  EXPECT_THAT(b.grad(), IsClose(tensor({1})));
}

TEST(EngineTest, a_gradient_handed_over_is_added_to_in_place_once_nobody_else_holds_it) {
  for (const bool kept : {false, true}) {
    const Tensor x = leaf({1, 2}), h = x * 1.0;
    const void *handed = nullptr, *written = nullptr;
    Tensor held;
    const auto zero = [] { return detail::Output::of(zeros({}, {.dtype = float64})); };
    // The walk meets the one that was recorded last first.
    const Tensor adds = detail::record("adds", {h}, zero(), [&](detail::GradientContext& context) {
      const detail::GradientTarget dx = context.target(0);
      EXPECT_EQ(dx.write, detail::GradientWrite::Accumulate);
      written = dx.view.data;
      for (std::int64_t i = 0; i < 2; ++i) dx.view.as<double>()[i] += 10;
    });
    const Tensor hands = detail::record("hands", {h}, zero(), [&](detail::GradientContext& context) {
      const Tensor gradient = tensor({3, 4}, {.dtype = float64});
      handed = detail::read(gradient).data;
      if (kept) held = gradient;
      context.add(0, gradient);
    });
    (adds + hands).backward();
    EXPECT_EQ(written == handed, !kept);
    EXPECT_EQ(x.grad().to_vector<double>(), (std::vector<double>{13, 14}));
    if (kept) {
      EXPECT_EQ(held.to_vector<double>(), (std::vector<double>{3, 4}));
    }
  }
}

TEST(EngineTest, leaves_without_requires_grad_get_nothing) {
  const Tensor x = leaf({1}), c = tensor({4}, {.dtype = float64});
  (x * c).backward();
  EXPECT_FALSE(c.grad().defined());
  EXPECT_THAT(x.grad(), IsClose(tensor({4})));
}

TEST(EngineTest, the_graph_is_freed_unless_retained) {
  const Tensor x = leaf({2});
  const Tensor y = x * x;
  y.backward({}, true);
  y.backward();
  EXPECT_THAT(x.grad(), IsClose(tensor({8})));
  EXPECT_THAT(error_of([&] { y.backward(); }), AllOf(HasSubstr("mul"), HasSubstr("retain_graph")));
}

TEST(EngineTest, checks_the_root_and_its_gradient) {
  const Tensor x = leaf({1, 2});
  EXPECT_THAT(error_of([&] { (x * 2.0).backward(); }), HasSubstr("more than one element"));
  EXPECT_THROW((x * 2.0).backward(ones({3}, {.dtype = float64})), ShapeError);
  EXPECT_THROW((x * 2.0).backward(ones({2})), DTypeError);
  EXPECT_THROW(x.detach().backward(ones({2}, {.dtype = float64})), Error);
  x.backward(full({2}, 7, {.dtype = float64}));  // a leaf is its own root
  EXPECT_THAT(x.grad(), IsClose(tensor({7, 7})));
}

TEST(EngineTest, notices_an_in_place_change_of_a_saved_tensor_and_names_both_operators) {
  const Tensor x = leaf({2});
  Tensor c = tensor({3}, {.dtype = float64});
  const Tensor y = x * c;
  c.fill_(4);
  EXPECT_THAT(error_of([&] { y.backward(); }), AllOf(HasSubstr("mul"), HasSubstr("fill_")));
}

TEST(EngineTest, refuses_in_place_changes_of_what_is_recorded) {
  Tensor x = leaf({2});
  EXPECT_THROW(x.fill_(1), Error);
  EXPECT_THROW(x.mutable_data<double>(), Error);
  const NoGrad no_grad;
  x.fill_(1);
  EXPECT_EQ(x.item(), 1);
}

TEST(EngineTest, only_leaves_may_set_requires_grad) {
  Tensor y = leaf({1}) * 2.0;
  EXPECT_FALSE(y.is_leaf());
  EXPECT_THROW(y.set_requires_grad(false), Error);
  EXPECT_THROW(full({1}, 1, {.dtype = int64}).set_requires_grad(), DTypeError);
  EXPECT_FALSE(y.detach().requires_grad());
}

TEST(EngineTest, hooks_see_the_finished_gradient_once_and_may_change_it) {
  Tensor x = leaf({3});
  Tensor y = x * 2.0;
  int calls = 0;
  y.register_hook([&](const Tensor& g) {
    ++calls;
    EXPECT_EQ(g.item(), 5);
    return g * 10.0;
  });
  (y * 2.0 + y * 3.0).backward();
  EXPECT_EQ(calls, 1);
  EXPECT_THAT(x.grad(), IsClose(tensor({100})));

  x.zero_grad();
  x.register_hook([&](const Tensor& g) {
    ++calls;
    return g + 1.0;
  });
  (x * 2.0 + x * 3.0).backward();
  EXPECT_EQ(calls, 2);
  EXPECT_THAT(x.grad(), IsClose(tensor({6})));
  (x * 1.0).backward();
  EXPECT_THAT(x.grad(), IsClose(tensor({8})));
  y = x * 1.0;
  y.register_hook([](const Tensor&) { return zeros({4}); });
  EXPECT_THROW(y.backward(), ShapeError);
}

TEST(EngineTest, retain_grad_keeps_the_gradient_of_a_result) {
  const Tensor x = leaf({3});
  Tensor y = x * 2.0;
  y.retain_grad();
  (y * y).backward();
  EXPECT_THAT(y.grad(), IsClose(tensor({12})));
  EXPECT_THAT(x.grad(), IsClose(tensor({24})));
}

TEST(EngineTest, gradients_of_leaves_every_grad_alone) {
  const Tensor x = leaf({3}), z = leaf({5}), lonely = leaf({1});
  const Tensor y = x * z;
  const Tensors g = gradients_of({y * y}, {x, y, lonely});
  EXPECT_THAT(g[0], IsClose(tensor({150})));
  EXPECT_THAT(g[1], IsClose(tensor({30})));
  EXPECT_FALSE(g[2].defined());
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(z.grad().defined());
}

TEST(EngineTest, gradients_of_a_result_leave_the_graph_below_it_usable) {
  const Tensor x = leaf({3});
  const Tensor y = x * x;
  EXPECT_THAT(gradients_of({y * 2.0}, {y})[0], IsClose(tensor({2})));
  y.backward();
  EXPECT_THAT(x.grad(), IsClose(tensor({6})));
}

TEST(EngineTest, several_roots_at_once) {
  const Tensor x = leaf({3});
  const Tensor a = x * 2.0, b = x * x;
  backward({a, b, a});
  EXPECT_THAT(x.grad(), IsClose(tensor({2 + 6 + 2})));
}

TEST(EngineTest, very_deep_graphs_neither_recurse_forward_nor_back_nor_in_destruction) {
  const Tensor x = leaf({1});
  {
    Tensor y = x;
    for (int i = 0; i < 200'000; ++i) y = y + 1.0;
    y.backward();
    EXPECT_THAT(x.grad(), IsClose(tensor({1})));
  }
  Tensor dropped = x;
  for (int i = 0; i < 200'000; ++i) dropped = dropped + 1.0;
  dropped = Tensor();
}

TEST(EngineTest, forwards_without_a_backward_keep_memory_flat) {
  const Tensor w = random_tensor({64, 64}, 1, {.requires_grad = true});
  const auto forward = [&] { return sum(exp(w * 0.5) * w); };
  (void)forward();
  const MemoryStats before = memory_stats(Device::cpu());
  for (int i = 0; i < 10'000; ++i) (void)forward();
  const MemoryStats after = memory_stats(Device::cpu());
  EXPECT_EQ(after.in_use, before.in_use);
  EXPECT_EQ(after.reserved, before.reserved);
  EXPECT_EQ(after.device_allocations, before.device_allocations);
}

TEST(EngineTest, forward_and_backward_may_run_on_different_threads) {
  const Tensor x = leaf({3});
  Tensor y;
  std::thread([&] { y = x * x * x; }).join();
  std::thread([&] { y.backward(); }).join();
  EXPECT_THAT(x.grad(), IsClose(tensor({27})));
}

TEST(EngineTest, independent_tapes_run_at_the_same_time) {
  const Tensor shared = random_tensor({64}, 3);
  std::vector<std::thread> threads;
  std::vector<Tensor> leaves;
  for (int t = 0; t < 4; ++t)
    leaves.push_back(random_tensor({64}, static_cast<std::uint64_t>(t), {.requires_grad = true}));
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        leaves[static_cast<std::size_t>(t)].zero_grad();
        sum(leaves[static_cast<std::size_t>(t)] * shared).backward();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const Tensor& x : leaves) EXPECT_THAT(x.grad(), HasSameBits(shared));
}

TEST(EngineTest, an_error_in_a_gradient_leaves_the_engine_usable) {
  const Tensor x = leaf({2});
  Tensor y = x * 3.0;
  y.register_hook([](const Tensor&) -> Tensor { throw std::runtime_error("on purpose"); });
  EXPECT_THROW((y * 1.0).backward(), std::runtime_error);
  const Tensor z = leaf({2});
  (z * 3.0).backward();
  EXPECT_THAT(z.grad(), IsClose(tensor({3})));
  EXPECT_TRUE(grad_enabled());
}

TEST(EngineTest, a_gradient_that_a_hook_kept_does_not_change_later) {
  Tensor x = ones({2}).set_requires_grad(), kept;
  x.register_hook([&](const Tensor& g) {
    if (!kept.defined()) kept = g;
    return Tensor();
  });
  sum(x * 3.0).backward();
  sum(x * 5.0).backward();
  EXPECT_THAT(kept, IsClose(tensor({3, 3})));
  EXPECT_THAT(x.grad(), IsClose(tensor({8, 8})));
}

TEST(EngineTest, a_given_gradient_of_repeated_elements_is_added_to_as_any_other) {
  Tensor x = ones({3}).set_requires_grad();
  x.set_grad(ones({1}).expand({3}));
  sum(x * tensor({1, 2, 3})).backward();
  EXPECT_THAT(x.grad(), IsClose(tensor({2, 3, 4})));
}

}  // namespace
}  // namespace lamella
