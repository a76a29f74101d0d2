#include "operator_cases.h"

#include "lamella/lamella.h"

namespace lamella::test {
namespace {

Tensor image(const Shape& shape, std::uint64_t seed, MemoryFormat format = MemoryFormat::Contiguous,
             double low = -1, double high = 1) {
  return testing::random_tensor(
      shape, seed, {.low = low, .high = high, .kinks = {0}, .format = format, .requires_grad = true});
}
Tensor weights(const Shape& shape, std::uint64_t seed) {
  return testing::random_tensor(shape, seed, {.requires_grad = true});
}
Tensor labels(const Shape& shape, std::int64_t classes) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.product()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::int64_t>(i * 7 % static_cast<std::size_t>(classes));
  return from_vector<std::int64_t>(values, shape);
}

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};

}  // namespace

std::vector<OperatorCase> elementwise_cases() {
  std::vector<OperatorCase> cases;
  const auto unary = [&](const std::string& name, const std::function<Tensor(const Tensor&)>& f,
                         double low = -4, double high = 4, double units = 16) {
    for (const MemoryFormat format : kFormats)
      cases.push_back({name + "/" + lamella::name(format),
                       [f](const Tensors& x) { return f(x[0]); },
                       {image({3, 5, 7, 9}, 1, format, low, high)},
                       units});
    cases.push_back({name + "/strided",
                     [f](const Tensors& x) {
                       return f(x[0].slice(3, {1, 9, 2}).permute({2, 0, 3, 1}));
                     },
                     {image({3, 5, 7, 9}, 2, MemoryFormat::Contiguous, low, high)},
                     units});
    cases.push_back(
        {name + "/empty", [f](const Tensors& x) { return f(x[0]); }, {image({0, 5, 2, 2}, 3)}, units});
  };
  unary("neg", [](const Tensor& x) { return -x; });
  unary("abs", [](const Tensor& x) { return abs(x); });
  unary("exp", [](const Tensor& x) { return exp(x); });
  unary(
      "log", [](const Tensor& x) { return log(x); }, 0.1, 5);
  unary(
      "sqrt", [](const Tensor& x) { return sqrt(x); }, 0.1, 5);
  unary("clamp", [](const Tensor& x) { return clamp(x, -1.5, 2.5); });
  unary("relu", [](const Tensor& x) { return relu(x); });
  unary(
      "relu6", [](const Tensor& x) { return relu6(x); }, -2, 9);
  unary("leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.2); });
  unary("hardswish", [](const Tensor& x) { return hardswish(x); });
  unary("hardsigmoid", [](const Tensor& x) { return hardsigmoid(x); });
  unary("sigmoid", [](const Tensor& x) { return sigmoid(x); });
  unary("silu", [](const Tensor& x) { return silu(x); });
  unary("gelu", [](const Tensor& x) { return gelu(x); });
  unary("gelu_tanh", [](const Tensor& x) { return gelu(x, GeluApproximation::Tanh); });
  unary("tanh", [](const Tensor& x) { return tanh(x); });
  unary("square", [](const Tensor& x) { return pow(x, 2.0); });
  unary(
      "power", [](const Tensor& x) { return pow(x, 1.7); }, 0.2, 3);
  unary("plus_number", [](const Tensor& x) { return x + 1.5; });
  unary("number_minus", [](const Tensor& x) { return 2.0 - x; });
  unary(
      "by_number", [](const Tensor& x) { return 3.0 / x; }, 0.5, 3);
  unary("compare_number", [](const Tensor& x) { return greater(x, 0.25); });
  unary("is_nan", [](const Tensor& x) { return isnan(x); });
  unary("twice", [](const Tensor& x) { return x * x + x; });

  const auto binary = [&](const std::string& name,
                          const std::function<Tensor(const Tensor&, const Tensor&)>& f, double low = -2,
                          double high = 2) {
    const auto both = [f](const Tensors& x) { return f(x[0], x[1]); };
    for (const MemoryFormat format : kFormats) {
      const std::string suffix = std::string("/") + lamella::name(format);
      cases.push_back({name + suffix,
                       both,
                       {image({2, 8, 5, 3}, 4, format, low, high), image({2, 8, 5, 3}, 5, format, low, high)},
                       16});
      cases.push_back({name + "/gate" + suffix,
                       both,
                       {image({2, 8, 5, 3}, 4, format, low, high), image({2, 8, 1, 1}, 5, format, low, high)},
                       16});
    }
    cases.push_back(
        {name + "/mixed_formats",
         both,
         {image({2, 8, 5, 3}, 4, kFormats[0], low, high), image({2, 8, 5, 3}, 5, kFormats[1], low, high)},
         16});
    cases.push_back({name + "/row",
                     both,
                     {image({4, 6}, 6, kFormats[0], low, high), image({6}, 7, kFormats[0], low, high)},
                     16});
    cases.push_back({name + "/outer",
                     both,
                     {image({5, 1}, 8, kFormats[0], low, high), image({1, 7}, 9, kFormats[0], low, high)},
                     16});
  };
  binary("add", [](const Tensor& a, const Tensor& b) { return a + b; });
  binary("sub", [](const Tensor& a, const Tensor& b) { return a - b; });
  binary("mul", [](const Tensor& a, const Tensor& b) { return a * b; });
  binary(
      "div", [](const Tensor& a, const Tensor& b) { return a / b; }, 0.5, 2);
  binary("maximum", [](const Tensor& a, const Tensor& b) { return maximum(a, b); });
  binary("minimum", [](const Tensor& a, const Tensor& b) { return minimum(a, b); });
  binary(
      "pow", [](const Tensor& a, const Tensor& b) { return pow(a, b); }, 0.3, 2);
  binary("less", [](const Tensor& a, const Tensor& b) { return less(a, b); });
  binary("logical",
         [](const Tensor& a, const Tensor& b) { return logical_or(greater(a, 0.5), less(b, 0.0)); });
  binary("where", [](const Tensor& a, const Tensor& b) { return where(greater(a, 0.1), a * 2.0, b); });
  return cases;
}

std::vector<OperatorCase> tensor_cases() {
  std::vector<OperatorCase> cases;
  const auto reduce = [&](const std::string& name,
                          const std::function<Tensor(const Tensor&, const ReduceOptions&)>& f) {
    for (const Dims& axes : {Dims{}, Dims{0}, Dims{1}, Dims{3}, Dims{2, 3}, Dims{0, 2, 3}, Dims{0, 1}})
      for (const MemoryFormat format : kFormats)
        cases.push_back({name + axes.to_string() + "/" + lamella::name(format),
                         [f, axes](const Tensors& x) { return f(x[0], {.axes = axes}); },
                         {image({3, 40, 5, 6}, 11, format)},
                         32});
    cases.push_back({name + "/long",
                     [f](const Tensors& x) { return f(x[0], {.axes = {1}}); },
                     {image({3, 30000}, 12)},
                     64});
    cases.push_back({name + "/tall",
                     [f](const Tensors& x) { return f(x[0], {.axes = {0}}); },
                     {image({30000, 3}, 13)},
                     64});
  };
  reduce("sum", [](const Tensor& x, const ReduceOptions& o) { return sum(x, o); });
  reduce("mean", [](const Tensor& x, const ReduceOptions& o) { return mean(x, o); });
  reduce("var", [](const Tensor& x, const ReduceOptions& o) { return var(x, o); });
  reduce("max", [](const Tensor& x, const ReduceOptions& o) { return max(x, o); });
  reduce("min", [](const Tensor& x, const ReduceOptions& o) { return min(x, o); });
  for (int axis = 0; axis < 3; ++axis) {
    cases.push_back({"argmax" + std::to_string(axis),
                     [axis](const Tensors& x) { return argmax(x[0], axis); },
                     {image({7, 65, 33}, 14)}});
    cases.push_back({"argmin" + std::to_string(axis),
                     [axis](const Tensors& x) { return argmin(x[0], axis); },
                     {image({7, 65, 33}, 15)}});
    cases.push_back({"softmax" + std::to_string(axis),
                     [axis](const Tensors& x) { return softmax(x[0], axis); },
                     {image({7, 65, 33}, 16)},
                     32});
    cases.push_back({"log_softmax" + std::to_string(axis),
                     [axis](const Tensors& x) { return log_softmax(x[0], axis); },
                     {image({7, 65, 33}, 17)},
                     32});
  }
  cases.push_back(
      {"softmax/classes", [](const Tensors& x) { return softmax(x[0], 1); }, {image({5, 1000}, 18)}, 32});
  cases.push_back({"reshape",
                   [](const Tensors& x) {
                     return x[0].permute({1, 0, 2}).reshape({10, 12});
                   },
                   {image({4, 5, 6}, 19)}});
  cases.push_back({"cat",
                   [](const Tensors& x) {
                     return cat({x[0], x[1]}, 1);
                   },
                   {image({4, 5, 6}, 20), image({4, 3, 6}, 21)}});
  cases.push_back({"stack",
                   [](const Tensors& x) {
                     return stack({x[0], x[1]}, 1);
                   },
                   {image({4, 5}, 20), image({4, 5}, 21)}});
  cases.push_back({"pad",
                   [](const Tensors& x) {
                     return pad(x[0], {{1, 2}, {0, 3}}, 0.5);
                   },
                   {image({4, 5}, 22)}});
  cases.push_back({"expand",
                   [](const Tensors& x) {
                     return x[0].expand({3, 4, 5}) * 2.0;
                   },
                   {image({4, 1}, 23)}});
  cases.push_back({"to_channels_last",
                   [](const Tensors& x) { return x[0].contiguous(MemoryFormat::ChannelsLast); },
                   {image({2, 5, 7, 6}, 24)}});
  cases.push_back({"from_channels_last",
                   [](const Tensors& x) { return x[0].contiguous(); },
                   {image({2, 5, 7, 6}, 25, MemoryFormat::ChannelsLast)}});
  cases.push_back({"one_hot", [](const Tensors& x) { return one_hot(x[0], 7); }, {labels({5, 3}, 7)}});
  cases.push_back(
      {"convert",
       [](const Tensors& x) { return (x[0].to(float32) * 100.0).to(int32).to(int64).to(float32); },
       {image({50}, 26)}});
  for (const std::int64_t n : {1, 17, 64})
    cases.push_back({"matmul" + std::to_string(n),
                     [](const Tensors& x) { return matmul(x[0], x[1]); },
                     {image({33, 50}, 27), image({50, n}, 28)},
                     64});
  cases.push_back({"matmul/transposed",
                   [](const Tensors& x) {
                     return matmul(x[0].permute({1, 0}), x[1].permute({1, 0}));
                   },
                   {image({50, 33}, 27), image({20, 50}, 28)},
                   64});
  cases.push_back({"matmul/batched",
                   [](const Tensors& x) { return matmul(x[0], x[1]); },
                   {image({2, 3, 9, 8}, 29), image({3, 8, 7}, 30)},
                   64});
  cases.push_back({"matmul/vector",
                   [](const Tensors& x) { return matmul(x[0], x[1]); },
                   {image({9, 8}, 29), image({8}, 30)},
                   64});
  cases.push_back({"linear",
                   [](const Tensors& x) { return linear(x[0], x[1], x[2]); },
                   {image({12, 40}, 31), weights({10, 40}, 32), weights({10}, 33)},
                   64});
  return cases;
}

std::vector<OperatorCase> layer_cases() {
  std::vector<OperatorCase> cases;
  struct Conv {
    Shape input, weight;
    Conv2dOptions options;
  };
  const Conv convs[] = {
      {{2, 8, 9, 7}, {12, 8, 1, 1}, {}},
      {{3, 40, 5, 5}, {24, 40, 1, 1}, {}},
      {{2, 8, 9, 7}, {12, 8, 1, 1}, {.stride = 2}},
      {{2, 3, 17, 15}, {16, 3, 3, 3}, {.stride = 2, .padding = 1}},
      {{2, 6, 10, 9}, {4, 6, 3, 5}, {.stride = {1, 2}, .padding = {2, 1}, .dilation = {2, 1}}},
      {{2, 6, 10, 9}, {9, 2, 3, 3}, {.padding = 1, .groups = 3}},
      {{2, 4, 8, 8}, {5, 4, 4, 2}, {.same_padding = true}},
      {{0, 4, 8, 8}, {5, 4, 3, 3}, {.padding = 1}},
  };
  for (const Conv& c : convs)
    for (const MemoryFormat format : kFormats)
      cases.push_back({"conv2d" + c.input.to_string() + c.weight.to_string() + "/" + name(format),
                       [o = c.options](const Tensors& x) { return conv2d(x[0], x[1], x[2], o); },
                       {image(c.input, 41, format), weights(c.weight, 42), weights({c.weight[0]}, 43)},
                       64});
  struct Depthwise {
    Shape input, weight;
    DepthwiseConv2dOptions options;
  };
  const Depthwise depthwise[] = {
      {{2, 16, 14, 14}, {16, 1, 3, 3}, {.padding = 1}},
      {{2, 16, 56, 56}, {16, 1, 3, 3}, {.padding = 1}},
      {{1, 32, 112, 112}, {32, 1, 3, 3}, {.stride = 2, .padding = 1}},
      {{2, 16, 15, 13}, {16, 1, 3, 3}, {.stride = 2, .padding = 1}},
      {{2, 24, 28, 28}, {24, 1, 5, 5}, {.padding = 2}},
      {{2, 24, 28, 27}, {24, 1, 5, 5}, {.stride = 2, .padding = 2}},
      {{3, 40, 7, 7}, {40, 1, 5, 5}, {.padding = 2}},
      {{3, 40, 7, 7}, {40, 1, 3, 3}, {.padding = 1}},
      {{1, 16, 30, 40}, {16, 1, 3, 7}, {}},
      {{1, 8, 64, 64}, {8, 1, 3, 1}, {}},
      {{1, 8, 64, 64}, {8, 1, 1, 5}, {.padding = {0, 2}}},
      {{1, 7, 19, 23}, {7, 1, 7, 7}, {.padding = 3}},
      {{2, 5, 12, 11}, {10, 1, 3, 3}, {.padding = 1}},
      {{2, 3, 90, 60}, {6, 1, 11, 11}, {.padding = 5}},
      {{3, 2, 2, 1}, {2, 1, 1, 1}, {.stride = {1, 4}, .padding = {2, 3}}},
      {{2, 3, 9, 150}, {3, 1, 2, 9}, {.stride = {1, 4}, .padding = {0, 4}}},
      {{1, 2, 131, 120}, {4, 1, 13, 13}, {.stride = 2, .padding = 6, .dilation = 2}},
      {{2, 6, 12, 11}, {6, 1, 3, 2}, {.stride = {2, 3}, .padding = {3, 1}, .dilation = {2, 1}}},
      {{2, 6, 12, 11}, {6, 1, 4, 3}, {.same_padding = true}},
      {{2, 6, 1, 1}, {6, 1, 3, 3}, {.padding = 1}},
      {{0, 6, 8, 8}, {6, 1, 3, 3}, {.padding = 1}},
  };
  for (const Depthwise& d : depthwise)
    for (const MemoryFormat format : kFormats)
      for (const bool unaligned : {false, true})
        cases.push_back(
            {"depthwise" + d.input.to_string() + d.weight.to_string() + "/" + name(format) +
                 (unaligned ? "/unaligned" : ""),
             [o = d.options, unaligned, format](const Tensors& x) {
               if (!unaligned) return depthwise_conv2d(x[0], x[1], x[2], o);
               // The same numbers one element into their memory.
               const Shape shape = x[0].shape();
               const Tensor stored = format == MemoryFormat::Contiguous ? x[0] : x[0].permute({0, 2, 3, 1});
               const Tensor flat = cat({zeros({1}, {.dtype = x[0].dtype(), .device = x[0].device()}),
                                        stored.reshape({shape.product()})})
                                       .slice(0, {1, shape.product() + 1});
               const Tensor moved = flat.reshape(stored.shape());
               return depthwise_conv2d(
                   format == MemoryFormat::Contiguous ? moved : moved.permute({0, 3, 1, 2}), x[1], x[2], o);
             },
             {image(d.input, 44, format), weights(d.weight, 45), weights({d.weight[0]}, 46)},
             64});
  for (const MemoryFormat format : kFormats) {
    const std::string suffix = std::string("/") + name(format);
    for (const Shape& shape : {Shape{8, 16, 7, 7}, Shape{4, 5, 3, 3}, Shape{2, 96, 28, 28},
                               Shape{64, 8, 1, 1}, Shape{8, 40, 13, 17}}) {
      const std::int64_t channels = shape[1];
      const Tensors inputs{image(shape, 47, format), weights({channels}, 48), weights({channels}, 49)};
      cases.push_back({"batch_norm" + shape.to_string() + suffix,
                       [](const Tensors& x) { return batch_norm(x[0], x[1], x[2], {}, {}) * 1.0; }, inputs,
                       64});
      cases.push_back({"batch_norm_of_one_parameter" + shape.to_string() + suffix,
                       [](const Tensors& x) { return batch_norm(x[0], x[1], x[1], {}, {}) * 1.0; },
                       {inputs[0], inputs[1]},
                       64});
      cases.push_back({"batch_norm_relu6" + shape.to_string() + suffix,
                       [](const Tensors& x) { return relu6(batch_norm(x[0], x[1], x[2], {}, {}) * 4.0); },
                       inputs, 128});
      cases.push_back(
          {"batch_norm_beside_another" + shape.to_string() + suffix,
           [](const Tensors& x) { return batch_norm(x[0], x[1], x[2], {}, {}) * 0.5 + x[0] * 2.0; }, inputs,
           64});
      cases.push_back({"batch_norm_eval" + shape.to_string() + suffix,
                       [channels](const Tensors& x) {
                         const TensorOptions like{.dtype = x[0].dtype(), .device = x[0].device()};
                         return batch_norm(x[0], x[1], x[2], full({channels}, 0.25, like),
                                           full({channels}, 2, like), {.training = false}) *
                                1.0;
                       },
                       inputs, 64});
    }
    cases.push_back({"group_norm" + suffix,
                     [](const Tensors& x) { return group_norm(x[0], 4, x[1], x[2]); },
                     {image({3, 16, 6, 5}, 50, format), weights({16}, 51), weights({16}, 52)},
                     64});
    const auto pool = [&](const std::string& what, const std::function<Tensor(const Tensor&)>& f) {
      cases.push_back({what + suffix,
                       [f](const Tensors& x) { return f(x[0]); },
                       {image({3, 10, 13, 11}, 53, format)},
                       32});
    };
    pool("max_pool2d",
         [](const Tensor& x) { return max_pool2d(x, {.kernel = 3, .stride = 2, .padding = 1}); });
    pool("max_pool2d_wide", [](const Tensor& x) {
      return max_pool2d(x, {.kernel = {2, 3}, .stride = Size2(1), .dilation = 2, .ceil_mode = true});
    });
    pool("avg_pool2d",
         [](const Tensor& x) { return avg_pool2d(x, {.kernel = 3, .stride = 2, .padding = 1}); });
    pool("avg_pool2d_inside", [](const Tensor& x) {
      return avg_pool2d(
          x, {.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true, .count_include_pad = false});
    });
    pool("adaptive_avg_pool2d", [](const Tensor& x) { return adaptive_avg_pool2d(x, {3, 4}); });
    pool("global_avg_pool2d", [](const Tensor& x) { return adaptive_avg_pool2d(x, 1); });
    cases.push_back({"cross_entropy_maps" + suffix,
                     [](const Tensors& x) { return cross_entropy(x[0], x[1]); },
                     {image({3, 10, 4, 5}, 54, format), labels({3, 4, 5}, 10)},
                     32});
  }
  cases.push_back({"layer_norm",
                   [](const Tensors& x) { return layer_norm(x[0], {33}, x[1], x[2]); },
                   {image({7, 5, 33}, 55), weights({33}, 56), weights({33}, 57)},
                   64});
  const Tensors logits{image({12, 10}, 58), labels({12}, 10)};
  cases.push_back({"cross_entropy", [](const Tensors& x) { return cross_entropy(x[0], x[1]); }, logits, 32});
  cases.push_back({"cross_entropy_smoothed",
                   [](const Tensors& x) {
                     return cross_entropy(x[0], x[1], {.label_smoothing = 0.1, .ignore_index = 3});
                   },
                   logits, 32});
  cases.push_back({"cross_entropy_each",
                   [](const Tensors& x) { return cross_entropy(x[0], x[1], {.reduction = Reduction::None}); },
                   logits, 32});
  cases.push_back({"cross_entropy_sum",
                   [](const Tensors& x) { return cross_entropy(x[0], x[1], {.reduction = Reduction::Sum}); },
                   logits, 32});
  cases.push_back({"cross_entropy_weighted",
                   [](const Tensors& x) { return cross_entropy(x[0], x[1], {.weight = x[2].detach()}); },
                   {logits[0], logits[1], testing::random_tensor({10}, 59, {.low = 0.5, .high = 2})},
                   32});
  cases.push_back({"cross_entropy_soft",
                   [](const Tensors& x) { return cross_entropy(x[0], softmax(x[1], 1)); },
                   {image({12, 10}, 58), image({12, 10}, 60)},
                   32});
  cases.push_back({"mse_loss",
                   [](const Tensors& x) { return mse_loss(x[0], x[1]); },
                   {image({6, 7}, 61), image({6, 7}, 62)},
                   32});
  cases.push_back({"bce_with_logits",
                   [](const Tensors& x) { return bce_with_logits(x[0], x[1]); },
                   {image({6, 7}, 63), image({6, 7}, 64, MemoryFormat::Contiguous, 0, 1)},
                   32});
  cases.push_back(
      {"bce_each",
       [](const Tensors& x) { return bce_with_logits(x[0], x[1], {.reduction = Reduction::None}); },
       {image({6, 7}, 63), image({6, 7}, 64, MemoryFormat::Contiguous, 0, 1)},
       32});
  return cases;
}

}  // namespace lamella::test
