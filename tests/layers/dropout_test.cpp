#include "lamella/layers/dropout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/philox.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/core/threads.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};

/// What the next operator's random number of element i is.
class Expected {
 public:
  Expected() : state_(random_state()) {}
  double operator()(std::int64_t i) const {
    const detail::RandomKey key{.seed = state_.seed, .op = state_.op};
    return detail::uniform01(detail::random_block(key, state_.step, static_cast<std::uint64_t>(i / 4))
                                 .lane[static_cast<std::size_t>(i % 4)]);
  }

 private:
  RandomState state_;
};

TEST(DropoutTest, draws_by_row_major_index_in_either_format) {
  manual_seed(5);
  next_random_step();
  for (const MemoryFormat format : kFormats)
    for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16, DType::Float16})
      for (const Shape& shape :
           {Shape{3, 5, 7, 9}, Shape{2, 3, 33, 31}, Shape{1, 1, 1, 1}, Shape{5, 70, 1, 2}}) {
        const double p = 0.3;
        Tensor x = random_tensor(shape, 1, {.low = 1, .high = 2, .format = format}).to(dtype).detach();
        x.set_requires_grad();
        const Expected uniform;
        const Tensor y = dropout(x, p, true);
        EXPECT_EQ(y.memory_format(), x.memory_format());
        const Tensor grad = random_tensor(shape, 2, {.low = 1, .high = 2}).to(dtype);
        x.set_grad(full(shape, NAN, {.dtype = dtype}));
        x.zero_grad();
        y.backward(grad);
        const double u = dtype == DType::Float64 ? 0x1p-52 : dtype == DType::Float32 ? 0x1p-22 : 0x1p-7;
        const std::vector<double> xs = x.to_vector<double>(), ys = y.to_vector<double>(),
                                  gs = grad.to_vector<double>(), dx = x.grad().to_vector<double>();
        for (std::size_t i = 0; i < xs.size(); ++i) {
          const bool stays = uniform(static_cast<std::int64_t>(i)) >= p;
          ASSERT_NEAR(ys[i], stays ? xs[i] / (1 - p) : 0, u * xs[i] * 2) << i;
          ASSERT_NEAR(dx[i], stays ? gs[i] / (1 - p) : 0, u * gs[i] * 2) << i;
        }
      }
}

TEST(DropoutTest, keeps_the_share_it_should) {
  manual_seed(1);
  const Tensor y = dropout(ones({100000}), 0.2, true);
  double kept = 0;
  for (const double value : y.to_vector<double>()) {
    kept += value != 0;
    ASSERT_TRUE(value == 0 || value == 1.25) << value;
  }
  EXPECT_NEAR(kept / 100000, 0.8, 5 * std::sqrt(0.2 * 0.8 / 100000));
}

TEST(DropoutTest, does_nothing_outside_training_and_for_p_0_and_clears_for_p_1) {
  Tensor x = random_tensor({3, 4}, 1).set_requires_grad();
  const RandomState before = random_state();
  EXPECT_THAT(dropout(x, 0.5, false), HasSameBits(x));
  EXPECT_THAT(dropout(x, 0, true), HasSameBits(x));
  EXPECT_THAT(drop_path(x, 0.5, false), HasSameBits(x));
  EXPECT_EQ(random_state(), before) << "draws nothing";
  const Tensor y = dropout(x, 1, true);
  EXPECT_THAT(y, HasSameBits(zeros({3, 4}, {.dtype = float64})));
  y.backward(ones({3, 4}, {.dtype = float64}));
  EXPECT_THAT(x.grad(), HasSameBits(zeros({3, 4}, {.dtype = float64})));
}

TEST(DropoutTest, each_call_draws_anew_and_a_seed_repeats) {
  const Tensor x = ones({1000});
  manual_seed(3);
  const Tensor a = dropout(x, 0.5, true), b = dropout(x, 0.5, true);
  manual_seed(3);
  EXPECT_THAT(dropout(x, 0.5, true), HasSameBits(a));
  EXPECT_THAT(a, ::testing::Not(HasSameBits(b)));
}

