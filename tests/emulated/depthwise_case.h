#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "depthwise_reference.h"
#include "layers/depthwise_conv2d/cuda/cut_hooks.h"
#include "layers/depthwise_conv2d/cuda/cut_phases.h"
#include "layers/depthwise_conv2d/cuda/device/walk.cuh"

/// A depthwise kernel on the emulated machine, and its results against the definition.
namespace lamella::depthwise::checks {

constexpr int kThreads = 128;

/// [batch][channel][row][column] somewhere in memory, with NaN in it, around it and between its pixels.
template <class T>
class Tensor {
 public:
  static constexpr int kNumbers = 16 / static_cast<int>(sizeof(T));

  /// It begins `skew` numbers behind sixteen bytes, and pixels may lie `apart` numbers further from each
  /// other than they must.
  Tensor(bool channels_last, int skew, int apart, int batch, int channels, int rows, int columns)
      : sizes_{batch, channels, rows, columns} {
    const std::int64_t pixel = std::int64_t{channels} + apart, plane = std::int64_t{rows} * columns;
    if (channels_last)
      strides_ = {plane * pixel, 1, columns * pixel, pixel};
    else
      strides_ = {plane * channels, plane, columns, 1};
    // The last sixteen bytes of a line are where what lies as in memory takes most room.
    constexpr std::uintptr_t kLast = kLineBytes - 16;
    const std::int64_t count = batch * strides_[0] + 3 * std::int64_t{kNumbers};
    bytes_.assign(static_cast<std::size_t>(count) * sizeof(T) + 2 * kLineBytes, 0xff);
    const auto begin =
        (reinterpret_cast<std::uintptr_t>(bytes_.data()) + kLineBytes - 1) / kLineBytes * kLineBytes + kLast;
    data_ = reinterpret_cast<T*>(begin) + skew;
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  T* data() { return data_; }
  Pixels pixels() { return {data_, strides_[0], strides_[2], strides_[3]}; }
  /// From its first number to its last.
  emulated::Readable readable() const {
    std::int64_t last = 0;
    for (std::size_t axis = 0; axis < sizes_.size(); ++axis) last += (sizes_[axis] - 1) * strides_[axis];
    return {data_, data_ + last + 1};
  }
  PhaseTensor strided() { return {data_, strides_[0], strides_[1], strides_[2], strides_[3]}; }
  void fill(const std::vector<double>& numbers) {
    each([&](T& at, std::size_t i) { at = narrow<T>(static_cast<float>(numbers[i])); });
  }
  /// Each number must be the sum, and that of `old` if there is any, rounded; if `twice` the sum is rounded
  /// before it is added, too. Nothing else may have been written. Leaves NaN.
  void expect(const char* what, const std::vector<double>& sums, const std::vector<double>& old, bool twice) {
    const auto round = [](double number) { return widen(narrow<T>(static_cast<float>(number))); };
    std::size_t wrong = 0, first = 0;
    float got = 0, right = 0;
    each([&](T& at, std::size_t i) {
      const double sum = twice ? static_cast<double>(round(sums[i])) : sums[i];
      const float wanted = round(old.empty() ? sum : old[i] + sum);
      if (!(widen(at) == wanted) && wrong++ == 0) first = i, got = widen(at), right = wanted;
      std::memset(&at, 0xff, sizeof(T));
    });
    ASSERT_EQ(wrong, 0U) << what << ": the first, " << first << " of " << sums.size() << ", is " << got
                         << " instead of " << right;
    ASSERT_TRUE(std::all_of(bytes_.begin(), bytes_.end(), [](unsigned char byte) { return byte == 0xff; }))
        << what << ": something was written beside it";
  }

 private:
  template <class Visit>
  void each(const Visit& visit) {
    std::size_t i = 0;
    for (int n = 0; n < sizes_[0]; ++n)
      for (int c = 0; c < sizes_[1]; ++c)
        for (int h = 0; h < sizes_[2]; ++h)
          for (int w = 0; w < sizes_[3]; ++w)
            visit(data_[n * strides_[0] + c * strides_[1] + h * strides_[2] + w * strides_[3]], i++);
  }

  std::array<int, 4> sizes_;
  std::array<std::int64_t, 4> strides_{};
  std::vector<unsigned char> bytes_;
  T* data_ = nullptr;
};

/// How tensors lie in memory.
struct Layout {
  bool channels_last = false;
  int x_unit = 1, y_unit = 1;  ///< numbers whose multiples tensors and their pixels begin on: powers of two
  bool may_have_gaps = true;   ///< whether pixels may lie further from each other than they must
};
/// The largest power of two that divides `count`, of numbers that sixteen bytes have.
template <class T>
constexpr int vector_of(int count) {
  return std::min(count & -count, Tensor<T>::kNumbers);
}

/// What a backward kernel computes.
struct Gradients {
  bool input, weight, bias;
};

template <class T, class K>
struct Case {
  Geometry g;
  Reference reference;
  Tensor<T> x, y, dx;

