#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/threads.h"
#include "lamella/layers/norm.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"
#include "tensor/door.h"
#include "tensor/moments.h"
#include "tests/layers/norm_reference.h"

namespace lamella {
namespace {

using detail::FusionGuard;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};

Reference reference(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& grad,
                    double eps) {
  const auto channels = static_cast<std::size_t>(x.size(1));
  const auto inner = static_cast<std::size_t>(x.numel()) / (static_cast<std::size_t>(x.size(0)) * channels);
  const auto channel = [=](std::size_t i) { return i / inner % channels; };
  return normalize(x, weight, bias, grad, eps, {channels, channel}, {channels, channel});
}

Tensor leaf(const Tensor& values, DType dtype) { return values.to(dtype).detach().set_requires_grad(); }

/// Forward and gradients of one shape and type against the reference.
void compare(const Shape& shape, DType dtype, MemoryFormat format, double mean = 0) {
  SCOPED_TRACE(shape.to_string() + ' ' + name(dtype) + ' ' + name(format));
  const double eps = 1e-5;
  const DType param = size_of(dtype) == 2 ? DType::Float32 : dtype;
  const Tensor x =
      leaf(random_tensor(shape, 1, {.low = mean - 2, .high = mean + 2, .format = format}), dtype);
  const Tensor weight = leaf(random_tensor({shape[1]}, 2, {.low = 0.5, .high = 2}), param);
  const Tensor bias = leaf(random_tensor({shape[1]}, 3), param);
  const Tensor grad = random_tensor(shape, 4, {.format = format}).to(dtype);
  const Reference want = reference(x, weight, bias, grad, eps);
  Tensor running_mean = full({shape[1]}, 0.5, {.dtype = param}),
         running_var = full({shape[1]}, 2, {.dtype = param});

  const Tensor y = batch_norm(x, weight, bias, running_mean, running_var, {.momentum = 0.25, .eps = eps});
  EXPECT_EQ(y.dtype(), dtype);
  EXPECT_EQ(y.memory_format(), x.memory_format());
  y.backward(grad);

  const double u = unit(dtype), up = unit(param);
  // Far from zero the result has the roundings of x · scale and shift, about weight · mean / σ; the gradients
  // do not.
  const double offset = std::abs(mean);
  expect_within(
      y, want.y, [&](std::size_t i) { return u * (std::abs(want.y[i]) + 1) + up * (16 + 1.8 * offset); },
      "y");
  expect_within(
      x.grad(), want.dx, [&](std::size_t i) { return u * std::abs(want.dx[i]) + 16 * up * want.dx_terms[i]; },
      "dx");
  const double count = static_cast<double>(x.numel()) / static_cast<double>(shape[1]);
  const auto sum_bound = [&](std::size_t) {
    return 4 * up * std::sqrt(count) * 4 + 16 * up * count * 0.1 + up * 8;
  };
  expect_within(weight.grad(), want.dweight, sum_bound, "dweight");
  expect_within(bias.grad(), want.dbias, sum_bound, "dbias");
  EXPECT_EQ(weight.grad().dtype(), param);
  std::vector<double> mean_now, var_now;
  for (const double m : want.mean) mean_now.push_back(0.75 * 0.5 + 0.25 * m);
  for (const double v : want.var) var_now.push_back(0.75 * 2 + 0.25 * v * count / (count - 1));
  expect_within(
      running_mean, mean_now, [&](std::size_t) { return 2 * up * (1 + offset); }, "running_mean");
  expect_within(
      running_var, var_now, [&](std::size_t) { return 16 * up * 3; }, "running_var");
}

TEST(BatchNormTest, agrees_with_the_definition_on_every_path) {
  for (const MemoryFormat format : kFormats)
    for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16, DType::Float16})
      for (const Shape& shape :
           {Shape{3, 5, 2, 3}, Shape{2, 1, 1, 1}, Shape{9, 7, 7, 7}, Shape{2, 50, 9, 11}, Shape{3, 3, 20, 31},
            Shape{130, 3, 2, 2}, Shape{1, 520, 3, 5}, Shape{17, 24, 8, 8}})
        compare(shape, dtype, format);
}

