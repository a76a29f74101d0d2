#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/testing.h"
#include "testing/position.h"

namespace lamella::testing {

namespace {

Comparison same_kind(const Tensor& actual, const Tensor& expected, bool with_type) {
  if (!actual.defined() || !expected.defined()) {
    if (actual.defined() == expected.defined()) return {};
    return {false,
            lamella::detail::concat("actual is ", actual.describe(), ", expected ", expected.describe())};
  }
  if (actual.shape() != expected.shape() || (with_type && actual.dtype() != expected.dtype()))
    return {false,
            lamella::detail::concat("actual is ", actual.describe(), ", expected ", expected.describe())};
  return {};
}

/// Scaled by the largest number, so that no square leaves the range of a double.
double norm(const std::vector<double>& values) {
  double scale = 0;
  for (const double value : values)
    if (std::isfinite(value)) scale = std::max(scale, std::abs(value));
  if (scale == 0) scale = 1;
  double total = 0;
  for (const double value : values) total += (value / scale) * (value / scale);
  return scale * std::sqrt(total);
}

}  // namespace

Comparison all_close(const Tensor& actual, const Tensor& expected, Tolerance tolerance) {
  if (Comparison kind = same_kind(actual, expected, false); !kind || !actual.defined()) return kind;
  const auto a = actual.to_vector<double>(), e = expected.to_vector<double>();
  std::size_t first = a.size(), worst = a.size(), count = 0;
  double worst_excess = -1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == e[i] || (std::isnan(a[i]) && std::isnan(e[i]))) continue;
    const double difference = std::abs(a[i] - e[i]);
    const double allowed = tolerance.absolute + tolerance.relative * std::abs(e[i]);
    if (std::isfinite(a[i]) && std::isfinite(e[i]) && difference <= allowed) continue;
    ++count;
    if (first == a.size()) first = i;
    // What no tolerance can be compared with (NaN) is as far off as can be.
    double excess = difference / std::max(allowed, 1e-300);
    if (!std::isfinite(excess)) excess = INFINITY;
    if (excess > worst_excess) {
      worst_excess = excess;
      worst = i;
    }
  }
  if (count == 0) return {};
  std::ostringstream out;
  out.precision(9);
  const auto show = [&](const char* which, std::size_t i) {
    out << which << " at " << position(static_cast<std::int64_t>(i), actual.shape()) << ": actual " << a[i]
        << ", expected " << e[i] << ", off by " << std::abs(a[i] - e[i]) << " (allowed "
        << tolerance.absolute + tolerance.relative * std::abs(e[i]) << ")";
  };
  out << count << " of " << a.size() << " elements of " << actual.describe() << " differ; ";
  show("first", first);
  if (worst != first) {
    out << "; ";
    show("worst", worst);
  }
  return {false, out.str()};
}

Comparison equal_bits(const Tensor& actual, const Tensor& expected) {
  if (Comparison kind = same_kind(actual, expected, true); !kind || !actual.defined()) return kind;
  const NoGrad no_grad;
  const Tensor a = actual.detach().to(Device::cpu()).contiguous(),
               e = expected.detach().to(Device::cpu()).contiguous();
  const auto bytes = [](const Tensor& t) -> const unsigned char* {
    switch (t.dtype()) {
      case DType::Float32:
        return reinterpret_cast<const unsigned char*>(t.data<float>());
      case DType::Float64:
        return reinterpret_cast<const unsigned char*>(t.data<double>());
      case DType::BFloat16:
        return reinterpret_cast<const unsigned char*>(t.data<BFloat16>());
      case DType::Float16:
        return reinterpret_cast<const unsigned char*>(t.data<Float16>());
      case DType::Int64:
        return reinterpret_cast<const unsigned char*>(t.data<std::int64_t>());
      case DType::Int32:
        return reinterpret_cast<const unsigned char*>(t.data<std::int32_t>());
      case DType::UInt8:
        return t.data<std::uint8_t>();
      case DType::Bool:
        return reinterpret_cast<const unsigned char*>(t.data<bool>());
    }
    return nullptr;
  };
  const std::size_t width = size_of(a.dtype());
  const unsigned char *pa = bytes(a), *pe = bytes(e);
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    if (std::memcmp(pa + static_cast<std::size_t>(i) * width, pe + static_cast<std::size_t>(i) * width,
                    width) == 0)
      continue;
    const auto va = a.to_vector<double>(), ve = e.to_vector<double>();
    std::ostringstream out;
    out.precision(17);
    out << actual.describe() << " differs in its bits, first at " << position(i, a.shape()) << ": actual "
        << va[static_cast<std::size_t>(i)] << ", expected " << ve[static_cast<std::size_t>(i)];
    return {false, out.str()};
  }
  return {};
}

double relative_error(const Tensor& actual, const Tensor& expected) {
  LAMELLA_CHECK(Error, actual.defined() && expected.defined(), "relative_error: ", actual.describe(),
                " against ", expected.describe());
  LAMELLA_CHECK(ShapeError, actual.shape() == expected.shape(), "relative_error: ", actual.describe(),
                " against ", expected.describe());
  auto difference = actual.to_vector<double>();
  const auto e = expected.to_vector<double>();
  for (std::size_t i = 0; i < e.size(); ++i) difference[i] -= e[i];
  const double size = norm(e);
  return size == 0 ? norm(difference) : norm(difference) / size;
}

}  // namespace lamella::testing
