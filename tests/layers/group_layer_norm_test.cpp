#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "lamella/core/error.h"
#include "lamella/core/threads.h"
#include "lamella/layers/norm.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"
#include "tests/layers/norm_reference.h"

namespace lamella {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};

/// One call of layer_norm (over the last `axes` axes) or group_norm.
struct Norm {
  int axes = 0;
  std::int64_t groups = 0;

  Shape parameter_shape(const Shape& x) const {
    if (groups > 0) return {x[1]};
    Shape shape;
    for (int axis = x.size() - axes; axis < x.size(); ++axis) shape.push_back(x[axis]);
    return shape;
  }
  Tensor operator()(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps = 1e-5) const {
    return groups > 0 ? group_norm(x, groups, weight, bias, eps)
                      : layer_norm(x, parameter_shape(x.shape()), weight, bias, eps);
  }
  Reference reference(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& grad) const {
    const auto parameters = static_cast<std::size_t>(parameter_shape(x.shape()).product());
    const auto total = static_cast<std::size_t>(x.numel());
    if (groups == 0)
      return normalize(x, weight, bias, grad, 1e-5,
                       {total / parameters, [=](std::size_t i) { return i / parameters; }},
                       {parameters, [=](std::size_t i) { return i % parameters; }});
    const std::size_t inner = total / static_cast<std::size_t>(x.size(0) * x.size(1));
    const std::size_t size = parameters / static_cast<std::size_t>(groups) * inner;
    return normalize(x, weight, bias, grad, 1e-5, {total / size, [=](std::size_t i) { return i / size; }},
                     {parameters, [=](std::size_t i) { return i / inner % parameters; }});
  }
};

void compare(const Norm& norm, const Shape& shape, DType dtype, MemoryFormat format, double mean = 0) {
  SCOPED_TRACE(shape.to_string() + ' ' + name(dtype) + ' ' + name(format) + " axes " +
               std::to_string(norm.axes) + " groups " + std::to_string(norm.groups));
  const DType param = size_of(dtype) == 2 ? DType::Float32 : dtype;
  const auto leaf = [](const Tensor& values, DType type) {
    return values.to(type).detach().set_requires_grad();
  };
  Tensor x = leaf(random_tensor(shape, 1, {.low = mean - 2, .high = mean + 2, .format = format}), dtype);
  Tensor weight = leaf(random_tensor(norm.parameter_shape(shape), 2, {.low = 0.5, .high = 2}), param);
  Tensor bias = leaf(random_tensor(norm.parameter_shape(shape), 3), param);
  const Tensor grad = random_tensor(shape, 4, {.format = format}).to(dtype);
  for (Tensor* t : {&x, &weight, &bias}) {
    t->set_grad(full(t->shape(), NAN, {.dtype = t->dtype(), .format = t->memory_format()}));
    t->zero_grad();
  }
  const Tensor y = norm(x, weight, bias);
  EXPECT_EQ(y.dtype(), dtype);
  EXPECT_EQ(y.memory_format(), x.memory_format());
  y.backward(grad);

  const Reference want = norm.reference(x, weight, bias, grad);
  const double u = unit(dtype), up = unit(param);
  // Where few numbers are normalised they may lie so close together that 1 / σ is large.
  double steepest = 1;
  for (const double var : want.var) steepest = std::max(steepest, 1 / std::sqrt(var + 1e-5));
  expect_within(
      y, want.y, [&](std::size_t i) { return u * (std::abs(want.y[i]) + 1) + 24 * up * steepest; }, "y");
  expect_within(
      x.grad(), want.dx,
      [&](std::size_t i) { return u * std::abs(want.dx[i]) + 16 * up * steepest * want.dx_terms[i]; }, "dx");
  const double terms = static_cast<double>(shape.product()) / static_cast<double>(want.dbias.size());
  const auto bound = [&](std::size_t) { return up * (8 + 20 * std::sqrt(terms) + terms) * steepest; };
  expect_within(weight.grad(), want.dweight, bound, "dweight");
  expect_within(bias.grad(), want.dbias, bound, "dbias");
}

