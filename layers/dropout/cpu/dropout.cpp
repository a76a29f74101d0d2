#include <algorithm>

#include "core/parallel.h"
#include "layers/dropout/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::DropoutMask;
using detail::GradientWrite;
using detail::TensorView;

namespace {

constexpr std::int64_t kBlocks = 64;

/// Random bits of `count` (at most kBlocks) blocks from `first`, lane after lane: bits[lane][block]. The same
/// numbers as random_block(), many at a time.
void draw(const detail::RandomKey& key, std::uint64_t step, std::int64_t first, std::int64_t count,
          std::uint32_t (&bits)[4][kBlocks]) {
  const std::uint64_t high = (step << 32) | key.op;
  std::uint32_t(&c0)[kBlocks] = bits[0], (&c1)[kBlocks] = bits[1], (&c2)[kBlocks] = bits[2],
  (&c3)[kBlocks] = bits[3];
  for (std::int64_t b = 0; b < count; ++b) {
    const auto low = static_cast<std::uint64_t>(first + b);
    c0[b] = static_cast<std::uint32_t>(low);
    c1[b] = static_cast<std::uint32_t>(low >> 32);
    c2[b] = static_cast<std::uint32_t>(high);
    c3[b] = static_cast<std::uint32_t>(high >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < detail::kPhiloxRounds; ++round) {
    for (std::int64_t b = 0; b < count; ++b) detail::philox_round(k0, k1, c0[b], c1[b], c2[b], c3[b]);
    k0 += detail::kPhiloxKeyStep0;
    k1 += detail::kPhiloxKeyStep1;
  }
}

/// stays[4 · b + lane]: whether that number of block b is at least the threshold.
void draw_mask(const DropoutMask& mask, std::uint64_t step, std::int64_t first, std::int64_t count,
               std::uint8_t (&stays)[4 * kBlocks]) {
  std::uint32_t bits[4][kBlocks];
  draw(mask.key, step, first, count, bits);
  for (std::int64_t b = 0; b < count; ++b)
    for (std::int64_t lane = 0; lane < 4; ++lane)
      stays[4 * b + lane] = static_cast<std::uint8_t>((bits[lane][b] >> 8) >= mask.threshold);
}

template <class T>
struct Writer {
  using C = ComputeType<T>;
  const T* x;
  T* y;
  C scale;
  bool accumulate;

  /// Elements at, at + step, … of which stays[0], stays[1], … tells.
  void run(std::int64_t at, std::int64_t step, std::int64_t n, const std::uint8_t* stays) const {
    for (std::int64_t i = 0; i < n; ++i) {
      const C value = stays[i] ? static_cast<C>(x[at + i * step]) * scale : C(0);
      T& to = y[at + i * step];
      to = static_cast<T>(accumulate ? value + static_cast<C>(to) : value);
    }
  }
  /// n neighbours with one fate.
  void all(std::int64_t at, std::int64_t n, bool stays) const {
    for (std::int64_t i = at; i < at + n; ++i) {
      const C value = stays ? static_cast<C>(x[i]) * scale : C(0);
      y[i] = static_cast<T>(accumulate ? value + static_cast<C>(y[i]) : value);
    }
  }
};

template <class T>
void elements(const Writer<T>& write, const DropoutMask& mask, std::uint64_t step) {
  const std::int64_t total = mask.batch * mask.channels * mask.inner;
  detail::parallel_for((total + 3) / 4, kElementGrain / 4, [&](std::int64_t begin, std::int64_t end) {
    std::uint8_t stays[4 * kBlocks];
    for (std::int64_t block = begin; block < end; block += kBlocks) {
      const std::int64_t last = std::min(end, block + kBlocks);
      draw_mask(mask, step, block, last - block, stays);
      write.run(4 * block, 1, std::min(total, 4 * last) - 4 * block, stays);
    }
  });
}

/// NHWC: the numbers of a channel's neighbouring pixels come together, so a channel is walked over pixels.
template <class T>
void elements_channels_last(const Writer<T>& write, const DropoutMask& mask, std::uint64_t step) {
  const std::int64_t run = 4 * kBlocks - 4;  // pixels whose blocks fit into one draw, wherever they begin
  const std::int64_t runs = (mask.inner + run - 1) / run;
  detail::parallel_for(mask.batch * runs, 1, [&](std::int64_t begin, std::int64_t end) {
    std::uint8_t stays[4 * kBlocks];
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t n = item / runs, first = item % runs * run,
                         pixels = std::min(run, mask.inner - first);
      for (std::int64_t c = 0; c < mask.channels; ++c) {
        const std::int64_t element = (n * mask.channels + c) * mask.inner + first, block = element / 4;
        draw_mask(mask, step, block, (element + pixels + 3) / 4 - block, stays);
        write.run((n * mask.inner + first) * mask.channels + c, mask.channels, pixels,
                  stays + (element - 4 * block));
      }
    }
  });
}

template <class T>
void samples(const Writer<T>& write, const DropoutMask& mask, std::uint64_t step) {
  const std::int64_t size = mask.channels * mask.inner;
  const std::int64_t grain = std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(1, size));
  detail::parallel_for(mask.batch, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const detail::PhiloxBlock block =
          detail::random_block(mask.key, step, static_cast<std::uint64_t>(n / 4));
      const bool stays = (block.lane[n % 4] >> 8) >= mask.threshold;
      write.all(n * size, size, stays);
    }
  });
}

}  // namespace

void dropout(const ConstTensorView& x, const DropoutMask& mask, const TensorView& y, GradientWrite write) {
  if (y.numel() == 0) return;
  const std::uint64_t step = mask.key.step();
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Writer<T> writer{x.as<T>(), y.as<T>(), static_cast<ComputeType<T>>(mask.scale),
                           write == GradientWrite::Accumulate};
    if (mask.per_sample)
      samples(writer, mask, step);
    else if (mask.channels_last)
      elements_channels_last(writer, mask, step);
    else
      elements(writer, mask, step);
  });
}

}  // namespace lamella::cpu
