// Operands that do not belong together, and devices that are not there.
#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

struct Call {
  const char* name;
  std::function<Tensor(const Tensor& a, const Tensor& b)> function;
  Shape a, b;
};

std::vector<Call> calls() {
  using T = const Tensor&;
  return {{"add", [](T a, T b) { return a + b; }, {2, 3}, {2, 3}},
          {"div", [](T a, T b) { return a / b; }, {2, 3}, {3}},
          {"maximum", [](T a, T b) { return maximum(a, b); }, {2, 3}, {2, 3}},
          {"less", [](T a, T b) { return less(a, b); }, {2, 3}, {2, 3}},
          {"where", [](T a, T b) { return where(greater(a, 0.0), a, b); }, {2, 3}, {2, 3}},
          {"cat",
           [](T a, T b) {
             return cat({a, b}, 0);
           },
           {2, 3},
           {2, 3}},
          {"matmul", [](T a, T b) { return matmul(a, b); }, {2, 3}, {3, 4}},
          {"linear", [](T a, T b) { return linear(a, b); }, {2, 3}, {4, 3}},
          {"conv2d", [](T a, T b) { return conv2d(a, b); }, {1, 4, 5, 5}, {6, 4, 3, 3}},
          {"depthwise_conv2d", [](T a, T b) { return depthwise_conv2d(a, b); }, {1, 4, 5, 5}, {4, 1, 3, 3}},
          {"batch_norm", [](T a, T b) { return batch_norm(a, b, b, {}, {}); }, {2, 4, 5, 5}, {4}},
          {"group_norm", [](T a, T b) { return group_norm(a, 2, b, b); }, {2, 4, 5, 5}, {4}},
          {"layer_norm", [](T a, T b) { return layer_norm(a, {5}, b, b); }, {2, 5}, {5}},
          {"mse_loss", [](T a, T b) { return mse_loss(a, b); }, {2, 3}, {2, 3}},
          {"bce_with_logits", [](T a, T b) { return bce_with_logits(a, b); }, {2, 3}, {2, 3}},
          {"cross_entropy", [](T a, T b) { return cross_entropy(a, b); }, {2, 3}, {2, 3}}};
}

/// Both are in the message, and the operator's name.
template <class Error>
void expect_names(const Call& call, const Tensor& a, const Tensor& b, const std::string& first,
                  const std::string& second) {
  SCOPED_TRACE(call.name);
  try {
    call.function(a, b);
    ADD_FAILURE() << "nothing was thrown for " << a.describe() << " and " << b.describe();
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const std::string& part : {std::string(call.name), first, second})
      EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another kind of error: " << error.what();
  }
}

TEST(GpuErrorsTest, operands_on_two_devices_are_named) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  for (const Call& call : calls()) {
    const Tensor a = ones(call.a), b = ones(call.b);
    expect_names<DeviceError>(call, a.to(gpu), b, "cuda:0", "cpu");
    expect_names<DeviceError>(call, a, b.to(gpu), "cuda:0", "cpu");
  }
}

TEST(GpuErrorsTest, operands_of_two_types_are_named_where_they_cannot_be_promoted) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  for (const Call& call : calls()) {
    const std::string name = call.name;
    if (name == "matmul" || name == "linear" || name == "conv2d" || name == "depthwise_conv2d" ||
        name == "batch_norm")
      expect_names<DTypeError>(call, ones(call.a, {.device = gpu}),
                               ones(call.b, {.dtype = float64, .device = gpu}), "float32", "float64");
  }
}

TEST(GpuErrorsTest, a_device_that_does_not_exist_is_named) {
  LAMELLA_NEEDS_GPU();
  const Device missing = Device::cuda(cuda_device_count());
  for (const auto& use : std::vector<std::function<void()>>{
           [&] { ones({2}, {.device = missing}); }, [&] { ones({2}).to(missing); },
           [&] { new_stream(missing); }, [&] { memory_stats(missing); }, [&] { synchronize(missing); },
           [&] {
             StreamGuard guard({missing, nullptr});
           }}) {
    try {
      use();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const DeviceError& error) {
      EXPECT_NE(std::string(error.what()).find(missing.to_string() + " is not available: the last GPU is"),
                std::string::npos)
          << error.what();
    }
  }
  // The ones that are there go on.
  EXPECT_EQ(sum(ones({5}, {.device = Device::cuda()})).item(), 5);
}

}  // namespace
}  // namespace lamella::test