TEST(LayerNormTest, agrees_with_the_definition) {
  for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16, DType::Float16}) {
    for (const Shape& shape : {Shape{7, 5}, Shape{3, 4, 96}, Shape{400, 17}, Shape{2, 1000}, Shape{3, 9001}})
      compare({.axes = 1}, shape, dtype, MemoryFormat::Contiguous);
    for (const MemoryFormat format : kFormats)
      for (const int axes : {1, 2, 3}) compare({.axes = axes}, {3, 5, 6, 7}, dtype, format);
  }
}

TEST(GroupNormTest, agrees_with_the_definition) {
  for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16, DType::Float16})
    for (const MemoryFormat format : kFormats) {
      for (const std::int64_t groups : {1, 2, 3, 6}) compare({.groups = groups}, {3, 6, 5, 7}, dtype, format);
      compare({.groups = 4}, {2, 64, 20, 21}, dtype, format);
      compare({.groups = 5}, {9, 20, 2, 1}, dtype, format);
      compare({.groups = 1}, {2, 1, 1, 3}, dtype, format);
    }
  compare({.groups = 4}, {5, 12}, DType::Float32, MemoryFormat::Contiguous);
  compare({.groups = 4}, {5, 12, 9}, DType::Float32, MemoryFormat::Contiguous);
}

TEST(GroupNormTest, keeps_its_digits_where_the_mean_is_a_thousand_deviations) {
  for (const MemoryFormat format : kFormats)
    compare({.groups = 3}, {2, 12, 17, 19}, DType::Float32, format, 1150);
}

TEST(LayerNormTest, keeps_its_digits_where_the_mean_is_a_thousand_deviations) {
  compare({.axes = 1}, {30, 700}, DType::Float32, MemoryFormat::Contiguous, 1150);
}

TEST(LayerNormTest, agrees_with_pytorch) {
  // torch.nn.functional.layer_norm(x, (3,), weight, bias, 1e-3) in float64.
  const Tensor x = from_vector<double>({1, 2, 4, -1, 0.5, 7}, {2, 3}).set_requires_grad();
  const Tensor weight = tensor({1.5, -0.5, 2}, {.dtype = float64, .requires_grad = true});
  const Tensor bias = tensor({0.25, 1, -1}, {.dtype = float64, .requires_grad = true});
  const Tensor y = layer_norm(x, {3}, weight, bias, 1e-3);
  y.backward(from_vector<double>({1, 4, 9, 16, 25, 36}, {2, 3}));
  const testing::Tolerance close{.relative = 1e-12, .absolute = 1e-12};
  EXPECT_THAT(y, IsClose(from_vector<double>({-1.353052267458421, 1.133587688954869, 1.671753779097367,
                                              -1.1179870424881, 1.239997726752298, 1.78397363032666},
                                             {2, 3}),
                         close));
  EXPECT_THAT(x.grad(),
              IsClose(from_vector<double>({3.087383232362193, -4.63845559458162, 1.551072362219431,
                                           6.279586116259827, -7.729797522537341, 1.450211406277513},
                                          {2, 3}),
                      close));
  EXPECT_THAT(weight.grad(),
              IsClose(tensor({-15.66056329817868, -13.06858784925386, 62.13441735181803}, {.dtype = float64}),
                      close));
  EXPECT_THAT(bias.grad(), IsClose(tensor({17, 29, 45}, {.dtype = float64}), close));
}

