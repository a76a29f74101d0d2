#include "lamella/tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <thread>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/memory.h"
#include "lamella/core/random.h"
#include "lamella/core/threads.h"
#include "lamella/eigen.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"
#include "tensor/door.h"

namespace lamella {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::random_tensor;
using ::testing::StartsWith;

std::string printed(const Tensor& x) {
  std::ostringstream out;
  out << x;
  return out.str();
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(TensorTest, describes_itself) {
  EXPECT_EQ(zeros({8, 32, 5, 5}).describe(), "[8,32,5,5] float32 cpu");
  EXPECT_EQ(zeros({8, 32, 5, 5}, {.format = MemoryFormat::ChannelsLast}).describe(),
            "[8,32,5,5] float32 cpu channels_last");
  EXPECT_EQ(Tensor().describe(), "undefined");
}

TEST(TensorTest, copies_are_handles_and_clones_are_not) {
  Tensor x = zeros({2});
  Tensor same = x, other = x.clone();
  x.fill_(3);
  EXPECT_EQ(same.to_vector<float>()[0], 3);
  EXPECT_EQ(other.to_vector<float>()[0], 0);
}

TEST(TensorTest, an_undefined_tensor_is_an_error_that_says_so) {
  EXPECT_THAT(error_of([] { (void)Tensor().shape(); }), HasSubstr("undefined"));
  EXPECT_THAT(error_of([] { Tensor().reshape({1}); }), HasSubstr("reshape"));
}

TEST(TensorTest, data_checks_the_type) {
  EXPECT_THAT(error_of([] { zeros({2}).data<double>(); }), HasSubstr("float32"));
  EXPECT_THROW(zeros({2}).item(), ShapeError);
}

TEST(TensorTest, refuses_impossible_shapes) {
  EXPECT_THROW(zeros({-1, 2}), ShapeError);
  EXPECT_THROW(empty({std::int64_t{1} << 40, std::int64_t{1} << 40}), ShapeError);
  EXPECT_THROW(from_vector<float>({1, 2, 3}, {2}), ShapeError);
  EXPECT_THROW(arange(0, 5, 0), ShapeError);
  EXPECT_THROW(randint(3, 3, {1}), ShapeError);
  EXPECT_THROW(rand({2}, {.dtype = int64}), DTypeError);
}

TEST(TensorTest, more_than_the_machine_has_is_an_out_of_memory_error_and_life_goes_on) {
  try {
    (void)empty({std::int64_t{1} << 46});
    FAIL() << "no error";
  } catch (const OutOfMemoryError& error) {
    EXPECT_GE(error.report().requested, std::size_t{1} << 48);
  }
  EXPECT_EQ(zeros({4}).numel(), 4);
}

TEST(TensorTest, a_gpu_that_is_not_there_is_named) {
  const Device absent = Device::cuda(cuda_device_count());
  const std::string what = absent.to_string() + " is not available";
  EXPECT_THAT(error_of([&] { zeros({2}, {.device = absent}); }), StartsWith("empty: " + what));
  EXPECT_THAT(error_of([&] { zeros({2}).to(absent); }), StartsWith("to: " + what));
  EXPECT_THROW(zeros({2}).to(absent), DeviceError);
}

TEST(TensorTest, copy_broadcasts_converts_and_survives_overlap) {
  Tensor x = zeros({2, 3});
  x.copy_(tensor({1, 2, 3}, {.dtype = float64}));
  EXPECT_EQ(x.to_vector<double>(), (std::vector<double>{1, 2, 3, 1, 2, 3}));
  Tensor line = arange(0, 6);
  line.slice(0, {1, 6}).copy_(line.slice(0, {0, 5}));
  EXPECT_EQ(line.to_vector<double>(), (std::vector<double>{0, 0, 1, 2, 3, 4}));
  EXPECT_THROW(x.copy_(zeros({2})), ShapeError);
  EXPECT_THROW(x.copy_(zeros({2, 2, 3})), ShapeError);
}

TEST(TensorTest, prints_what_people_can_read) {
  EXPECT_EQ(printed(tensor({1, 2.5, -3})), "Tensor([ 1.0000,  2.5000, -3.0000], [3] float32 cpu)");
  EXPECT_EQ(printed(from_vector<std::int64_t>({1, 20}, {2})), "Tensor([ 1, 20], [2] int64 cpu)");
  EXPECT_EQ(printed(zeros({2, 2})), "Tensor([[0., 0.],\n        [0., 0.]], [2,2] float32 cpu)");
  EXPECT_EQ(printed(scalar(3)), "Tensor(3., [] float32 cpu)");
  EXPECT_EQ(printed(zeros({0})), "Tensor([], [0] float32 cpu)");
  EXPECT_THAT(printed(zeros({1000})), HasSubstr("..."));
  EXPECT_THAT(printed(tensor({NAN, INFINITY, 1e9})), HasSubstr("nan"));
  EXPECT_EQ(printed(Tensor()), "Tensor(undefined)");
}

TEST(TensorTest, random_numbers_depend_on_the_seed_and_not_on_threads) {
  const int before = num_threads();
  manual_seed(5);
  set_num_threads(1);
  const Tensor a = randn({100'001}), u = rand({1000});
  manual_seed(5);
  set_num_threads(3);
  EXPECT_THAT(randn({100'001}), HasSameBits(a));
  EXPECT_THAT(rand({1000}), HasSameBits(u));
  set_num_threads(before);
  EXPECT_FALSE(testing::equal_bits(rand({1000}), u));
  double total = 0, squares = 0;
  for (const double value : a.to_vector<double>()) total += value, squares += value * value;
  EXPECT_NEAR(total / 100'001, 0, 0.02);
  EXPECT_NEAR(squares / 100'001, 1, 0.02);
  for (const double value : u.to_vector<double>()) ASSERT_TRUE(value >= 0 && value < 1);
  for (const double value : randint(-2, 3, {1000}).to_vector<double>()) ASSERT_TRUE(value >= -2 && value < 3);
}

TEST(TensorTest, maps_to_eigen_without_a_copy) {
  Tensor x = arange(0, 6).reshape({2, 3});
  EXPECT_EQ(eigen_map<float>(x)(1, 2), 5);
  mutable_eigen_map<float>(x)(0, 0) = 42;
  EXPECT_EQ(x({0, 0}).item(), 42);
  EXPECT_THROW(eigen_map<float>(x.transpose(0, 1)), ShapeError);
  EXPECT_THROW(eigen_map<double>(x), DTypeError);
}

TEST(PendingTest, the_door_applies_what_a_tensor_owes_once) {
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Tensor x =
        random_tensor({2, 3, 4, 5}, 1, {.low = -4, .high = 4, .dtype = float32, .format = format});
    const Tensor scale = tensor({1, 2, -1}), shift = tensor({0.5, 1, 2});
    const auto before = detail::pending_counters();
    const Tensor y =
        detail::with_activation(detail::make_pending(x, scale, shift, detail::PendingActivation::None),
                                detail::PendingActivation::Relu6);
    EXPECT_TRUE(detail::is_pending(y));
    std::vector<double> expected = x.to_vector<double>();
    const double scales[] = {1, 2, -1}, shifts[] = {0.5, 1, 2};
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = std::clamp(expected[i] * scales[i / 20 % 3] + shifts[i / 20 % 3], 0.0, 6.0);
    EXPECT_THAT(y, IsClose(from_vector(expected, x.shape()), {1e-6, 1e-6}));
    EXPECT_FALSE(detail::is_pending(y));
    (void)y.to_vector<float>();
    EXPECT_EQ(detail::pending_counters().applied, before.applied + 1);
    EXPECT_EQ(y.memory_format(), format);
  }
}

TEST(PendingTest, changes_in_place_reach_neither_the_stored_values_nor_what_is_owed_from_them) {
  Tensor x = ones({1, 2, 2, 2});
  Tensor y = detail::make_pending(x, tensor({2, 2}), tensor({0, 0}), detail::PendingActivation::None);
  Tensor z = detail::make_pending(x, tensor({3, 3}), tensor({0, 0}), detail::PendingActivation::None);
  y.fill_(9);
  EXPECT_EQ(x.to_vector<float>()[0], 1);
  EXPECT_EQ(y.to_vector<float>()[0], 9);
  Tensor both = detail::with_activation(z, detail::PendingActivation::Relu6);
  Tensor same = z.detach();
  x.fill_(5);
  EXPECT_FALSE(detail::is_pending(z));
  EXPECT_EQ(z.to_vector<float>(), std::vector<float>(8, 3));
  EXPECT_EQ(same.to_vector<float>(), std::vector<float>(8, 3));
  EXPECT_EQ(both.to_vector<float>(), std::vector<float>(8, 3));
  EXPECT_EQ(x.to_vector<float>()[0], 5);
  // A debt on top of an applied one, changed through a view.
  Tensor top = detail::with_activation(z, detail::PendingActivation::Relu);
  z.select(1, 0).fill_(-2);
  EXPECT_EQ(top.to_vector<float>(), std::vector<float>(8, 3));
  EXPECT_EQ(z.to_vector<float>()[0], -2);
}

TEST(PendingTest, a_storage_forgets_the_debts_that_nobody_holds) {
  Tensor x = ones({1, 2, 2, 2});
  const auto before = detail::pending_counters();
  for (int i = 0; i < 100; ++i)
    (void)detail::make_pending(x, tensor({2, 2}), {}, detail::PendingActivation::None);
  EXPECT_LE(detail::TensorDoor::impl(x).storage->debts.size(), 1u);
  x.fill_(5);
  EXPECT_EQ(detail::pending_counters().applied, before.applied);
}

TEST(PendingTest, threads_may_leave_and_pay_debts_on_one_tensor) {
  Tensor x = ones({2, 2, 8, 8});
  const Tensor shared = detail::make_pending(x, tensor({2, 2}), {}, detail::PendingActivation::None);
  std::vector<Tensor> results(4);
  std::vector<std::thread> threads;
  for (Tensor& result : results)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i)
        result = detail::make_pending(x, tensor({3, 3}), {}, detail::PendingActivation::None);
      EXPECT_EQ(shared.to_vector<float>()[0], 2);
    });
  for (std::thread& thread : threads) thread.join();
  x.fill_(0);
  for (const Tensor& result : results) EXPECT_EQ(result.to_vector<float>(), std::vector<float>(256, 3));
}

TEST(TensorTest, set_grad_says_what_does_not_fit) {
  Tensor x = zeros({2, 3});
  EXPECT_THROW(x.set_grad(zeros({3, 2})), ShapeError);
  EXPECT_THROW(x.set_grad(zeros({2, 3}, {.dtype = float64})), DTypeError);
  x.set_grad(ones({2, 3}));
  EXPECT_EQ(x.grad().to_vector<float>()[5], 1);
}

TEST(TensorTest, a_range_beyond_memory_is_an_out_of_memory_error) {
  EXPECT_THROW(arange(0, 1e14), OutOfMemoryError);
  EXPECT_THROW(arange(0, 1e15), ShapeError);
  EXPECT_EQ(arange(3, 3).numel(), 0);
}

TEST(TensorTest, half_typed_uniform_numbers_stay_below_one) {
  for (const DType dtype : {DType::Float16, DType::BFloat16}) {
    const auto values = rand({100'000}, {.dtype = dtype}).to_vector<float>();
    EXPECT_LT(*std::max_element(values.begin(), values.end()), 1.0f) << name(dtype);
    EXPECT_GT(*std::max_element(values.begin(), values.end()), 0.99f) << name(dtype);
  }
}

TEST(TensorTest, applying_a_debt_takes_no_more_memory_than_the_tensor) {
  const Tensor whole = ones({1000, 4, 8, 8}), batch = whole.slice(0, {0, 1});
  const Tensor owing = detail::make_pending(batch, full({4}, 2), Tensor(), detail::PendingActivation::None);
  const auto before = memory_stats(Device::cpu()).in_use;
  EXPECT_EQ(detail::read(owing).as<float>()[255], 2);
  EXPECT_LE(memory_stats(Device::cpu()).in_use - before, 4096);
}

TEST(TensorTest, is_made_in_the_format_asked_for_even_of_one_pixel) {
  const TensorOptions options{.format = MemoryFormat::ChannelsLast};
  for (const Shape& shape : {Shape{4, 3, 1, 1}, Shape{4, 1, 3, 3}, Shape{2, 3, 4, 5}}) {
    const std::vector<float> values(static_cast<std::size_t>(shape.product()), 1.0f);
    EXPECT_EQ(zeros(shape, options).memory_format(), MemoryFormat::ChannelsLast);
    EXPECT_EQ(rand(shape, options).memory_format(), MemoryFormat::ChannelsLast);
    EXPECT_EQ(from_vector(values, shape, options).memory_format(), MemoryFormat::ChannelsLast);
  }
}

}  // namespace
}  // namespace lamella
