#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "lamella/core/dtype.h"
#include "machine.h"
// After the machine: cut.h takes work.cuh.
#include "layers/depthwise_conv2d/cuda/cut.h"
#include "layers/depthwise_conv2d/cuda/device/planes.cuh"
#include "layers/depthwise_conv2d/cuda/device/runs.cuh"

/// The depthwise kernels for GPUs, thread by thread on the CPU, against the definition: random geometries,
/// outputs full of NaN before.
namespace lamella::depthwise {
namespace {

struct Geometry {
  int batch, channels, repeat, h, w, out_h, out_w;
  int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
};

class Draw {
 public:
  explicit Draw(unsigned seed) : engine_(seed) {}
  int operator()(int least, int most) { return std::uniform_int_distribution<int>(least, most)(engine_); }
  float number(float bound = 1) { return std::uniform_real_distribution<float>(-bound, bound)(engine_); }

 private:
  std::mt19937 engine_;
};

/// A tensor's memory, as far behind sixteen bytes as wanted.
template <class T>
class Memory {
 public:
  Memory(std::size_t count, int skew) : bytes_((count + 16) * sizeof(T) + 64), count_(count) {
    const auto at = (reinterpret_cast<std::uintptr_t>(bytes_.data()) + 15) / 16 * 16;
    data_ = reinterpret_cast<T*>(at) + skew;
  }
  T* data() { return data_; }
  std::size_t size() const { return count_; }
  void poison() { std::memset(data_, 0xff, count_ * sizeof(T)); }
  void clear() { std::memset(data_, 0, count_ * sizeof(T)); }

 private:
  std::vector<unsigned char> bytes_;
  T* data_ = nullptr;
  std::size_t count_;
};

struct TransformValues {
  std::vector<float> scale, shift;
  float low = 0, high = 2;
  bool is_rounded = false;  ///< to the type of the tensors, before it is multiplied
};

/// A problem, its tensors, and what should come of it.
template <class T, class K>
struct Problem {
  Geometry g;
  bool channels_last;
  Memory<T> x, y, dx;
  std::vector<float> taps, bias;
  TransformValues transform;
  bool transforms;
  std::vector<double> out, grad_input, grad_weight;  ///< the last [channel][taps + 1]

  std::size_t at_x(int n, int c, int h, int w) const { return place(n, c, h, w, g.channels, g.h, g.w); }
  std::size_t at_y(int n, int c, int h, int w) const {
    return place(n, c, h, w, g.channels * g.repeat, g.out_h, g.out_w);
  }

  Problem(Draw& draw, const Geometry& geometry, bool last, bool with_transform = false, bool rounded = false)
      : g(geometry),
        channels_last(last),
        x(count(g.channels, g.h, g.w), skew(draw, last)),
        y(count(g.channels * g.repeat, g.out_h, g.out_w), skew(draw, last)),
        dx(x.size(), skew(draw, last)),
        transforms(with_transform) {
    transform.is_rounded = rounded;
    for (std::size_t i = 0; i < x.size(); ++i) x.data()[i] = narrow<T>(draw.number());
    for (std::size_t i = 0; i < y.size(); ++i) y.data()[i] = narrow<T>(draw.number());
    const int outs = g.channels * g.repeat;
    for (int i = 0; i < outs * K::kTaps; ++i) taps.push_back(widen(narrow<T>(draw.number())));
    for (int i = 0; i < outs; ++i) bias.push_back(draw.number());
    for (int i = 0; i < g.channels; ++i)
      transform.scale.push_back(draw.number(2)), transform.shift.push_back(draw.number());
    compute();
  }

