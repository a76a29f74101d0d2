#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamella/core/error.h"
#include "lamella/core/threads.h"
#include "lamella/layers/loss.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};
constexpr testing::Tolerance kDouble{.relative = 1e-13, .absolute = 1e-14};

Tensor f64(const std::vector<double>& values, const Shape& shape) { return from_vector(values, shape); }
Tensor labels(const std::vector<std::int64_t>& values, const Shape& shape) {
  return from_vector(values, shape);
}

// ---- Against PyTorch: torch.nn.functional.cross_entropy in float64 ----

Tensor logits5x4() {
  return f64({1, -2, 0.5, 3, 0, 0, 0, 0, 10, -10, 2, 1, -1, 2.5, 2, -3, 0.3, 0.2, 0.1, 0}, {5, 4})
      .set_requires_grad();
}
Tensor labels5() { return labels({3, 1, -100, 2, 0}, {5}); }
Tensor weight4() { return f64({0.5, 2, 1, 0.25}, {4}); }

TEST(CrossEntropyTest, class_indices_agree_with_pytorch) {
  Tensor z = logits5x4();
  const Tensor loss = cross_entropy(z, labels5());
  EXPECT_EQ(loss.shape(), Shape{});
  EXPECT_NEAR(loss.item(), 0.9565690737154561, 1e-15);
  loss.backward();
  EXPECT_THAT(z.grad(), IsClose(f64({0.02763843759043481,
                                     0.001376036781895918,
                                     0.01676355978515287,
                                     -0.04577803415748358,
                                     0.0625,
                                     -0.1875,
                                     0.0625,
                                     0.0625,
                                     0,
                                     0,
                                     0,
                                     0,
                                     0.004600973728739966,
                                     0.1523633244772938,
                                     -0.157586972288777,
                                     0.0006226740827432371,
                                     -0.1778371487106494,
                                     0.0652956480387689,
                                     0.05908194558038442,
                                     0.0534595550914961},
                                    {5, 4}),
                                kDouble));
}

TEST(CrossEntropyTest, weights_and_smoothing_agree_with_pytorch) {
  Tensor z = logits5x4();
  EXPECT_NEAR(cross_entropy(z, labels5(), {.weight = weight4()}).item(), 1.183896748131898, 1e-15);
  EXPECT_NEAR(cross_entropy(z, labels5(), {.label_smoothing = 0.1}).item(), 1.066569073715456, 1e-15);
  const CrossEntropyOptions both{.label_smoothing = 0.2, .weight = weight4()};
  const Tensor loss = cross_entropy(z, labels5(), both);
  EXPECT_NEAR(loss.item(), 1.348097879915277, 2e-15);
  loss.backward();
  EXPECT_THAT(z.grad(), IsClose(f64({0.004757220870713053,
                                     -0.02609790479681635,
                                     -0.006404395288803481,
                                     0.02774507921490678,
                                     0.1125,
                                     -0.3341666666666667,
                                     0.1058333333333333,
                                     0.1158333333333333,
                                     0,
                                     0,
                                     0,
                                     0,
                                     -0.001820307672393902,
                                     0.1338227017827495,
                                     -0.1293249441441784,
                                     -0.002677449966177124,
                                     -0.06811127985867364,
                                     0.01425193943762851,
                                     0.02369135256370757,
                                     0.03016798785733756},
                                    {5, 4}),
                                {.relative = 1e-12, .absolute = 1e-14}));
  CrossEntropyOptions none = both, sum = both;
  none.reduction = Reduction::None;
  sum.reduction = Reduction::Sum;
  EXPECT_THAT(
      cross_entropy(z, labels5(), none),
      IsClose(f64({0.7533732109757489, 2.478001170501804, 0, 1.070253044649826, 0.7537396235549081}, {5}),
              kDouble));
  EXPECT_NEAR(cross_entropy(z, labels5(), sum).item(), 5.055367049682287, 1e-14);
}