TEST(BatchNormTest, agrees_with_the_definition_where_work_is_cut) {
  for (const MemoryFormat format : kFormats) {
    compare({20, 3, 70, 65}, DType::Float32, format);   // few channels: images are split
    compare({9, 100, 40, 40}, DType::Float32, format);  // several chunks of rows
    compare({301, 40, 4, 5}, DType::Float32, format);   // planes as lanes, several blocks
  }
}

TEST(BatchNormTest, takes_vectors_sequences_and_volumes) {
  for (const Shape& shape : {Shape{33, 70}, Shape{4, 5, 70}, Shape{2, 3, 4, 5, 6}})
    for (const DType dtype : {DType::Float32, DType::Float64})
      compare(shape, dtype, MemoryFormat::Contiguous);
}

TEST(BatchNormTest, keeps_its_digits_where_the_mean_is_a_thousand_deviations) {
  for (const MemoryFormat format : kFormats)
    for (const Shape& shape : {Shape{8, 6, 30, 30}, Shape{16, 40, 5, 5}, Shape{5, 100, 17, 9}})
      compare(shape, DType::Float32, format, 1150);
}

TEST(BatchNormTest, one_far_outlier_does_not_spoil_the_variance) {
  for (const MemoryFormat format : kFormats)
    for (const Shape& shape : {Shape{2, 2, 40, 40}, Shape{16, 3, 5, 5}}) {
      Tensor x = random_tensor(shape, 1, {.low = 999, .high = 1001, .dtype = float32, .format = format});
      x({0, 0, 0, 0}).fill_(0);  // the first number of the first channel, the natural pivot
      const Reference want = reference(x, {}, {}, x, 1e-5);
      const Tensor mean = zeros({shape[1]}), var = zeros({shape[1]});
      batch_norm(x, {}, {}, mean, var, {.momentum = 1});
      const double count = static_cast<double>(x.numel()) / static_cast<double>(shape[1]);
      expect_within(
          mean, want.mean, [&](std::size_t i) { return 1e-6 * want.mean[i]; }, "mean");
      std::vector<double> unbiased;
      for (const double v : want.var) unbiased.push_back(v * count / (count - 1));
      expect_within(
          var, unbiased, [&](std::size_t i) { return 2e-5 * unbiased[i]; }, "var");
    }
}

TEST(BatchNormTest, agrees_with_pytorch) {
  // torch.nn.functional.batch_norm(…, training=True, momentum=0.2, eps=1e-3), float64.
  const TensorOptions f64{.dtype = float64};
  const Tensor x =
      leaf(from_vector<double>({1, 2, 3, -1, 0.5, 4, 2, 2.5, -3, 1.5, 0, 7}, {3, 2, 2, 1}), float64);
  const Tensor weight = leaf(tensor({1.5, -0.5}, f64), float64), bias = leaf(tensor({0.25, 1}, f64), float64);
  const Tensor mean = tensor({0.5, -0.5}, f64), var = tensor({2, 3}, f64);
  const Tensor y = batch_norm(x, weight, bias, mean, var, {.momentum = 0.2, .eps = 1e-3});
  std::vector<double> grad;
  for (int i = 1; i <= 12; ++i) grad.push_back(i * i);
  y.backward(from_vector(grad, {3, 2, 2, 1}));
  const testing::Tolerance close{.relative = 1e-12, .absolute = 1e-12};
  const auto as = [](const std::vector<double>& values) { return from_vector(values, {3, 2, 2, 1}); };
  EXPECT_THAT(y, IsClose(as({0.25, 0.963665639382429, 0.852687981685301, 1.63835207936369, -0.106832819691215,
                             2.39099691814729, 1.0491040061049, 0.9508959938951, -2.60466255752972,
                             0.606832819691215, 1.4419360549441, 0.0670238840069087}),
                         close));
  EXPECT_THAT(mean, IsClose(tensor({0.6, 0.05}, f64), close));
  EXPECT_THAT(var, IsClose(tensor({2.66, 3.955}, f64), close));
  EXPECT_THAT(x.grad(),
              IsClose(as({-28.6655698485276, -21.8262158009668, 12.8276656256744, 3.97115235997566,
                          -13.886773068056, 10.4077989180979, 3.1006243752001, 1.08958414575133,
                          9.63425278441282, 44.3365070150397, -14.7821299303918, -6.20689657620975}),
                      close));
  EXPECT_THAT(weight.grad(), IsClose(tensor({-83.0231027148226, 145.446066082712}, f64), close));
  EXPECT_THAT(bias.grad(), IsClose(tensor({247, 403}, f64), close));
}

