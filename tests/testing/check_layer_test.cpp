#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "autograd/record.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/core/threads.h"
#include "lamella/layers/layers.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/combine.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/matmul.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"
#include "tests/support/temp_folder.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using testing::check_layer;
using testing::Comparison;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::Passes;
using testing::random_tensor;

/// What Product does wrong.
enum class Flaw {
  None,
  Factor,              ///< the gradient of the input is doubled
  Overwrites,          ///< where it should add up
  OverwritesRows,      ///< where it should add up, for a row-major input
  OverwritesChannels,  ///< where it should add up, for a channels_last input
  Accumulates,         ///< where it should overwrite, but in the first backward run
  Drifts,              ///< another gradient each time
  OutputDrifts,        ///< another output after two backward runs
  Threads,             ///< numbers depend on the number of threads
  OneThread,           ///< numbers differ with one thread
  TwoThreads,          ///< with two
  FiveThreads,         ///< from five on
  Format               ///< gradients depend on the memory format, a little
};
int backward_runs = 0;

/// Writes gradient · other · factor, element by element in the target's own order.
void write_product(const detail::GradientTarget& target, const Tensor& gradient, const Tensor& other,
                   double factor, bool accumulate) {
  const auto g = gradient.to_vector<double>(), o = other.to_vector<double>();
  const detail::TensorView& view = target.view;
  for (std::size_t i = 0; i < g.size(); ++i) {
    auto rest = static_cast<std::int64_t>(i);
    std::int64_t offset = 0;
    for (int axis = view.shape.size() - 1; axis >= 0; --axis) {
      offset += rest % view.shape[axis] * view.strides[axis];
      rest /= view.shape[axis];
    }
    double& to = view.as<double>()[offset];
    to = (accumulate ? to : 0.0) + g[i] * o[i] * factor;
  }
}

/// a · b of one shape. `flawed` says which input has the flaw.
Tensor product(const Tensor& a, const Tensor& b, Flaw flaw, int flawed) {
  Tensor y = a.detach() * b.detach();
  if (flaw == Flaw::OutputDrifts) y = y * (backward_runs > 1 ? 1 + 1e-15 : 1.0);
  return detail::record(
      "product", {a, b}, detail::Output::of(y),
      [x = detail::Saved(a), w = detail::Saved(b), flaw, flawed](detail::GradientContext& context) {
        ++backward_runs;
        const bool last = x.get().memory_format() == MemoryFormat::ChannelsLast;
        for (const int i : {0, 1}) {
          if (!context.needs(i)) continue;
          const detail::GradientTarget target = context.target(i);
          const Flaw own = i == flawed ? flaw : Flaw::None;
          double factor = 1;
          if (own == Flaw::Factor) factor = 2;
          if (own == Flaw::Drifts) factor = 1 + 1e-15 * backward_runs;
          if (own == Flaw::Threads) factor = 1 + 1e-15 * num_threads();
          const int threads = num_threads();
          if (own == Flaw::OneThread && threads == 1) factor = 1 + 1e-15;
          if (own == Flaw::TwoThreads && threads == 2) factor = 1 + 1e-15;
          if (own == Flaw::FiveThreads && threads >= 5) factor = 1 + 1e-15;
          if (own == Flaw::Format && last) factor = 1 + 1e-8;
          bool accumulate = target.write == detail::GradientWrite::Accumulate;
          if (own == Flaw::Accumulates && backward_runs > 1) accumulate = true;
          if (own == Flaw::Overwrites || own == (last ? Flaw::OverwritesChannels : Flaw::OverwritesRows))
            accumulate = false;
          write_product(target, context.grad(), i == 0 ? w.get() : x.get(), factor, accumulate);
        }
      });
}

/// product(x, weight), or any formula of x and the layer.
struct Layer : Module {
  using Formula = std::function<Tensor(const Tensor&, Layer&)>;
  Parameter weight;
  Buffer kept, lost;                              ///< persistent, not persistent
  Tensor hidden = full({}, 1, {DType::Float64});  ///< known to nobody
  Formula formula;

