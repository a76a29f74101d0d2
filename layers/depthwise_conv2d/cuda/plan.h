#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/cuda/shared_memory.h"
#include "lamella/core/dtype.h"
#include "lamella/layers/conv_geometry.h"
#include "layers/depthwise_conv2d/cuda/cut_boxes.h"
#include "layers/depthwise_conv2d/cuda/cut_hooks.h"
#include "layers/depthwise_conv2d/cuda/cut_positions.h"

/// Which kernel does a problem's work, with what tile, and how the work is shared out.
namespace lamella::depthwise {

/// What a kernel leaves beside its results: nothing, the output's moments (forward), or, of the input's
/// gradient masked by the transform's clamp, the sums for a batch norm's gradient. See device/hooks.cuh.
enum class Hook : std::uint8_t { None, Statistics, NormSums };

/// What is computed: the output, the input's gradient, the weight's (and bias's), or both gradients at once.
enum class Pass : std::uint8_t { Forward, Input, Weight, Both };

/// All that the choice depends on. Alignments are in bytes, the largest power of two up to 16 that divides
/// addresses and distances of the tensors that a kernel reads and writes in vectors.
struct Problem {
  Pass pass = Pass::Forward;
  DType dtype = DType::Float32;
  Conv2dGeometry geometry;     ///< with dilation 1 where the kernel has a single tap
  bool channels_last = false;  ///< channels side by side; else dense planes
  int input_alignment = 16, output_alignment = 16;
  /// Pixels of neighbouring channels lie further apart than these take, as those of a slice of channels do.
  /// What is measured does not tell such problems apart (text_of()).
  bool input_gaps = false, output_gaps = false;
  bool bias = false;        ///< its gradient is wanted, too
  bool transforms = false;  ///< the input passes through a Transform
  bool hardswish = false;   ///< the Transform's activation, there and where a hook goes back through it
  Hook hook = Hook::None;
  bool accumulate = false;  ///< the input's gradient is added to what is there
  bool boxes = false;  ///< the GPU has the copy engine that all families but pixels, planes and direct want
  bool exact_taps = false;  ///< taps are float32 and must not be rounded to the type of the other tensors
  /// Bytes of shared memory that a block may have. Not in text_of(), as a file of measured choices is of one
  /// GPU.
  std::int64_t shared_bytes = detail::cuda::shared_bytes_of_architecture(90);
  friend bool operator==(const Problem& a, const Problem& b);
};

/// A kernel with its launch. Work has everything but addresses, strides and parameters.
struct Plan {
  std::string kernel;  ///< the expression that names it
  std::string what;    ///< tile and cut in words, for tables
  Launch launch;
  /// The families of kernels are told apart in docs/architecture.md. Boxes: of sixteen bits and of float32.
  enum class Family : std::uint8_t {
    Pixels,
    Planes,
    Boxes,
    Runs,
    Direct,
    Matrices,
    Diagonals,
    Pairs,
    ToeplitzBoxes,
    HankelBoxes,
    MapBoxes,
    Columns,
    Positions,
    Phases,
    Rolling,
    RollingPlanes
  };
  Family family = Family::Pixels;
  BoxSizes x_box, y_box, dx_box;  ///< where it moves boxes; without channels: the kernel does not have it
  ImageRuns x_images, y_images;   ///< of positions; without images: each image's run is moved by itself
  bool turned = false;            ///< the input's gradient as a correlation with the turned kernel
  bool clears = false;            ///< dx must be zero before: some inputs are read by no output
  PixelWork pixels;
  PlaneWork planes;
  PhaseWork phases;
  double cost = 0;          ///< estimated milliseconds; of large problems scaled, so that they compare
  std::vector<Plan> kinds;  ///< of Pairs: the input's gradient and the weight's, with their blocks of a part
  // Of what may be one of those. Blocks that share a multiprocessor, registers that a thread is to have,
  // images that an item has, items that a part may have at most (0: any number).
  int resident = 0, registers = 0, item_images = 1, most_items = 0;

  /// Whether the copy engine is told of tensors.
  bool moves_boxes() const {
    return family == Family::Boxes || family == Family::ToeplitzBoxes || family == Family::HankelBoxes ||
           family == Family::MapBoxes;
  }
  /// Whether `phases` describes the work.
  bool has_phases() const {
    return family == Family::Phases || family == Family::Rolling || family == Family::RollingPlanes;
  }
  /// Whether `pixels` does; else, and if `phases` does not, `planes` does, or of Pairs those of `kinds`.
  bool has_pixels() const { return family == Family::Pixels || family == Family::Direct || moves_boxes(); }
  /// Blocks that share out the channels, of those that work on parts of the images.
  int channel_groups() const {
    return static_cast<int>(has_phases()   ? groups_of(phases)
                            : has_pixels() ? groups_of(pixels)
                                           : groups_of(planes));
  }

  /// Floats of the parts of a weight gradient; those of a hook lie behind.
  std::int64_t part_floats(const Conv2dGeometry& geometry) const {
    return launch.parts * geometry.out_channels * (geometry.kernel.h * geometry.kernel.w + 1);
  }
  std::int64_t workspace_bytes(const Conv2dGeometry& geometry, Hook hook) const {
    const std::int64_t of_part = hook == Hook::Statistics ? geometry.out_channels * kMomentFloats
                                 : hook == Hook::NormSums ? geometry.in_channels * kNormSumFloats
                                                          : 0;
    return (part_floats(geometry) + (launch.hook_parts + hook_chunks(launch.hook_parts)) * of_part) *
           static_cast<std::int64_t>(sizeof(float));
  }
};

/// The plans that can do the work, the best by estimate first. Of small problems, and where phases and
/// rolling rows cannot be compared with the others, dense planes are behind those, and phases and rolling
/// rows last. None: only the generic kernels can.
std::vector<Plan> plans_for(const Problem& problem);

}  // namespace lamella::depthwise