TEST(BatchNormTest, gradients_agree_with_differences) {
  for (const MemoryFormat format : kFormats)
    for (const bool training : {true, false}) {
      const Tensor x = random_tensor({3, 4, 3, 2}, 1, {.format = format, .requires_grad = true});
      const Tensor weight = random_tensor({4}, 2, {.requires_grad = true});
      const Tensor bias = random_tensor({4}, 3, {.requires_grad = true});
      const Tensor mean = random_tensor({4}, 4), var = random_tensor({4}, 5, {.low = 0.5, .high = 2});
      EXPECT_TRUE(Passes(testing::gradcheck(
          [&](const Tensors& in) {
            return batch_norm(in[0], in[1], in[2], mean.clone(), var.clone(), {.training = training});
          },
          {x, weight, bias})));
      EXPECT_TRUE(Passes(testing::gradcheck(
          [&](const Tensors& in) {
            return batch_norm(in[0], {}, {}, mean.clone(), var.clone(), {.training = training});
          },
          {x})));
    }
}

TEST(BatchNormTest, evaluation_uses_and_keeps_the_running_estimates) {
  const Tensor x = random_tensor({2, 3, 4, 4}, 1);
  const Tensor mean = random_tensor({3}, 2), var = random_tensor({3}, 3, {.low = 0.5, .high = 2});
  const Tensor mean_before = mean.clone(), var_before = var.clone();
  const Tensor y = batch_norm(x, {}, {}, mean, var, {.training = false, .eps = 1e-3});
  const std::vector<double> m = mean.to_vector<double>(), v = var.to_vector<double>();
  std::vector<double> want = x.to_vector<double>();
  for (std::size_t i = 0; i < want.size(); ++i) {
    const std::size_t c = i / 16 % 3;
    want[i] = (want[i] - m[c]) / std::sqrt(v[c] + 1e-3);
  }
  expect_within(
      y, want, [](std::size_t) { return 1e-14; }, "y");
  EXPECT_THAT(mean, HasSameBits(mean_before));
  EXPECT_THAT(var, HasSameBits(var_before));
}

/// y, dx, dweight, dbias of one run, with gradients starting from NaN that must be overwritten.
Tensors run(const Tensor& values, const Tensor& grad, bool fusion) {
  const FusionGuard guard(fusion);
  const std::int64_t channels = values.size(1);
  const Tensor x = values.detach();
  Tensor leaf_x = x.clone().set_requires_grad();
  Tensor weight = random_tensor({channels}, 2, {.dtype = float32, .requires_grad = true});
  Tensor bias = random_tensor({channels}, 3, {.dtype = float32, .requires_grad = true});
  for (Tensor* t : {&leaf_x, &weight, &bias}) {
    t->set_grad(full(t->shape(), NAN, {.dtype = t->dtype(), .format = t->memory_format()}));
    t->zero_grad();
  }
  const Tensor y = batch_norm(leaf_x, weight, bias, {}, {});
  EXPECT_EQ(detail::is_pending(y), fusion);
  y.backward(grad);
  return {y.clone(), leaf_x.grad(), weight.grad(), bias.grad()};
}

