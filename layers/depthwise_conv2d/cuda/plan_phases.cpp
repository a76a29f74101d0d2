#include "layers/depthwise_conv2d/cuda/plan_phases.h"

#include <cmath>
#include <cstdio>

// Phases: what plan_phases.h declares, and the plans of the output and the input's gradient.
namespace lamella::depthwise {
namespace {

struct PhaseConfig {
  PhaseSizes sizes;
  int resident = 1;  ///< blocks that share a multiprocessor
};

/// Of a thread, to within some.
int phase_registers(const PhaseShape& s, const PhaseSizes& z) {
  if (z.multiplies) return 62 + z.rows * (4 + phase_eights(s.work.w));
  const int taps = static_cast<int>(round_up(s.work.w.most_taps(), 4));
  return 46 + z.rows * z.columns + phase_window(z.columns, s.work.w.most_taps()) + taps;
}

/// What a block spends on an item beside moving it.
PhaseEffort effort_of(const PhaseShape& s, const PhaseSizes& z, const PhaseCut& cut) {
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const double classes = static_cast<double>(h.classes()) * w.classes();
  const double groups = static_cast<double>(h.groups()) * w.groups() * s.sources;
  const double turns_w = w.groups() * s.sources, taps = w.most_taps();
  if (z.multiplies) {
    const double units = static_cast<double>(z.channels) * s.targets * classes * cut.place_blocks;
    const double turns = std::ceil(units / (z.threads / 32)) * (z.threads / 32);
    // Rows of sources that are asked for, in whole turns of the loop, and those that places meet, which
    // together are higher than one.
    const double at_once = std::ceil((h.most_taps() + z.rows - 1.0) / z.rows) * z.rows;
    const double high = std::min<double>(cut.row_groups, std::ceil(16.0 / cut.tiles)) * z.rows;
    const double met = std::min(1.0, (s.rows_met + (high - 1) / 2) / h.kernel);
    const double rows = groups * at_once, rows_met = groups * (h.most_taps() + z.rows - 1) * met;
    const int eights = phase_eights(w);
    const double loads = (eights > 1 ? 4 : 0) + eights % 2 * 2, products = eights / 2 + eights % 2;
    return {
        turns * (270 + 27 * z.rows + groups * 60 + rows * (18 + eights) + rows_met * (4 + z.rows * products)),
        turns * (rows * eights + rows_met * loads + 12 * z.rows), turns * rows_met * z.rows * eights * 1.1};
  }
  const double planes = static_cast<double>(z.images) * z.channels;
  const double units = planes * s.targets * classes * cut.row_groups * cut.tiles;
  const double turns = std::ceil(units / z.threads) * z.threads / 32;
  const double window = phase_window(z.columns, s.work.w.most_taps()), vector = phase_vector(z.columns);
  // Rows of taps that a row of targets meets, and rows of sources that those of a unit do.
  const double met = s.rows_met * turns_w, rows = met + groups * (z.rows - 1);
  const double tap_words = std::ceil(taps / 4), conflicts = z.wavefronts / vector;
  return {turns * (met * z.rows * (z.columns * taps + tap_words + 1) + rows * (window / vector + 18) +
                   groups * 55 + z.rows * z.columns * 5 + 200),
          turns * (rows * window * conflicts + met * z.rows * tap_words + z.rows * z.columns * 2), 0};
}

/// The plan of a configuration; false: it does not fit.
bool plan_phases(const Problem& p, const PhaseShape& s, const PhaseConfig& c, bool named, Plan& plan) {
  const PhaseSizes& z = c.sizes;
  plan = {};
  plan.family = Plan::Family::Phases;
  plan.phases = s.work;
  constexpr int kWaves = 2;
  plan.launch =
      cut_correlate_phases(plan.phases, s.images, s.channels, p.channels_last, s.repeat, z, s.number,
                           std::int64_t{c.resident} * static_cast<std::int64_t>(kMultiprocessors) * kWaves);
  if (!can_launch(p, plan.launch, c.resident)) return false;
  if (registers_of(z.threads, c.resident) < phase_registers(s, z)) return false;
  const double taps = static_cast<double>(z.channels) * s.repeat * s.work.h.kernel * s.work.w.kernel;
  double measured = s.work.w.scatters ? 2.05 : 1.95;
  if (!p.channels_last) {
    const bool stores_apart = z.multiplies && s.work.w.target_every > 1;  // results between zeros, one by one
    measured = stores_apart ? 2.3 : 1.65;
  }
  plan.cost = phase_cost(s, z, plan, c.resident, effort_of(s, z, plan.phases.cut), taps * 30 / z.threads,
                         true, measured);
  if (!named) return true;
  std::array<char, 200> text{};
  const int length =
      z.multiplies ? std::snprintf(text.data(), text.size(), "multiply_phases<%s, PhaseMatrixTile<%d, %d>",
                                   type_name(p.dtype), s.work.w.most_taps(), z.rows)
                   : std::snprintf(text.data(), text.size(), "correlate_phases<%s, PhaseTile<%d, %d, %d>",
                                   type_name(p.dtype), s.work.w.most_taps(), z.rows, z.columns);
  std::snprintf(text.data() + length, text.size() - static_cast<std::size_t>(length),
                ", %d, %s, %s, %d, %s, %d, %d, %d>", s.repeat, word(s.work.w.scatters), word(p.channels_last),
                z.source_word, word(z.source_alignment >= z.source_word), z.target_vector, z.threads,
                c.resident);
  plan.kernel = text.data();
  plan.what = "phases of " + std::to_string(z.images) + " x " + std::to_string(z.channels) + " planes in " +
              std::to_string(plan.phases.cut.bands) + " bands, " +
              (z.multiplies ? "16 places of " + std::to_string(z.rows) + " rows"
                            : std::to_string(z.rows) + "x" + std::to_string(z.columns));
  return true;
}

constexpr int kFewestTaps = 10;  // of fewer, memory decides, and planning takes time

/// Whether the kernels of phases, and of rolling rows and planes, can do the problem, on a GPU on which they
/// have been measured.
bool can_use_phases(const Problem& p) {
  constexpr std::int64_t kMostSize = std::int64_t{1} << 20, kMostNumbers = std::int64_t{1} << 30;
  const Conv2dGeometry& g = p.geometry;
  // Measured on GPUs with the copy engine alone, though they do not use it.
  const auto fits = [](Size2 size) { return std::max(size.h, size.w) < kMostSize; };
  return p.boxes && p.pass != Pass::Both && !p.transforms && p.hook == Hook::None && fits(g.in) &&
         fits(g.out) && fits(g.padding) && fits(g.dilation) && fits(g.stride) &&
         g.in.h * g.in.w * g.out_channels < kMostNumbers && g.out.h * g.out.w * g.out_channels < kMostNumbers;
}

}  // namespace

bool may_use_phases(const Problem& p, const Shape& s) {
  return can_use_phases(p) && taps_of(s.kernel) >= kFewestTaps;
}

bool may_use_rolling(const Problem& p, const Shape& s) {
  if (!can_use_phases(p)) return false;
  if (taps_of(s.kernel) >= kFewestTaps) return true;
  // Of few taps for weights, and for pixels that are few bytes or are not moved in vectors; of the latter,
  // input gradients were slower (docs/performance.md, item 33).
  constexpr int kVector = 8;
  if (p.geometry.in_channels * s.number <= 2 * kVector) return true;
  return p.pass == Pass::Weight || (p.pass == Pass::Forward && p.input_alignment < kVector);
}

double phase_meetings(const PhaseAxis& axis) {
  double met = 0;
  for (int target = 0; target < axis.targets; ++target)
    for (int number = 0; number < axis.groups(); ++number) {
      const PhaseAxis::Group group = axis.group(target % axis.classes(), number);
      for (int tap = 0; tap < group.taps; ++tap) {
        const int source = group.first + (target / axis.classes() + tap) * axis.step();
        if (source >= 0 && source < axis.sources) ++met;
      }
    }
  return met / axis.targets;
}

bool describe_phases(const Problem& p, const Shape& s, PhaseShape& shape) {
  if (!may_use_phases(p, s)) return false;
  const Conv2dGeometry& g = p.geometry;
  const bool scatters = p.pass == Pass::Input;
  PhaseWork& work = shape.work;
  work.h = phase_axis(g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, scatters);
  work.w = phase_axis(g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, scatters);
  work.target_h = static_cast<int>(scatters ? g.in.h : g.out.h);
  work.target_w = static_cast<int>(scatters ? g.in.w : g.out.w);
  shape.rows_met = phase_meetings(work.h);
  shape.source_rows = work.h.sources;
  divide_phase_rows(work);
  if (!can_cut_phases(work)) return false;
  shape.images = s.images, shape.channels = s.channels;
  shape.repeat = s.kernel.repeat, shape.number = s.number;
  shape.sources = scatters ? shape.repeat : 1, shape.targets = scatters ? 1 : shape.repeat;
  const int sources = scatters ? p.output_alignment : p.input_alignment,
            targets = scatters ? p.input_alignment : p.output_alignment;
  shape.source_gaps = scatters ? p.output_gaps : p.input_gaps;
  shape.target_gaps = scatters ? p.input_gaps : p.output_gaps;
  // Rows of planes begin where they begin; of channels, alignments are those of columns, too.
  const auto aligned = [&](int alignment, std::int64_t width, const PhaseAxis& axis, bool source) {
    const int first = source ? axis.source_first : axis.target_first;
    std::int64_t bits = alignment;
    if (!p.channels_last) bits |= width * s.number | first * s.number;
    return static_cast<int>(bits & -bits);
  };
  shape.source_alignment = aligned(sources, scatters ? g.out.w : g.in.w, work.w, true);
  shape.target_alignment = aligned(targets, work.target_w, work.w, false);
  const std::int64_t target_run = p.channels_last ? s.channels * shape.targets : work.target_w;
  shape.target_vector = vector_of(target_run, s.number, targets);
  return true;
}

void choose_words(const PhaseShape& s, bool channels_last, PhaseShareSizes& sizes) {
  const auto choose = [&](int of, int alignment, bool gaps, bool& pieces, int& word, int& begins) {
    pieces = channels_last && (gaps || sizes.channels < s.channels);
    word = 16, begins = alignment;
    if (!pieces) return;
    const int bytes = sizes.channels * of * s.number;
    begins = std::min(alignment, bytes & -bytes);
    constexpr int kLong = 64;  // bytes, of which a word more or less is few
    if (bytes < kLong) word = std::clamp(begins, 4, 16);
  };
  choose(s.sources, s.source_alignment, s.source_gaps, sizes.source_pieces, sizes.source_word,
         sizes.source_alignment);
  choose(s.targets, s.target_alignment, s.target_gaps, sizes.target_pieces, sizes.target_word,
         sizes.target_alignment);
  sizes.target_vector = s.target_vector;
  while (channels_last && std::int64_t{sizes.channels} * s.targets % sizes.target_vector != 0)
    sizes.target_vector /= 2;
}

namespace {

/// What copying and sorting rows takes, of so many columns.
PhaseEffort effort_to_sort(const PhaseRaw& raw, int word, int alignment, double rows, double numbers,
                           int number_bytes, int threads) {
  const double words = rows * raw.pieces * raw.piece_words;
  const auto idle = [&](int lanes) { return threads / (threads / lanes * static_cast<double>(lanes)); };
  const bool aligned = alignment >= word;
  const double of_word = aligned ? 15 : 26, of_number = (number_bytes == 2 ? 9 : 8) - (aligned ? 1 : 0);
  return {(words * of_word * idle(raw.copy_lanes) + numbers * of_number * idle(raw.sort_lanes)) / 32,
          (words * word / 4 + numbers * 2.4) / 32, 0};
}
/// Bytes of whole sectors that copying rows takes.
double sectors_of(const PhaseRaw& raw, int alignment, double rows) {
  constexpr double kSector = 32;
  const double whole = std::ceil(raw.piece_bytes / kSector);
  const bool straddles = alignment < raw.piece_bytes % static_cast<int>(kSector) || alignment < 16;
  return rows * raw.pieces * (straddles ? raw.piece_bytes / kSector + 1 : whole) * kSector;
}

}  // namespace

PhaseEffort effort_to_move(const PhaseShape& s, const PhaseCut& cut, const PhaseShareSizes& z, bool stores) {
  const PhaseAxis& w = s.work.w;
  const double planes = static_cast<double>(z.images) * z.channels;
  const double x = planes * s.sources * cut.source_rows * w.sources,
               y = planes * s.targets * cut.target_rows * s.work.target_w;
  PhaseEffort effort = effort_to_sort(cut.source_raw, z.source_word, z.source_alignment, cut.source_list, x,
                                      s.number, z.threads);
  if (stores) {
    effort.issue += y * (1 + 12.0 / z.target_vector) / 32, effort.wavefronts += y * 2 / 32;
  } else {
    const PhaseEffort of_g = effort_to_sort(cut.target_raw, z.target_word, z.target_alignment,
                                            cut.target_list, y, s.number, z.threads);
    effort.issue += of_g.issue, effort.wavefronts += of_g.wavefronts;
  }
  return effort;
}

double phase_cost(const PhaseShape& s, const PhaseShareSizes& z, const Plan& plan, int resident,
                  const PhaseEffort& of_item, double of_block, bool stores, double measured) {
  constexpr double kClocks = kMultiprocessors * 1.9e6;  // of all multiprocessors, a millisecond
  const PhaseWork& work = plan.phases;
  const PhaseCut& cut = work.cut;
  const double items = static_cast<double>(work.items) * cut.channel_blocks;
  const PhaseEffort move = effort_to_move(s, cut, z, stores);
  const double issue = of_item.issue + move.issue, wavefronts = of_item.wavefronts + move.wavefronts;
  const double loaded =
      static_cast<double>(z.images) * z.channels * s.sources * cut.source_rows * work.w.sources;
  double sectors = sectors_of(cut.source_raw, z.source_alignment, cut.source_list);
  if (!stores) {
    sectors += sectors_of(cut.target_raw, z.target_alignment, cut.target_list);
  } else if (z.target_pieces) {
    // Parts of sectors are written, and joined in the cache.
    PhaseRaw pieces;
    pieces.pieces = work.target_w, pieces.piece_bytes = z.channels * s.targets * s.number;
    sectors += 2 * sectors_of(pieces, z.target_alignment, cut.target_list);
  }
  const double x = static_cast<double>(s.images * s.channels) * s.sources * s.source_rows * work.w.sources,
               y = static_cast<double>(s.images * s.channels) * s.targets * work.target_h * work.target_w;
  const double again = std::max(0.0, items * loaded / x - 1);
  constexpr double kMemory = 3.6e9, kCache = 4e9;  // bytes a millisecond
  const double memory = (x * (1 + 0.3 * again) + y) * s.number / kMemory;
  const double blocks = static_cast<double>(plan.launch.blocks);
  const double begin = of_block + static_cast<double>(plan.launch.shared_bytes) / 4 / z.threads * 2 + 2000;
  const double latency = (items * (2500 + issue / z.threads * 32 * 2) + blocks * begin) / resident / kClocks;
  constexpr double kPower = 3, kIssue = 1.25, kShared = 1.1;
  double sum = 0;
  for (const double limit :
       {memory, items * sectors / kCache, items * issue / 4 * kIssue / kClocks,
        items * wavefronts * kShared / kClocks, items * of_item.matrix / kClocks, latency})
    sum += std::pow(limit, kPower);
  const double waves = blocks / (kMultiprocessors * resident);
  return measured * std::pow(sum, 1 / kPower) * (1 + 0.5 * (std::ceil(waves) / waves - 1)) + 0.004;
}

void add_phase_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  PhaseShape shape{};
  if (!describe_phases(p, s, shape)) return;
  if (weighs(p)) return add_weigh_phase_plans(p, shape, plans);
  // The two kernels' plans are chosen apart: of one list the cheapest alone are kept, and a wrong estimate
  // would leave one kernel out of what is measured.
  std::vector<std::pair<double, PhaseConfig>> of_products, configs;
  // Of each tile the best share of a block.
  const auto try_tile = [&](const PhaseSizes& tile) {
    PhaseConfig c, best;
    c.sizes = tile;
    double least = 0;
    Plan plan;
    for (const int threads : {128, 256})
      for (const int resident : {1, 2, 3, 4, 6}) {
        c.sizes.threads = threads, c.resident = resident;
        if (registers_of(threads, resident) < phase_registers(shape, c.sizes)) continue;
        const auto cut = [&](const PhaseSizes& sizes) {
          PhaseWork work = shape.work;
          return cut_correlate_phases(work, shape.images, shape.channels, p.channels_last, shape.repeat,
                                      sizes, shape.number, 1);
        };
        each_phase_share(shape, p.channels_last, c.sizes, shared_bytes_of(p, resident), cut,
                         [&](const PhaseSizes& sizes) {
                           PhaseConfig of = c;
                           of.sizes = sizes;
                           if (!plan_phases(p, shape, of, false, plan)) return;
                           if (least > 0 && plan.cost >= least) return;
                           least = plan.cost, best = of;
                         });
      }
    if (least > 0) (tile.multiplies ? of_products : configs).emplace_back(least, best);
  };
  const PhaseAxis &h = shape.work.h, &w = shape.work.w;
  const auto rows = static_cast<int>(ceiling(h.targets, h.classes())), columns = w.targets_of(0);
  if (shape.number == 2 && !p.exact_taps)
    for (const int of_rows : {1, 2, 3, 4, 6, 8}) {
      if (of_rows > 1 && of_rows >= 2 * rows) continue;
      PhaseSizes tile;
      tile.multiplies = true, tile.rows = of_rows;
      try_tile(tile);
    }
  for (const int of_columns : {3, 4, 5, 6, 7, 8, 10, 12, 20})
    for (const int of_rows : {1, 2, 3, 4, 6}) {
      if ((of_columns > 3 && of_columns >= 2 * columns) || (of_rows > 1 && of_rows >= 2 * rows)) continue;
      PhaseSizes tile;
      tile.columns = of_columns, tile.rows = of_rows;
      spread_phases(h, w, tile);
      try_tile(tile);
    }
  const auto plan_of = [&](const PhaseConfig& config, Plan& best) {
    plan_phases(p, shape, config, true, best);
  };
  const auto first = static_cast<std::ptrdiff_t>(plans.size());
  add_best(of_products, plan_of, plans);
  add_best(configs, plan_of, plans);
  std::stable_sort(plans.begin() + first, plans.end(),
                   [](const Plan& a, const Plan& b) { return a.cost < b.cost; });
}

}  // namespace lamella::depthwise
