#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// Problems for the depthwise kernels, drawn by seed, and what should come of them.
///
/// All numbers are small multiples of 1/64: every sum is exact in float, in any order, and results must be
/// those of the definition, rounded once.
namespace lamella::depthwise::checks {

class Draw {
 public:
  explicit Draw(unsigned seed) : engine_(seed) {}
  int operator()(int least, int most) { return std::uniform_int_distribution<int>(least, most)(engine_); }
  bool one_in(int count) { return (*this)(1, count) == 1; }
  /// Multiples of bound / 16.
  std::vector<double> numbers(std::int64_t count, double bound = 1);

 private:
  std::mt19937 engine_;
};

struct Geometry {
  int batch, channels, repeat, kernel_h, kernel_w;
  int h, w, out_h, out_w;
  int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
};
std::string to_string(const Geometry& geometry);

/// What a kernel asks of geometries.
struct Wanted {
  KernelSizes kernel;                  ///< with the strides that are left when dilation is divided out
  int channels = 1, width = 1;         ///< divide those of x
  int out_width = 1;                   ///< divides that of y
  int most_images = 3;                 ///< of a batch
  int padding_h = -1, padding_w = -1;  ///< unless negative
  int spread_h = 0, spread_w = 0;      ///< dilations, the strides as they are; 0: any that leave the strides
  bool may_reach_beyond = true;  ///< the last window, behind the padding, as "same" of an even kernel has it
  bool may_have_gaps = true;     ///< inputs that no output reads, between others
};
Geometry draw_geometry(Draw& draw, const Wanted& wanted);

/// The definition. Tensors are [batch][channel][row][column] here, taps [channel][tap], and the weight's
/// gradient has the bias's behind each channel's taps.
struct Reference {
  Geometry g;
  int transforms;  ///< kPlain, kClamp, kHardSwish
  std::vector<double> x, y, taps, bias, scale, shift;
  std::vector<double> center;  ///< of norm sums
  static constexpr double kLow = 0, kHigh = 1.5;

  /// `lift`: every bias, if not 0.
  Reference(Draw& draw, const Geometry& geometry, int transforms, double lift = 0);
  std::vector<double> output() const;
  std::vector<double> input_gradient() const;
  /// The same, times the derivative of the transform's activation.
  std::vector<double> masked_input_gradient() const;
  std::vector<double> weight_gradient() const;

 private:
  double activate(double v) const;
  template <class Visit>
  void each_product(const Visit& visit) const;
};

}  // namespace lamella::depthwise::checks
