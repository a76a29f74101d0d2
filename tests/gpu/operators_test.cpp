#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/lamella.h"
#include "operator_cases.h"

namespace lamella::test {
namespace {

class GpuOperators : public ::testing::TestWithParam<DType> {
 protected:
  void check(const std::vector<OperatorCase>& cases) {
    LAMELLA_NEEDS_GPU();
    for (const OperatorCase& c : cases) {
      SCOPED_TRACE(c.name);
      try {
        expect_same_on_gpu(c.function, c.inputs, GetParam(), c.units);
      } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
      }
    }
  }
};

TEST_P(GpuOperators, elementwise_agrees_with_the_cpu) { check(elementwise_cases()); }
TEST_P(GpuOperators, tensor_operators_agree_with_the_cpu) { check(tensor_cases()); }
TEST_P(GpuOperators, layers_agree_with_the_cpu) { check(layer_cases()); }

/// In float64, with the numbers on the GPU. Comparisons and other results without a gradient are left out.
void gradients_agree_with_differences(const std::vector<OperatorCase>& cases) {
  LAMELLA_NEEDS_GPU();
  int checked = 0;
  for (const OperatorCase& c : cases) {
    SCOPED_TRACE(c.name);
    Tensors inputs;
    bool wanted = false;
    for (const Tensor& input : c.inputs) {
      Tensor x = input.detach().to(Device::cuda());
      if (input.requires_grad()) x.set_requires_grad();
      wanted = wanted || (input.requires_grad() && input.numel() > 0);
      inputs.push_back(x);
    }
    const Tensor y = c.function(inputs);
    if (!wanted || !y.requires_grad() || y.dtype() != DType::Float64) continue;
    ++checked;
    const testing::Comparison passed =
        testing::gradcheck(c.function, inputs, {.step = 1e-7, .tolerance = 1e-5, .max_elements = 12});
    EXPECT_TRUE(passed.ok) << passed.message;
  }
  EXPECT_GT(checked, 20);
}
TEST(GpuGradcheck, elementwise) { gradients_agree_with_differences(elementwise_cases()); }
TEST(GpuGradcheck, tensor_operators) { gradients_agree_with_differences(tensor_cases()); }
TEST(GpuGradcheck, layers) { gradients_agree_with_differences(layer_cases()); }

INSTANTIATE_TEST_SUITE_P(Types, GpuOperators,
                         ::testing::Values(DType::Float32, DType::Float64, DType::BFloat16, DType::Float16),
                         [](const auto& info) { return std::string(name(info.param)); });

TEST(GpuRandomTest, dropout_has_the_bits_of_the_cpu) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const DType dtype : {DType::Float32, DType::BFloat16}) {
      const Tensor x = testing::random_tensor({5, 7, 9, 3}, 70, {.dtype = dtype, .format = format});
      const auto draw = [&](Device device) {
        manual_seed(3);
        next_random_step();
        const Tensor moved = x.to(device);
        return std::pair(dropout(moved, 0.3, true).to(Device::cpu()),
                         drop_path(moved, 0.5, true).to(Device::cpu()));
      };
      const auto cpu = draw(Device::cpu()), gpu = draw(Device::cuda());
      EXPECT_TRUE(testing::equal_bits(gpu.first, cpu.first).ok)
          << testing::equal_bits(gpu.first, cpu.first).message;
      EXPECT_TRUE(testing::equal_bits(gpu.second, cpu.second).ok);
    }
}

}  // namespace
}  // namespace lamella::test
