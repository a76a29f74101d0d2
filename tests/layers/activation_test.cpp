#include "lamella/layers/activation.h"

#include <functional>

#include "autograd/record.h"
#include "lamella/core/threads.h"
#include "lamella/tensor/arithmetic.h"
#include "tensor/door.h"
#include "tests/tensor/elementwise_help.h"

namespace lamella {
namespace {

using detail::FusionGuard;
using detail::PendingActivation;
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
using testing::plain_map;
using testing::random_tensor;
using testing::rounding_bound;
using ::testing::StartsWith;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Activation = std::function<Tensor(const Tensor&)>;

double clip(double x, double low, double high) { return std::min(std::max(x, low), high); }

struct Case {
  const char* name;
  Activation op;
  std::function<double(double)> formula;
  std::vector<double> kinks;
  /// Bound on the error in float32, relative and absolute in units of 2^-24.
  double relative, absolute;
};

const Case kCases[] = {
    {"relu", relu, [](double x) { return std::max(x, 0.0); }, {0}, 0, 0},
    {"relu6", relu6, [](double x) { return clip(x, 0, 6); }, {0, 6}, 0, 0},
    {"leaky_relu",
     [](const Tensor& x) { return leaky_relu(x); },
     [](double x) { return x > 0 ? x : 0.01 * x; },
     {0},
     3,
     0},
    {"leaky_relu 0.3",
     [](const Tensor& x) { return leaky_relu(x, 0.3); },
     [](double x) { return x > 0 ? x : 0.3 * x; },
     {0},
     3,
     0},
    {"hardswish", hardswish, [](double x) { return x * clip(x + 3, 0, 6) / 6; }, {-3, 3}, 4, 6},
    {"hardsigmoid", hardsigmoid, [](double x) { return clip(x + 3, 0, 6) / 6; }, {-3, 3}, 4, 2},
    {"sigmoid", sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, {}, 8, 0},
    {"silu", silu, [](double x) { return x / (1 + std::exp(-x)); }, {}, 8, 0},
    {"gelu",
     [](const Tensor& x) { return gelu(x); },
     [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); },
     {},
     24,
     0},
    {"gelu tanh",
     [](const Tensor& x) { return gelu(x, GeluApproximation::Tanh); },
     [](double x) {
       return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
     },
     {},
     48,
     16},
    {"tanh", tanh, [](double x) { return std::tanh(x); }, {}, 6, 0},
};

Tensor wide_values(const Shape& shape, std::uint64_t seed, const std::vector<double>& kinks,
                   DType dtype = float64, bool requires_grad = false) {
  return random_tensor(
      shape, seed, {.low = -8, .high = 8, .kinks = kinks, .dtype = dtype, .requires_grad = requires_grad});
}

TEST(ActivationTest, follows_the_formulas_in_every_type_and_layout) {
  for (const Case& c : kCases)
    for (const DType dtype : kFloatingTypes)
      for (const auto layout : kLayouts) {
        SCOPED_TRACE(::testing::Message() << c.name << ' ' << name(dtype) << ' ' << static_cast<int>(layout));
        const Tensor x = laid_out(wide_values({3, 6, 5, 11}, 1, c.kinks, dtype), layout);
        const Tensor y = c.op(x);
        EXPECT_EQ(y.dtype(), dtype);
        EXPECT_EQ(y.memory_format(), x.memory_format());
        // In float64 the reference rounds, too; in the tails that counts many times.
        auto bound = rounding_bound(dtype, dtype == float64 ? 12 * c.relative : c.relative);
        bound.absolute += c.absolute * (dtype == float64 ? 0x1p-53 : 0x1p-24);
        EXPECT_THAT(y, IsClose(plain_map(x.shape(), c.formula, x), bound));
      }
}

TEST(ActivationTest, gradients_agree_with_differences_and_add_up) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
      const Tensor x = wide_values({2, 3, 4, 5}, 2, c.kinks).contiguous(format).detach().set_requires_grad();
      EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return c.op(t[0]); }, {x})));
      const Tensor g = random_tensor({2, 3, 4, 5}, 3);
      const Tensor exact = gradients_of({c.op(x)}, {x}, {g})[0];
      EXPECT_EQ(exact.memory_format(), format);
      expect_gradients(c.op(x), g, {x}, {exact}, {1e-13, 0});
      for (const DType dtype : {float32, bfloat16, float16}) {
        const Tensor narrow = x.detach().to(dtype).set_requires_grad(), by = g.to(dtype);
        const Tensor wide = narrow.detach().to(float64).set_requires_grad();
        const Tensor expected = gradients_of({c.op(wide)}, {wide}, {by.to(float64)})[0];
        auto bound = rounding_bound(dtype, 32);
        bound.absolute += 3 * testing::unit_roundoff(dtype);  // 1 - y of a saved output cancels
        expect_gradients(c.op(narrow), by, {narrow}, {expected}, bound);
      }
    }
  }
}

