#include "lamella/optim/clip.h"

#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using optim::clip_grad_norm_;
using optim::clip_grad_value_;

Tensors with_gradients(DType dtype, Layout layout = Layout::Plain) {
  Tensors params = make_params(dtype, layout);
  for (std::size_t i = 0; i < params.size(); ++i)
    params[i].set_grad(
        lay_out(values(10 * static_cast<std::int64_t>(i) + 7, kShapes[i], dtype), layout, true));
  return params;
}

Tensors gradients(const Tensors& params) {
  Tensors result;
  for (const Tensor& param : params) result.push_back(param.grad());
  return result;
}

TEST(ClipTest, norm_gives_the_numbers_of_pytorch) {
  for (const auto& [name, max_norm] : {std::pair{"clip_small", 0.5}, std::pair{"clip_large", 50.0}})
    for (const Layout layout :
         {Layout::Plain, Layout::ChannelsLast, Layout::TransposedGradients, Layout::EverySecond})
      for (const DType dtype : {DType::Float64, DType::Float32}) {
        const Tensors params = with_gradients(dtype, layout);
        Tensors found{clip_grad_norm_(params, max_norm)};
        EXPECT_EQ(found[0].dtype(), dtype);
        EXPECT_EQ(found[0].dim(), 0);
        for (const Tensor& gradient : gradients(params)) found.push_back(gradient);
        expect_close(numbers(found), golden(name), dtype == DType::Float64 ? 1e-13 : 3e-7, name);
      }
}

TEST(ClipTest, norm_leaves_short_gradients_alone) {
  const Tensors params = with_gradients(DType::Float32);
  const std::vector<double> before = numbers(gradients(params));
  clip_grad_norm_(params, 50);
  EXPECT_EQ(numbers(gradients(params)), before);
}

TEST(ClipTest, norm_gives_the_same_bits_for_any_number_of_threads) {
  const int before = num_threads();
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    Tensors params, found;
    for (const std::int64_t size : {5, 100000, 16384, 1, 33333}) {
      params.push_back(zeros({size}).set_requires_grad());
      params.back().set_grad(values(size, {size}, DType::Float32));
    }
    found.push_back(clip_grad_norm_(params, 1));
    for (const Tensor& param : params) found.push_back(param.grad());
    results.push_back(numbers(found));
  }
  set_num_threads(before);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(ClipTest, norm_is_exact_for_many_elements) {
  Tensor p = zeros({1000000}).set_requires_grad();
  p.set_grad(full({1000000}, 0.1));
  const double exact = 1000 * static_cast<double>(0.1f);
  EXPECT_NEAR(clip_grad_norm_({p}, 1).item(), exact, exact * 1e-7);
  EXPECT_NEAR(p.grad().to_vector<float>()[777777], 1e-3, 1e-9);
}

TEST(ClipTest, norm_passes_on_what_is_not_finite) {
  Tensor p = zeros({2}).set_requires_grad();
  p.set_grad(tensor({NAN, 1}));
  EXPECT_TRUE(std::isnan(clip_grad_norm_({p}, 1).item()));
  EXPECT_TRUE(std::isnan(p.grad().to_vector<float>()[1]));
  p.set_grad(tensor({INFINITY, 1}));
  EXPECT_TRUE(std::isinf(clip_grad_norm_({p}, 1).item()));
  EXPECT_EQ(p.grad().to_vector<float>()[1], 0);
}

TEST(ClipTest, takes_parameters_without_gradient) {
  const Tensors params = make_params();
  EXPECT_EQ(clip_grad_norm_(params, 1).item(), 0);
  EXPECT_EQ(clip_grad_norm_({}, 1).item(), 0);
  EXPECT_NO_THROW(clip_grad_value_(params, 1));
}

TEST(ClipTest, value_limits_each_element) {
  for (const Layout layout : {Layout::Plain, Layout::ChannelsLast, Layout::EverySecond}) {
    const Tensors params = with_gradients(DType::Float32, layout);
    std::vector<double> expected = numbers(gradients(params));
    for (double& number : expected) number = std::min(std::max(number, -0.25), 0.25);
    clip_grad_value_(params, 0.25);
    EXPECT_EQ(numbers(gradients(params)), expected);
  }
  Tensor p = zeros({3}).set_requires_grad();
  p.set_grad(tensor({NAN, INFINITY, -INFINITY}));
  clip_grad_value_({p}, 2);
  const std::vector<float> found = p.grad().to_vector<float>();
  EXPECT_TRUE(std::isnan(found[0]));
  EXPECT_EQ(found[1], 2);
  EXPECT_EQ(found[2], -2);
}

TEST(ClipTest, refuses_bad_input) {
  const Tensors params = with_gradients(DType::Float32);
  const std::vector<double> before = numbers(gradients(params));
  EXPECT_TRUE(throws<Error>([&] { clip_grad_norm_(params, -1); }, "clip_grad_norm_: max_norm is -1"));
  EXPECT_TRUE(throws<Error>([&] { clip_grad_norm_(params, NAN); }, "clip_grad_norm_: max_norm is nan"));
  EXPECT_TRUE(throws<Error>([&] { clip_grad_value_(params, -1); }, "clip_grad_value_: clip_value is -1"));
  EXPECT_TRUE(throws<Error>([&] { clip_grad_value_(params, INFINITY); }, "clip_value is inf"));
  EXPECT_TRUE(throws<Error>([&] { clip_grad_norm_({params[0], Tensor()}, 1); }, "undefined tensor"));
  Tensor half = zeros({2}, {.dtype = DType::Float16}).set_requires_grad();
  half.set_grad(ones_like(half));
  EXPECT_TRUE(throws<DTypeError>(
      [&] {
        clip_grad_norm_({params[0], half}, 0.1);
      },
      "clip_grad_norm_: gradient [2] float16 cpu must be float32 or float64"));
  EXPECT_TRUE(throws<DTypeError>([&] { clip_grad_value_({params[0], half}, 0.1); }, "clip_grad_value_"));
  EXPECT_EQ(numbers(gradients(params)), before);
}

}  // namespace
}  // namespace lamella::test