TEST(CrossEntropyTest, probabilities_agree_with_pytorch) {
  Tensor z = logits5x4();
  Tensor t =
      f64({0.1, 0.2, 0.3, 0.4, 1, 0, 0, 0, 0.5, 0.5, 0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0, 0.9, 0.1}, {5, 4})
          .set_requires_grad();
  EXPECT_NEAR(cross_entropy(z, t).item(), 3.572347012820853, 1e-14);
  EXPECT_NEAR(cross_entropy(z, t, {.weight = weight4()}).item(), 5.284594966841184, 1e-14);
  const Tensor loss = cross_entropy(z, t, {.label_smoothing = 0.2, .weight = weight4()});
  EXPECT_NEAR(loss.item(), 5.030928538376857, 1e-14);
  loss.backward();
  EXPECT_THAT(z.grad(), IsClose(f64({0.006181075687761759,
                                     -0.08304503047336426,
                                     -0.0463660895091039,
                                     0.1232300442947064,
                                     -0.05562500000000001,
                                     0.009375,
                                     0.019375,
                                     0.026875,
                                     0.1923910672943187,
                                     -0.1799999995107006,
                                     -0.009920364168724868,
                                     -0.002470703614893281,
                                     -0.02154926970344503,
                                     0.01427249335797033,
                                     0.01930977078341726,
                                     -0.01203299443794257,
                                     0.04854483565669814,
                                     0.02844937084476653,
                                     -0.1101611963793548,
                                     0.03316698987789011},
                                    {5, 4}),
                                {.relative = 1e-12, .absolute = 1e-14}));
  EXPECT_THAT(
      t.grad(),
      IsClose(f64({0.1761802758143481,    1.664721103257393,  0.4323605516286964, 0.008090137907174069,
                   0.1109035488895913,    0.443614195558365,  0.2218070977791825, 0.05545177444479563,
                   3.670153939514458e-05, 6.400146806157581,  1.28007340307879,   0.3600183507696976,
                   0.3196154365285935,    0.1584617461143741, 0.1592308730571871, 0.2398077182642968,
                   0.09940284235641303,   0.4296113694256521, 0.2308056847128261, 0.06170142117820652},
                  {5, 4}),
              {.relative = 1e-10, .absolute = 1e-14}));
}

TEST(CrossEntropyTest, nothing_to_average_is_nan_with_zero_gradients) {
  Tensor z = logits5x4();
  const Tensor all = full({5}, -100, {.dtype = int64});
  const Tensor loss = cross_entropy(z, all);
  EXPECT_TRUE(std::isnan(loss.item()));
  loss.backward();
  EXPECT_THAT(z.grad(), HasSameBits(zeros({5, 4}, {.dtype = float64})));
  EXPECT_EQ(cross_entropy(z, all, {.reduction = Reduction::Sum}).item(), 0);
  Tensor none = empty({0, 4}).set_requires_grad();
  const Tensor empty_loss = cross_entropy(none, empty({0}, {.dtype = int64}));
  EXPECT_TRUE(std::isnan(empty_loss.item()));
  empty_loss.backward();
  EXPECT_EQ(none.grad().shape(), none.shape());
  EXPECT_TRUE(std::isnan(cross_entropy(none, empty({0, 4})).item()));
  EXPECT_EQ(cross_entropy(none, empty({0, 4}), {.reduction = Reduction::Sum}).item(), 0);
}

// ---- Against the definition ----

struct Reference {
  std::vector<double> losses, gradient;  // per sample; of the logits, for a cotangent of `seed` per sample
  double divisor = 0;
};

/// Row-major logits [N,C,inner] with q = the smoothed, weighted targets [N,C,inner].
Reference reference(const Tensor& logits, const std::vector<double>& q, const std::vector<double>& seed) {
  const std::vector<double> z = logits.to_vector<double>();
  const std::int64_t batch = logits.size(0), classes = logits.size(1),
                     inner = logits.numel() / (batch * classes);
  Reference r;
  r.gradient.resize(z.size());
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t i = 0; i < inner; ++i) {
      const auto at = [&](std::int64_t c) { return static_cast<std::size_t>((n * classes + c) * inner + i); };
      double largest = z[at(0)];
      for (std::int64_t c = 0; c < classes; ++c) largest = std::max(largest, z[at(c)]);
      long double total = 0, all_q = 0, loss = 0;
      for (std::int64_t c = 0; c < classes; ++c)
        total += std::exp(static_cast<long double>(z[at(c)] - largest));
      const long double log_sum = largest + std::log(total);
      for (std::int64_t c = 0; c < classes; ++c) {
        all_q += q[at(c)];
        loss += q[at(c)] * (log_sum - z[at(c)]);
      }
      const double g = seed[static_cast<std::size_t>(n * inner + i)];
      for (std::int64_t c = 0; c < classes; ++c)
        r.gradient[at(c)] = static_cast<double>(g * (all_q * std::exp(z[at(c)] - log_sum) - q[at(c)]));
      r.losses.push_back(static_cast<double>(loss));
    }
  return r;
}

