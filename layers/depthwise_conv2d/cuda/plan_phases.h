#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_phases.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

/// What the planners of phases share.
namespace lamella::depthwise {

/// A problem as these kernels see it, and what all of its plans share.
struct PhaseShape {
  PhaseWork work;  ///< axes and sizes
  std::int64_t images, channels;
  int repeat;                              ///< output channels of one of x
  int number;                              ///< bytes of one
  int sources, targets;                    ///< channels of either for one of x
  int source_alignment, target_alignment;  ///< of whole rows, or of columns whose channels are neighbours
  bool source_gaps, target_gaps;           ///< between the channels of one column and the next
  int target_vector;                       ///< at most
  int source_rows;                         ///< of all residues
  double rows_met;                         ///< rows of taps of a target that meet a source, on average
};

/// Whether the kernels of phases, and of rolling planes, are offered.
bool may_use_phases(const Problem& problem, const Shape& shape);

/// Whether those of rolling rows are, with channels side by side.
bool may_use_rolling(const Problem& problem, const Shape& shape);

/// Products of one axis that exist, for each of its targets.
double phase_meetings(const PhaseAxis& axis);

/// False: no phases can do the problem.
bool describe_phases(const Problem& problem, const Shape& shape, PhaseShape& to);

/// What a block spends on an item: instructions of its warps, wavefronts of shared memory, clocks of the
/// matrix units. Counted in machine code for sm_90.
struct PhaseEffort {
  double issue = 0, wavefronts = 0, matrix = 0;
};
/// On its planes: copying and sorting them, and storing those of targets if they are stored.
PhaseEffort effort_to_move(const PhaseShape& s, const PhaseCut& cut, const PhaseShareSizes& sizes,
                           bool stores);

/// Estimated milliseconds. of_item: what warps do for an item beside moving it; of_block: clocks that a block
/// takes to begin and end. Counted limits of memory, issue, shared memory, matrix units and latency, joined
/// so that the largest counts most; `measured`: times that plans of such kernels took over that
/// (docs/performance.md, item 31).
double phase_cost(const PhaseShape& s, const PhaseShareSizes& sizes, const Plan& plan, int resident,
                  const PhaseEffort& of_item, double of_block, bool stores, double measured);

/// Settles how a block with sizes.channels copies them.
void choose_words(const PhaseShape& s, bool channels_last, PhaseShareSizes& sizes);

/// Calls add(sizes) for how much of the problem a block may have at a time; cut(sizes) is its launch.
template <class Sizes, class Cut, class Add>
void each_phase_share(const PhaseShape& s, bool channels_last, Sizes sizes, std::int64_t bytes,
                      const Cut& cut, const Add& add) {
  const PhaseAxis& h = s.work.h;
  const auto fits = [&](int images, int channels, int band) {
    Sizes of = sizes;
    of.images = images, of.channels = channels, of.band = band;
    choose_words(s, channels_last, of);
    const Launch launch = cut(of);
    return launch.blocks > 0 && launch.shared_bytes <= bytes;
  };
  // The largest count for which fits_with(count) holds, if it does for one.
  const auto most_of = [](std::int64_t most, const auto& fits_with) {
    int least = 1, end = static_cast<int>(std::min<std::int64_t>(most, 1 << 12)) + 1;
    while (end - least > 1) {
      const int middle = (least + end) / 2;
      (fits_with(middle) ? least : end) = middle;
    }
    return least;
  };
  const auto add_words = [&](Sizes of) {
    choose_words(s, channels_last, of);
    add(of);
  };
  std::array<int, 7> groups{1};
  constexpr std::int64_t kMostTogether = 128;  // channels
  if (channels_last) groups = {2, 4, 8, 16, 32, 64, static_cast<int>(std::min(s.channels, kMostTogether))};
  for (const int group : groups) {
    if (group == 0 || (group > 2 && group / 2 >= s.channels)) continue;
    sizes.channels = static_cast<int>(std::min<std::int64_t>(group, s.channels));
    sizes.images = 1, sizes.band = h.targets;
    if (fits(1, sizes.channels, h.targets)) {
      // Small planes: more channels, or more images, of what fits.
      if (!channels_last) {
        add_words(sizes);
        sizes.channels = most_of(s.channels, [&](int count) { return fits(1, count, h.targets); });
        if (sizes.channels > 8) {
          Sizes few = sizes;
          few.channels = 4;
          add_words(few);
        }
      }
      sizes.images = most_of(s.images, [&](int count) { return fits(count, sizes.channels, h.targets); });
      add_words(sizes);
      continue;
    }
    int band = h.targets;
    while (band > h.classes() && !fits(1, sizes.channels, band)) band = band * 7 / 8;
    if (!fits(1, sizes.channels, band)) continue;
    // Bands of about the same size.
    const std::int64_t bands = ceiling(h.targets, round_up(band, h.classes()));
    sizes.band = static_cast<int>(ceiling(h.targets, bands));
    add_words(sizes);
  }
}

/// Adds the plans of the weight's gradient.
void add_weigh_phase_plans(const Problem& problem, const PhaseShape& shape, std::vector<Plan>& plans);

}  // namespace lamella::depthwise