Tensor slopes(const Activation& op, std::initializer_list<double> at, DType dtype) {
  const Tensor x = tensor(at, {.dtype = dtype}).set_requires_grad();
  op(x).backward(full(x.shape(), 6, {.dtype = dtype}));
  return x.grad();
}

TEST(ActivationTest, gradients_at_kinks) {
  for (const DType dtype : kFloatingTypes) {
    SCOPED_TRACE(name(dtype));
    EXPECT_THAT(slopes(relu, {-1, -0.0, 0, 1}, dtype), IsClose(tensor({0, 0, 0, 6})));
    EXPECT_THAT(slopes(relu6, {-1, 0, 3, 6, 7}, dtype), IsClose(tensor({0, 0, 6, 0, 0})));
    EXPECT_THAT(slopes(hardswish, {-4, -3, 0, 3, 4}, dtype), IsClose(tensor({0, 0, 3, 6, 6})));
    EXPECT_THAT(slopes(hardsigmoid, {-4, -3, 0, 3, 4}, dtype), IsClose(tensor({0, 0, 1, 0, 0})));
    EXPECT_THAT(slopes([](const Tensor& x) { return leaky_relu(x, 0.5); }, {-1, 0, 1}, dtype),
                IsClose(tensor({3, 3, 6})));
  }
}

TEST(ActivationTest, nan_stays_and_infinities_saturate) {
  for (const DType dtype : kFloatingTypes) {
    const Tensor x = tensor({kNaN, kInfinity, -kInfinity}, {.dtype = dtype});
    for (const Case& c : kCases) EXPECT_TRUE(std::isnan(c.op(x).to_vector<double>()[0])) << c.name;
    EXPECT_THAT(relu(x), IsClose(tensor({kNaN, kInfinity, 0})));
    EXPECT_THAT(relu6(x), IsClose(tensor({kNaN, 6, 0})));
    EXPECT_THAT(hardsigmoid(x), IsClose(tensor({kNaN, 1, 0})));
    EXPECT_THAT(sigmoid(x), IsClose(tensor({kNaN, 1, 0})));
    EXPECT_THAT(tanh(x), IsClose(tensor({kNaN, 1, -1})));
    // Long enough for vector code.
    EXPECT_THAT(relu6(full({100}, kNaN, {.dtype = dtype})), IsClose(full({100}, kNaN)));
  }
}

// ---- Pending inputs ----

struct PendingCase {
  const char* name;
  Tensor (*op)(const Tensor&);
};
const PendingCase kPending[] = {{"relu", relu}, {"relu6", relu6}, {"hardswish", hardswish}, {"silu", silu}};

/// Behaves as x · scale[c] + shift[c] with a gradient with respect to x, its values left pending or not.
Tensor affine(const Tensor& x, const Tensor& scale, const Tensor& shift) {
  const bool wide = x.dtype() == float64;
  const Tensor pending = detail::make_pending(x.detach(), scale, shift, PendingActivation::None);
  const detail::Output y = detail::Output::of(pending);
  const Tensor factor = scale.defined() ? scale : ones({x.size(1)}, {.dtype = wide ? float64 : float32});
  return detail::record("affine", {x}, y, [factor](detail::GradientContext& context) {
    const Tensor& grad = context.grad();
    Shape along = Dims::filled(grad.dim(), 1);
    along[1] = factor.numel();
    context.add(0, (grad * factor.reshape(along)).to(grad.dtype()));
  });
}

TEST(ActivationPendingTest, values_and_gradients_do_not_depend_on_fusion) {
  for (const PendingCase& c : kPending)
    for (const DType dtype : kFloatingTypes)
      for (const Shape& shape : {Shape{3, 7, 5, 6}, Shape{2, 40, 3, 3}, Shape{9, 13}, Shape{2, 3, 5}})
        for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
          for (const int vectors : {0, 1, 2, 3}) {
            if (format == MemoryFormat::ChannelsLast && shape.size() != 4) continue;
            SCOPED_TRACE(::testing::Message() << c.name << ' ' << name(dtype) << ' ' << name(format) << ' '
                                              << shape.to_string() << ' ' << vectors);
            const DType of_vectors = dtype == float64 ? float64 : float32;
            // Half types round between the two operators unless fused. Few bits, so that nothing is lost
            // there and no element changes sides of a kink.
            const bool half = dtype == bfloat16 || dtype == float16;
            const auto few_bits = [&](const Tensor& t) { return half ? (t * 4).to(int32) * 0.25 : t; };
            const auto vector = [&](std::uint64_t seed) {
              return few_bits(random_tensor({shape[1]}, seed, {.low = 0.5, .high = 2})).to(of_vectors);
            };
            const Tensor scale = (vectors & 1) != 0 ? vector(4) : Tensor();
            const Tensor shift = (vectors & 2) != 0 ? vector(5) : Tensor();
            const Tensor values = few_bits(wide_values(shape, 6, {})).to(dtype).contiguous(format);
            const Tensor g = random_tensor(shape, 7, {.dtype = dtype});
            Tensors results, gradients;
            for (const bool fused : {false, true}) {
              const FusionGuard guard(fused);
              const Tensor x = values.detach().set_requires_grad();
              const Tensor before = affine(x, scale, shift);
              const Tensor y = c.op(before);
              EXPECT_EQ(detail::is_pending(y), fused);
              EXPECT_EQ(y.memory_format(), format);
              y.backward(g);
              if (fused) {
                EXPECT_TRUE(
                    detail::is_pending(before));  // never computed on its own, not even for the gradient
                EXPECT_TRUE(detail::is_pending(y));
              }
              gradients.push_back(x.grad());
              results.push_back(y.detach());
            }
            const double u = testing::unit_roundoff(dtype);
            EXPECT_THAT(results[1], IsClose(results[0], {.relative = 16 * u, .absolute = 32 * u}));
            EXPECT_THAT(gradients[1], IsClose(gradients[0], {.relative = 16 * u, .absolute = 32 * u}));
          }
}