  explicit Layer(Formula formula, const Shape& shape = {2, 3, 2, 2})
      : Module("Layer"), formula(std::move(formula)) {
    weight = add_parameter("weight", random_tensor(shape, 11));
    kept = add_buffer("kept", ones({}, {.dtype = DType::Float64}));
    lost = add_buffer("lost", ones({}, {.dtype = DType::Float64}), false);
  }
  Layer(Flaw flaw, int flawed)
      : Layer([=](const Tensor& x, Layer& self) { return product(x, self.weight, flaw, flawed); }) {}
  Tensor forward(const Tensor& x) override { return formula(x, *this); }
};

Tensor picture(MemoryFormat format = MemoryFormat::Contiguous) {
  return random_tensor({2, 3, 2, 2}, 1, {.format = format});
}
std::string complaint(Layer layer, const Tensor& x = picture()) {
  backward_runs = 0;
  const Comparison result = check_layer(layer, x);
  EXPECT_EQ(result.ok, result.message.empty());
  return result.message;
}
std::string complaint(Layer::Formula formula) { return complaint(Layer(std::move(formula))); }
std::string complaint(Flaw flaw, int flawed, MemoryFormat format = MemoryFormat::Contiguous) {
  return complaint(Layer(flaw, flawed), picture(format));
}
const char* leaf(int i) { return i == 0 ? "the input" : "parameter weight"; }

TEST(CheckLayerTest, passes_correct_layers) {
  EXPECT_EQ(complaint(Flaw::None, 0), "");
  EXPECT_EQ(complaint(Flaw::None, 0, MemoryFormat::ChannelsLast), "");
  Linear linear(4, 3);
  EXPECT_TRUE(Passes(check_layer(linear, random_tensor({2, 4}, 1))));
  Conv2d conv(2, 4, 3);
  EXPECT_TRUE(Passes(check_layer(conv, random_tensor({2, 2, 5, 4}, 1))));
  BatchNorm2d norm(3);
  EXPECT_TRUE(Passes(check_layer(norm, picture())));
  norm.eval();
  EXPECT_TRUE(Passes(check_layer(norm, picture())));
  Dropout dropout(0.5);
  EXPECT_TRUE(Passes(check_layer(dropout, picture())));
  // Any function of the module: here two uses of it.
  EXPECT_TRUE(Passes(check_layer([&](const Tensor& x) { return linear(x) * linear(x * 0.5); }, linear,
                                 random_tensor({2, 4}, 1))));
}

TEST(CheckLayerTest, takes_integer_inputs) {
  Layer rows(
      [](const Tensor& x, Layer& self) { return matmul(one_hot(x, 4).to(DType::Float64), self.weight); },
      {4, 3});
  EXPECT_EQ(complaint(rows, from_vector<std::int64_t>({3, 0, 3}, {3})), "");
  Layer detached(
      [](const Tensor& x, Layer& self) {
        return matmul(one_hot(x, 4).to(DType::Float64), self.weight) + self.weight->slice(0, {0, 3}).detach();
      },
      {4, 3});
  EXPECT_THAT(complaint(detached, from_vector<std::int64_t>({3, 0, 3}, {3})),
              AllOf(HasSubstr("check_layer: gradient"), HasSubstr("input 1 [4,3]")));
}

TEST(CheckLayerTest, finds_wrong_gradients) {
  EXPECT_THAT(complaint(Flaw::Factor, 0),
              AllOf(HasSubstr("check_layer: gradient"), HasSubstr("input 0 [2,3,2,2]")));
  EXPECT_THAT(complaint(Flaw::Factor, 1),
              AllOf(HasSubstr("check_layer: gradient"), HasSubstr("input 1 [2,3,2,2]")));
  EXPECT_THAT(complaint([](const Tensor& x, Layer& self) { return x.detach() * self.weight; }),
              HasSubstr("input 0"));
}

TEST(CheckLayerTest, finds_gradients_that_do_not_add_up) {
  for (const int i : {0, 1})
    EXPECT_THAT(
        complaint(Flaw::Overwrites, i),
        AllOf(HasSubstr(std::string("check_layer: two backward passes did not add up for ") + leaf(i)),
              HasSubstr("24 of 24 elements"), HasSubstr("first at [0,0,0,0]")));
}

TEST(CheckLayerTest, finds_gradients_that_do_not_overwrite) {
  for (const int i : {0, 1})
    EXPECT_THAT(
        complaint(Flaw::Accumulates, i),
        AllOf(HasSubstr(std::string("check_layer: a second run after zero_grad() gave other gradients of ") +
                        leaf(i)),
              HasSubstr("actual nan")));
}