  template <class Work>
  void fill(Work& work, bool with_bias) {
    divide(work.h, g.h, g.out_h, K::kH, g.stride_h, g.padding_h, g.dilation_h, K::kStrideH);
    divide(work.w, g.w, g.out_w, K::kW, g.stride_w, g.padding_w, g.dilation_w, K::kStrideW);
    work.taps = {taps.data(), with_bias ? bias.data() : nullptr, true, true, false};
    work.transform = {transform.scale.data(), transform.shift.data(), transform.low, transform.high};
  }
  void fill_pixels(PixelWork& work, bool with_bias) {
    fill(work, with_bias);
    const auto pixels = [](T* data, int channels, int rows, int columns) {
      return Pixels{data, Int64{rows} * columns * channels, Int64{columns} * channels, channels};
    };
    work.x = pixels(x.data(), g.channels, g.h, g.w);
    work.y = pixels(y.data(), g.channels * g.repeat, g.out_h, g.out_w);
    work.dx = pixels(dx.data(), g.channels, g.h, g.w);
  }
  void fill_planes(PlaneWork& work, bool with_bias) {
    fill(work, with_bias);
    work.x = x.data(), work.y = y.data(), work.dx = dx.data();
    work.channels = g.channels;
  }

  void expect(const char* what, T* got, const std::vector<double>& wanted) const {
    double largest = 1e-9;
    for (const double value : wanted) largest = std::max(largest, std::abs(value));
    const double bound = (sizeof(T) == 4 ? 1e-5 : 1e-2) * largest;
    for (std::size_t i = 0; i < wanted.size(); ++i)
      ASSERT_LE(std::abs(static_cast<double>(widen(got[i])) - wanted[i]), bound)
          << what << " at " << i << describe();
  }
  void expect_weight(const std::vector<float>& parts, std::int64_t count, bool with_bias) const {
    const std::size_t size = grad_weight.size();
    double largest = 1e-9;
    for (const double value : grad_weight) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < size; ++i) {
      if (!with_bias && i % (K::kTaps + 1) == K::kTaps) continue;
      double sum = 0;
      for (std::int64_t part = 0; part < count; ++part)
        sum += static_cast<double>(parts[static_cast<std::size_t>(part) * size + i]);
      ASSERT_LE(std::abs(sum - grad_weight[i]), 1e-4 * largest) << "dw at " << i << describe();
    }
  }

