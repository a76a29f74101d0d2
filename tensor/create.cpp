#include "lamella/tensor/create.h"

#include <cmath>
#include <cstring>
#include <numbers>

#include "autograd/record.h"
#include "core/check.h"
#include "core/parallel.h"
#include "core/philox.h"
#include "core/profiling_bytes.h"

namespace lamella {

namespace {

Tensor finish(Tensor tensor, const TensorOptions& options) {
  if (options.requires_grad) tensor.set_requires_grad();
  return tensor;
}

/// Not contiguous(format): of one channel or one pixel that lets a row-major tensor be, whose memory_format()
/// is then another.
Tensor in_format(const Tensor& values, MemoryFormat format) {
  if (format == MemoryFormat::Contiguous) return values;
  return detail::allocate(values.shape(), values.dtype(), values.device(), format).copy_(values);
}

/// Draws one float32 per element in row-major order on the CPU; `draw(lanes, i)` gives element i of a block
/// of four.
template <class Draw>
Tensor random(const char* op, const Shape& shape, const TensorOptions& options, DType dtype,
              const Draw& draw) {
  Tensor values = detail::allocate(shape, dtype, Device::cpu());
  const detail::RandomKey key = detail::next_random_key(Device::cpu());
  const std::int64_t count = values.numel();
  const detail::profiling::BytesApart no_kernel_draws;
  void* const data = detail::write(values, op).data;
  detail::parallel_for((count + 3) / 4, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block)
      draw(detail::random_block(key, key.drawn_step, static_cast<std::uint64_t>(block)), data, block * 4,
           std::min<std::int64_t>(4, count - block * 4));
  });
  return finish(in_format(values.to(options.dtype).to(options.device), options.format), options);
}

void check_random_dtype(const char* op, const TensorOptions& options) {
  LAMELLA_CHECK(DTypeError, is_floating(options.dtype), op, ": ", name(options.dtype), " is not floating");
}

}  // namespace

Tensor empty(const Shape& shape, const TensorOptions& options) {
  LAMELLA_CHECK(DeviceError, !options.pinned || options.device.is_cpu(), "empty: page-locked memory is the ",
                "CPU's, and the device is ", options.device.to_string());
  return finish(detail::allocate(shape, options.dtype, options.device, options.format, options.pinned),
                options);
}

Tensor empty_like(const Tensor& like) {
  detail::check_defined("empty_like", "tensor", like);
  return detail::allocate(like.shape(), like.dtype(), like.device(), like.memory_format());
}

Tensor full(const Shape& shape, double value, const TensorOptions& options) {
  Tensor tensor = detail::allocate(shape, options.dtype, options.device, options.format);
  tensor.fill_(value);
  return finish(tensor, options);
}

Tensor zeros(const Shape& shape, const TensorOptions& options) { return full(shape, 0, options); }
Tensor ones(const Shape& shape, const TensorOptions& options) { return full(shape, 1, options); }
Tensor zeros_like(const Tensor& like) { return empty_like(like).fill_(0); }
Tensor ones_like(const Tensor& like) { return empty_like(like).fill_(1); }
Tensor scalar(double value, const TensorOptions& options) { return full({}, value, options); }

Tensor arange(double begin, double end, double step, const TensorOptions& options) {
  LAMELLA_CHECK(ShapeError, std::isfinite(begin) && std::isfinite(end) && std::isfinite(step) && step != 0,
                "arange: from ", begin, " to ", end, " by ", step);
  const double count = std::ceil((end - begin) / step);
  LAMELLA_CHECK(ShapeError, count >= 0 && count < 1e15, "arange: from ", begin, " to ", end, " by ", step);
  const Tensor values = detail::allocate({static_cast<std::int64_t>(count)}, DType::Float64, Device::cpu());
  const detail::profiling::BytesApart no_kernel_counts;
  double* const to = detail::write(values, "arange").as<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) to[i] = begin + static_cast<double>(i) * step;
  return finish(values.to(options.dtype).to(options.device), options);
}

Tensor eye(std::int64_t n, const TensorOptions& options) {
  LAMELLA_CHECK(ShapeError, n >= 0, "eye: negative size ", n);
  Tensor result = zeros({n, n}, {.dtype = options.dtype, .device = options.device});
  detail::alias(result, {n}, {n + 1}, 0).fill_(1);
  return finish(result, options);
}

