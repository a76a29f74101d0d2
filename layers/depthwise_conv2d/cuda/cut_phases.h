#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How planes sorted by residue (device/phases.cuh) are shared out.
namespace lamella::depthwise {

/// How much of the problem a block has at a time, and how it moves it.
struct PhaseShareSizes {
  int threads = 256;
  int channels = 1, images = 1;  ///< of x
  int band = 1;                  ///< targets, at least; bands are of whole classes
  /// Bytes that are copied at once, of sources and, for the weight's gradient, of targets; and a number of
  /// bytes that divides the address of each piece (PhaseRaw).
  int source_word = 16, target_word = 16, source_alignment = 1, target_alignment = 1;
  bool source_pieces = false, target_pieces = false;  ///< channels are neighbours, and a block has some
  int target_vector = 1;                              ///< targets that are stored together
};

/// What else correlate_phases, or multiply_phases, is compiled for.
struct PhaseSizes : PhaseShareSizes {
  bool multiplies = false;
  int rows = 1;     ///< of a place, or of a unit
  int columns = 1;  ///< of a unit
  /// Numbers by which phases, and rows, are longer than they must be, and the wavefronts in which a warp
  /// then loads phase_vector(columns) numbers a lane: see spread_phases().
  int more_phase = 0, more_row = 0, wavefronts = 0;
};

/// Numbers that a plane may have, and bytes of all rows: more than any shared memory, and few enough to be
/// multiplied.
inline constexpr std::int64_t kMostPlane = 1 << 20;

/// One axis of the forward pass, or of the input's gradient.
inline PhaseAxis phase_axis(std::int64_t input, std::int64_t output, std::int64_t kernel, std::int64_t stride,
                            std::int64_t padding, std::int64_t dilation, bool scatters) {
  if (kernel == 1) dilation = 1;
  const std::int64_t common = std::gcd(stride, dilation);
  const std::int64_t first = (common - padding % common) % common;
  const std::int64_t inputs = first < input ? ceiling(input - first, common) : 0;
  PhaseAxis axis;
  axis.kernel = static_cast<int>(kernel);
  axis.stride = static_cast<int>(stride / common);
  axis.dilation = static_cast<int>(dilation / common);
  axis.padding = static_cast<int>((padding + first) / common);
  axis.scatters = scatters;
  axis.sources = static_cast<int>(scatters ? output : inputs);
  axis.targets = static_cast<int>(scatters ? inputs : output);
  (scatters ? axis.target_first : axis.source_first) = static_cast<int>(first);
  (scatters ? axis.target_every : axis.source_every) = static_cast<int>(common);
  return axis;
}

/// How rows lie before they are sorted, of so many columns, each `every`-th of the tensor; `channels` of a
/// block are neighbours.
inline PhaseRaw cut_phase_raw(std::int64_t columns, std::int64_t every, std::int64_t channels, bool pieces,
                              int word, int alignment, int number_bytes, int threads) {
  const std::int64_t column_bytes = channels * number_bytes,
                     piece_bytes = pieces ? column_bytes : ((columns - 1) * every + 1) * column_bytes;
  PhaseRaw raw;
  raw.by_columns = pieces;
  raw.pieces = pieces ? static_cast<int>(columns) : 1;
  raw.piece_bytes = static_cast<int>(piece_bytes);
  const std::int64_t before = std::max(0, word - std::max(alignment, number_bytes));
  raw.piece_words = static_cast<int>(ceiling(piece_bytes + before, word));
  raw.column_bytes = static_cast<int>(pieces ? std::int64_t{raw.piece_words} * word : every * column_bytes);
  // As few idle threads as may be, in as few turns.
  const auto lanes = [&](std::int64_t count, std::int64_t at_once) {
    const std::int64_t turns = ceiling(count, at_once * threads);
    return static_cast<int>(ceiling(count, at_once * turns));
  };
  constexpr int kSortedTogether = 4;
  raw.copy_lanes = lanes(std::int64_t{raw.pieces} * raw.piece_words, 1);
  raw.sort_lanes = lanes(columns * channels, kSortedTogether);
  return raw;
}
inline std::int64_t bytes_of(const PhaseRaw& raw, std::int64_t rows, int word) {
  return round_up(rows * raw.pieces * raw.piece_words * word, 16);
}

/// Divides rows by residue modulo their dilation, which has no common divisor with their stride any more
/// (phase_axis); those of more than `most` residues stay together.
inline void divide_phase_rows(PhaseWork& work, int most = PhaseWork::kMostResidues) {
  PhaseAxis& h = work.h;
  work.residues = 1, work.all_targets = h.targets;
  work.rows[0] = {h.padding, h.sources, h.targets, h.source_first, 0};
  const int parts = h.dilation;
  if (parts == 1 || parts > most) return;
  work.residues = parts;
  const auto of_residue = [&](int count, int residue) {
    return residue < count ? (count - residue + parts - 1) / parts : 0;
  };
  for (int target = 0; target < parts; ++target) {
    PhaseResidue& of = work.rows[target];
    // Targets of this residue have sources of one.
    int source = 0;
    if (h.scatters) {
      while ((source * h.stride - h.padding - target) % parts != 0) ++source;
      of.padding = (h.padding + target - source * h.stride) / parts;
    } else {
      const int first = target * h.stride - h.padding, index = Axis::floor(first, parts);
      source = first - index * parts, of.padding = -index;
    }
    of.sources = of_residue(h.sources, source), of.targets = of_residue(h.targets, target);
    of.source_first = h.source_first + source * h.source_every;
    of.target_first = target * h.target_every;
  }
  h.dilation = 1;
  h.padding = work.rows[0].padding, h.sources = work.rows[0].sources, h.targets = work.rows[0].targets;
}

/// Neighbouring threads that share a row of `count` pieces: the power of two, from 8 on, that leaves the
/// fewest idle.
inline int lanes_for(int count, int threads) {
  constexpr int kLeast = 8;
  int best = kLeast;
  for (int lanes = kLeast; lanes <= threads; lanes *= 2)
    if (round_up(count, lanes) <= round_up(count, best)) best = lanes;
  return best;
}

/// Sorts columns: where those of each residue begin, and how many a row has of each.
inline void cut_phase_columns(const PhaseAxis& w, int columns, int window, PhaseCut& cut) {
  for (int& base : cut.bases) base = PhaseCut::kUnread;
  const auto each_group = [&](const auto& visit) {
    for (int of_class = 0; of_class < w.classes(); ++of_class)
      for (int number = 0; number < w.groups(); ++number) {
        const PhaseAxis::Group group = w.group(of_class, number);
        if (group.taps == 0) continue;
        const int index = Axis::floor(group.first, w.step());
        visit(of_class, group.first - index * w.step(), index);
      }
  };
  each_group([&](int, int residue, int index) { cut.bases[residue] = std::min(cut.bases[residue], index); });
  cut.tiles = static_cast<int>(ceiling(w.targets_of(0), columns));
  each_group([&](int of_class, int residue, int index) {
    const int places = w.targets_of(of_class) + index - cut.bases[residue];
    cut.tiles = std::max(cut.tiles, static_cast<int>(ceiling(places, columns)));
  });
  cut.phase = static_cast<int>(round_up((cut.tiles - 1) * columns + window, 4));
}

/// Bands of whole classes, of at least so many targets, and rows of sources and of the tensor that one has.
inline void cut_phase_bands(const PhaseWork& work, int targets, PhaseCut& cut) {
  const PhaseAxis& h = work.h;  // no residue has more targets than the first
  cut.band = static_cast<int>(round_up(std::min(targets, h.targets), h.classes()));
  cut.bands = static_cast<int>(ceiling(h.targets, cut.band));
  cut.source_rows = cut.target_rows = 1;
  for (int residue = 0; residue < work.residues; ++residue) {
    const PhaseResidue& rows = work.rows[residue];
    PhaseAxis of = h;
    of.padding = rows.padding, of.sources = rows.sources, of.targets = rows.targets;
    for (int begin = 0; begin < of.targets; begin += cut.band) {
      const int end = std::min(begin + cut.band, of.targets);
      const bool last = residue + (end - 1) * work.residues == work.all_targets - 1;
      const int behind = last ? work.target_h - work.all_targets * h.target_every : 0;
      cut.source_rows = std::max(cut.source_rows, of.source_end(end) - of.source_begin(begin));
      cut.target_rows = std::max(cut.target_rows, (end - begin) * h.target_every + behind);
    }
  }
  cut.by_bands = divisor_of(cut.bands), cut.by_residues = divisor_of(work.residues);
}

/// Whether the table of residues is long enough, groups of taps are few, and there is anything to do.
inline bool can_cut_phases(const PhaseWork& work) {
  const PhaseAxis &h = work.h, &w = work.w;
  return h.sources > 0 && h.targets > 0 && w.sources > 0 && w.targets > 0 &&
         w.step() <= PhaseCut::kMostPhases &&
         work.residues * h.classes() * h.groups() <= PhaseCut::kMostGroups &&
         w.classes() * w.groups() <= PhaseCut::kMostGroups;
}

/// By what threads of rolling rows take the number of a unit apart: channels, tiles, row groups, classes.
inline void set_unit_divisors(PhaseWork& work) {
  const PhaseAxis &h = work.h, &w = work.w;
  PhaseCut& cut = work.cut;
  cut.by_channels = divisor_of(cut.channels);
  cut.by_tiles = divisor_of(cut.tiles), cut.by_row_groups = divisor_of(cut.row_groups);
  cut.by_classes_h = divisor_of(h.classes()), cut.by_classes_w = divisor_of(w.classes());
  cut.by_step_h = divisor_of(h.step()), cut.by_step_w = divisor_of(w.step());
}

/// How many blocks of tap_rows rows of taps a channel has, of all sets: units of the weight's gradient.
inline int weighing_units(const PhaseWork& work, int tap_rows) {
  const PhaseAxis& h = work.h;
  const int of_blocks = h.stride * tap_rows;
  const int tap_blocks = h.kernel / of_blocks * h.sets() + std::min(h.sets(), h.kernel % of_blocks);
  return tap_blocks * work.w.sets();
}

/// The eights of columns that a product of multiply_phases reads.
inline int phase_eights(const PhaseAxis& w) { return static_cast<int>(ceiling(w.most_taps() + 7, 8)); }

/// Wavefronts of shared memory in which a warp of correlate_phases loads phase_vector(columns) numbers a
/// lane, by how its first units lie: 1 for each 128 bytes, if none meet in a bank.
inline int phase_wavefronts(const PhaseAxis& h, const PhaseAxis& w, const PhaseSizes& sizes,
                            const PhaseCut& cut) {
  constexpr int kLanes = 32, kBanks = 32;
  const int vector = phase_vector(sizes.columns), together = kLanes / vector, places = kBanks / vector;
  int wavefronts = 0;
  for (int first = 0; first < kLanes; first += together) {
    std::array<int, kBanks> meet{};
    int most = 0;
    for (int lane = first; lane < first + together; ++lane) {
      const int by_class = lane / w.classes(), source = w.group(lane % w.classes(), 0).first;
      const int residue = source - Axis::floor(source, w.step()) * w.step();
      const int at = residue * cut.phase + by_class % cut.tiles * sizes.columns +
                     by_class / cut.tiles * sizes.rows * h.step() * cut.row;
      most = std::max(most, ++meet[static_cast<std::size_t>(at / vector % places)]);
    }
    wavefronts += most;
  }
  return wavefronts;
}

/// Makes phases and rows somewhat longer, so that lanes meet in few banks.
inline void spread_phases(const PhaseAxis& h, const PhaseAxis& w, PhaseSizes& sizes) {
  constexpr int kVector = 4, kBanks = 32, kPart = 6;  // of a phase
  PhaseCut cut;
  sizes.wavefronts = 0;
  if (w.targets == 0) return;
  cut_phase_columns(w, sizes.columns, phase_window(sizes.columns, w.most_taps()), cut);
  const int least = cut.phase, most = w.step() > 1 ? std::min(kBanks - kVector, least / kPart) : 0;
  for (int more_phase = 0; more_phase <= most; more_phase += kVector)
    for (int more_row = 0; more_row < kBanks; more_row += kVector) {
      cut.phase = least + more_phase, cut.row = w.step() * cut.phase + more_row;
      const int wavefronts = phase_wavefronts(h, w, sizes, cut);
      if (sizes.wavefronts > 0 && wavefronts >= sizes.wavefronts) continue;
      sizes.wavefronts = wavefronts, sizes.more_phase = more_phase, sizes.more_row = more_row;
    }
}

/// How much of a row and of its taps shared memory has.
inline void cut_phase_rows(const PhaseAxis& h, const PhaseAxis& w, const PhaseSizes& sizes, PhaseCut& cut) {
  constexpr int kVector = 4, kEight = 8;
  if (sizes.multiplies) {
    const int eights = phase_eights(w);
    cut_phase_columns(w, kEight, eights * kEight, cut);
    cut.phase = static_cast<int>(round_up(cut.phase, kEight));
    // Eight rows, one below the other, meet all banks.
    cut.row = static_cast<int>(round_up(w.step() * cut.phase / kEight, 2) + 1) * kEight;
    cut.taps = h.kernel * w.sets() * (eights + 1) * kEight;
    return;
  }
  cut_phase_columns(w, sizes.columns, phase_window(sizes.columns, w.most_taps()), cut);
  cut.phase += sizes.more_phase;
  cut.row = w.step() * cut.phase + sizes.more_row;
  cut.taps = h.kernel * w.sets() * static_cast<int>(round_up(w.most_taps(), kVector));
  if (cut.taps % kEight == 0) cut.taps += kVector;  // channels side by side do not meet in a bank
}

/// The launch of correlate_phases or multiply_phases. channels: of x. No blocks: it cannot be.
inline Launch cut_correlate_phases(PhaseWork& work, std::int64_t images, std::int64_t channels,
                                   bool channels_last, int repeat, const PhaseSizes& sizes, int number_bytes,
                                   std::int64_t wanted_blocks) {
  const PhaseAxis &h = work.h, &w = work.w;
  PhaseCut& cut = work.cut;
  Launch launch;
  if (!can_cut_phases(work)) return launch;
  work.images = static_cast<int>(images);
  work.channels = static_cast<int>(channels);
  cut.channels = sizes.channels, cut.images = sizes.images;
  cut.channel_blocks = static_cast<int>(ceiling(channels, sizes.channels));
  cut_phase_rows(h, w, sizes, cut);
  cut_phase_bands(work, sizes.band, cut);
  const std::int64_t class_rows = ceiling(std::min(cut.band, h.targets), h.classes());
  cut.row_groups = static_cast<int>(ceiling(class_rows, sizes.rows));
  constexpr std::int64_t kPlaces = 16;
  cut.place_blocks =
      static_cast<int>(ceiling(std::int64_t{sizes.images} * cut.row_groups * cut.tiles, kPlaces));
  const std::int64_t plane = std::int64_t{cut.source_rows} * cut.row;
  if (plane > kMostPlane) return launch;
  cut.plane = static_cast<int>(plane);
  const int sources = w.scatters ? repeat : 1, targets = w.scatters ? 1 : repeat;
  const int of_row = channels_last ? sizes.channels : 1;
  cut.source_raw = cut_phase_raw(w.sources, w.source_every,
                                 std::int64_t{of_row} * (channels_last ? sources : 1), sizes.source_pieces,
                                 sizes.source_word, sizes.source_alignment, number_bytes, sizes.threads);
  cut.store_lanes = lanes_for(work.target_w * of_row * targets / sizes.target_vector, sizes.threads);
  const std::int64_t planes = std::int64_t{sizes.images} * sizes.channels;
  cut.source_list = static_cast<int>((channels_last ? sizes.images : planes * sources) * cut.source_rows);
  cut.target_list = static_cast<int>((channels_last ? sizes.images : planes * targets) * cut.target_rows);
  cut.by_tiles = divisor_of(cut.tiles), cut.by_row_groups = divisor_of(cut.row_groups);
  cut.by_classes_h = divisor_of(h.classes()), cut.by_classes_w = divisor_of(w.classes());
  cut.by_step_h = divisor_of(h.step()), cut.by_place_blocks = divisor_of(cut.place_blocks);
  cut.by_channels = divisor_of(std::int64_t{sizes.channels} * targets);
  const std::int64_t items = ceiling(images, sizes.images) * work.residues * cut.bands;
  if (!share_items(work, launch, items, wanted_blocks)) return launch;
  launch.parts = 0;  // of no sum
  const std::int64_t raw = bytes_of(cut.source_raw, cut.source_list, sizes.source_word);
  if (raw > kMostPlane) return {};
  cut.source_bytes = static_cast<int>(raw);
  const std::int64_t listed = work.residues * h.classes() * h.groups() + w.classes() * w.groups() +
                              std::int64_t{cut.source_list} + cut.target_list;
  launch.shared_bytes = listed * 16 + raw +
                        (cut.row + planes * sources * cut.plane) * (sizes.multiplies ? number_bytes : 4) +
                        std::int64_t{sizes.channels} * repeat * cut.taps * 4 +
                        round_up(planes * targets * cut.target_rows * work.target_w * number_bytes, 16);
  launch.threads = sizes.threads;
  return launch;
}

}  // namespace lamella::depthwise
