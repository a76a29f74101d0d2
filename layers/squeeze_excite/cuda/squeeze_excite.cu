#include <limits>

#include "layers/norm/cuda/packets.cuh"
#include "layers/squeeze_excite/kernels.h"
#include "tensor/fused_activations.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::Gate;
using detail::GradientWrite;
using detail::PendingActivation;
using detail::PendingView;
using detail::TensorView;

namespace {

// ---- What x owes ----

/// None, Relu, Relu6.
struct Clamp {
  float low, high;
  explicit Clamp(PendingActivation activation)
      : low(activation == PendingActivation::None ? -std::numeric_limits<float>::infinity() : 0.0f),
        high(activation == PendingActivation::Relu6 ? 6.0f : std::numeric_limits<float>::infinity()) {}
  __device__ float value(float z) const {
    const float raised = z < low ? low : z;
    return raised > high ? high : raised;
  }
  __device__ float slope(float g, float z) const { return z <= low || z >= high ? 0.0f : g; }
};
/// Of x of type T.
template <class T>
struct HardSwish {
  explicit HardSwish(PendingActivation /*activation*/) {}
  // Products for the quotients by constants: these kernels have little time between loads. For sixteen bits
  // the bounds are 0 and 1, which cost nothing.
  __device__ float value(float z) const {
    if constexpr (sizeof(T) == 2) return z * __saturatef(fmaf(z, 1.0f / 6.0f, 0.5f));
    return z * detail::relu6_value(z + 3.0f) * (1.0f / 6.0f);
  }
  __device__ float slope(float g, float z) const {
    const float rising = z < 3.0f ? g * (z * (1.0f / 3.0f) + 0.5f) : g;
    return z <= -3.0f ? 0.0f : rising;
  }
};
struct Silu {
  explicit Silu(PendingActivation /*activation*/) {}
  __device__ static float logistic(float z) { return 1.0f / (1.0f + detail::exponential(-z)); }
  __device__ float value(float z) const { return z * logistic(z); }
  __device__ float slope(float g, float z) const {
    const float s = logistic(z);
    return g * (s * (1.0f + z * (1.0f - s)));
  }
};

// ---- The cut ----

/// A block has one image and a tile of its channels, `across` packets of them; its threads stand `down` rows
/// of pixels deep.
struct Cut {
  Cut(const ConstTensorView& x, int packet_size)
      : images(x.shape[0]), channels(x.shape[1]), pixels(x.shape[2] * x.shape[3]) {
    packets = static_cast<unsigned>(channels / packet_size);
    // Enough blocks of large planes, enough pixels for a thread of small ones.
    constexpr std::int64_t kEach = 4;
    const auto most = static_cast<unsigned>(std::clamp<std::int64_t>(kEach * kNormThreads / pixels, 8, 32));
    tiles = (packets + most - 1) / most;
    across = (packets + tiles - 1) / tiles;
    down = kNormThreads / across;
    lanes = across * static_cast<unsigned>(packet_size);
    split = std::clamp(kNormThreads / lanes, 1u, down);
  }
  std::int64_t blocks() const { return images * tiles; }

  std::int64_t images, channels, pixels;
  unsigned packets, tiles, across, down;
  unsigned lanes;  ///< of a tile
  unsigned split;  ///< threads that add up one lane
};

template <int kSize>
struct Item {
  __device__ explicit Item(const Cut& cut) {
    image = blockIdx.x / cut.tiles;
    const unsigned tile = blockIdx.x - static_cast<unsigned>(image) * cut.tiles;
    const unsigned y = threadIdx.x / cut.across, x = threadIdx.x - y * cut.across;
    const unsigned packet = tile * cut.across + x;
    first = tile * cut.lanes;
    channel = packet * kSize;
    const auto pixels = static_cast<unsigned>(cut.pixels);
    count = y < cut.down && packet < cut.packets && y < pixels ? (pixels - y + cut.down - 1) / cut.down : 0;
    offset = (image * cut.pixels + y) * cut.channels + channel;
    step = cut.down * cut.channels;
  }