TEST(CheckLayerTest, finds_what_is_not_deterministic) {
  EXPECT_THAT(complaint([n = 0](const Tensor& x, Layer& self) mutable {
                return x * self.weight * (1 + 1e-15 * ++n);
              }),
              HasSubstr("the function is not deterministic"));
  EXPECT_THAT(complaint(Flaw::OutputDrifts, 0), HasSubstr("check_layer: a second run gave other bits"));
  for (const int i : {0, 1})
    EXPECT_THAT(complaint(Flaw::Drifts, i), HasSubstr(std::string("gave other gradients of ") + leaf(i)));
}

TEST(CheckLayerTest, finds_numbers_that_depend_on_the_number_of_threads) {
  const int before = num_threads();
  for (const int start : {1, 2, 3}) {
    set_num_threads(start);
    EXPECT_THAT(
        complaint([](const Tensor& x, Layer& self) { return x * self.weight * (1 + 1e-15 * num_threads()); }),
        HasSubstr("check_layer: the number of threads changed the output"));
    for (const int i : {0, 1})
      for (const Flaw flaw : {Flaw::Threads, Flaw::OneThread, Flaw::TwoThreads, Flaw::FiveThreads})
        EXPECT_THAT(complaint(flaw, i),
                    HasSubstr(std::string("the number of threads changed the gradient of ") + leaf(i)));
    EXPECT_EQ(num_threads(), start);
  }
  set_num_threads(before);
}

TEST(CheckLayerTest, finds_other_numbers_in_the_other_memory_format) {
  const auto depends = [](const Tensor& x, Layer& self) {
    return x * self.weight * (x.memory_format() == MemoryFormat::ChannelsLast ? 1 + 1e-8 : 1.0);
  };
  EXPECT_THAT(complaint(depends), HasSubstr("check_layer: a channels_last input gave another output"));
  EXPECT_THAT(complaint(Layer(depends), picture(MemoryFormat::ChannelsLast)),
              HasSubstr("check_layer: a contiguous input gave another output"));
  for (const int i : {0, 1}) {
    EXPECT_THAT(complaint(Flaw::Format, i),
                HasSubstr(std::string("a channels_last input gave another gradient of ") + leaf(i)));
    EXPECT_THAT(complaint(Flaw::OverwritesChannels, i),
                HasSubstr(std::string("with a channels_last input, two backward passes did not add up for ") +
                          leaf(i)));
    EXPECT_THAT(
        complaint(Flaw::OverwritesRows, i, MemoryFormat::ChannelsLast),
        HasSubstr(std::string("with a contiguous input, two backward passes did not add up for ") + leaf(i)));
  }
}

TEST(CheckLayerTest, finds_a_learned_tensor_that_is_no_parameter) {
  const Tensor secret = random_tensor({2, 2}, 5, {.requires_grad = true});
  EXPECT_THAT(complaint([=](const Tensor& x, Layer& self) { return x * self.weight * secret; }),
              AllOf(HasSubstr("the output depends on a tensor [2,2]"),
                    HasSubstr("neither the input nor a parameter")));
  EXPECT_EQ(complaint([=](const Tensor& x, Layer& self) { return x * self.weight * secret.detach(); }), "");
}

TEST(CheckLayerTest, finds_buffers_that_the_state_misses) {
  EXPECT_EQ(complaint([](const Tensor& x, Layer& self) { return x * self.weight * self.kept; }), "");
  EXPECT_THAT(
      complaint([](const Tensor& x, Layer& self) { return x * self.weight * self.lost; }),
      AllOf(HasSubstr("check_layer: load_state_dict() of the layer's own state_dict() changed the output: "),
            HasSubstr("first at [0,0,0,0]")));
  EXPECT_THAT(complaint([](const Tensor& x, Layer& self) {
                return self.is_training() ? x * self.weight : x * self.weight * self.lost;
              }),
              HasSubstr("changed the output in evaluation: "));
}

