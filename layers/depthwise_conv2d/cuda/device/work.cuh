#pragma once

#if defined(__CUDACC__)
#define LAMELLA_ANYWHERE __host__ __device__
#else
#define LAMELLA_ANYWHERE
#endif

/// What the kernels are told: of host and device alike. It includes nothing.
///
/// Dilation divided out. With d = gcd(stride, dilation), S = stride / d and D = dilation / d, the outputs
/// o = ρ + D·t of one residue ρ read the inputs
///   o · stride + k · dilation − padding = (ρ · stride − padding) + dilation · (S·t + k),
/// so within the class of ρ the problem is one of stride S without dilation, on every D-th output and every
/// dilation-th input. The D classes share no input unless d > 1; then inputs of the other residues modulo d
/// are read by none.
namespace lamella::depthwise {

using Int64 = long long;

/// One axis.
struct Axis {
  int input = 0, output = 0;  ///< sizes
  int stride = 1;             ///< before division
  int padding = 0;
  int input_step = 1;   ///< from one input of a class to the next: the dilation
  int output_step = 1;  ///< from one output of a class to the next, and the number of classes

  /// Input 0 of a class; may be negative.
  LAMELLA_ANYWHERE int origin(int residue) const { return residue * stride - padding; }
  /// Outputs of a class.
  LAMELLA_ANYWHERE int outputs(int residue) const { return ceiling(output - residue, output_step); }
  /// The first of a class's inputs that exists, and the one behind the last.
  LAMELLA_ANYWHERE int input_begin(int residue) const { return ceiling(-origin(residue), input_step); }
  LAMELLA_ANYWHERE int input_end(int residue) const { return ceiling(input - origin(residue), input_step); }