  std::int64_t image;
  unsigned first;        ///< channel of the tile
  std::int64_t channel;  ///< the thread's first
  unsigned count;        ///< pixels of this thread
  std::int64_t offset, step;
};

/// kSize numbers of channels from `channel` on, or `otherwise`.
template <int kSize>
__device__ inline void load_floats(const float* from, std::int64_t channel, float otherwise,
                                   float (&to)[kSize]) {
#pragma unroll
  for (int k = 0; k < kSize; k += 4) {
    const float4 four = from != nullptr ? *reinterpret_cast<const float4*>(from + channel + k)
                                        : make_float4(otherwise, otherwise, otherwise, otherwise);
    to[k] = four.x, to[k + 1] = four.y, to[k + 2] = four.z, to[k + 3] = four.w;
  }
}
/// f of one image's numbers of T; null: of 0.
template <class T, int kSize>
__device__ inline void load_gate(Gate f, const T* from, std::int64_t at, float (&to)[kSize]) {
  Numbers<T> numbers{};
  if (from != nullptr) numbers = load_numbers<true>(from + at, kSize);
#pragma unroll
  for (int k = 0; k < kSize; ++k) to[k] = detail::gate_value(f, numbers.at(k));
}

/// To be called by the whole block: done(channel, totals) for each channel of the tile, of the threads' sums.
/// In a fixed order.
template <int kSums, int kSize, class Done>
__device__ void add_up(const Cut& cut, const Item<kSize>& item, const float (&sums)[kSums][kSize],
                       const Done& done) {
  __shared__ float shared[kSums][kSize * kNormThreads];
  __shared__ double halves[kSums][kNormThreads];
#pragma unroll
  for (int s = 0; s < kSums; ++s)
#pragma unroll
    for (int k = 0; k < kSize; ++k) shared[s][k * kNormThreads + threadIdx.x] = sums[s][k];
  __syncthreads();
  const unsigned j = threadIdx.x / cut.lanes, lane = threadIdx.x - j * cut.lanes;
  const unsigned column = lane % kSize * kNormThreads + lane / kSize;
  if (j < cut.split) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      double total = 0;
      for (unsigned y = j; y < cut.down; y += cut.split)
        total += static_cast<double>(shared[s][column + y * cut.across]);
      halves[s][threadIdx.x] = total;
    }
  }
  __syncthreads();
  if (j != 0 || item.first + lane >= cut.channels) return;
  double totals[kSums];
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    totals[s] = 0;
    for (unsigned other = 0; other < cut.split; ++other) totals[s] += halves[s][other * cut.lanes + lane];
  }
  done(static_cast<std::int64_t>(item.first + lane), totals);
}

/// x and what it owes.
template <class T>
struct Source {
  explicit Source(const PendingView& x)
      : stored(x.stored.as<T>()),
        scale(static_cast<const float*>(x.scale)),
        shift(static_cast<const float*>(x.shift)) {}
  const T* stored;
  const float* scale;
  const float* shift;
};

template <class T, int kSize>
struct Affine {
  __device__ Affine(const Source<T>& x, std::int64_t channel) {
    load_floats(x.scale, channel, 1.0f, scale);
    load_floats(x.shift, channel, 0.0f, shift);
  }
  __device__ float operator()(float stored, int k) const { return stored * scale[k] + shift[k]; }
  float scale[kSize], shift[kSize];
};

// ---- Kernels ----

template <class T, class Owed>
__global__ void __launch_bounds__(kNormThreads, 3)
    squeeze_means(const Source<T> x, const Cut cut, const Owed owed, T* means) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Numbers<T>::kSize;
  const Item<kSize> item(cut);
  float sums[1][kSize] = {};
  if (item.count > 0) {
    const Affine<T, kSize> affine(x, item.channel);
    in_batches<Numbers<T>>(
        item.count,
        [&](unsigned i) { return load_numbers<true>(x.stored + item.offset + i * item.step, kSize); },
        [&](const Numbers<T>& numbers, unsigned) {
#pragma unroll
          for (int k = 0; k < kSize; ++k) sums[0][k] += owed.value(affine(numbers.at(k), k));
        });
  }
  add_up<1>(cut, item, sums, [&](std::int64_t channel, const double(&totals)[1]) {
    means[item.image * cut.channels + channel] =
        detail::cuda::from_compute<T>(static_cast<float>(totals[0] / static_cast<double>(cut.pixels)));
  });
}

