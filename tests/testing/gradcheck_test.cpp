#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"
#include "tests/support/temp_folder.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using testing::Comparison;
using testing::gradcheck;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using ::testing::Not;
using testing::Passes;
using testing::random_tensor;

using Formula = std::function<Tensor(const Tensors&)>;
/// Gradients of all inputs, from the inputs and the gradient of the result.
using Claim = std::function<Tensors(const Tensors&, const Tensor&)>;

/// A formula with any gradient, right or wrong.
class Claimed : public Function {
 public:
  Claimed(Formula formula, Claim claim) : formula_(std::move(formula)), claim_(std::move(claim)) {}
  std::string name() const override { return "claimed"; }
  Tensors forward(const Tensors& in) override {
    save_for_backward(in);
    return {formula_(in)};
  }
  Tensors backward(const Tensors& grads) override { return claim_(saved_tensors(), grads[0]); }

 private:
  Formula formula_;
  Claim claim_;
};
Formula claimed(const Formula& formula, const Claim& claim) {
  return [=](const Tensors& in) { return apply<Claimed>(in, formula, claim)[0]; };
}
Tensor square(const Tensors& in) { return in[0] * in[0]; }
Tensor product(const Tensors& in) { return in[0] * in[1]; }
/// x² with a gradient that is `change` of the right one.
Formula square_with(const std::function<Tensor(const Tensor&)>& change) {
  return claimed(square,
                 [=](const Tensors& in, const Tensor& dy) -> Tensors { return {change(in[0] * dy * 2.0)}; });
}
Tensor changed_at(const Tensor& x, std::size_t element, double by) {
  auto values = x.to_vector<double>();
  values[element] += by;
  return from_vector(values, x.shape());
}
Tensor leaf(const Shape& shape, std::uint64_t seed, double low = 0.5) {
  return random_tensor(shape, seed, {.low = low, .high = 2, .requires_grad = true});
}

TEST(GradcheckTest, passes_right_gradients) {
  EXPECT_TRUE(Passes(gradcheck(square, {leaf({3, 4}, 1)})));
  EXPECT_TRUE(Passes(gradcheck(square_with([](const Tensor& g) { return g; }), {leaf({3, 4}, 1)})));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({5}, 1), leaf({5}, 2)})));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({2, 3}, 1), leaf({3}, 2)})));
  const Tensor x = leaf({4}, 3);
  EXPECT_TRUE(Passes(gradcheck(product, {x, x})));
  EXPECT_TRUE(Passes(gradcheck([](const Tensors& in) { return in[0]; }, {leaf({}, 1)})));
  EXPECT_TRUE(Passes(gradcheck(square, {leaf({0, 3}, 1)})));
  // The second input has no part in the result, and neither claims nor has a gradient.
  EXPECT_TRUE(Passes(gradcheck(square, {leaf({3}, 1), leaf({2}, 2)})));
}

TEST(GradcheckTest, passes_any_layout) {
  for (const Tensor& numbers :
       {random_tensor({2, 3, 4, 5}, 1, {.format = MemoryFormat::ChannelsLast}),
        random_tensor({5, 8}, 2).transpose(0, 1), random_tensor({9}, 3).slice(0, {0, 9, 2})}) {
    Tensor x = numbers.detach().set_requires_grad();
    EXPECT_TRUE(Passes(gradcheck(square, {x})));
    EXPECT_FALSE(gradcheck(square_with([](const Tensor& g) { return changed_at(g, 1, 1e-3); }), {x}));
  }
}

TEST(GradcheckTest, finds_a_wrong_factor_and_a_wrong_sign) {
  for (const double factor : {-1.0, 0.0, 0.5, 0.99999, 1.00001, 2.0}) {
    const Comparison result =
        gradcheck(square_with([=](const Tensor& g) { return g * factor; }), {leaf({10}, 1, 1.0)});
    EXPECT_FALSE(result) << factor;
    EXPECT_THAT(result.message, HasSubstr("gradcheck: input 0 [10] float64 cpu: "));
  }
}

TEST(GradcheckTest, finds_one_wrong_element_and_says_where) {
  for (const std::size_t element : {0u, 7u, 11u}) {
    const Comparison result = gradcheck(
        square_with([=](const Tensor& g) { return changed_at(g, element, 1e-4); }), {leaf({3, 4}, 1)});
    EXPECT_FALSE(result);
    const std::string at = "[" + std::to_string(element / 4) + "," + std::to_string(element % 4) + "]";
    EXPECT_THAT(result.message, AllOf(HasSubstr("1 of 12 checked elements are wrong (allowed error 1e-06)"),
                                      HasSubstr("first at " + at), Not(HasSubstr("worst"))));
  }
}

TEST(GradcheckTest, says_the_numbers_the_first_and_the_worst) {
  // The cotangent's numbers are not known here, so the gradient is made to ignore them.
  const Comparison result = gradcheck(claimed([](const Tensors& in) { return in[0] * 0.0; },
                                              [](const Tensors&, const Tensor&) -> Tensors {
                                                return {from_vector<double>({0, 0.5, 0, -8, 2, 0}, {2, 3})};
                                              }),
                                      {leaf({2, 3}, 1)});
  EXPECT_THAT(result.message,
              AllOf(HasSubstr("3 of 6 checked"),
                    HasSubstr("first at [0,1]: gradient 0.5, central difference 0, error 0.5"),
                    HasSubstr("worst at [1,0]: gradient -8, central difference 0, error 8")));
}