TEST(CheckLayerTest, finds_running_numbers_that_the_state_misses) {
  const auto runs = [](const Tensor& statistic, const Tensor& x, Layer& self) {
    if (!self.is_training()) return x * self.weight * statistic;
    const NoGrad no_grad;
    Tensor(statistic).copy_(statistic * 0.9 + x.detach().reshape({-1}).select(0, 0) * 0.1);
    const EnableGrad enable;
    return x * self.weight;
  };
  EXPECT_EQ(complaint([=](const Tensor& x, Layer& self) { return runs(self.kept, x, self); }), "");
  EXPECT_THAT(complaint([=](const Tensor& x, Layer& self) { return runs(self.hidden, x, self); }),
              HasSubstr("changed the output in evaluation: "));
  Layer evaluating([=](const Tensor& x, Layer& self) { return runs(self.hidden, x, self); });
  evaluating.eval();
  EXPECT_THAT(complaint(evaluating), HasSubstr("state_dict() changed the output: "));
}

/// What check_layer may not change.
TEST(CheckLayerTest, puts_everything_back) {
  const int threads = num_threads();
  for (const double factor : {1.0, 2.0, 0.0}) {  // passes, fails, throws
    SCOPED_TRACE(factor);
    int calls = 0;
    Layer layer([&](const Tensor& x, Layer& self) {
      if (factor == 0 && ++calls == 30) throw std::runtime_error("enough");
      Tensor(self.kept).copy_(self.kept.get() * 0.5);
      set_num_threads(num_threads());
      return product(x, self.weight, factor == 2 ? Flaw::Overwrites : Flaw::None, 1) *
             rand({1}, {DType::Float64});
    });
    layer.eval();
    set_num_threads(3);
    manual_seed(17);
    rand({3});
    const RandomState random = random_state();
    const Tensor weight = layer.weight->detach().clone(), x = picture(), numbers = x.clone();
    try {
      EXPECT_EQ(check_layer(layer, x).ok, factor == 1);
      EXPECT_NE(factor, 0);
      EXPECT_FALSE(layer.weight->grad().defined());
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "enough");
    }
    EXPECT_TRUE(random_state() == random);
    EXPECT_EQ(num_threads(), 3);
    EXPECT_FALSE(layer.is_training());
    EXPECT_THAT(layer.weight.get(), HasSameBits(weight));
    EXPECT_EQ(layer.kept->item(), 1);
    EXPECT_EQ(layer.lost->item(), 1);
    EXPECT_THAT(x, HasSameBits(numbers));
    EXPECT_FALSE(x.requires_grad());
  }
  set_num_threads(threads);
}

TEST(CheckLayerTest, keeps_the_mode_of_each_part) {
  Sequential net(BatchNorm2d(3), Dropout(0.5));
  net.child("0").eval();
  EXPECT_TRUE(Passes(check_layer(net, picture())));
  EXPECT_TRUE(net.is_training());
  EXPECT_FALSE(net.child("0").is_training());
  EXPECT_TRUE(net.child("1").is_training());
  Layer trains_only([](const Tensor& x, Layer& self) {
    if (!self.is_training()) throw std::runtime_error("no evaluation");
    return x * self.weight;
  });
  EXPECT_THROW(check_layer(trains_only, picture()), std::runtime_error);
  EXPECT_TRUE(trains_only.is_training());
}

TEST(CheckLayerTest, leaves_the_module_in_float64_with_frozen_parameters_frozen) {
  Linear linear(4, 3);
  linear.set_requires_grad(false);
  EXPECT_TRUE(Passes(check_layer(linear, random_tensor({2, 4}, 1, {.dtype = DType::Float32}))));
  for (const Tensor& parameter : linear.parameters()) {
    EXPECT_EQ(parameter.dtype(), DType::Float64);
    EXPECT_FALSE(parameter.requires_grad());
  }
}

TEST(CheckLayerTest, passes_options_on_and_refuses_undefined_tensors) {
  Layer wrong(Flaw::Factor, 0), right(Flaw::None, 0);
  EXPECT_TRUE(Passes(check_layer(wrong, picture(), {.tolerance = 3})));
  EXPECT_THROW_WITH(check_layer(right, picture(), {.max_elements = 0}), Error, "max_elements");
  EXPECT_THROW_WITH(check_layer(right, Tensor()), Error, "check_layer: input is an undefined tensor");
  EXPECT_THROW_WITH(check_layer([](const Tensor&) { return Tensor(); }, right, picture()), Error,
                    "undefined");
}

}  // namespace
}  // namespace lamella