TEST(ActivationPendingTest, gradient_after_a_consumer_applied_the_output) {
  for (const PendingCase& c : kPending) {
    const Tensor scale = tensor({2, 3, 0.5}, {.dtype = float64}),
                 shift = tensor({1, -1, 0}, {.dtype = float64});
    const Tensor values = wide_values({2, 3, 4, 5}, 8, {});
    Tensors gradients;
    for (const bool read_first : {false, true}) {
      const Tensor x = values.detach().set_requires_grad();
      const Tensor y = c.op(affine(x, scale, shift));
      ASSERT_TRUE(detail::is_pending(y));
      if (read_first) {
        detail::read(y);
        ASSERT_FALSE(detail::is_pending(y));
      }
      y.backward(ones({2, 3, 4, 5}, {.dtype = float64}));
      gradients.push_back(x.grad());
    }
    EXPECT_THAT(gradients[1], IsClose(gradients[0], {1e-13, 1e-13})) << c.name;
  }
}

TEST(ActivationPendingTest, a_second_activation_and_the_others_apply_the_debt) {
  const Tensor scale = tensor({2, 3, 0.5}, {.dtype = float64});
  const Tensor x = wide_values({2, 3, 4, 5}, 9, {-3, 0, 3});
  const Tensor once = relu(detail::make_pending(x, scale, {}, PendingActivation::None));
  ASSERT_TRUE(detail::is_pending(once));
  const Tensor twice = hardswish(once);
  EXPECT_FALSE(detail::is_pending(twice));
  const Tensor plain = x * scale.reshape({3, 1, 1});
  EXPECT_THAT(twice, IsClose(hardswish(relu(plain)), {1e-13, 0}));
  for (const Case& c : kCases) {
    const Tensor pending = detail::make_pending(x, scale, {}, PendingActivation::None);
    EXPECT_THAT(c.op(pending), IsClose(c.op(plain), {1e-12, 1e-15})) << c.name;
  }
  EXPECT_FALSE(detail::is_pending(relu(x)));  // nothing owed, nothing to fold into
}

TEST(ActivationTest, empty_tensors_stay_empty) {
  for (const Case& c : kCases) {
    const Tensor x = zeros({2, 0, 3}).set_requires_grad();
    const Tensor y = c.op(x);
    EXPECT_EQ(y.shape(), x.shape()) << c.name;
    y.backward(zeros({2, 0, 3}));
    EXPECT_EQ(x.grad().shape(), x.shape()) << c.name;
  }
}

TEST(ActivationTest, the_number_of_threads_does_not_show) {
  const int before = num_threads();
  const Tensor values = wide_values({4, 33, 41, 43}, 10, {}, float32);
  for (const Case& c : kCases) {
    Tensors results;
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      const Tensor x = values.detach().set_requires_grad();
      const Tensor y = c.op(x);
      y.backward(ones_like(y));
      results.push_back(y.detach());
      results.push_back(x.grad());
    }
    EXPECT_THAT(results[2], HasSameBits(results[0])) << c.name;
    EXPECT_THAT(results[3], HasSameBits(results[1])) << c.name;
  }
  set_num_threads(before);
}

TEST(ActivationTest, errors_name_the_operator) {
  const Tensor counts = ones({2}, {.dtype = int64});
  EXPECT_THAT(message_of<DTypeError>([&] { relu(counts); }), AllOf(StartsWith("relu: "), HasSubstr("int64")));
  EXPECT_THAT(message_of<DTypeError>([&] { gelu(counts); }), StartsWith("gelu: "));
  EXPECT_THAT(message_of<Error>([&] { silu(Tensor()); }), StartsWith("silu: "));
  EXPECT_THAT(message_of<Error>([&] { tanh(Tensor()); }), StartsWith("tanh: "));
}

}  // namespace
}  // namespace lamella
