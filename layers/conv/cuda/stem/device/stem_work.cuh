#pragma once

#include "layers/depthwise_conv2d/cuda/device/work.cuh"

/// What the kernels of convolutions of few channels are told: of host and device alike.
namespace lamella::stem {

using Int64 = long long;

inline constexpr int kWarps = 4, kThreads = 32 * kWarps;
/// Pixels of a row that a warp has at a time.
inline constexpr int kStrip = 16;
/// Eights of output channels of a block at most.
inline constexpr int kMostEights = 4;

/// Blocks of weigh_windows32() for which a multiprocessor's 64 Ki registers suffice.
LAMELLA_ANYWHERE constexpr int weigh32_blocks(int channels) { return channels == 1 ? 5 : 3; }

/// A convolution without groups and dilation.
struct Sizes {
  int channels = 0, outputs = 0;
  int in_h = 0, in_w = 0, out_h = 0, out_w = 0;
  int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0;
  Int64 batch = 0;

  LAMELLA_ANYWHERE int taps() const { return kernel_h * kernel_w; }
  LAMELLA_ANYWHERE int numbers() const { return taps() * channels; }  ///< of a window
};

/// Who does what. Items are tiles of output pixels, image by image; a part has neighbouring ones, and for
/// each group of output channels a block. For an item, what the tile's windows see lies in shared memory: a
/// patch.
struct Cut {
  int rows = 1, columns = kStrip;  ///< of a tile; columns in strips
  int down = 1, across = 1;        ///< tiles of an image
  int groups = 1;                  ///< of output channels
  int parts = 1;
  Int64 items = 0;
  int pixel = 1;  ///< numbers from one pixel of the patch to the next; forward, windows begin at words
  int row = 0;    ///< numbers of a patch's row
  int pitch = 0;  ///< from one row to the next: numbers forward, else words
  int patch = 0;  ///< in float32: numbers from one of two patches to the other
  int shared_bytes = 0;
};

/// Places within one image and one output are ints.
struct Image {
  const void* data = nullptr;
  bool is_float32 = false;
  Int64 image_step = 0;
  int channel_step = 0, row_step = 0, pixel_step = 0;
};

/// output [pixel][outputs] = image ∗ weight + bias.
struct MultiplyWork {
  Sizes sizes;
  Cut cut;
  Image image;
  const void* weight = nullptr;
  bool weight_is_float32 = false, bias_is_float32 = false;
  Int64 weight_steps[4] = {};  ///< output, channel, row, column
  const void* bias = nullptr;  ///< null: none
  void* output = nullptr;
  double* moments = nullptr;  ///< [part][count, mean, M2][outputs]; null: not wanted
};

/// parts [part][outputs][channels][kernel's rows][its columns], whose sum is the weight's gradient.
struct WeighWork {
  Sizes sizes;
  Cut cut;
  Image image;
  const void* gradient = nullptr;  ///< [pixel][outputs]
  float* parts = nullptr;
};

}  // namespace lamella::stem
