#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "lamella/autograd/autograd.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/create.h"

/// Numbers that these tests and tests/golden/torch_models.py compute alike, bit for bit.
namespace lamella::formula {

/// Number i of a stream, in [0, 1): the upper 53 bits of splitmix64 of stream · 2^32 + i.
inline double uniform(std::uint64_t stream, std::uint64_t i) {
  std::uint64_t z = (stream << 32) + i + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z = z ^ (z >> 31);
  return static_cast<double>(z >> 11) * 0x1p-53;
}

/// Numbers of a stream through `f`, rounded to float32, as float64.
template <class F>
Tensor filled(const Shape& shape, std::uint64_t stream, const F& f) {
  std::vector<double> values(static_cast<std::size_t>(shape.product()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(f(uniform(stream, i)));
  return from_vector(values, shape);
}

/// Gives entry i of the state_dict numbers of stream i: weights of several axes uniform with variance 2 /
/// fan_in, scales and variances in [0.5, 1.5), shifts and means in [0, 0.4), counters 0.
inline void fill(Module& module) {
  const NoGrad no_grad;
  std::uint64_t stream = 0;
  for (const auto& [name, tensor] : module.state_dict()) {
    Tensor target = tensor;
    if (name.ends_with("num_batches_tracked")) {
      target.zero_();
    } else if (tensor.dim() >= 2) {
      const double bound =
          std::sqrt(6.0 / (static_cast<double>(tensor.numel()) / static_cast<double>(tensor.size(0))));
      target.copy_(filled(tensor.shape(), stream, [=](double u) { return (2 * u - 1) * bound; }));
    } else if (name.ends_with("weight") || name.ends_with("running_var")) {
      target.copy_(filled(tensor.shape(), stream, [](double u) { return 0.5 + u; }));
    } else {
      target.copy_(filled(tensor.shape(), stream, [](double u) { return 0.4 * u; }));
    }
    ++stream;
  }
}

/// Images of variance 1.
inline Tensor images(std::uint64_t seed, std::int64_t batch, std::int64_t pixels) {
  return filled({batch, 3, pixels, pixels}, 100'000 + seed,
                [](double u) { return (2 * u - 1) * std::sqrt(3.0); });
}

inline Tensor labels(std::int64_t seed, std::int64_t batch, std::int64_t classes) {
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < batch; ++i) values.push_back((3 * i + seed) % classes);
  return from_vector(values, {batch});
}

/// What is stored of a tensor: its norm, its product with a pseudo-random vector, and 16 of its elements.
inline std::vector<double> digest(const Tensor& tensor, std::uint64_t stream) {
  const std::vector<double> values = tensor.to_vector<double>();
  double square = 0, product = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    square += values[i] * values[i];
    product += values[i] * (2 * uniform(200'000 + stream, i) - 1);
  }
  std::vector<double> result = {std::sqrt(square), product};
  for (std::uint64_t i = 0; i < 16; ++i)
    result.push_back(
        values[static_cast<std::size_t>(uniform(300'000 + stream, i) * static_cast<double>(values.size()))]);
  return result;
}

}  // namespace lamella::formula