  /// `lift`: every bias, if not 0.
  Case(Draw& draw, const Geometry& geometry, Layout layout, int transforms = kPlain, double lift = 0)
      : Case(draw, geometry, layout, transforms, lift, skew(draw, layout.x_unit)) {}

  static constexpr KernelSizes kSizes{K::kH, K::kW, K::kStrideH, K::kStrideW, K::kRepeat};
  bool has_gaps() const { return g.stride_h != K::kStrideH || g.stride_w != K::kStrideW; }
  void never_add() { adds_ = false; }

  void describe(PixelWork& work) {
    divide(work);
    work.x = x.pixels(), work.y = y.pixels(), work.dx = dx.pixels();
  }
  /// Strides and dilations of runs are as they are.
  void describe(PlaneWork& work, bool divides = true) {
    divide(work);
    if (!divides) {
      work.h.input_step = g.dilation_h, work.w.input_step = g.dilation_w;
      work.h.output_step = work.w.output_step = 1;
    }
    work.x = x.data(), work.y = y.data(), work.dx = dx.data();
    work.channels = g.channels;
  }
  /// The output, or the input's gradient.
  void describe(PhaseWork& work, bool scatters) {
    work.h = phase_axis(g.h, g.out_h, K::kH, g.stride_h, g.padding_h, g.dilation_h, scatters);
    work.w = phase_axis(g.w, g.out_w, K::kW, g.stride_w, g.padding_w, g.dilation_w, scatters);
    work.source = scatters ? y.strided() : x.strided(), work.target = scatters ? dx.strided() : y.strided();
    work.target_h = scatters ? g.h : g.out_h, work.target_w = scatters ? g.w : g.out_w;
    work.taps = parameters_;
  }

  /// Runs kernel(). `twice`: what is added to is added to rounded sums.
  template <class Work, class Kernel>
  void forward(Work& work, const Launch& launch, bool twice, const Kernel& kernel) {
    work.accumulate = adds_;
    const std::vector<double> old = adds_ ? old_y_ : std::vector<double>();
    if (adds_) y.fill(old);
    run(work, launch, false, kernel);
    y.expect("y", reference.output(), old, twice);
  }
  /// `clears`: not all of dx is written, so it must be zero before.
  template <class Work, class Kernel>
  void backward(Work& work, const Launch& launch, Gradients of, bool clears, bool twice,
                const Kernel& kernel) {
    work.taps.bias = nullptr;
    work.accumulate = adds_ && of.input;
    y.fill(reference.y);
    std::vector<double> old;
    if (work.accumulate) old = old_x_;
    if (!work.accumulate && clears) old.assign(old_x_.size(), 0);
    if (!old.empty()) dx.fill(old);
    const std::vector<double> sums = of.weight ? reference.weight_gradient() : std::vector<double>();
    std::vector<float> parts(sums.size() * static_cast<std::size_t>(launch.parts),
                             std::numeric_limits<float>::quiet_NaN());
    work.parts = parts.data();
    run(work, launch, of.input, kernel);
    if (of.input)
      dx.expect("dx", masks_ ? reference.masked_input_gradient() : reference.input_gradient(), old, twice);
    if (of.weight) expect_parts(parts, sums, of.bias);
  }

  /// forward() of a kernel that leaves moments, without what it would add to. `rounded`: of the results as
  /// they are stored, by their rounded distances from one of them.
  template <class Work, class Kernel>
  void forward_with_statistics(Work& work, const Launch& launch, const Kernel& kernel, bool rounded = false) {
    never_add();
    std::vector<float> parts = hook_parts(work, launch, bias_.size(), kMomentFloats);
    forward(work, launch, false, kernel);
    if (!::testing::Test::HasFailure()) expect_moments(parts, rounded);
  }
  /// backward() of a kernel that leaves norm sums, without what it would add to. `rounded`: of the gradients
  /// as they are stored.
  template <class Work, class Kernel>
  void backward_with_sums(Work& work, const Launch& launch, Gradients of, bool clears, const Kernel& kernel,
                          bool rounded = false) {
    never_add();
    std::vector<float> parts = hook_parts(work, launch, center_.size(), kNormSumFloats);
    work.hook.center = center_.data();
    masks_ = true;
    backward(work, launch, of, clears, false, kernel);
    if (!::testing::Test::HasFailure()) expect_norm_sums(parts, rounded);
  }