  LAMELLA_ANYWHERE static constexpr int floor(int a, int b) {
    if (b == 1) return a;  // as most often
    return a >= 0 ? a / b : -((b - 1 - a) / b);
  }
  LAMELLA_ANYWHERE static int ceiling(int a, int b) { return floor(a + b - 1, b); }
};

/// Rows or columns of x that a class's strips or tiles share, in units of the stride.
struct Units {
  int begin, end;
};
/// With an owner (see backward_pixels()), as many more as it takes to own every output.
LAMELLA_ANYWHERE inline Units units_of(const Axis& axis, int residue, int stride, bool owns, int owner) {
  Units units{Axis::floor(axis.input_begin(residue), stride), Axis::ceiling(axis.input_end(residue), stride)};
  if (owns) {
    units.begin = units.begin < owner ? units.begin : owner;
    const int end = axis.outputs(residue) + owner;
    units.end = units.end > end ? units.end : end;
  }
  return units;
}

/// Products that backward_hankel_boxes leaves to the matrix units to add up.
inline constexpr int kLongestChain = 32;
/// Columns c of a class for backward_hankel_boxes: those of its products of x[c + shift] and g[c - 0 or 1],
/// shifts of 0 to `reach`, that have both. `owns`: and all of g.
LAMELLA_ANYWHERE inline Units product_columns(const Axis& axis, int residue, int reach, bool owns) {
  const int outputs = axis.outputs(residue), first = axis.input_begin(residue) - reach;
  Units units{first > 0 && !owns ? first : 0, axis.input_end(residue)};
  if (units.end > outputs + 1) units.end = outputs + 1;
  if (owns && units.end < outputs) units.end = outputs;
  return units;
}

/// What f of a Transform is, and of a store hook that goes back through it: kernels are compiled for it.
/// Plain numbers, so that `true` is kClamp.
inline constexpr int kPlain = 0, kClamp = 1, kHardSwish = 2;

/// f(scale[c] · x + shift[c]) for each channel c: a batch norm and an activation. kClamp: f bounds by low and
/// high; kHardSwish: f(v) = v · clamp(v + 3, 0, 6) / 6. Padding is zero behind it.
struct Transform {
  const float* scale = nullptr;  ///< [channels]
  const float* shift = nullptr;
  float low = 0, high = 0;
  bool hardswish = false;  ///< for whoever picks the kernel: it does not read it
};

/// What a kernel leaves beside its results (hooks.cuh), if it is one that does. A part is what a block, or
/// the threads of a plane, had of a channel.
struct StoreHook {
  float* parts = nullptr;         ///< [part][channel]: Moments of the output, or NormSums
  const float* center = nullptr;  ///< [channels], of NormSums
};

/// Taps [channels][kh][kw] and a bias [channels], without gaps, each float32 or the type of the other
/// tensors.
struct Parameters {
  const void *taps = nullptr, *bias = nullptr;  ///< no bias: zeros
  bool taps_are_float32 = false, bias_is_float32 = false;
  bool turned = false;  ///< the last tap first
};

/// A tensor; strides in elements.
struct Pixels {
  void* data = nullptr;
  Int64 image = 0, row = 0, pixel = 0;
};

/// Division by a number that is known before the launch; see divisor_of().
struct Divisor {
  unsigned factor = 0;
  int shift = 0;
  /// `number`: below 2^31.
  LAMELLA_ANYWHERE unsigned divide(unsigned number) const {
    return static_cast<unsigned>(static_cast<unsigned long long>(number) * factor >> shift);
  }
};

/// How a problem is shared out among blocks, each of which has Tile::kLanes by so many channels.
struct PixelCut {
  int channel_blocks = 1;
  int channels = 0;                ///< of x; the last block may have fewer
  int groups = 0;                  ///< of columns: threads of a vector of channels
  int tiles = 1;                   ///< of columns
  int strips = 1, strip_rows = 0;  ///< rows of y, or of x in units of the stride
  int images = 0;
  int tap_floats = 0;  ///< backward: where taps lie in shared memory if they stay there
  Divisor by_channel_blocks, by_tiles, by_strips;  ///< of direct kernels, whose threads have a tile each
};

/// Where a kernel that has all of a weight's gradient writes it: [channels][kh][kw], or [channels], float32
/// or the type of the other tensors; strides in elements.
struct GradientTarget {
  void* data = nullptr;  ///< null: not wanted
  bool is_float32 = false, add = false;
  Int64 channel = 0, row = 0, column = 0;
};

struct PixelWork {
  Axis h, w;
  Pixels x, y;  ///< y: the result, or its gradient
  Pixels dx;    ///< backward alone
  Parameters taps;
  bool accumulate = false;  ///< adds to dx
  Transform transform;
  StoreHook hook;
  PixelCut cut;
  // Weight gradient.
  float* parts = nullptr;  ///< [part][channel][taps + 1]
  GradientTarget dw, db;   ///< of direct kernels, whose only part is the whole, in place of `parts`
  int items = 0, items_per_part = 1;
  int owner_h = 0,
      owner_w = 0;  ///< row and column b of the window whose sum is the bias's: see backward_pixels()
};

/// How a problem is shared out among blocks.
struct PlaneCut {
  int planes = 1;                ///< input planes of a block
  int bands = 1, band_rows = 0;  ///< of a plane: rows of y, or of x in units of the stride, of each class
  int column_groups = 1, row_groups = 1;  ///< threads of a plane or band, of one class
  int members = 0;                        ///< backward: threads of all planes
  int zeros = 0, input_numbers = 0,
      output_numbers = 0;  ///< shared memory: a row of zeros, runs of x and of y
  int owned_columns = 0;   ///< runs: units that own a column of y
  int run_numbers = 0;     ///< backward_runs in bands, backward_planes of several outputs a channel: from one
                           ///< plane of y to the next; matrices: of x
  int images = 0, strip_rows = 0,
      result_numbers = 0;  ///< matrices (images: positions, too): of the batch; rows that a warp walks down;
                           ///< as run_numbers, of y
  int chain = 1;           ///< backward_diagonals: items that the matrix units add up
  int team_numbers = 0;    ///< columns: shared memory of a team, whose rows of x and g have input_numbers and
                           ///< output_numbers, and of x run_numbers from one plane to the next
};

/// The columns that a thread of planes reads of a row; each has a bit.
inline constexpr int kMostWindow = 32;

/// What the copy engine knows of a tensor: its sizes, strides, and the box that one copy moves (CUtensorMap).
struct alignas(64) TensorMap {
  unsigned long long opaque[16];
};

struct PlaneWork {
  Axis h, w;
  const void* x = nullptr;
  void* y = nullptr;     ///< the result, or its gradient
  void* dx = nullptr;    ///< backward alone
  int input_planes = 0;  ///< images x channels
  int channels = 0;      ///< of x; of y for forward_runs
  /// Of planes: that of y for a plane of x is number plane · y_step + y_first, one output of a channel that
  /// has y_step.
  int y_step = 1, y_first = 0;
  Parameters taps;
  bool accumulate = false;  ///< adds to the result (forward) or to dx
  Transform transform;
  StoreHook hook;
  PlaneCut cut;
  int items = 0,
      items_per_part = 1;  ///< forward: of all blocks, of one; weight gradient: images x bands, of a part
  float* parts = nullptr;  ///< [part][channel][taps + 1]
  int owner_h = 0, owner_w = 0;  ///< as of PixelWork
  /// Of positions, which have planes of some images with one copy: see ImageRuns.
  TensorMap x_images{}, y_images{};
};

/// One axis of a correlation whose sources lie sorted by residue (phases.cuh). Stride and dilation are
/// divided by their greatest common divisor d: only every d-th number of x takes part (source_first and
/// source_every, or target_first and target_every), and positions here count those alone. Forward, sources
/// are x's and targets y's; where it scatters, for the input's gradient, sources are y's. Targets of a class
/// have the same taps:
///   target[c + classes · t] = Σ over groups of taps, Σ_j tap[group.tap + j · group.tap_step] ·
///                             source[group.first + (t + j) · step],
/// and the sources of a group are those of one residue modulo `step`. Forward, a residue belongs to one group
/// of one class; where it scatters, classes share residues.
struct PhaseAxis {
  int kernel = 1, stride = 1, dilation = 1, padding = 0;
  int sources = 0, targets = 0;
  bool scatters = false;
  int source_first = 0, source_every = 1, target_first = 0, target_every = 1;  ///< which of the tensor's