TEST(GradcheckTest, finds_a_missing_term) {
  const Formula missing =
      claimed([](const Tensors& in) { return in[0] * in[0] + in[0] * 0.001; },
              [](const Tensors& in, const Tensor& dy) -> Tensors { return {in[0] * dy * 2.0}; });
  EXPECT_FALSE(gradcheck(missing, {leaf({6}, 1)}));
  const Formula dropped = [](const Tensors& in) { return in[0] * in[0].detach(); };
  EXPECT_FALSE(gradcheck(dropped, {leaf({6}, 1)}));
}

TEST(GradcheckTest, finds_gradients_given_to_the_wrong_input) {
  const Claim swapped = [](const Tensors& in, const Tensor& dy) -> Tensors {
    return {in[0] * dy, in[1] * dy};
  };
  EXPECT_THAT(gradcheck(claimed(product, swapped), {leaf({5}, 1), leaf({5}, 2)}).message,
              HasSubstr("input 0"));
  const Claim first_only = [](const Tensors& in, const Tensor& dy) -> Tensors {
    return {in[1] * dy, Tensor()};
  };
  EXPECT_THAT(gradcheck(claimed(product, first_only), {leaf({5}, 1), leaf({5}, 2)}).message,
              HasSubstr("input 1"));
}

TEST(GradcheckTest, numbers_the_inputs_as_they_were_given) {
  const Formula wrong = claimed([](const Tensors& in) { return in[1] * in[2]; },
                                [](const Tensors& in, const Tensor& dy) -> Tensors {
                                  return {Tensor(), in[2] * dy, in[1] * dy * 2.0};
                                });
  EXPECT_THAT(gradcheck(wrong, {random_tensor({7}, 1), leaf({5}, 2), leaf({5}, 3)}).message,
              HasSubstr("gradcheck: input 2 [5] float64 cpu: "));
  const Formula with_absent = [](const Tensors& in) { return in[1] * in[1].detach(); };
  EXPECT_THAT(gradcheck(with_absent, {Tensor(), leaf({5}, 2)}).message, HasSubstr("input 1"));
}

TEST(GradcheckTest, finds_a_gradient_that_is_right_for_ones_alone) {
  const Claim ignores = [](const Tensors& in, const Tensor&) -> Tensors { return {in[0] * 2.0}; };
  EXPECT_FALSE(gradcheck(claimed(square, ignores), {leaf({5}, 1)}));
  const Claim averages = [](const Tensors& in, const Tensor& dy) -> Tensors {
    return {in[0] * 2.0 * mean(dy)};
  };
  EXPECT_FALSE(gradcheck(claimed(square, averages), {leaf({5}, 1)}));
}

TEST(GradcheckTest, finds_a_function_without_a_graph) {
  const Comparison result =
      gradcheck([](const Tensors& in) { return square({in[0].detach()}); }, {leaf({5}, 1)});
  EXPECT_THAT(result.message, AllOf(HasSubstr("5 of 5"), HasSubstr("gradient 0,")));
  EXPECT_TRUE(Passes(gradcheck([](const Tensors&) { return ones({3}); }, {leaf({5}, 1)})));
}

TEST(GradcheckTest, finds_nan_and_infinity) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const Comparison claims =
        gradcheck(square_with([=](const Tensor& g) { return changed_at(g, 3, bad); }), {leaf({5}, 1)});
    EXPECT_THAT(claims.message, AllOf(HasSubstr("1 of 5"), HasSubstr("first at [3]")));
    EXPECT_FALSE(gradcheck([=](const Tensors& in) { return in[0] * in[0] + bad; }, {leaf({5}, 1)}));
  }
  // The worst, wherever it stands.
  const Comparison mixed =
      gradcheck(square_with([](const Tensor& g) { return changed_at(changed_at(g, 1, 9), 3, std::nan("")); }),
                {leaf({5}, 1)});
  EXPECT_THAT(mixed.message, AllOf(HasSubstr("first at [1]"), HasSubstr("worst at [3]: gradient nan")));
}

TEST(GradcheckTest, finds_functions_that_are_not_deterministic) {
  int calls = 0;
  const Formula counts = [&](const Tensors& in) { return in[0] * (1 + 1e-15 * ++calls); };
  const Comparison result = gradcheck(counts, {leaf({5}, 1)});
  EXPECT_THAT(result.message, AllOf(HasSubstr("the function is not deterministic"), HasSubstr("first at [")));
  const Formula draws = [](const Tensors& in) { return in[0] * rand({5}, {.dtype = DType::Float64}); };
  EXPECT_FALSE(gradcheck(draws, {leaf({5}, 1)}));
}