 private:
  Case(Draw& draw, const Geometry& geometry, Layout layout, int transforms, double lift, int x_skew)
      : g(geometry),
        reference(draw, g, transforms, lift),
        x(layout.channels_last, x_skew, apart(draw, layout, layout.x_unit), g.batch, g.channels, g.h, g.w),
        y(layout.channels_last, skew(draw, layout.y_unit), apart(draw, layout, layout.y_unit), g.batch,
          g.channels * g.repeat, g.out_h, g.out_w),
        dx(layout.channels_last, draw.one_in(3) ? skew(draw, layout.x_unit) : x_skew,
           apart(draw, layout, layout.x_unit), g.batch, g.channels, g.h, g.w),
        adds_(draw.one_in(4)),
        old_x_(draw.numbers(static_cast<std::int64_t>(reference.x.size()))),
        old_y_(draw.numbers(static_cast<std::int64_t>(reference.y.size()))) {
    x.fill(reference.x);
    std::vector<double> taps = reference.taps;
    parameters_.turned = draw.one_in(2);
    if (parameters_.turned)
      for (auto first = taps.begin(); first != taps.end(); first += K::kTaps)
        std::reverse(first, first + K::kTaps);
    parameters_.taps_are_float32 = draw.one_in(2), parameters_.bias_is_float32 = draw.one_in(2);
    parameters_.taps = keep(taps, parameters_.taps_are_float32, taps_, narrow_taps_);
    parameters_.bias = keep(reference.bias, parameters_.bias_is_float32, bias_, narrow_bias_);
    scale_.assign(reference.scale.begin(), reference.scale.end());
    shift_.assign(reference.shift.begin(), reference.shift.end());
    center_.assign(reference.center.begin(), reference.center.end());
  }

  static int skew(Draw& draw, int unit) { return draw(0, Tensor<T>::kNumbers / unit - 1) * unit; }
  static int apart(Draw& draw, const Layout& layout, int unit) {
    return layout.may_have_gaps && draw.one_in(3) ? unit : 0;
  }
  static const void* keep(const std::vector<double>& numbers, bool is_float32, std::vector<float>& floats,
                          std::vector<T>& others) {
    for (const double number : numbers) {
      floats.push_back(static_cast<float>(number));
      others.push_back(narrow<T>(floats.back()));
    }
    return is_float32 ? static_cast<const void*>(floats.data()) : others.data();
  }
  template <class Work>
  void divide(Work& work) {
    divide_dilation(work.h, g.h, g.out_h, K::kH, g.stride_h, g.padding_h, g.dilation_h);
    divide_dilation(work.w, g.w, g.out_w, K::kW, g.stride_w, g.padding_w, g.dilation_w);
    work.taps = parameters_;
    work.transform = {scale_.data(), shift_.data(), static_cast<float>(Reference::kLow),
                      static_cast<float>(Reference::kHigh)};
  }
  template <class Work, class Kernel>
  void run(Work& work, const Launch& launch, bool writes_dx, const Kernel& kernel) {
    emulated::let_copies_read({x.readable(), y.readable(), dx.readable()});
    const auto launch_once = [&] {
      emulated::run(launch.blocks, launch.threads, static_cast<std::size_t>(launch.shared_bytes), kernel);
    };
    if constexpr (std::is_same_v<Work, PlaneWork>)
      each_output(work, writes_dx, launch_once);
    else
      launch_once();
    emulated::let_copies_read({});
  }
  static void expect_parts(const std::vector<float>& parts, const std::vector<double>& wanted, bool bias) {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (!bias && i % (K::kTaps + 1) == K::kTaps) continue;
      double sum = 0;
      for (std::size_t at = i; at < parts.size(); at += wanted.size()) sum += static_cast<double>(parts[at]);
      ASSERT_EQ(sum, wanted[i]) << "sum " << i % (K::kTaps + 1) << " of channel " << i / (K::kTaps + 1);
    }
  }