  /// The source of the class's first target's first tap; which taps; how many.
  struct Group {
    int first = 0, tap = 0, tap_step = 0, taps = 0;
  };
  LAMELLA_ANYWHERE int classes() const { return scatters ? stride * dilation : dilation; }
  LAMELLA_ANYWHERE int groups() const { return scatters ? 1 : sets(); }
  LAMELLA_ANYWHERE int step() const { return scatters ? dilation : stride * dilation; }
  /// Sets of taps; each group has one of them whole.
  LAMELLA_ANYWHERE int sets() const { return stride < kernel ? stride : kernel; }
  LAMELLA_ANYWHERE int most_taps() const { return (kernel + stride - 1) / stride; }
  LAMELLA_ANYWHERE int taps_of_set(int number) const { return (kernel - number + stride - 1) / stride; }
  /// Whether some sets have a tap less than others.
  LAMELLA_ANYWHERE bool is_ragged() const { return kernel > stride && kernel % stride != 0; }
  LAMELLA_ANYWHERE int targets_of(int number) const { return (targets - number + classes() - 1) / classes(); }
  /// Group `number` of a class. Without taps: its targets are zero.
  LAMELLA_ANYWHERE Group group(int of_class, int number) const {
    Group group;
    if (!scatters) {
      group.first = of_class * stride + number * dilation - padding;
      group.tap = number, group.tap_step = stride;
      group.taps = taps_of_set(number);
      return group;
    }
    int tap = 0;
    while ((of_class + padding - tap * dilation) % stride != 0) ++tap;
    if (tap >= kernel) return group;
    group.taps = (kernel - 1 - tap) / stride + 1;
    group.first = (of_class + padding - tap * dilation) / stride - (group.taps - 1) * dilation;
    group.tap = tap + (group.taps - 1) * stride, group.tap_step = -stride;
    return group;
  }
  /// The sources of targets begin … end - 1, from the first on and behind the last.
  LAMELLA_ANYWHERE int source_begin(int begin) const {
    const int from = scatters ? Axis::ceiling(begin + padding - (kernel - 1) * dilation, stride)
                              : begin * stride - padding;
    return from < 0 ? 0 : from < sources ? from : sources;
  }
  LAMELLA_ANYWHERE int source_end(int end) const {
    const int to = scatters ? Axis::floor(end - 1 + padding, stride) + 1
                            : (end - 1) * stride - padding + (kernel - 1) * dilation + 1;
    return to < 0 ? 0 : to < sources ? to : sources;
  }
};

/// Numbers that a thread with so many neighbouring columns loads together, and those that it loads for a row
/// of taps.
LAMELLA_ANYWHERE constexpr int phase_vector(int columns) {
  return columns % 4 == 0 ? 4 : columns % 2 == 0 ? 2 : 1;
}
LAMELLA_ANYWHERE constexpr int phase_window(int columns, int taps) {
  return (columns + taps - 1 + phase_vector(columns) - 1) / phase_vector(columns) * phase_vector(columns);
}

/// Channels of sources, where it scatters, and of targets, where it does not, for one of x.
LAMELLA_ANYWHERE constexpr int phase_channels(bool are_outputs, int repeat) {
  return are_outputs ? repeat : 1;
}

/// A tensor of any format; strides in elements.
struct PhaseTensor {
  void* data = nullptr;
  Int64 image = 0, channel = 0, row = 0, column = 0;
};

/// How rows of planes lie in shared memory as they were in the tensor, before they are sorted: in words that
/// are copied one by one. Words are aligned in the tensor: what precedes a piece in its first word comes
/// along; behind its end nothing is read.
struct PhaseRaw {
  bool by_columns = false;             ///< a piece is the channels of one column; else it is a whole row
  int pieces = 1;                      ///< of a row
  int piece_words = 0;                 ///< with the one for those that begin within a word
  int piece_bytes = 0;                 ///< of a whole row
  int column_bytes = 0;                ///< from one column to the next
  int copy_lanes = 1, sort_lanes = 1;  ///< neighbouring threads that share a row
};

/// How rows of rolling planes lie in shared memory. Shifted: they begin within a word, where they did in the
/// tensor. Padded: zeros lie beside them, as far as any thread reads.
inline constexpr int kShifted = 0, kAtWords = 1, kPadded = 2;

/// What shared memory has of rolling planes (rolling_planes.cuh), whose rows lie as they were in the tensor:
/// words from one row, and plane, to the next.
struct RollingPlaneCut {
  int source_row = 0, source_plane = 0;
  int target_row = 0, target_plane = 0;  ///< weight's gradient
  int result_plane = 0;                  ///< forward, input's gradient: numbers, in the order of the tensor
  int buffers = 1;                       ///< items whose rows there is room for
  int source_front = 0;                  ///< bytes of zeros before the first row, where they lie beside rows
  int zero_bytes = 0;                    ///< of a row of zeros, which is there then, too
};

/// How a problem is shared out among blocks, each of which has some channels: of x where planes are sorted,
/// of targets where rows roll.
struct PhaseCut {
  int channels = 1, channel_blocks = 1;  ///< of a block; the last may have fewer
  int images = 1;                        ///< of an item
  int bands = 1, band = 0;               ///< of targets of PhaseAxis, not rows of the tensor
  int row_groups = 1, tiles = 1;         ///< units of a class: rows and columns
  int place_blocks = 1;                  ///< multiply_phases: of a class, of a channel
  /// Shared memory, in numbers: columns of a residue in a row, all of a row, all of a plane. Columns of
  /// residue r begin with number bases[r] of those that have it; of unread residues it is kUnread.
  int phase = 0, row = 0, plane = 0, source_rows = 0;
  int taps = 0;  ///< in words, of one output channel
  static constexpr int kMostPhases = 16, kUnread = 1 << 30;
  int bases[kMostPhases] = {};
  int target_rows = 0;                     ///< of the tensor, in shared memory
  int source_list = 0, target_list = 0;    ///< rows of all planes
  PhaseRaw source_raw, target_raw;         ///< the latter: weight's gradient
  int source_bytes = 0, target_bytes = 0;  ///< of all rows of these
  int store_lanes = 1;  ///< neighbouring threads that store a row of targets; a power of two
  /// Weight gradient: targets lie in shared memory as float32, too, columns sorted by class. A strip is a
  /// tile of columns by strip_rows rows of a class; there are row_groups of these. Of all strips a thread has
  /// every `splits`-th.
  int target_phase = 0, target_row = 0, target_plane = 0;
  int strip_rows = 0, splits = 1;
  Divisor by_tiles, by_row_groups, by_classes_h, by_classes_w, by_step_h, by_step_w, by_place_blocks;
  Divisor by_channels;  ///< planes of targets of an image
  Divisor by_bands, by_residues, by_images;
  RollingPlaneCut rolling;
  static constexpr int kMostGroups = 128;  ///< of one axis, of all classes
};

/// Rows of one residue modulo the dilation: a problem of their own, of dilation 1.
struct PhaseResidue {
  int padding = 0, sources = 0, targets = 0;
  int source_first = 0, target_first = 0;  ///< rows of the tensors that are before them
};

struct PhaseWork {
  PhaseAxis h, w;  ///< h: of residue 0, if rows are divided
  static constexpr int kMostResidues = 4;
  PhaseResidue rows[kMostResidues];
  int residues = 1;     ///< of rows
  int all_targets = 0;  ///< rows of targets, of all residues
  PhaseTensor source, target;
  int images = 0, channels = 0;    ///< channels as those of PhaseCut
  int target_h = 0, target_w = 0;  ///< sizes of the tensor
  Parameters taps;
  bool accumulate = false;  ///< adds to the targets
  PhaseCut cut;
  int items = 0, items_per_part = 1;  ///< of a group of channels: images, then residues, then bands
  float* parts = nullptr;             ///< weight gradient: [part][channel][taps + 1]
};

/// The last digit of `number`, of `count` values; what is left of the number stays.
LAMELLA_ANYWHERE inline int take_digit(int& number, int count, Divisor by) {
  const int rest = static_cast<int>(by.divide(static_cast<unsigned>(number))), digit = number - rest * count;
  number = rest;
  return digit;
}

/// Which targets of an item of rolling planes, or which strips of them, a thread has: some of one class.
/// Neighbours have the next image's, then the next tile's.
struct RollingPlaneUnit {
  int image, tile, class_w, row_group, class_h;
  LAMELLA_ANYWHERE RollingPlaneUnit(const PhaseWork& work, int number) {
    const PhaseCut& cut = work.cut;
    image = take_digit(number, cut.images, cut.by_images);
    tile = take_digit(number, cut.tiles, cut.by_tiles);
    class_w = take_digit(number, work.w.classes(), cut.by_classes_w);
    row_group = take_digit(number, cut.row_groups, cut.by_row_groups);
    class_h = number;
  }
};

/// Which taps a thread has as long as its block lives, where rows roll for the weight's gradient. Neighbours
/// have the next channel's, then other strips of the same taps, then the next set's.
struct RollingTapUnit {
  int channel, split;       ///< split: of each cut.splits strips it has this one
  int number;               ///< of the taps; who has the first sums the bias, too
  int set_h, set_w, round;  ///< round: how many threads have rows of the set's taps before these
  LAMELLA_ANYWHERE RollingTapUnit(const PhaseWork& work, int thread) {
    channel = take_digit(thread, work.cut.channels, work.cut.by_channels);
    number = thread / work.cut.splits, split = thread - number * work.cut.splits;
    const int block = number / work.w.sets();
    set_w = number - block * work.w.sets();
    round = block / work.h.sets(), set_h = block - round * work.h.sets();
  }
};

/// Bytes of a line of memory. The copy engine is fastest where bytes lie as far behind a line of shared
/// memory.
constexpr int kLineBytes = 128;

/// A box that is moved by rows (BoxMove) goes in pieces of 256 numbers of eight bytes at most, whole lines
/// apart in shared memory.
constexpr int kPieceUnit = 8, kMostPieceBytes = 256 * kPieceUnit;
/// Bytes of a piece of a row, of which there are as few as can be.
LAMELLA_ANYWHERE constexpr int row_piece_bytes(int row) {
  const int pieces = (row + kMostPieceBytes - 1) / kMostPieceBytes;
  return ((row + pieces - 1) / pieces + kLineBytes - 1) / kLineBytes * kLineBytes;
}

/// How many warps of forward_boxes transform pages for so many that compute.
LAMELLA_ANYWHERE constexpr int transforming_warps(int consumers) { return consumers <= 4 ? 2 : 4; }

/// PixelWork whose tensors the copy engine moves: x and y (or its gradient) in, y or dx out.
struct BoxWork {
  PixelWork work;
  TensorMap x, y, dx;
};

/// Both gradients at once, by blocks for either: their work, and how many there are of each in a part.
template <class Work>
struct PairWork {
  Work input, weight;
  int input_groups = 0, weight_groups = 0;
};

}  // namespace lamella::depthwise