template <class T, class Owed>
__global__ void __launch_bounds__(kNormThreads, 3)
    apply_gate(const Source<T> x, const T* gate, Gate f, const Cut cut, const Owed owed, T* y) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Numbers<T>::kSize;
  const Item<kSize> item(cut);
  if (item.count == 0) return;
  const Affine<T, kSize> affine(x, item.channel);
  float factor[kSize];
  load_gate(f, gate, item.image * cut.channels + item.channel, factor);
  in_batches<Numbers<T>>(
      item.count,
      [&](unsigned i) { return load_numbers<true>(x.stored + item.offset + i * item.step, kSize); },
      [&](const Numbers<T>& numbers, unsigned i) {
        float values[kSize];
#pragma unroll
        for (int k = 0; k < kSize; ++k) values[k] = owed.value(affine(numbers.at(k), k)) * factor[k];
        store_numbers<true>(values, y + item.offset + i * item.step, kSize);
      });
}

template <class T>
struct Two {
  Numbers<T> g, x;
};

template <class T, class Owed>
__global__ void __launch_bounds__(kNormThreads, 2)
    sum_products(const T* grad, const Source<T> x, const T* gate, Gate f, const Cut cut, const Owed owed,
                 T* grad_gate, bool accumulate) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Numbers<T>::kSize;
  const Item<kSize> item(cut);
  float sums[1][kSize] = {};
  if (item.count > 0) {
    const Affine<T, kSize> affine(x, item.channel);
    in_batches<Two<T>>(
        item.count,
        [&](unsigned i) {
          const std::int64_t at = item.offset + i * item.step;
          return Two<T>{load_numbers<true>(grad + at, kSize), load_numbers<true>(x.stored + at, kSize)};
        },
        [&](const Two<T>& two, unsigned) {
#pragma unroll
          for (int k = 0; k < kSize; ++k) sums[0][k] += two.g.at(k) * owed.value(affine(two.x.at(k), k));
        });
  }
  add_up<1>(cut, item, sums, [&](std::int64_t channel, const double(&totals)[1]) {
    const std::int64_t at = item.image * cut.channels + channel;
    const float through =
        detail::gate_gradient(f, static_cast<float>(totals[0]), detail::cuda::to_compute(gate[at]));
    detail::cuda::write_number(grad_gate[at], through, accumulate);
  });
}

/// dx = grad · f(gate) + grad_means / pixels; kMasked: times the slope of what x owes, with sums.
template <class T>
struct Gradient {
  const T* grad;
  const T* gate;
  Gate f;
  const T* grad_means;
  Source<T> x;
  const float* center;
  T* dx;
  bool accumulate;
  float* sums;  ///< [images][2][channels]
};

template <class T, bool kMasked, class Owed>
__global__ void __launch_bounds__(kNormThreads, 2)
    input_gradient(const Gradient<T> job, const Cut cut, const Owed owed) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Numbers<T>::kSize;
  const Item<kSize> item(cut);
  float sums[2][kSize] = {};
  if (item.count > 0) {
    float factor[kSize], constant[kSize];
    const std::int64_t of_image = item.image * cut.channels + item.channel;
    load_gate(job.f, job.gate, of_image, factor);
    load_gate(Gate::Plain, job.grad_means, of_image, constant);
#pragma unroll
    for (int k = 0; k < kSize; ++k) constant[k] /= static_cast<float>(cut.pixels);
    const Affine<T, kSize> affine(job.x, item.channel);
    float center[kSize];
    load_floats(kMasked ? job.center : nullptr, item.channel, 0.0f, center);
    in_batches<Two<T>>(
        item.count,
        [&](unsigned i) {
          const std::int64_t at = item.offset + i * item.step;
          Two<T> two{};
          if (job.grad != nullptr) two.g = load_numbers<true>(job.grad + at, kSize);
          if constexpr (kMasked) two.x = load_numbers<true>(job.x.stored + at, kSize);
          return two;
        },
        [&](const Two<T>& two, unsigned i) {
          T* const to = job.dx + item.offset + i * item.step;
          float values[kSize];
#pragma unroll
          for (int k = 0; k < kSize; ++k) {
            float g = two.g.at(k) * factor[k] + constant[k];
            if constexpr (kMasked) {
              const float stored = two.x.at(k);
              g = owed.slope(g, affine(stored, k));
              sums[0][k] += g;
              sums[1][k] += g * (stored - center[k]);
            }
            values[k] = g;
          }
          if (job.accumulate) {
            const Numbers<T> before = load_numbers<true>(static_cast<const T*>(to), kSize);
#pragma unroll
            for (int k = 0; k < kSize; ++k) values[k] += before.at(k);
          }
          store_numbers<true>(values, to, kSize);
        });
  }
  if constexpr (kMasked)
    add_up<2>(cut, item, sums, [&](std::int64_t channel, const double(&totals)[2]) {
      float* const to = job.sums + item.image * 2 * cut.channels + channel;
      to[0] = static_cast<float>(totals[0]);
      to[cut.channels] = static_cast<float>(totals[1]);
    });
}

