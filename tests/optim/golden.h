#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/core/threads.h"
#include "lamella/optim/optimizer.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"

/// The numbers of make_golden.py, and the training that they come from.
namespace lamella::test {

inline const std::vector<double>& golden(const std::string& name) {
  static const std::map<std::string, std::vector<double>> tables{
#include "tests/optim/golden.inc"
  };
  return tables.at(name);
}

inline const std::vector<Shape> kShapes{{2, 3, 2, 2}, {5}, {3, 2}};
inline constexpr int kSteps = 6;

inline Tensor values(std::int64_t seed, const Shape& shape, DType dtype = DType::Float64) {
  std::vector<double> numbers(static_cast<std::size_t>(shape.product()));
  for (std::size_t k = 0; k < numbers.size(); ++k)
    numbers[k] = static_cast<double>(((seed + static_cast<std::int64_t>(k)) * 37 + 11) % 101) / 50 - 1;
  return from_vector(numbers, shape).to(dtype);
}

/// How tensors lie in memory.
enum class Layout {
  Plain,
  ChannelsLast,          ///< parameters and gradients, where they have four axes
  MixedFormats,          ///< channels-last parameters with row-major gradients
  TransposedGradients,   ///< gradients with their axes in memory reversed
  TransposedParameters,  ///< the same for parameters
  EverySecond            ///< parameters and gradients with gaps between their elements
};

inline Tensor reversed(const Tensor& tensor) {
  Dims order;
  for (int axis = tensor.dim() - 1; axis >= 0; --axis) order.push_back(axis);
  return tensor.permute(order).contiguous().permute(order);
}

inline Tensor with_gaps(const Tensor& tensor) {
  Shape wide = tensor.shape();
  wide[wide.size() - 1] *= 2;
  Tensor space = full(wide, std::numeric_limits<double>::quiet_NaN(), {.dtype = tensor.dtype()});
  Tensor view = space.slice(-1, {.step = 2});
  view.copy_(tensor);
  return view;
}

inline Tensor channels_last(const Tensor& tensor) {
  return tensor.dim() == 4 ? tensor.contiguous(MemoryFormat::ChannelsLast) : tensor;
}

inline Tensor lay_out(const Tensor& tensor, Layout layout, bool gradient) {
  switch (layout) {
    case Layout::ChannelsLast:
      return channels_last(tensor);
    case Layout::MixedFormats:
      return gradient ? tensor : channels_last(tensor);
    case Layout::TransposedGradients:
      return gradient ? reversed(tensor) : tensor;
    case Layout::TransposedParameters:
      return gradient ? tensor : reversed(tensor);
    case Layout::EverySecond:
      return with_gaps(tensor);
    default:
      return tensor;
  }
}

inline Tensors make_params(DType dtype = DType::Float64, Layout layout = Layout::Plain) {
  Tensors params;
  for (std::size_t i = 0; i < kShapes.size(); ++i) {
    Tensor param = lay_out(values(1000 * static_cast<std::int64_t>(i), kShapes[i], dtype), layout, false);
    params.push_back(param.detach().set_requires_grad());
  }
  return params;
}

inline std::vector<optim::ParamGroup> two_groups(const Tensors& params) {
  return {{.params = {params[0], params[1]}}, {.params = {params[2]}, .lr = 0.05, .weight_decay = 0.0}};
}

/// Step number `step` of the golden training; gradients take the parameters' present types.
inline void train_step(optim::Optimizer& optimizer, const Tensors& params, int step,
                       Layout layout = Layout::Plain) {
  for (std::size_t i = 0; i < params.size(); ++i) {
    Tensor param = params[i];
    const bool missing = i == 1 && (step == 0 || step == 3);
    param.set_grad(missing ? Tensor()
                           : lay_out(values(100 * step + 10 * static_cast<std::int64_t>(i) + 7, kShapes[i],
                                            param.dtype()),
                                     layout, true));
  }
  optimizer.step();
}

inline std::vector<double> numbers(const Tensors& tensors) {
  std::vector<double> all;
  for (const Tensor& tensor : tensors)
    for (const double number : tensor.to_vector<double>()) all.push_back(number);
  return all;
}

using MakeOptimizer =
    std::function<std::unique_ptr<optim::Optimizer>(const std::vector<optim::ParamGroup>& groups)>;

inline std::vector<double> train(const MakeOptimizer& make, DType dtype = DType::Float64,
                                 Layout layout = Layout::Plain) {
  const Tensors params = make_params(dtype, layout);
  const auto optimizer = make(two_groups(params));
  for (int step = 0; step < kSteps; ++step) train_step(*optimizer, params, step, layout);
  return numbers(params);
}

inline void expect_close(const std::vector<double>& actual, const std::vector<double>& expected,
                         double relative, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  // A number near 0 is the difference of larger ones: parameters are of the order of 1.
  for (std::size_t i = 0; i < actual.size(); ++i)
    EXPECT_LE(std::abs(actual[i] - expected[i]), relative * std::max(std::abs(expected[i]), 0.1))
        << what << ", number " << i << ": " << actual[i] << " instead of " << expected[i];
}

/// All that every variant of every optimizer must do.
inline void check_optimizer(const std::string& name, const MakeOptimizer& make, double float32_bound = 4e-6) {
  const std::vector<double> expected = golden(name), double_run = train(make);
  expect_close(double_run, expected, 1e-12, name);
  expect_close(train(make, DType::Float32), expected, float32_bound, name + ", float32");
  for (const DType dtype : {DType::Float32, DType::Float64})
    for (const Layout layout : {Layout::ChannelsLast, Layout::MixedFormats, Layout::TransposedGradients,
                                Layout::TransposedParameters, Layout::EverySecond})
      EXPECT_EQ(train(make, dtype, layout), train(make, dtype))
          << name << ", " << lamella::name(dtype) << ", layout " << static_cast<int>(layout);

  // Stopped after each step and taken up by a new optimizer.
  for (int stop = 1; stop < kSteps; ++stop) {
    const Tensors params = make_params();
    auto optimizer = make(two_groups(params));
    for (int step = 0; step < stop; ++step) train_step(*optimizer, params, step);
    const StateDict state = optimizer->state_dict();
    optimizer = make(two_groups(params));
    optimizer->load_state_dict(state);
    for (int step = stop; step < kSteps; ++step) train_step(*optimizer, params, step);
    EXPECT_EQ(numbers(params), double_run) << name << ", resumed after step " << stop;
  }
}

template <class O, class Options>
MakeOptimizer maker(const Options& options) {
  return [options](const std::vector<optim::ParamGroup>& groups) {
    return std::make_unique<O>(groups, options);
  };
}

/// Whether `body` throws an E whose message has `part`.
template <class E, class Body>
::testing::AssertionResult throws(const Body& body, const std::string& part) {
  try {
    body();
  } catch (const E& error) {
    if (std::string(error.what()).find(part) != std::string::npos) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "the message is: " << error.what();
  }
  return ::testing::AssertionFailure() << "nothing was thrown, expected: " << part;
}

}  // namespace lamella::test