TEST(CrossEntropyTest, agrees_with_the_definition_for_every_type_and_format) {
  for (const MemoryFormat format : kFormats)
    for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16, DType::Float16})
      for (const Shape& shape : {Shape{3, 7, 5, 9}, Shape{2, 300, 3, 1}, Shape{40, 10, 1, 1}})
        for (const bool indices : {true, false}) {
          SCOPED_TRACE(shape.to_string() + ' ' + name(dtype) + ' ' + name(format) +
                       (indices ? " labels" : ""));
          Tensor z = random_tensor(shape, 1, {.low = -8, .high = 8, .format = format})
                         .to(dtype)
                         .detach()
                         .set_requires_grad();
          const std::int64_t classes = shape[1], inner = shape[2] * shape[3];
          const double eps = 0.15;
          std::vector<double> q =
              random_tensor(shape, 2, {.low = 0, .high = 1, .dtype = float32}).to_vector<double>();
          Tensor target = from_vector(q, shape).to(float32).contiguous(format);
          std::vector<std::int64_t> ys;
          for (std::int64_t s = 0; s < shape[0] * inner; ++s) ys.push_back(s * 7 % classes);
          for (std::int64_t n = 0; n < shape[0]; ++n)
            for (std::int64_t c = 0; c < classes; ++c)
              for (std::int64_t i = 0; i < inner; ++i) {
                double& at = q[static_cast<std::size_t>((n * classes + c) * inner + i)];
                if (indices) at = ys[static_cast<std::size_t>(n * inner + i)] == c ? 1 : 0;
                at = (1 - eps) * at + eps / static_cast<double>(classes);
              }
          if (indices) target = labels(ys, {shape[0], shape[2], shape[3]});
          const Tensor seed = random_tensor({shape[0], shape[2], shape[3]}, 3).to(dtype);
          const Reference want = reference(z, q, seed.to_vector<double>());

          z.set_grad(full(shape, NAN, {.dtype = dtype, .format = format}));
          z.zero_grad();
          const Tensor losses =
              cross_entropy(z, target, {.label_smoothing = eps, .reduction = Reduction::None});
          losses.backward(seed);
          const double u = dtype == DType::Float64    ? 0x1p-52
                           : dtype == DType::Float32  ? 0x1p-23
                           : dtype == DType::BFloat16 ? 0x1p-8
                                                      : 0x1p-11;
          const double sums = std::min(u, 0x1p-23);
          const double size = indices ? 20 : 20 * static_cast<double>(classes);  // Σ of the absolute terms
          EXPECT_THAT(losses, IsClose(f64(want.losses, losses.shape()),
                                      {.relative = 2 * u, .absolute = 4 * sums * size}));
          EXPECT_THAT(z.grad(),
                      IsClose(f64(want.gradient, shape), {.relative = 4 * u, .absolute = 4 * sums * size}));
          EXPECT_EQ(z.grad().memory_format(), z.memory_format());

          double total = 0;
          for (const double loss : want.losses) total += loss;
          const Tensor mean = cross_entropy(z, target, {.label_smoothing = eps});
          EXPECT_NEAR(mean.item(), total / static_cast<double>(want.losses.size()),
                      2 * u * total / static_cast<double>(want.losses.size()) + 4 * sums * size);
        }
}

TEST(CrossEntropyTest, gradients_agree_with_differences) {
  for (const MemoryFormat format : kFormats) {
    const Tensor z =
        random_tensor({2, 5, 3, 2}, 1, {.low = -3, .high = 3, .format = format, .requires_grad = true});
    const Tensor y = labels({0, 4, 2, -1, 1, 1, 3, 0, 2, -1, 4, 4}, {2, 3, 2});
    const Tensor t = random_tensor({2, 5, 3, 2}, 2, {.low = 0, .high = 1, .requires_grad = true});
    const Tensor weight = random_tensor({5}, 3, {.low = 0.5, .high = 2});
    for (const Reduction reduction : {Reduction::None, Reduction::Mean, Reduction::Sum}) {
      const CrossEntropyOptions options{
          .label_smoothing = 0.1, .ignore_index = -1, .reduction = reduction, .weight = weight};
      EXPECT_TRUE(Passes(
          testing::gradcheck([&](const Tensors& in) { return cross_entropy(in[0], y, options); }, {z})));
      EXPECT_TRUE(Passes(testing::gradcheck(
          [&](const Tensors& in) { return cross_entropy(in[0], in[1], options); }, {z, t})));
    }
  }
}

TEST(CrossEntropyTest, stays_finite_for_large_logits) {
  Tensor z = from_vector<float>({1e4f, -1e4f, 0, 300, 310, -3e38f}, {2, 3}).set_requires_grad();
  const Tensor loss = cross_entropy(z, labels({1, 1}, {2}), {.reduction = Reduction::None});
  EXPECT_THAT(loss, IsClose(from_vector<float>({2e4f, 4.5398898e-5f}, {2}), {.relative = 1e-3}));
  loss.backward(ones({2}));
  for (const double g : z.grad().to_vector<double>()) EXPECT_TRUE(std::isfinite(g));
}

