#pragma once

#include <string>
#include <vector>

#include "devices.h"

/// The operators that the GPU's tests go through.
namespace lamella::test {

/// An operator and what it is called with.
struct OperatorCase {
  std::string name;
  Function function;
  Tensors inputs;    ///< float64, on the CPU; those that require gradients are checked
  double units = 8;  ///< see expect_same_on_gpu()
};

std::vector<OperatorCase> elementwise_cases();
std::vector<OperatorCase> tensor_cases();
std::vector<OperatorCase> layer_cases();

}  // namespace lamella::test