TEST(GroupNormTest, agrees_with_pytorch) {
  // torch.nn.functional.group_norm(x, 2, weight, bias, 1e-3) in float64.
  const Tensor x = from_vector<double>({1, 2, 4, -1, 0.5, 7, 3, -2}, {1, 4, 2}).set_requires_grad();
  const Tensor weight = tensor({1.5, -0.5, 2, 1}, {.dtype = float64, .requires_grad = true});
  const Tensor bias = tensor({0.25, 1, -1, 0}, {.dtype = float64, .requires_grad = true});
  const Tensor y = group_norm(x, 2, weight, bias, 1e-3);
  y.backward(from_vector<double>({1, 4, 9, 16, 25, 36, 49, 64}, {1, 4, 2}));
  const testing::Tolerance close{.relative = 1e-12, .absolute = 1e-12};
  EXPECT_THAT(y, IsClose(from_vector<double>(
                             {-0.1659611580664639, 0.6659611580664642, 0.3067314032225599, 1.69326859677744,
                              -1.977786383535824, 1.933359150607474, 0.2632501801827221, -1.241036563718547},
                             {1, 4, 2}),
                         close));
  EXPECT_THAT(x.grad(), IsClose(from_vector<double>({1.759763492564377, 3.786385281655143, -2.975361249891391,
                                                     -2.57078752432813, -2.094560535979381, 2.372536073794848,
                                                     -3.223019832217847, 2.945044294402383},
                                                    {1, 4, 2}),
                                close));
  EXPECT_THAT(weight.grad(),
              IsClose(tensor({0.8319223161329287, -9.705760354884157, 40.57813491673672, -66.5270812490336},
                             {.dtype = float64}),
                      close));
  EXPECT_THAT(bias.grad(), IsClose(tensor({5, 25, 61, 113}, {.dtype = float64}), close));
}

TEST(GroupNormTest, gradients_agree_with_differences) {
  for (const MemoryFormat format : kFormats) {
    const Tensor x = random_tensor({2, 6, 3, 2}, 1, {.format = format, .requires_grad = true});
    const Tensor weight = random_tensor({6}, 2, {.requires_grad = true});
    const Tensor bias = random_tensor({6}, 3, {.requires_grad = true});
    EXPECT_TRUE(Passes(testing::gradcheck(
        [](const Tensors& in) { return group_norm(in[0], 3, in[1], in[2]); }, {x, weight, bias})));
    EXPECT_TRUE(
        Passes(testing::gradcheck([](const Tensors& in) { return group_norm(in[0], 2, {}, {}); }, {x})));
  }
}

TEST(LayerNormTest, gradients_agree_with_differences) {
  const Tensor x =
      random_tensor({2, 3, 4, 5}, 1, {.format = MemoryFormat::ChannelsLast, .requires_grad = true});
  const Tensor weight = random_tensor({4, 5}, 2, {.requires_grad = true});
  const Tensor bias = random_tensor({4, 5}, 3, {.requires_grad = true});
  EXPECT_TRUE(Passes(testing::gradcheck(
      [](const Tensors& in) {
        return layer_norm(in[0], {4, 5}, in[1], in[2]);
      },
      {x, weight, bias})));
  EXPECT_TRUE(
      Passes(testing::gradcheck([](const Tensors& in) { return layer_norm(in[0], {5}, {}, {}); }, {x})));
}

TEST(GroupLayerNormTest, give_the_same_bits_for_any_number_of_threads) {
  const int threads = num_threads();
  for (const MemoryFormat format : kFormats)
    for (const Norm& norm : {Norm{.axes = 3}, Norm{.axes = 1}, Norm{.groups = 8}}) {
      Tensors results[2];
      for (const int count : {1, 2}) {
        set_num_threads(count);
        const Shape shape{20, 32, 30, 31};
        const Tensor x = random_tensor(shape, 1, {.dtype = float32, .format = format, .requires_grad = true});
        const Tensor weight =
            random_tensor(norm.parameter_shape(shape), 2, {.dtype = float32, .requires_grad = true});
        const Tensor bias =
            random_tensor(norm.parameter_shape(shape), 3, {.dtype = float32, .requires_grad = true});
        const Tensor y = norm(x, weight, bias);
        y.backward(random_tensor(shape, 4, {.dtype = float32}));
        results[count - 1] = {y, x.grad(), weight.grad(), bias.grad()};
      }
      for (std::size_t i = 0; i < 4; ++i) EXPECT_THAT(results[1][i], HasSameBits(results[0][i]));
    }
  set_num_threads(threads);
}

