// Where the operators of lamella/tensor/arithmetic.h do two things in one pass.
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/reduce.h"
#include "tensor/door.h"
#include "tests/tensor/elementwise_help.h"

namespace lamella {
namespace {

using detail::FusionGuard;
using detail::PendingActivation;
using testing::expect_gradients;
using testing::IsClose;
using testing::kFloatingTypes;
using testing::kLayouts;
using testing::laid_out;
using testing::Layout;
using testing::plain_map;
using testing::random_tensor;
using testing::rounding_bound;

TEST(ArithmeticFusedTest, gates_of_whole_planes_get_their_gradients) {
  for (const DType dtype : kFloatingTypes)
    for (const Shape& shape :
         {Shape{2, 3, 4, 5}, Shape{3, 70, 7, 9}, Shape{2, 130, 3, 1}, Shape{1, 2, 40, 41}})
      for (const Layout layout : kLayouts)
        for (const Layout of_grad : kLayouts) {
          SCOPED_TRACE(::testing::Message() << name(dtype) << ' ' << shape.to_string() << ' '
                                            << static_cast<int>(layout) << ' ' << static_cast<int>(of_grad));
          const Shape of_gate{shape[0], shape[1], 1, 1};
          const Tensor x =
              laid_out(random_tensor(shape, 27, {.dtype = dtype}), layout).detach().set_requires_grad();
          const Tensor gate = random_tensor(of_gate, 28, {.dtype = dtype}).set_requires_grad();
          const Tensor g = laid_out(random_tensor(shape, 29, {.dtype = dtype}), of_grad);
          const auto product = [](double a, double b) { return a * b; };
          auto bound = rounding_bound(dtype, 4);
          bound.relative += testing::unit_roundoff(dtype);
          bound.absolute += 1e-6 * (dtype == float64 ? 1e-6 : 1);
          expect_gradients(
              gate * x, g, {gate, x},
              {sum_to(plain_map(shape, product, x, g), of_gate), plain_map(shape, product, gate, g)}, bound);
        }
  // Empty planes give a gate nothing.
  const Tensor gate = ones({2, 3, 1, 1}).set_requires_grad();
  (zeros({2, 3, 0, 5}) * gate).backward(zeros({2, 3, 0, 5}));
  EXPECT_THAT(gate.grad(), IsClose(zeros({2, 3, 1, 1})));
}

TEST(ArithmeticFusedTest, a_sum_takes_one_pending_operand_as_it_is) {
  for (const DType dtype : kFloatingTypes)
    for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
      for (const bool first : {true, false}) {
        SCOPED_TRACE(::testing::Message() << name(dtype) << ' ' << name(format) << ' ' << first);
        const Shape shape{3, 7, 5, 6};
        const DType of_vectors = dtype == float64 ? float64 : float32;
        const Tensor stored = random_tensor(shape, 1, {.dtype = dtype, .format = format});
        const Tensor scale = random_tensor({7}, 2, {.dtype = of_vectors});
        const Tensor shift = random_tensor({7}, 3, {.dtype = of_vectors});
        const Tensor other = random_tensor(shape, 4, {.dtype = dtype}).set_requires_grad();
        const Tensor pending = detail::make_pending(stored, scale, shift, PendingActivation::None);
        const auto before = detail::pending_counters();
        const Tensor y = first ? pending + other : other + pending;
        const auto after = detail::pending_counters();
        EXPECT_TRUE(detail::is_pending(pending));
        EXPECT_EQ(after.folded - before.folded, 1u);
        EXPECT_EQ(after.applied, before.applied);
        const Shape along{7, 1, 1};
        const auto formula = [](double x, double by, double plus, double z) { return x * by + plus + z; };
        auto bound = rounding_bound(dtype, 4);
        bound.absolute += dtype == float64 ? 1e-15 : 1e-6;
        EXPECT_THAT(
            y, IsClose(plain_map(shape, formula, stored, scale.reshape(along), shift.reshape(along), other),
                       bound));
        EXPECT_EQ(y.memory_format(), first ? format : MemoryFormat::Contiguous);
        const Tensor g = random_tensor(shape, 5, {.dtype = dtype});
        expect_gradients(y, g, {other}, {g}, {0, 0});
      }
}

TEST(ArithmeticFusedTest, a_sum_applies_what_it_cannot_fold) {
  const Tensor stored = random_tensor({2, 3, 4, 4}, 6), scale = random_tensor({3}, 7);
  const auto owing = [&](PendingActivation activation) {
    return detail::make_pending(stored, scale, {}, activation);
  };
  const Tensor plain = stored * scale.reshape({3, 1, 1});
  const Tensor twice = owing(PendingActivation::None);
  EXPECT_THAT(twice + twice, IsClose(plain * 2, {1e-13, 0}));
  EXPECT_THAT(owing(PendingActivation::None) + owing(PendingActivation::None),
              IsClose(plain * 2, {1e-13, 0}));
  EXPECT_THAT(owing(PendingActivation::Relu) + plain, IsClose(clamp(plain, 0) + plain, {1e-13, 1e-15}));
  EXPECT_THAT(owing(PendingActivation::None) + ones({4}, {.dtype = float64}),
              IsClose(plain + 1, {1e-13, 1e-15}));
  EXPECT_EQ((owing(PendingActivation::None) + plain.to(float32)).dtype(), float64);
  const FusionGuard guard(false);
  const Tensor kept = owing(PendingActivation::None);
  EXPECT_THAT(kept + plain, IsClose(plain * 2, {1e-13, 0}));
  EXPECT_FALSE(detail::is_pending(kept));
}

}  // namespace
}  // namespace lamella