TEST(DropoutTest, backward_repeats_the_mask_of_its_forward) {
  Tensor x = ones({500}).set_requires_grad();
  manual_seed(4);
  const Tensor y = dropout(x, 0.5, true);
  next_random_step();
  dropout(ones({500}), 0.5, true);
  y.backward(ones({500}));
  EXPECT_THAT(x.grad(), HasSameBits(y)) << "even in a later step";

  Tensor z = ones({500}).set_requires_grad();
  const Tensor again = recompute([](const Tensors& in) { return dropout(in[0], 0.5, true); }, {z});
  again.backward(ones({500}));
  EXPECT_THAT(z.grad(), HasSameBits(again));
}

TEST(DropoutTest, gives_the_same_bits_for_any_number_of_threads) {
  const int threads = num_threads();
  for (const MemoryFormat format : kFormats) {
    Tensors results;
    for (const int count : {1, 2}) {
      set_num_threads(count);
      manual_seed(6);
      results.push_back(dropout(ones({4, 30, 40, 41}, {.format = format}), 0.4, true));
      results.push_back(drop_path(ones({40, 3, 40, 41}, {.format = format}), 0.4, true));
    }
    EXPECT_THAT(results[2], HasSameBits(results[0]));
    EXPECT_THAT(results[3], HasSameBits(results[1]));
  }
  set_num_threads(threads);
}

TEST(DropoutTest, takes_strided_inputs_and_adds_to_gradients) {
  manual_seed(7);
  const Tensor base = random_tensor({6, 8}, 1);
  const Tensor a = dropout(base.transpose(0, 1), 0.5, true);
  manual_seed(7);
  EXPECT_THAT(a, HasSameBits(dropout(base.transpose(0, 1).clone(), 0.5, true)));
  Tensor x = ones({64}).set_requires_grad();
  x.set_grad(ones({64}));
  const Tensor y = dropout(x, 0.5, true);
  y.backward(ones({64}));
  std::vector<float> want = y.to_vector<float>();
  for (float& value : want) value += 1;
  EXPECT_THAT(x.grad(), HasSameBits(from_vector(want, {64})));
}

TEST(DropPathTest, keeps_or_drops_whole_samples) {
  manual_seed(8);
  for (const MemoryFormat format : kFormats) {
    Tensor x =
        random_tensor({50, 3, 4, 5}, 1, {.low = 1, .high = 2, .format = format, .requires_grad = true});
    const Expected uniform;
    const Tensor y = drop_path(x, 0.3, true);
    y.backward(ones(x.shape(), {.dtype = float64}));
    const std::vector<double> xs = x.to_vector<double>(), ys = y.to_vector<double>(),
                              dx = x.grad().to_vector<double>();
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const double factor = uniform(static_cast<std::int64_t>(i / 60)) >= 0.3 ? 1 / 0.7 : 0;
      ASSERT_NEAR(ys[i], xs[i] * factor, 1e-14) << i;
      ASSERT_NEAR(dx[i], factor, 1e-14) << i;
    }
  }
}

TEST(DropoutTest, takes_an_empty_batch_and_a_scalar) {
  EXPECT_EQ(dropout(empty({0, 3, 2, 2}), 0.5, true).shape(), (Shape{0, 3, 2, 2}));
  EXPECT_EQ(drop_path(empty({0, 3}), 0.5, true).shape(), (Shape{0, 3}));
  EXPECT_EQ(dropout(scalar(1), 0.5, true).shape(), Shape{});
}

template <class E, class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& other) {
    return std::string("another error: ") + other.what();
  }
  return "no error";
}

TEST(DropoutTest, says_what_does_not_fit) {
  EXPECT_THAT(error_of<ShapeError>([] { dropout(ones({2}), 1.5, true); }), HasSubstr("dropout: p is 1.5"));
  EXPECT_THAT(error_of<ShapeError>([] { dropout(ones({2}), NAN, false); }), HasSubstr("dropout: p is nan"));
  EXPECT_THAT(error_of<ShapeError>([] { drop_path(ones({2}), -0.1, true); }),
              HasSubstr("drop_path: p is -0.1"));
  EXPECT_THAT(error_of<ShapeError>([] { drop_path(scalar(1), 0.1, true); }), HasSubstr("no axis of samples"));
  EXPECT_THAT(error_of<DTypeError>([] { dropout(ones({2}, {.dtype = int64}), 0.5, true); }),
              HasSubstr("dropout"));
  EXPECT_THAT(error_of<Error>([] { dropout(Tensor(), 0.5, true); }), HasSubstr("dropout"));
}

}  // namespace
}  // namespace lamella