  /// A part's sums are NaN before.
  template <class Work>
  static std::vector<float> hook_parts(Work& work, const Launch& launch, std::size_t channels, int floats) {
    EXPECT_GT(launch.hook_parts, 0);
    std::vector<float> parts(
        static_cast<std::size_t>(launch.hook_parts) * channels * static_cast<std::size_t>(floats),
        std::numeric_limits<float>::quiet_NaN());
    work.hook.parts = parts.data();
    return parts;
  }
  /// All parts together, in double.
  void expect_moments(const std::vector<float>& parts, bool rounded) const {
    std::vector<double> results = reference.output();
    if (rounded)
      for (double& number : results)
        number = static_cast<double>(widen(narrow<T>(static_cast<float>(number))));
    const double slack = rounded ? static_cast<double>(widen(narrow<T>(1.004F))) - 1 : 0;  // of a distance
    const std::size_t channels = bias_.size();
    const std::size_t plane = static_cast<std::size_t>(g.out_h) * static_cast<std::size_t>(g.out_w);
    for (std::size_t c = 0; c < channels; ++c) {
      double wanted[3] = {}, got[3] = {};  // the number, mean and squared differences
      const auto merge = [](double(&to)[3], double count, double mean, double squares) {
        if (count == 0) return;
        const double both = to[0] + count, apart = mean - to[1];
        to[1] += apart * count / both;
        to[2] += squares + apart * apart * to[0] * count / both;
        to[0] = both;
      };
      for (std::size_t i = 0; i < results.size(); ++i)
        if (i / plane % channels == c) merge(wanted, 1, results[i], 0);
      for (std::size_t at = c * 3; at < parts.size(); at += channels * 3)
        merge(got, static_cast<double>(parts[at]), static_cast<double>(parts[at + 1]),
              static_cast<double>(parts[at + 2]));
      ASSERT_EQ(got[0], wanted[0]) << "results of channel " << c;
      const double spread = wanted[0] > 0 ? std::sqrt(wanted[2] / wanted[0]) : 0;
      ASSERT_NEAR(got[1], wanted[1], 3e-7 * (std::abs(wanted[1]) + 1) + slack * spread)
          << "mean of channel " << c;
      // Means are rounded to float; a thousand deviations from zero that is 2e-4 of the squares.
      const double rounding =
          std::abs(wanted[1]) * static_cast<double>(std::numeric_limits<float>::epsilon());
      ASSERT_NEAR(got[2], wanted[2],
                  (1e-5 + 2 * slack) * wanted[2] + 2 * std::sqrt(wanted[2] * wanted[0]) * rounding +
                      wanted[0] * rounding * rounding)
          << "squares of channel " << c;
    }
  }
  void expect_norm_sums(const std::vector<float>& parts, bool rounded) const {
    std::vector<double> gradient = reference.masked_input_gradient();
    if (rounded)
      for (double& number : gradient)
        number = static_cast<double>(widen(narrow<T>(static_cast<float>(number))));
    const std::size_t channels = center_.size();
    const std::size_t plane = static_cast<std::size_t>(g.h) * static_cast<std::size_t>(g.w);
    std::vector<double> wanted(channels * 2);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const std::size_t c = i / plane % channels;
      wanted[2 * c] += gradient[i];
      wanted[2 * c + 1] += gradient[i] * (reference.x[i] - reference.center[c]);
    }
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      double sum = 0;
      for (std::size_t at = i; at < parts.size(); at += wanted.size()) sum += static_cast<double>(parts[at]);
      ASSERT_EQ(sum, wanted[i]) << (i % 2 == 0 ? "sum" : "sum of products") << " of channel " << i / 2;
    }
  }

  Parameters parameters_;
  bool masks_ = false;
  std::vector<float> taps_, bias_, scale_, shift_, center_;
  std::vector<T> narrow_taps_, narrow_bias_;
  bool adds_;
  std::vector<double> old_x_, old_y_;
};

/// Calls check(draw) for so many seeds, until one fails. It returns whether the kernel can do the problem, as
/// it must be able to for a good part of them.
template <class Check>
void for_seeds(unsigned seeds, const Check& check) {
  unsigned count = 0;
  for (unsigned seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draw draw(seed);
    count += check(draw) ? 1 : 0;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GE(count, seeds / 3) << "too few problems fit the kernel";
}

}  // namespace lamella::depthwise::checks