TEST(CrossEntropyTest, takes_strided_operands_and_adds_to_gradients) {
  const Tensor base = random_tensor({6, 10}, 1, {.requires_grad = true});
  const Tensor z = base.transpose(0, 1).slice(0, {0, {}, 2});  // [5, 6]
  const Tensor y = labels({0, 9, 5, 9, 3, 9, 2, 9, 1, 9}, {5, 2}).select(1, 0);
  const Tensor dense = z.detach().clone().set_requires_grad();
  const Tensor expected = cross_entropy(dense, y.clone());
  const Tensor loss = cross_entropy(z, y);
  EXPECT_THAT(loss, HasSameBits(expected));
  loss.backward();
  expected.backward();
  EXPECT_THAT(base.grad().transpose(0, 1).slice(0, {0, {}, 2}).contiguous(), HasSameBits(dense.grad()));
  const Tensor once = dense.grad().clone();
  cross_entropy(dense, y).backward();
  std::vector<double> twice = once.to_vector<double>();
  for (double& value : twice) value *= 2;
  EXPECT_THAT(dense.grad(), IsClose(f64(twice, {5, 6}), kDouble));
}

TEST(CrossEntropyTest, gives_the_same_bits_for_any_number_of_threads) {
  const int threads = num_threads();
  Tensors results[2];
  for (const int count : {1, 2}) {
    set_num_threads(count);
    Tensor z = random_tensor({300, 1000}, 1, {.dtype = float32, .requires_grad = true});
    const Tensor loss = cross_entropy(z, arange(0, 300, 1, {.dtype = int64}), {.label_smoothing = 0.1});
    loss.backward();
    results[count - 1] = {loss, z.grad()};
  }
  set_num_threads(threads);
  EXPECT_THAT(results[1][0], HasSameBits(results[0][0]));
  EXPECT_THAT(results[1][1], HasSameBits(results[0][1]));
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

TEST(CrossEntropyTest, says_what_does_not_fit) {
  const Tensor z = zeros({2, 3, 2, 2});
  EXPECT_THAT(
      error_of<Error>([&] {
        cross_entropy(z, labels({0, 1, 2, 0, 1, 2, 3, 0}, {2, 2, 2}));
      }),
      HasSubstr(
          "cross_entropy: label 3 at [1,1,0] of target [2,2,2] int64 cpu; with 3 classes labels are 0 to 2"));
  EXPECT_THAT(error_of<Error>([&] {
                cross_entropy(z, labels({0, 1, -1, 0, 1, 2, 1, 0}, {2, 2, 2}));
              }),
              HasSubstr("label -1 at [0,1,0]"));
  EXPECT_THAT(
      error_of<ShapeError>([&] { cross_entropy(z, zeros({2}, {.dtype = int64})); }),
      HasSubstr("cross_entropy: target [2] int64 cpu for logits [2,3,2,2] float32 cpu; it must be [2,2,2]"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                cross_entropy(z, zeros({2, 2, 2}));
              }),
              HasSubstr("floating probabilities"));
  EXPECT_THAT(error_of<DTypeError>([&] {
                cross_entropy(z, zeros({2, 2, 2}, {.dtype = int32}));
              }),
              HasSubstr("int64"));
  EXPECT_THAT(error_of<DTypeError>([&] {
                cross_entropy(z.to(int64), zeros({2, 2, 2}, {.dtype = int64}));
              }),
              HasSubstr("cross_entropy"));
  EXPECT_THAT(error_of<ShapeError>([&] { cross_entropy(zeros({3}), zeros({3})); }), HasSubstr("[N,C]"));
  const Tensor y = zeros({2, 2, 2}, {.dtype = int64});
  EXPECT_THAT(error_of<ShapeError>([&] { cross_entropy(z, y, {.label_smoothing = 1.5}); }), HasSubstr("1.5"));
  EXPECT_THAT(error_of<ShapeError>([&] { cross_entropy(z, y, {.weight = ones({4})}); }),
              HasSubstr("must be [3]"));
  EXPECT_THAT(error_of<Error>([&] { cross_entropy(z, y, {.weight = ones({3}, {.requires_grad = true})}); }),
              HasSubstr("weight [3]"));
  EXPECT_THAT(error_of<Error>([&] { cross_entropy(Tensor(), y); }), HasSubstr("cross_entropy"));
  EXPECT_THAT(error_of<Error>([&] { cross_entropy(z, Tensor()); }), HasSubstr("target"));
}

}  // namespace
}  // namespace lamella
