#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "lamella/tensor/tensor.h"

/// The definition of every normalisation, slowly and in float64, and help for comparing with it.
namespace lamella {

/// A partition of a tensor's row-major elements: part of(i) of `count`.
struct Partition {
  std::size_t count;
  std::function<std::size_t(std::size_t)> of;
};

struct Reference {
  std::vector<double> y, dx, dweight, dbias;
  std::vector<double> mean, var;  ///< per part
  std::vector<double> dx_terms;   ///< per element, the absolute terms dx is made of, for error bounds
};

/// Normalises each of `parts` by its mean and biased variance; element i has parameter parameters.of(i).
/// Undefined weight and bias are 1 and 0.
inline Reference normalize(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& grad,
                           double eps, const Partition& parts, const Partition& parameters) {
  const std::vector<double> xs = x.to_vector<double>(), gs = grad.to_vector<double>();
  std::vector<double> w(parameters.count, 1), b(parameters.count, 0);
  if (weight.defined()) w = weight.to_vector<double>();
  if (bias.defined()) b = bias.to_vector<double>();
  std::vector<std::vector<std::size_t>> members(parts.count);
  for (std::size_t i = 0; i < xs.size(); ++i) members[parts.of(i)].push_back(i);

  Reference r;
  r.y.resize(xs.size());
  r.dx.resize(xs.size());
  r.dx_terms.resize(xs.size());
  r.dweight.resize(parameters.count);
  r.dbias.resize(parameters.count);
  for (const std::vector<std::size_t>& part : members) {
    const auto count = static_cast<double>(part.size());
    long double sum = 0, square = 0, sum_g = 0, sum_gx = 0;
    for (const std::size_t i : part) sum += xs[i];
    const auto mean = static_cast<double>(sum / count);
    for (const std::size_t i : part) square += (xs[i] - mean) * (xs[i] - mean);
    const auto var = static_cast<double>(square / count);
    const double inverse = 1 / std::sqrt(var + eps);
    double abs_g = 0, abs_gx = 0;
    for (const std::size_t i : part) {
      const double hat = (xs[i] - mean) * inverse, gw = gs[i] * w[parameters.of(i)];
      r.y[i] = hat * w[parameters.of(i)] + b[parameters.of(i)];
      r.dweight[parameters.of(i)] += gs[i] * hat;
      r.dbias[parameters.of(i)] += gs[i];
      sum_g += gw;
      sum_gx += gw * hat;
      abs_g += std::abs(gw);
      abs_gx += std::abs(gw * hat);
    }
    for (const std::size_t i : part) {
      const double hat = (xs[i] - mean) * inverse, gw = gs[i] * w[parameters.of(i)];
      r.dx[i] =
          inverse * (gw - static_cast<double>(sum_g) / count - hat * static_cast<double>(sum_gx) / count);
      r.dx_terms[i] = inverse * (std::abs(gw) + abs_g / count + std::abs(hat) * abs_gx / count);
    }
    r.mean.push_back(mean);
    r.var.push_back(var);
  }
  return r;
}

/// |actual − expected| <= bound(i) for every element.
template <class Bound>
void expect_within(const Tensor& actual, const std::vector<double>& expected, const Bound& bound,
                   const char* what) {
  const std::vector<double> values = actual.to_vector<double>();
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_LE(std::abs(values[i] - expected[i]), bound(i))
        << what << '[' << i << "] is " << values[i] << ", expected " << expected[i];
}

/// Distance from 1 to the next number of the type.
inline double unit(DType dtype) {
  switch (dtype) {
    case DType::Float64:
      return 0x1p-52;
    case DType::Float32:
      return 0x1p-23;
    case DType::Float16:
      return 0x1p-10;
    default:
      return 0x1p-7;
  }
}

template <class E, class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& other) {
    return std::string("another error: ") + other.what();
  }
  return "no error";
}

}  // namespace lamella