Tensor tensor(std::initializer_list<double> values, const TensorOptions& options) {
  const std::vector<double> copy(values);
  return finish(
      from_vector(copy, {static_cast<std::int64_t>(copy.size())}).to(options.dtype).to(options.device),
      options);
}

template <class T>
Tensor from_span(std::span<const T> values, const Shape& shape, const TensorOptions& options) {
  LAMELLA_CHECK(ShapeError, static_cast<std::int64_t>(values.size()) == shape.product(),
                "from_span: ", values.size(), " numbers for shape ", shape.to_string());
  Tensor plain = detail::allocate(shape, dtype_of<T>, Device::cpu());
  if (!values.empty()) {
    const detail::profiling::BytesApart no_kernel_copies;
    std::memcpy(detail::write(plain, "from_span").data, values.data(), values.size_bytes());
  }
  return finish(in_format(plain.to(options.dtype).to(options.device), options.format), options);
}

template Tensor from_span<float>(std::span<const float>, const Shape&, const TensorOptions&);
template Tensor from_span<double>(std::span<const double>, const Shape&, const TensorOptions&);
template Tensor from_span<std::int64_t>(std::span<const std::int64_t>, const Shape&, const TensorOptions&);
template Tensor from_span<std::int32_t>(std::span<const std::int32_t>, const Shape&, const TensorOptions&);
template Tensor from_span<std::uint8_t>(std::span<const std::uint8_t>, const Shape&, const TensorOptions&);
template Tensor from_span<BFloat16>(std::span<const BFloat16>, const Shape&, const TensorOptions&);
template Tensor from_span<Float16>(std::span<const Float16>, const Shape&, const TensorOptions&);

Tensor rand(const Shape& shape, const TensorOptions& options) {
  check_random_dtype("rand", options);
  // As many bits as the type holds: rounding would give 1.
  const std::uint32_t kept = options.dtype == DType::BFloat16  ? 0xff000000u
                             : options.dtype == DType::Float16 ? 0xffe00000u
                                                               : 0xffffffffu;
  return random("rand", shape, options, DType::Float32,
                [kept](const detail::PhiloxBlock& bits, void* data, std::int64_t at, std::int64_t n) {
                  for (std::int64_t i = 0; i < n; ++i)
                    static_cast<float*>(data)[at + i] = detail::uniform01(bits.lane[i] & kept);
                });
}

Tensor randn(const Shape& shape, const TensorOptions& options) {
  check_random_dtype("randn", options);
  return random("randn", shape, options, DType::Float64,
                [](const detail::PhiloxBlock& bits, void* data, std::int64_t at, std::int64_t n) {
                  double pair[4];
                  for (int half = 0; half < 2; ++half) {
                    // (0, 1] keeps the logarithm finite.
                    const double u = (static_cast<double>(bits.lane[2 * half]) + 1.0) * 0x1p-32;
                    const double angle =
                        2.0 * std::numbers::pi * static_cast<double>(bits.lane[2 * half + 1]) * 0x1p-32;
                    const double radius = std::sqrt(-2.0 * std::log(u));
                    pair[2 * half] = radius * std::cos(angle);
                    pair[2 * half + 1] = radius * std::sin(angle);
                  }
                  for (std::int64_t i = 0; i < n; ++i) static_cast<double*>(data)[at + i] = pair[i];
                });
}

Tensor randint(std::int64_t low, std::int64_t high, const Shape& shape, const TensorOptions& options) {
  LAMELLA_CHECK(ShapeError, low < high, "randint: empty range [", low, ", ", high, ')');
  LAMELLA_CHECK(ShapeError, static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) <= 0xffffffffu,
                "randint: range [", low, ", ", high, ") is wider than 32 bits");
  const std::uint64_t width = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  return random("randint", shape, options, DType::Int64,
                [=](const detail::PhiloxBlock& bits, void* data, std::int64_t at, std::int64_t n) {
                  for (std::int64_t i = 0; i < n; ++i)
                    static_cast<std::int64_t*>(data)[at + i] =
                        low + static_cast<std::int64_t>((bits.lane[i] * width) >> 32);
                });
}

}  // namespace lamella
