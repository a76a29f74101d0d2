// Random geometries: the GPU against the CPU, in every type, and gradients against differences.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

std::int64_t number(std::int64_t low, std::int64_t high) { return *rc::gen::inRange(low, high + 1); }
bool coin() { return number(0, 1) == 1; }
DType any_type() {
  return *rc::gen::element(DType::Float32, DType::Float64, DType::BFloat16, DType::Float16);
}
MemoryFormat any_format() { return coin() ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous; }
std::int64_t odd_size() {
  return *rc::gen::weightedElement<std::int64_t>({{1, 1}, {4, number(1, 9)}, {3, number(1, 40)}});
}

Tensor leaf(const Shape& shape, MemoryFormat format = MemoryFormat::Contiguous, double low = -1,
            double high = 1) {
  return testing::random_tensor(
      shape, static_cast<std::uint64_t>(number(0, 1000)),
      {.low = low, .high = high, .kinks = {0}, .format = format, .requires_grad = true});
}

void expect_agreement(const Function& function, const Tensors& inputs, double units = 64, double terms = 0) {
  expect_same_on_gpu(function, inputs, any_type(), units, terms);
  RC_ASSERT(!::testing::Test::HasFailure());
}

/// A property that is checked where there is a GPU. RapidCheck's own fixtures go on after a skipping SetUp.
#define GPU_PROPERTY(name)                   \
  void name##_property();                    \
  TEST(GpuProperties, name) {                \
    LAMELLA_NEEDS_GPU();                     \
    EXPECT_TRUE(rc::check(name##_property)); \
  }                                          \
  void name##_property()

GPU_PROPERTY(broadcasting) {
  Shape a, b;
  const std::int64_t axes = number(0, 4);
  for (std::int64_t i = 0; i < axes; ++i) {
    const std::int64_t size = number(0, 12) == 0 ? 0 : odd_size();
    a.push_back(number(0, 3) == 0 ? 1 : size);
    b.push_back(number(0, 3) == 0 ? 1 : size);
  }
  const bool cut = coin() && axes > 0 && b[0] == 1;
  const auto function = *rc::gen::element<Function>(
      [](const Tensors& x) { return x[0] + x[1]; }, [](const Tensors& x) { return x[0] * x[1]; },
      [](const Tensors& x) { return maximum(x[0], x[1]); },
      [](const Tensors& x) { return where(less(x[0], 0.3), x[0], x[1]); },
      [](const Tensors& x) { return relu6(x[0] - x[1]) * 3.0; });
  Tensor second = leaf(b);
  if (cut) second = second.detach().squeeze(0).clone().set_requires_grad();
  expect_agreement(function, {leaf(a), second});
}

GPU_PROPERTY(views) {
  const Shape shape{number(1, 5), odd_size(), odd_size(), number(1, 9)};
  const std::int64_t step = number(1, 3), first = number(0, shape[1] - 1);
  const Dims order =
      *rc::gen::element(Dims{0, 1, 2, 3}, Dims{0, 3, 1, 2}, Dims{3, 2, 1, 0}, Dims{1, 0, 2, 3});
  expect_agreement(
      [=](const Tensors& x) {
        const Tensor part = x[0].slice(1, {first, shape[1], step}).permute(order);
        return sigmoid(part) * part.flatten(0, 1).reshape(part.shape());
      },
      {leaf(shape, any_format())});
}

GPU_PROPERTY(reductions) {
  Shape shape;
  Dims axes;
  for (std::int64_t i = number(1, 4); i > 0; --i) shape.push_back(odd_size());
  for (std::size_t i = 0; i < static_cast<std::size_t>(shape.size()); ++i)
    if (coin()) axes.push_back(static_cast<std::int64_t>(i));
  const bool keep = coin();
  const auto function = *rc::gen::element<std::function<Tensor(const Tensor&, const ReduceOptions&)>>(
      [](const Tensor& x, const ReduceOptions& o) { return sum(x, o); },
      [](const Tensor& x, const ReduceOptions& o) { return mean(x, o); },
      [](const Tensor& x, const ReduceOptions& o) { return max(x, o); },
      [](const Tensor& x, const ReduceOptions& o) { return min(x, o); });
  expect_agreement([=](const Tensors& x) { return function(x[0], {.axes = axes, .keep_axes = keep}); },
                   {leaf(shape)});
}

GPU_PROPERTY(softmaxes) {
  // Of nearly one number that is 1 the gradient's terms, as large as the result's, all but cancel.
  constexpr double kGradient = 1;
  const Shape shape{odd_size(), odd_size(), odd_size()};
  const int axis = static_cast<int>(number(0, 2));
  const bool logarithm = coin();
  expect_agreement(
      [=](const Tensors& x) { return logarithm ? log_softmax(x[0], axis) : softmax(x[0], axis); },
      {leaf(shape, MemoryFormat::Contiguous, -5, 5)}, 8, kGradient);
}

GPU_PROPERTY(products_of_matrices) {
  const std::int64_t m = number(0, 70), k = number(1, 70), n = number(1, 70), batch = number(1, 3);
  const bool transposed = coin(), batched = coin();
  expect_agreement([=](const Tensors& x) { return matmul(transposed ? x[0].transpose(-1, -2) : x[0], x[1]); },
                   {leaf(batched ? (transposed ? Shape{batch, k, m} : Shape{batch, m, k})
                                 : (transposed ? Shape{k, m} : Shape{m, k})),
                    leaf({k, n})});
}

GPU_PROPERTY(batch_norms) {
  // Of two numbers the normalised ones are always 1 and -1, and nothing but rounding is left of the gradient.
  const Shape shape{number(2, 9), number(1, 70), number(3, 20), number(3, 20)};
  const bool fused = coin();
  expect_agreement(
      [=](const Tensors& x) {
        const Tensor y = batch_norm(x[0], x[1], x[2], {}, {});
        return (fused ? silu(y) : y) * 1.0;  // without a kink that rounding could cross
      },
      {leaf(shape, any_format()), leaf({shape[1]}), leaf({shape[1]})}, 256);
}

GPU_PROPERTY(pools) {
  const Size2 kernel(number(1, 4), number(1, 4)), stride(number(1, 3), number(1, 3)),
      padding(number(0, kernel.h / 2), number(0, kernel.w / 2));
  const Shape shape{number(0, 3), number(1, 20), number(5, 20), number(5, 20)};
  const int kind = static_cast<int>(number(0, 2));
  const bool ceiling = coin();
  expect_agreement(
      [=](const Tensors& x) {
        if (kind == 0)
          return max_pool2d(x[0],
                            {.kernel = kernel, .stride = stride, .padding = padding, .ceil_mode = ceiling});
        if (kind == 1)
          return avg_pool2d(x[0],
                            {.kernel = kernel, .stride = stride, .padding = padding, .ceil_mode = ceiling});
        return adaptive_avg_pool2d(x[0], kernel);
      },
      {leaf(shape, any_format())});
}

GPU_PROPERTY(losses) {
  const std::int64_t rows = number(1, 70), classes = number(2, 200);
  std::vector<std::int64_t> labels(static_cast<std::size_t>(rows));
  for (auto& label : labels) label = number(0, classes - 1);
  const double smoothing = coin() ? 0.1 : 0;
  expect_agreement(
      [=](const Tensors& x) { return cross_entropy(x[0], x[1], {.label_smoothing = smoothing}); },
      {leaf({rows, classes}, MemoryFormat::Contiguous, -4, 4), from_vector(labels, {rows})});
}

}  // namespace
}  // namespace lamella::test
