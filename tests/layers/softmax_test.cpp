// softmax() and log_softmax() of lamella/layers/activation.h.
#include "lamella/core/threads.h"
#include "lamella/layers/activation.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/reduce.h"
#include "tests/tensor/elementwise_help.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using testing::expect_gradients;
using testing::gradcheck;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::kFloatingTypes;
using testing::kLayouts;
using testing::laid_out;
using testing::message_of;
using testing::Passes;
using testing::random_tensor;
using testing::rounding_bound;
using ::testing::StartsWith;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// By plain loops in double.
Tensor plain_softmax(bool logarithm, const Tensor& x, int axis) {
  auto values = x.to_vector<double>();
  std::int64_t inner = 1;
  for (int a = axis + 1; a < x.dim(); ++a) inner *= x.size(a);
  const std::int64_t length = x.size(axis);
  for (std::int64_t line = 0; line < x.numel() / length; ++line) {
    const std::int64_t begin = line / inner * inner * length + line % inner;
    const auto at = [&](std::int64_t i) -> double& {
      return values[static_cast<std::size_t>(begin + i * inner)];
    };
    double top = at(0), sum = 0;
    for (std::int64_t i = 0; i < length; ++i) top = std::max(top, at(i));
    for (std::int64_t i = 0; i < length; ++i) sum += std::exp(at(i) - top);
    for (std::int64_t i = 0; i < length; ++i)
      at(i) = logarithm ? at(i) - top - std::log(sum) : std::exp(at(i) - top) / sum;
  }
  return from_vector(values, x.shape());
}

Tensor run(bool logarithm, const Tensor& x, int axis) {
  return logarithm ? log_softmax(x, axis) : softmax(x, axis);
}

TEST(SoftmaxTest, follows_the_formula_along_every_axis_in_every_type_and_layout) {
  for (const bool logarithm : {false, true})
    for (const DType dtype : kFloatingTypes)
      for (const auto layout : kLayouts)
        for (int axis = 0; axis < 4; ++axis) {
          SCOPED_TRACE(::testing::Message()
                       << logarithm << ' ' << name(dtype) << ' ' << static_cast<int>(layout) << ' ' << axis);
          const Tensor x =
              laid_out(random_tensor({3, 19, 5, 7}, 1, {.low = -6, .high = 6, .dtype = dtype}), layout);
          const Tensor y = run(logarithm, x, axis);
          EXPECT_EQ(y.dtype(), dtype);
          EXPECT_EQ(y.memory_format(), x.memory_format());
          auto bound = rounding_bound(dtype, 12);
          bound.absolute += 16 * (dtype == float64 ? 0x1p-53 : 0x1p-24) * (logarithm ? 1 : 0);
          bound.relative += 12 * (dtype == float64 ? 0x1p-53 : 0x1p-24);  // x - max, up to 12
          EXPECT_THAT(y, IsClose(plain_softmax(logarithm, x, axis), bound));
          EXPECT_THAT(run(logarithm, x, axis - 4), HasSameBits(y));
        }
}