TEST(GradcheckTest, obeys_tolerance_and_step) {
  const Formula off = square_with([](const Tensor& g) { return g * 1.0001; });
  EXPECT_TRUE(Passes(gradcheck(off, {leaf({5}, 1)}, {.tolerance = 1e-3})));
  EXPECT_FALSE(gradcheck(off, {leaf({5}, 1)}, {.tolerance = 1e-6}));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({5}, 1), leaf({5}, 2)}, {.step = 1, .tolerance = 1e-14})));
  const Formula cube = [](const Tensors& in) { return in[0] * in[0] * in[0]; };
  EXPECT_TRUE(Passes(gradcheck(cube, {leaf({5}, 1)})));
  EXPECT_FALSE(gradcheck(cube, {leaf({5}, 1)}, {.step = 1}));
}

/// Which elements of `x` a check moves.
std::multiset<std::size_t> moved(Tensor x, const testing::GradcheckOptions& options) {
  const auto original = x.to_vector<double>();
  std::multiset<std::size_t> result;
  EXPECT_TRUE(Passes(gradcheck(
      [&](const Tensors& in) {
        const auto now = in[0].to_vector<double>();
        for (std::size_t i = 0; i < now.size(); ++i)
          if (now[i] != original[i]) result.insert(i);
        return square(in);
      },
      {x}, options)));
  return result;
}

TEST(GradcheckTest, checks_every_element_of_a_small_input) {
  const auto all = moved(leaf({20, 10}, 1), {});
  EXPECT_EQ(all.size(), 400u);
  for (std::size_t i = 0; i < 200; ++i) EXPECT_EQ(all.count(i), 2u);
}

TEST(GradcheckTest, samples_a_large_input_evenly_by_the_seed) {
  const Tensor x = leaf({39, 10}, 1);
  std::set<std::size_t> columns;
  for (const std::uint64_t seed : {0u, 1u}) {
    const auto some = moved(x, {.seed = seed, .max_elements = 39});
    EXPECT_EQ(some.size(), 78u);
    for (std::size_t row = 0; row < 39; ++row)
      EXPECT_EQ(std::distance(some.lower_bound(row * 10), some.lower_bound(row * 10 + 10)), 2);
    for (const std::size_t element : some) columns.insert(element % 10);
  }
  EXPECT_EQ(columns.size(), 10u);
  EXPECT_NE(moved(x, {.seed = 0, .max_elements = 39}), moved(x, {.seed = 1, .max_elements = 39}));
  EXPECT_EQ(moved(x, {.seed = 0, .max_elements = 39}), moved(x, {.seed = 0, .max_elements = 39}));
  EXPECT_EQ(moved(x, {.max_elements = 200}).size(), 400u);
}

TEST(GradcheckTest, leaves_inputs_and_gradients_as_they_were) {
  Tensor x = leaf({6}, 1);
  x.set_grad(full({6}, 7, {.dtype = DType::Float64}));
  const Tensor before = x.detach().clone();
  const auto unchanged = [&] {
    EXPECT_THAT(x, HasSameBits(before));
    EXPECT_THAT(x.grad(), IsClose(full({6}, 7)));
    EXPECT_TRUE(grad_enabled());
  };
  EXPECT_TRUE(gradcheck(square, {x}));
  unchanged();
  EXPECT_FALSE(gradcheck(square_with([](const Tensor& g) { return g * 2.0; }), {x}));
  unchanged();
  int calls = 0;
  EXPECT_THROW(gradcheck(
                   [&](const Tensors& in) {
                     if (++calls == 6) throw std::runtime_error("enough");
                     return square(in);
                   },
                   {x}),
               std::runtime_error);
  unchanged();
}

TEST(GradcheckTest, records_inside_a_no_grad) {
  const NoGrad no_grad;
  EXPECT_TRUE(Passes(gradcheck(square, {leaf({5}, 1)})));
  EXPECT_FALSE(grad_enabled());
}

TEST(GradcheckTest, refuses_what_it_cannot_check) {
  const Tensor x = leaf({3}, 1);
  EXPECT_THROW_WITH(gradcheck(square, {x * 2.0}), Error, "gradcheck: [3] float64 cpu is the result");
  EXPECT_THROW_WITH(gradcheck(square, {ones({3}, {.requires_grad = true})}), DTypeError,
                    "gradcheck: [3] float32 cpu is not float64");
  EXPECT_THROW_WITH(gradcheck(square, {x.detach()}), Error, "gradcheck: no input requires a gradient");
  EXPECT_THROW_WITH(gradcheck(square, {}), Error, "gradcheck: no input requires a gradient");
  EXPECT_THROW_WITH(gradcheck([](const Tensors&) { return Tensor(); }, {x}), Error,
                    "gradcheck: the function gave an undefined tensor");
  EXPECT_THROW_WITH(gradcheck([](const Tensors& in) { return in[0].to(DType::Int64); }, {x}), DTypeError,
                    "gradcheck: the function gave [3] int64 cpu");
  EXPECT_THROW_WITH(gradcheck(square, {x}, {.max_elements = 0}), Error, "gradcheck: max_elements is 0");
}

}  // namespace
}  // namespace lamella