 private:
  std::size_t count(int channels, int rows, int columns) const {
    return static_cast<std::size_t>(g.batch) * static_cast<std::size_t>(channels) *
           static_cast<std::size_t>(rows * columns);
  }
  std::size_t place(int n, int c, int h, int w, int channels, int rows, int columns) const {
    const auto at = channels_last ? ((Int64{n} * rows + h) * columns + w) * channels + c
                                  : ((Int64{n} * channels + c) * rows + h) * columns + w;
    return static_cast<std::size_t>(at);
  }
  static int skew(Draw& draw, bool last) {
    return last ? 0 : draw(0, 3) == 0 ? 16 / static_cast<int>(sizeof(T)) / 2 : 0;
  }
  static void divide(Axis& axis, int in, int out, int kernel, int stride, int padding, int dilation,
                     int expected) {
    ASSERT_EQ(divide_dilation(axis, in, out, kernel, stride, padding, dilation), expected);
  }
  double input(int n, int c, int h, int w) {
    const float value = widen(x.data()[at_x(n, c, h, w)]);
    if (!transforms) return static_cast<double>(value);
    const auto channel = static_cast<std::size_t>(c);
    const float made = std::fmin(
        std::fmax(std::fma(transform.scale[channel], value, transform.shift[channel]), transform.low),
        transform.high);
    return static_cast<double>(transform.is_rounded ? widen(narrow<T>(made)) : made);
  }
  void compute() {
    out.assign(y.size(), 0), grad_input.assign(x.size(), 0);
    grad_weight.assign(bias.size() * (K::kTaps + 1), 0);
    for (int n = 0; n < g.batch; ++n)
      for (int o = 0; o < g.channels * g.repeat; ++o)
        for (int p = 0; p < g.out_h; ++p)
          for (int q = 0; q < g.out_w; ++q) {
            const double grad = static_cast<double>(widen(y.data()[at_y(n, o, p, q)]));
            const auto channel = static_cast<std::size_t>(o);
            double sum = static_cast<double>(bias[channel]);
            double* const weights = grad_weight.data() + channel * (K::kTaps + 1);
            weights[K::kTaps] += grad;
            for (int k = 0; k < K::kTaps; ++k) {
              const int h = p * g.stride_h - g.padding_h + k / K::kW * g.dilation_h;
              const int w = q * g.stride_w - g.padding_w + k % K::kW * g.dilation_w;
              if (h < 0 || w < 0 || h >= g.h || w >= g.w) continue;
              const double tap = static_cast<double>(taps[channel * K::kTaps + static_cast<std::size_t>(k)]);
              const double value = input(n, o / g.repeat, h, w);
              sum += tap * value;
              grad_input[at_x(n, o / g.repeat, h, w)] += tap * grad;
              weights[k] += value * grad;
            }
            out[at_y(n, o, p, q)] = sum;
          }
  }
  std::string describe() const {
    std::string text = "\nbatch, channels, repeat, size, output, stride, padding, dilation:";
    for (const int part : {g.batch, g.channels, g.repeat, g.h, g.w, g.out_h, g.out_w, g.stride_h, g.stride_w,
                           g.padding_h, g.padding_w, g.dilation_h, g.dilation_w})
      text += ' ' + std::to_string(part);
    return text;
  }
};

/// A geometry whose strides after division are the kernel's. Channels divide by `channels`, widths by
/// `width`.
template <class K>
Geometry draw_geometry(Draw& draw, int channels, int width = 1, bool dilated = true, int padding_w = -1) {
  for (;;) {
    Geometry g{};
    g.batch = draw(1, 4), g.channels = draw(1, 5) * channels, g.repeat = K::kRepeat;
    g.h = draw(1, draw(0, 3) == 0 ? 40 : 18), g.w = draw(1, draw(0, 3) == 0 ? 60 : 20) * width;
    const auto axis = [&](int kernel, int kernel_stride, int& stride, int& padding, int& dilation) {
      const int factor = dilated && kernel > 1 && draw(0, 2) == 0 ? draw(2, 3) : 1;
      stride = kernel_stride * factor;
      do dilation = dilated && kernel > 1 ? draw(1, 3) * factor : 1;
      while (std::gcd(dilation / factor, kernel_stride) != 1);
      padding = draw(0, (kernel - 1) * dilation + draw(0, 1));
    };
    axis(K::kH, K::kStrideH, g.stride_h, g.padding_h, g.dilation_h);
    axis(K::kW, K::kStrideW, g.stride_w, g.padding_w, g.dilation_w);
    if (padding_w >= 0) g.padding_w = padding_w;
    const int rows = g.h + 2 * g.padding_h - g.dilation_h * (K::kH - 1) - 1;
    const int columns = g.w + 2 * g.padding_w - g.dilation_w * (K::kW - 1) - 1;
    if (rows < 0 || columns < 0) continue;
    g.out_h = rows / g.stride_h + 1, g.out_w = columns / g.stride_w + 1;
    return g;
  }
}

template <class K>
constexpr KernelSizes sizes_of() {
  return {K::kH, K::kW, K::kStrideH, K::kStrideW, K::kRepeat};
}
template <class K>
bool has_gaps(const Geometry& g) {
  return g.stride_h != K::kStrideH || g.stride_w != K::kStrideW;
}

constexpr int kThreads = 128;

/// Runs check(draw) for so many seeds.
template <class Check>
void for_seeds(const Check& check) {
  constexpr unsigned kSeeds = 12;
  for (unsigned seed = 1; seed <= kSeeds && !::testing::Test::HasFatalFailure(); ++seed) {
    Draw draw(seed);
    check(draw);
  }
}

template <class T, class K, class Tile, int kChannels, int kTapRows, int kStages, int kChunk,
          bool kTransforms>
void pixels_forward() {
  for_seeds([](Draw& draw) {
    Problem<T, K> problem(draw, draw_geometry<K>(draw, kChunk / static_cast<int>(sizeof(T))), true,
                          kTransforms);
    PixelWork work;
    problem.fill_pixels(work, true);
    const Launch launch = cut_forward_pixels(work, problem.g.batch, problem.g.channels, sizes_of<K>(),
                                             {Tile::kRows, Tile::kColumns, Tile::kLanes}, kChannels, kStages,
                                             sizeof(T), kThreads, draw(1, 12));
    problem.y.poison();
    emulated::run(launch.blocks, launch.threads, static_cast<std::size_t>(launch.shared_bytes), [&] {
      forward_pixels<T, K, Tile, kChannels, kTapRows, kStages, kChunk, kTransforms, kThreads, 1>(work);
    });
    problem.expect("y", problem.y.data(), problem.out);
  });
}

template <class T, class K, class Tile>
void boxes_forward() {
  for_seeds([](Draw& draw) {
    Problem<T, K> problem(draw, draw_geometry<K>(draw, 8), true);
    const Geometry& g = problem.g;
    BoxWork boxes;
    problem.fill_pixels(boxes.work, true);
    const BoxTileSizes tile{Tile::kColumns,      Tile::kBlocks,  Tile::kRows,  Tile::kChannels,
                            Tile::kWarpChannels, Tile::kTapRows, Tile::kPages, Tile::kWhole};
    const BoxPlan plan = cut_forward_boxes(boxes.work, g.batch, g.channels, sizes_of<K>(), tile,
                                           Tile::kWhole ? Tile::kStepRows : draw(1, 12), draw(1, 40));
    if (plan.launch.blocks == 0) return;
    ASSERT_EQ(plan.launch.shared_bytes, (ForwardBoxes<K, Tile>::kSharedBytes));
    ASSERT_EQ(plan.launch.threads, (ForwardBoxes<K, Tile>::kThreads));
    const auto tensor = [&](const Pixels& pixels, int rows, int columns, const BoxSizes& box) {
      EmulatedTensor made;
      made.data = static_cast<unsigned char*>(pixels.data);
      const std::int64_t sizes[4] = {g.channels, columns, rows, g.batch};
      const std::int64_t strides[4] = {2, pixels.pixel * 2, pixels.row * 2, pixels.image * 2};
      const int extents[4] = {box.channels, box.pixels, box.rows, box.images},
                steps[4] = {1, box.pixel_step, box.row_step, 1};
      std::copy_n(sizes, 4, made.sizes), std::copy_n(strides, 4, made.strides);
      std::copy_n(extents, 4, made.box), std::copy_n(steps, 4, made.steps);
      made.swizzle = box.channels / 8 - 1;
      return made;
    };
    const EmulatedTensor x = tensor(boxes.work.x, g.h, g.w, plan.x),
                         y = tensor(boxes.work.y, g.out_h, g.out_w, plan.y);
    boxes.x.opaque[0] = reinterpret_cast<std::uintptr_t>(&x);
    boxes.y.opaque[0] = reinterpret_cast<std::uintptr_t>(&y);
    problem.y.poison();
    emulated::run(plan.launch.blocks, plan.launch.threads, static_cast<std::size_t>(plan.launch.shared_bytes),
                  [&] { forward_boxes<T, K, Tile, 1>(boxes); });
    problem.expect("y", problem.y.data(), problem.out);
  });
}

TEST(EmulatedDepthwise, pixels_forward_vectors) {
  pixels_forward<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, 3, 3, 16, false>();
}
TEST(EmulatedDepthwise, pixels_forward_stride_and_transform) {
  pixels_forward<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 2, 2>, 32, 3, 2, 16, true>();
}
TEST(EmulatedDepthwise, pixels_forward_multiplier_and_long_kernel) {
  pixels_forward<float, Kernel<5, 5, 1, 1, 2>, Tile<3, 2, 1>, 8, 2, 3, 4, false>();
}
TEST(EmulatedDepthwise, boxes_forward) {
  boxes_forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 3, false>>();
}
TEST(EmulatedDepthwise, boxes_forward_stride) {
  boxes_forward<Float16, Kernel<3, 3, 2, 2>, BoxTile<16, 1, 2, 16, 8, 3, 3, false>>();
}
TEST(EmulatedDepthwise, boxes_forward_whole_maps) {
  boxes_forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 64, 16, 3, 2, true>>();
}
TEST(EmulatedDepthwise, boxes_forward_large_kernel) {
  boxes_forward<BFloat16, Kernel<7, 7, 1, 1>, BoxTile<16, 2, 2, 32, 8, 7, 5, false>>();
}

}  // namespace
}  // namespace lamella::depthwise