TEST(SoftmaxTest, lines_of_any_length) {
  for (const bool logarithm : {false, true})
    for (const std::int64_t length : {1, 2, 15, 16, 17, 255, 256, 257, 1000, 20'000})
      for (const bool last : {true, false}) {
        const Tensor x = random_tensor(last ? Shape{5, length} : Shape{length, 70}, 2,
                                       {.low = -6, .high = 6, .dtype = float32});
        const int axis = last ? 1 : 0;
        EXPECT_THAT(run(logarithm, x, axis),
                    IsClose(plain_softmax(logarithm, x, axis), {.relative = 2e-6, .absolute = 1e-12}))
            << length;
      }
}

TEST(SoftmaxTest, large_inputs_do_not_overflow) {
  const Tensor x = tensor({1000, 1001, -1000, 999});
  EXPECT_THAT(softmax(x, 0), IsClose(plain_softmax(false, x, 0), {1e-6, 0}));
  EXPECT_THAT(log_softmax(x, 0), IsClose(plain_softmax(true, x, 0), {1e-6, 0}));
  EXPECT_THAT(softmax(tensor({0, -kInfinity}), 0), IsClose(tensor({1, 0})));
  EXPECT_THAT(log_softmax(tensor({0, -kInfinity}), 0), IsClose(tensor({0, -kInfinity})));
}

TEST(SoftmaxTest, nan_spreads_along_its_line_only) {
  for (const bool logarithm : {false, true})
    for (const int axis : {0, 1}) {
      Tensor x = random_tensor({20, 30}, 3, {.dtype = float32});
      x.select(0, 4).select(0, 6).fill_(kNaN);
      const auto y = run(logarithm, x, axis).to_vector<double>();
      for (int i = 0; i < 20; ++i)
        for (int j = 0; j < 30; ++j)
          EXPECT_EQ(std::isnan(y[static_cast<std::size_t>(i * 30 + j)]), axis == 0 ? j == 6 : i == 4);
    }
}

TEST(SoftmaxTest, gradients_agree_with_differences_and_add_up) {
  for (const bool logarithm : {false, true})
    for (int axis = 0; axis < 4; ++axis)
      for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
        SCOPED_TRACE(::testing::Message() << logarithm << ' ' << axis << ' ' << name(format));
        const Tensor x = random_tensor({2, 5, 3, 4}, 4, {.format = format, .requires_grad = true});
        EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return run(logarithm, t[0], axis); }, {x})));
        const Tensor g = random_tensor({2, 5, 3, 4}, 5);
        expect_gradients(run(logarithm, x, axis), g, {x},
                         {gradients_of({run(logarithm, x, axis)}, {x}, {g})[0]}, {1e-12, 1e-15});
        for (const DType dtype : {float32, bfloat16, float16}) {
          const Tensor narrow = x.detach().to(dtype).set_requires_grad(), by = g.to(dtype);
          const Tensor wide = narrow.detach().to(float64).set_requires_grad();
          const Tensor exact = gradients_of({run(logarithm, wide, axis)}, {wide}, {by.to(float64)})[0];
          const double u = testing::unit_roundoff(dtype);
          expect_gradients(run(logarithm, narrow, axis), by, {narrow}, {exact}, {4 * u, 8 * u});
        }
      }
}

TEST(SoftmaxTest, long_lines_get_their_gradients) {
  for (const bool logarithm : {false, true})
    for (const Shape& shape : {Shape{3, 700}, Shape{700, 100}}) {
      const int axis = shape[0] == 3 ? 1 : 0;
      const Tensor x = random_tensor(shape, 6, {.dtype = float32}).set_requires_grad();
      const Tensor wide = x.detach().to(float64).set_requires_grad();
      const Tensor g = random_tensor(shape, 7, {.dtype = float32});
      const Tensor gradient = gradients_of({run(logarithm, x, axis)}, {x}, {g})[0];
      // By arithmetic whose gradients are tested on their own.
      const Tensor power = exp(wide);
      const Tensor share = power / sum(power, {.axes = {axis}, .keep_axes = true});
      const Tensor exact = gradients_of({logarithm ? log(share) : share}, {wide}, {g.to(float64)})[0];
      EXPECT_THAT(gradient, IsClose(exact, {1e-5, 1e-7}));
    }
}

TEST(SoftmaxTest, empty_tensors_and_threads) {
  EXPECT_EQ(softmax(zeros({0, 3}), 1).shape(), (Shape{0, 3}));
  EXPECT_EQ(log_softmax(zeros({3, 0}), 1).shape(), (Shape{3, 0}));
  const int before = num_threads();
  const Tensor x = random_tensor({6, 40, 33, 35}, 8, {.dtype = float32});
  for (int axis = 0; axis < 4; ++axis) {
    set_num_threads(1);
    const Tensor one = softmax(x, axis);
    set_num_threads(3);
    EXPECT_THAT(softmax(x, axis), HasSameBits(one));
  }
  set_num_threads(before);
}

TEST(SoftmaxTest, errors_name_the_operator) {
  EXPECT_THAT(message_of<ShapeError>([] { softmax(zeros({2, 3}), 2); }), StartsWith("softmax: "));
  EXPECT_THAT(message_of<ShapeError>([] { log_softmax(zeros({2, 3}), -3); }), StartsWith("log_softmax: "));
  EXPECT_THAT(message_of<DTypeError>([] { softmax(zeros({2}, {.dtype = int32}), 0); }),
              AllOf(StartsWith("softmax: "), HasSubstr("int32")));
}

}  // namespace
}  // namespace lamella