TEST(BatchNormTest, gives_the_same_bits_fused_or_not_and_for_any_number_of_threads) {
  const int threads = num_threads();
  for (const MemoryFormat format : kFormats)
    for (const Shape& shape : {Shape{20, 3, 70, 65}, Shape{9, 100, 40, 40}, Shape{40, 60, 5, 5}}) {
      const Tensor x = random_tensor(shape, 1, {.dtype = float32, .format = format});
      const Tensor grad = random_tensor(shape, 4, {.dtype = float32, .format = format});
      set_num_threads(2);
      const Tensors two = run(x, grad, true), unfused = run(x, grad, false);
      set_num_threads(1);
      const Tensors one = run(x, grad, true);
      for (std::size_t i = 0; i < two.size(); ++i) {
        EXPECT_THAT(one[i], HasSameBits(two[i]));
        EXPECT_THAT(unfused[i], HasSameBits(two[i]));
      }
    }
  set_num_threads(threads);
}

TEST(BatchNormTest, adds_to_gradients_that_are_there) {
  for (const MemoryFormat format : kFormats)
    for (const Shape& shape : {Shape{9, 5, 3, 3}, Shape{2, 5, 9, 9}}) {
      const Tensor x = random_tensor(shape, 1, {.format = format, .requires_grad = true});
      const Tensor weight = random_tensor({5}, 2, {.requires_grad = true});
      const Tensor bias = random_tensor({5}, 3, {.requires_grad = true});
      const Tensor grad = random_tensor(shape, 4);
      const auto step = [&] { batch_norm(x, weight, bias, {}, {}).backward(grad); };
      step();
      Tensors twice;
      for (const Tensor& t : {x, weight, bias}) {
        std::vector<double> values = t.grad().to_vector<double>();
        for (double& value : values) value *= 2;
        twice.push_back(from_vector(values, t.shape()));
      }
      step();
      EXPECT_THAT(x.grad(), IsClose(twice[0], {.relative = 1e-14, .absolute = 1e-14}));
      EXPECT_THAT(weight.grad(), IsClose(twice[1], {.relative = 1e-14, .absolute = 1e-14}));
      EXPECT_THAT(bias.grad(), IsClose(twice[2], {.relative = 1e-14, .absolute = 1e-14}));
    }
}

TEST(BatchNormTest, takes_strided_inputs_gradients_and_targets) {
  const Tensor base = random_tensor({4, 9, 7, 6}, 1, {.requires_grad = true});
  const Tensor grad = random_tensor({4, 5, 7, 3}, 2, {.format = MemoryFormat::ChannelsLast});
  const Tensor x = base.slice(1, {0, {}, 2}).slice(3, {1, {}, 2});
  const Reference want = reference(x, {}, {}, grad, 1e-5);
  const Tensor y = batch_norm(x, {}, {}, {}, {});
  expect_within(
      y, want.y, [](std::size_t) { return 1e-13; }, "y");
  y.backward(grad);
  const Tensor dx = base.grad().slice(1, {0, {}, 2}).slice(3, {1, {}, 2});
  expect_within(
      dx, want.dx, [](std::size_t) { return 1e-13; }, "dx");

  // A leaf whose gradient lies in the other format.
  Tensor leaf_x = x.detach().clone().set_requires_grad();
  leaf_x.set_grad(zeros({4, 5, 7, 3}, {.dtype = float64, .format = MemoryFormat::ChannelsLast}));
  batch_norm(leaf_x, {}, {}, {}, {}).backward(grad);
  expect_within(
      leaf_x.grad(), want.dx, [](std::size_t) { return 1e-13; }, "dx");

  // A slice of a batch begins inside its storage.
  const Tensor part = random_tensor({6, 3, 4, 4}, 3).slice(0, {2, {}});
  const Reference want_part = reference(part, {}, {}, part, 1e-5);
  expect_within(
      batch_norm(part, {}, {}, {}, {}), want_part.y, [](std::size_t) { return 1e-13; }, "y");
}