/// body(tag, owed) for x's type and what it owes.
template <class Body>
void dispatch(const PendingView& x, const Body& body) {
  detail::dispatch_floating(x.stored.dtype, [&](auto tag) {
    if constexpr (!std::is_same_v<typename decltype(tag)::type, double>) {
      if (x.activation == PendingActivation::Hardswish)
        body(tag, HardSwish<typename decltype(tag)::type>(x.activation));
      else if (x.activation == PendingActivation::Silu)
        body(tag, Silu(x.activation));
      else
        body(tag, Clamp(x.activation));
    }
  });
}

}  // namespace

void squeeze_forward(const PendingView& x, const TensorView& means) {
  dispatch(x, [&](auto tag, auto owed) {
    using T = typename decltype(tag)::type;
    const Cut cut(x.stored, Numbers<T>::kSize);
    detail::cuda::launch_early("squeeze", means.device, grid_of(cut.blocks()), kNormThreads, 0,
                               squeeze_means<T, decltype(owed)>, Source<T>(x), cut, owed, means.as<T>());
  });
}

void excite_forward(const PendingView& x, const ConstTensorView& gate, Gate f, const TensorView& y) {
  dispatch(x, [&](auto tag, auto owed) {
    using T = typename decltype(tag)::type;
    const Cut cut(x.stored, Numbers<T>::kSize);
    detail::cuda::launch_early("excite", y.device, grid_of(cut.blocks()), kNormThreads, 0,
                               apply_gate<T, decltype(owed)>, Source<T>(x), gate.as<T>(), f, cut, owed,
                               y.as<T>());
  });
}

void excite_backward(const ConstTensorView& grad, const PendingView& x, const ConstTensorView& gate, Gate f,
                     const TensorView& grad_gate, GradientWrite write) {
  dispatch(x, [&](auto tag, auto owed) {
    using T = typename decltype(tag)::type;
    const Cut cut(x.stored, Numbers<T>::kSize);
    detail::cuda::launch_early("excite backward", grad.device, grid_of(cut.blocks()), kNormThreads, 0,
                               sum_products<T, decltype(owed)>, grad.as<T>(), Source<T>(x), gate.as<T>(), f,
                               cut, owed, grad_gate.as<T>(), write == GradientWrite::Accumulate);
  });
}

void squeeze_backward(const ConstTensorView& grad, const ConstTensorView& gate, Gate f,
                      const ConstTensorView& grad_means, const PendingView& x, const TensorView& dx,
                      GradientWrite write, detail::LeftParts* sums) {
  PendingView source = x;
  if (sums == nullptr) source.activation = PendingActivation::None;
  dispatch(source, [&](auto tag, auto owed) {
    using T = typename decltype(tag)::type;
    using Owed = decltype(owed);
    const Cut cut(x.stored, Numbers<T>::kSize);
    Gradient<T> job{grad.as<T>(),
                    gate.as<T>(),
                    f,
                    grad_means.as<T>(),
                    Source<T>(x),
                    static_cast<const float*>(x.center),
                    dx.as<T>(),
                    write == GradientWrite::Accumulate,
                    nullptr};
    const auto start = [&](auto kernel) {
      detail::cuda::launch_early("squeeze backward", dx.device, grid_of(cut.blocks()), kNormThreads, 0,
                                 kernel, job, cut, owed);
    };
    if (sums != nullptr) {
      job.sums = static_cast<float*>(sums->take(DType::Float32, cut.images, 2));
      start(input_gradient<T, true, Owed>);
    } else if constexpr (std::is_same_v<Owed, Clamp>) {
      start(input_gradient<T, false, Owed>);
    }
  });
}

}  // namespace lamella::cuda
