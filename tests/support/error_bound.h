#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lamella/tensor/create.h"
#include "lamella/tensor/tensor.h"

namespace lamella::test {

/// Unit roundoff.
inline double roundoff(DType dtype) {
  switch (dtype) {
    case DType::Float64:
      return std::ldexp(1, -53);
    case DType::Float32:
      return std::ldexp(1, -24);
    case DType::Float16:
      return std::ldexp(1, -11);
    default:
      return std::ldexp(1, -8);
  }
}

/// |x|, float64.
inline Tensor absolute(const Tensor& x) {
  if (!x.defined()) return x;
  std::vector<double> values = x.to_vector<double>();
  for (double& value : values) value = std::abs(value);
  return from_vector(values, x.shape());
}

/// Whether each element of `actual` is off by no more than adding up to `terms` products in float32 (float64
/// where `actual` is), then rounding so many times (`roundings`), explains. `magnitude` is the sum of the
/// absolute terms of each element.
inline ::testing::AssertionResult explained_by_rounding(const Tensor& actual, const Tensor& expected,
                                                        const Tensor& magnitude, std::int64_t terms,
                                                        int roundings = 1) {
  if (actual.shape() != expected.shape())
    return ::testing::AssertionFailure() << actual.describe() << " instead of " << expected.describe();
  const std::vector<double> a = actual.to_vector<double>(), e = expected.to_vector<double>(),
                            m = magnitude.to_vector<double>();
  const double sum = roundoff(actual.dtype() == DType::Float64 ? DType::Float64 : DType::Float32);
  const double growth = 2 + 2 * std::sqrt(static_cast<double>(terms));
  const bool half = actual.dtype() == DType::Float16 || actual.dtype() == DType::BFloat16;
  const double smallest = actual.dtype() == DType::Float16 ? std::ldexp(1, -25) : 1e-37;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double bound = growth * sum * m[i] +
                         (half ? 1.01 * roundings * roundoff(actual.dtype()) * std::abs(e[i]) : 0) + smallest;
    if (!(std::abs(a[i] - e[i]) <= bound))
      return ::testing::AssertionFailure() << "element " << i << " of " << actual.describe() << " is " << a[i]
                                           << " instead of " << e[i] << ", more than " << bound << " away";
  }
  return ::testing::AssertionSuccess();
}

}  // namespace lamella::test