TEST(BatchNormTest, empty_batches_and_images_change_nothing) {
  for (const MemoryFormat format : kFormats)
    for (const Shape& shape : {Shape{0, 3, 4, 4}, Shape{9, 3, 0, 4}, Shape{2, 3, 4, 0}})
      for (const bool training : {true, false}) {
        const Tensor x = empty(shape, {.format = format, .requires_grad = true});
        const Tensor weight = ones({3}, {.requires_grad = true}), bias = zeros({3}, {.requires_grad = true});
        const Tensor mean = full({3}, 2), var = full({3}, 3);
        const Tensor y = batch_norm(x, weight, bias, mean, var, {.training = training});
        EXPECT_EQ(y.shape(), shape);
        y.backward(empty_like(y));
        EXPECT_THAT(mean, HasSameBits(full({3}, 2)));
        EXPECT_THAT(var, HasSameBits(full({3}, 3)));
        EXPECT_THAT(weight.grad(), HasSameBits(zeros({3})));
        EXPECT_THAT(bias.grad(), HasSameBits(zeros({3})));
        EXPECT_EQ(x.grad().shape(), shape);
      }
}

TEST(BatchNormTest, a_result_keeps_its_values_when_the_input_is_changed_afterwards) {
  Tensor x = random_tensor({2, 3, 4, 4}, 1);
  const Tensor mean = full({3}, 2, {.dtype = float64}), var = full({3}, 3, {.dtype = float64});
  const auto run = [&] { return batch_norm(x, {}, {}, mean, var, {.training = false}); };
  const Tensor want = run().clone(), y = run();
  x.fill_(0);
  EXPECT_THAT(y, HasSameBits(want));
}

TEST(BatchNormTest, nan_and_infinity_stay_in_their_channel) {
  for (const MemoryFormat format : kFormats)
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
      for (const Shape& shape : {Shape{9, 3, 4, 4}, Shape{2, 3, 9, 9}}) {
        Tensor x = random_tensor(shape, 1, {.format = format});
        x({1, 1, 2, 3}).fill_(bad);
        const Tensor y = batch_norm(x, {}, {}, {}, {});
        const std::vector<double> values = y.to_vector<double>();
        const auto inner = static_cast<std::size_t>(shape[2] * shape[3]);
        for (std::size_t i = 0; i < values.size(); ++i)
          ASSERT_EQ(std::isnan(values[i]), i / inner % 3 == 1) << i;
      }
}

TEST(BatchNormTest, running_estimates_move_once_under_recomputation) {
  const Tensor x = random_tensor({4, 2, 3, 3}, 1, {.requires_grad = true});
  const auto run_with = [&](bool again) {
    const Tensor mean = zeros({2}, {.dtype = float64}), var = ones({2}, {.dtype = float64});
    const auto block = [&](const Tensors& in) { return batch_norm(in[0], {}, {}, mean, var); };
    const Tensor y = again ? recompute(block, {x}) : block({x});
    y.backward(random_tensor({4, 2, 3, 3}, 2));
    return Tensors{mean, var};
  };
  const Tensors once = run_with(false), again = run_with(true);
  EXPECT_THAT(again[0], HasSameBits(once[0]));
  EXPECT_THAT(again[1], HasSameBits(once[1]));
}

TEST(BatchNormTest, one_tensor_is_weight_and_bias) {
  const Tensor x = random_tensor({4, 3, 5, 5}, 1), grad = random_tensor({4, 3, 5, 5}, 2);
  const Tensor both = random_tensor({3}, 3, {.requires_grad = true});
  const Tensor weight = both.detach().clone().set_requires_grad(),
               bias = both.detach().clone().set_requires_grad();
  batch_norm(x, both, both, {}, {}).backward(grad);
  batch_norm(x, weight, bias, {}, {}).backward(grad);
  const std::vector<double> a = weight.grad().to_vector<double>(), b = bias.grad().to_vector<double>();
  for (std::size_t c = 0; c < 3; ++c) EXPECT_DOUBLE_EQ(both.grad().to_vector<double>()[c], a[c] + b[c]) << c;
}