TEST(GroupLayerNormTest, take_strided_operands_and_add_to_gradients) {
  for (const Norm& norm : {Norm{.axes = 2}, Norm{.groups = 2}}) {
    const Tensor base = random_tensor({3, 8, 6, 5}, 1);
    const Tensor x = base.slice(1, {0, {}, 2}).transpose(2, 3);  // [3, 4, 5, 6]
    const Shape shape = norm.parameter_shape(x.shape());
    Shape twice = shape;
    twice[0] *= 2;
    const Tensor weight = random_tensor(twice, 2).slice(0, {0, {}, 2});
    const Tensor grad = random_tensor(x.shape(), 3);
    const Reference want = norm.reference(x, weight, {}, grad);
    expect_within(
        norm(x, weight, {}), want.y, [](std::size_t) { return 1e-13; }, "y");
    Tensor leaf = x.clone().set_requires_grad(), w = weight.clone().set_requires_grad();
    leaf.set_grad(ones(x.shape(), {.dtype = float64}));
    w.set_grad(ones(shape, {.dtype = float64}));
    norm(leaf, w, {}).backward(grad);
    std::vector<double> dx = want.dx, dw = want.dweight;
    for (double& value : dx) value += 1;
    for (double& value : dw) value += 1;
    expect_within(
        leaf.grad(), dx, [](std::size_t) { return 1e-13; }, "dx");
    expect_within(
        w.grad(), dw, [](std::size_t) { return 1e-13; }, "dweight");
  }
}

TEST(GroupLayerNormTest, empty_batches_and_images_give_zero_parameter_gradients) {
  for (const MemoryFormat format : kFormats)
    for (const auto& [norm, shape] : {std::pair{Norm{.axes = 1}, Shape{0, 4, 3, 4}},
                                      {Norm{.axes = 1}, Shape{2, 4, 0, 4}},
                                      {Norm{.groups = 2}, Shape{0, 4, 3, 4}},
                                      {Norm{.groups = 2}, Shape{2, 4, 0, 4}},
                                      {Norm{.groups = 2}, Shape{2, 4, 3, 0}}}) {
      const Tensor x = empty(shape, {.format = format, .requires_grad = true});
      const Tensor weight = ones({4}, {.requires_grad = true}), bias = ones({4}, {.requires_grad = true});
      const Tensor y = norm(x, weight, bias);
      EXPECT_EQ(y.shape(), x.shape());
      y.backward(empty_like(y));
      EXPECT_THAT(weight.grad(), HasSameBits(zeros({4})));
      EXPECT_THAT(bias.grad(), HasSameBits(zeros({4})));
      EXPECT_EQ(x.grad().shape(), shape);
    }
}

TEST(GroupLayerNormTest, say_what_does_not_fit) {
  const Tensor x = zeros({2, 6, 4, 4});
  EXPECT_THAT(error_of<ShapeError>([&] { group_norm(x, 4, {}, {}); }),
              HasSubstr("group_norm: 4 groups for the 6 channels"));
  EXPECT_THAT(error_of<ShapeError>([&] { group_norm(x, 0, {}, {}); }), HasSubstr("0 groups"));
  EXPECT_THAT(error_of<ShapeError>([&] { group_norm(zeros({2}), 1, {}, {}); }), HasSubstr("[N,C]"));
  EXPECT_THAT(
      error_of<ShapeError>([&] { group_norm(x, 2, ones({2}), {}); }),
      HasSubstr("group_norm: weight [2] float32 cpu for input [2,6,4,4] float32 cpu; it must be [6]"));
  EXPECT_THAT(error_of<DTypeError>([&] { group_norm(x.to(int64), 2, {}, {}); }), HasSubstr("group_norm"));
  EXPECT_THAT(error_of<ShapeError>([&] { layer_norm(x, {3}, {}, {}); }),
              HasSubstr("layer_norm: input [2,6,4,4] float32 cpu must end in normalized_shape [3]"));
  EXPECT_THAT(error_of<ShapeError>([&] { layer_norm(x, {}, {}, {}); }), HasSubstr("normalized_shape"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                layer_norm(x, {4, 4}, ones({4}), {});
              }),
              HasSubstr("must be [4,4]"));
  EXPECT_THAT(error_of<DTypeError>([&] { layer_norm(x, {4}, {}, ones({4}, {.dtype = float16})); }),
              HasSubstr("layer_norm: bias"));
  EXPECT_THAT(error_of<Error>([&] { layer_norm(Tensor(), {4}, {}, {}); }), HasSubstr("layer_norm"));
}

}  // namespace
}  // namespace lamella