TEST(BatchNormTest, takes_moments_that_were_left_in_parts) {
  // Rows of pixels, in parts of three; the last has one, and a counted one in between has none.
  const std::int64_t pixels = 10, channels = 5, of_part = 3;
  const Tensor x = random_tensor({pixels, channels}, 1, {.low = 99, .high = 101});
  const std::vector<double> values = x.to_vector<double>();
  const auto moments = [&](std::int64_t from, std::int64_t to, std::int64_t c) {
    double sum = 0, m2 = 0;
    const auto at = [&](std::int64_t p) { return values[static_cast<std::size_t>(p * channels + c)]; };
    for (std::int64_t p = from; p < to; ++p) sum += at(p);
    const auto count = static_cast<double>(to - from);
    const double mean = count > 0 ? sum / count : 0;
    for (std::int64_t p = from; p < to; ++p) m2 += (at(p) - mean) * (at(p) - mean);
    return std::array<double, 3>{count, mean, m2};
  };
  const auto run = [&](const Tensor& from) {
    const Tensor mean = zeros({channels}, {.dtype = float64}), var = ones({channels}, {.dtype = float64});
    return Tensors{batch_norm(from, {}, {}, mean, var), mean, var};
  };
  const Tensors alone = run(x);
  for (const bool counted : {false, true}) {
    const Tensor same = x.clone();
    detail::LeftParts left(x.device(), channels);
    const std::int64_t parts = counted ? 5 : 4;
    auto* const to = static_cast<double*>(counted ? left.take_interleaved(DType::Float64, parts, 3)
                                                  : left.take(DType::Float64, parts, 2, of_part));
    for (std::int64_t part = 0; part < parts; ++part)
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::int64_t at = counted && part > 1 ? part - 1 : part;
        const bool none = counted && part == 1;
        const auto of = moments(at * of_part, none ? at * of_part : std::min(pixels, (at + 1) * of_part), c);
        for (std::int64_t i = 0; i < 3; ++i)
          if (counted)
            to[(part * channels + c) * 3 + i] = of[static_cast<std::size_t>(i)];
          else if (i > 0)
            to[(part * 2 + i - 1) * channels + c] = of[static_cast<std::size_t>(i)];
      }
    detail::leave_moments(same, left);
    const Tensors taken = run(same);
    for (std::size_t i = 0; i < taken.size(); ++i)
      EXPECT_THAT(taken[i], IsClose(alone[i], {.relative = 1e-12, .absolute = 1e-11})) << i << counted;
  }
}

TEST(BatchNormTest, says_what_does_not_fit) {
  const Tensor x = zeros({2, 3, 4, 4});
  EXPECT_THAT(
      error_of<ShapeError>([&] {
        batch_norm(zeros({1, 3, 1, 1}), {}, {}, {}, {});
      }),
      HasSubstr("batch_norm: expected more than 1 value per channel in training, got input [1,3,1,1]"));
  EXPECT_NO_THROW(batch_norm(zeros({1, 3, 1, 1}), {}, {}, zeros({3}), ones({3}), {.training = false}));
  EXPECT_THAT(error_of<ShapeError>([&] { batch_norm(zeros({3}), {}, {}, {}, {}); }), HasSubstr("[N,C]"));
  EXPECT_THAT(error_of<ShapeError>([&] { batch_norm(x, ones({4}), {}, {}, {}); }),
              HasSubstr("batch_norm: weight [4] float32 cpu for input [2,3,4,4]"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                batch_norm(x, {}, ones({1, 3}), {}, {});
              }),
              HasSubstr("must be [3]"));
  EXPECT_THAT(error_of<DTypeError>([&] { batch_norm(x, ones({3}, {.dtype = float64}), {}, {}, {}); }),
              HasSubstr("it must be float32"));
  EXPECT_THAT(error_of<DTypeError>([&] { batch_norm(x.to(int32), {}, {}, {}, {}); }),
              HasSubstr("batch_norm"));
  EXPECT_THAT(error_of<Error>([&] { batch_norm(Tensor(), {}, {}, {}, {}); }), HasSubstr("batch_norm"));
  EXPECT_THAT(error_of<Error>([&] { batch_norm(x, {}, {}, {}, {}, {.training = false}); }),
              HasSubstr("running_mean and running_var must be defined"));
}

}  // namespace
}  // namespace lamella
