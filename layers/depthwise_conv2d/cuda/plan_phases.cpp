#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_phases.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Planes sorted by residue in shared memory: kernels of many taps with any stride and dilation.
namespace lamella::depthwise {
namespace {

struct PhaseConfig {
  PhaseSizes sizes;
  int resident = 1;  ///< blocks that share a multiprocessor
};

/// A problem as these kernels see it, and what all of its plans share.
struct PhaseShape {
  PhaseWork work;  ///< axes and sizes
  std::int64_t images, channels;
  int repeat, number, sources, targets;  ///< channels of either for one of x
  int load_vector, store_vector;         ///< at most, by addresses and rows
  double rows_met;                       ///< rows of taps of a target that meet a source, on average
};

/// Products of one axis that exist, for each of its targets.
double meetings(const PhaseAxis& axis) {
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

int window_of(const PhaseShape& s, const PhaseSizes& z) {
  const int vector = z.columns % 4 == 0 ? 4 : z.columns % 2 == 0 ? 2 : 1;
  return static_cast<int>(round_up(z.columns + s.work.w.most_taps() - 1, vector));
}

/// Of a thread, to within some.
int phase_registers(const PhaseShape& s, const PhaseSizes& z) {
  if (z.multiplies) return 62 + z.rows * (4 + phase_eights(s.work.w));
  const int taps = static_cast<int>(round_up(s.work.w.most_taps(), 4));
  return 40 + z.rows * z.columns + window_of(s, z) + z.tap_rows * taps;
}

/// What a block spends on an item beside moving it: instructions of warps, wavefronts of shared memory, and
/// clocks of the matrix units.
struct PhaseEffort {
  double issue, wavefronts, matrix;
};

PhaseEffort effort_of(const PhaseShape& s, const PhaseSizes& z, const PhaseCut& cut) {
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const double classes = static_cast<double>(h.classes()) * w.classes();
  const double groups = static_cast<double>(h.groups()) * w.groups() * s.sources;
  const double turns_w = w.groups() * s.sources, taps = w.most_taps();
  if (z.multiplies) {
    const double units = static_cast<double>(z.channels) * s.targets * classes * cut.place_blocks;
    const double turns = std::ceil(units / (z.threads / 32)) * (z.threads / 32);
    // Rows that all places together are high, and so meet rows of taps that some of them do not.
    const double high = std::min<double>(cut.row_groups, std::ceil(16.0 / cut.tiles)) * z.rows;
    const double met = std::min(1.0, (s.rows_met + (high - 1) / 2) / h.kernel);
    const double tap_rows = h.kernel * turns_w * met, rows = tap_rows + groups * (z.rows - 1) * met;
    const int eights = phase_eights(w);
    const double loads = (eights > 1 ? 4 : 0) + eights % 2 * 2, products = eights / 2 + eights % 2;
    return {turns * (300 + 40 * z.rows + groups * 60 + rows * (14 + eights + products) +
                     tap_rows * z.rows * (2 + 2 * products)),
            turns * (rows * (eights + loads) + 12 * z.rows), turns * tap_rows * z.rows * eights * 1.1};
  }
  const double planes = static_cast<double>(z.images) * z.channels;
  const double units = planes * s.targets * classes * cut.row_groups * cut.tiles;
  const double turns = std::ceil(units / z.threads) * z.threads / 32;
  const double window = window_of(s, z), vector = z.columns % 4 == 0 ? 4 : z.columns % 2 == 0 ? 2 : 1;
  // Rows of taps that a unit's rows meet, together.
  const double rows = std::min<double>(h.kernel, s.rows_met + (z.rows - 1) / 2.0) * turns_w;
  const double at_once = z.rows + z.tap_rows - 1.0, of_row = at_once * window / z.tap_rows;
  return {turns * (rows * (z.rows * z.columns * taps + of_row / vector + at_once * 4 / z.tap_rows + 12) +
                   groups * 55 + z.rows * z.columns * 10 + 150),
          turns * (rows * (of_row + taps / 4) + z.rows * z.columns * 2), 0};
}

/// Estimated milliseconds: some limits, of which the largest counts most. Instructions and wavefronts are
/// counted; nothing is fitted to measurements.
double phase_cost(const PhaseShape& s, const PhaseConfig& c, const Plan& plan) {
  constexpr double kClocks = kMultiprocessors * 1.75e6;  // of all multiprocessors, a millisecond
  const PhaseWork& work = plan.phases;
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseSizes& z = c.sizes;
  const double items = static_cast<double>(work.items) * cut.channel_blocks;
  const double planes = static_cast<double>(z.images) * z.channels;
  const PhaseEffort effort = effort_of(s, z, cut);
  const double loaded =
      planes * s.sources * cut.source_rows * std::min<double>(w.sources, w.step() * cut.phase);
  const double stored = planes * s.targets * cut.target_rows * work.target_w;
  const double issue =
      effort.issue + (loaded * (3 + 12.0 / z.load_vector) + stored * (1 + 12.0 / z.store_vector)) / 32;
  const double wavefronts = effort.wavefronts + (loaded * 2 + stored * 2) / 32;
  const double x = static_cast<double>(s.images * s.channels) * s.sources * h.sources * w.sources,
               y = static_cast<double>(s.images * s.channels) * s.targets * work.target_h * work.target_w;
  const double again = std::max(0.0, items * loaded / x - 1);
  const double memory = (x * (1 + 0.3 * again) + y) * s.number / 3.6e9;
  const double blocks = static_cast<double>(plan.launch.blocks);
  const double of_block = static_cast<double>(z.channels) * s.repeat * h.kernel * w.kernel * 30 / z.threads +
                          static_cast<double>(plan.launch.shared_bytes) / 4 / z.threads * 2 + 2000;
  const double latency =
      (items * (4000 + issue / z.threads * 32 * 2) + blocks * of_block) / c.resident / kClocks;
  constexpr double kPower = 3, kIssue = 1.25, kShared = 1.3;
  double sum = 0;
  for (const double limit :
       {memory, items * issue / 4 * kIssue / kClocks, items * wavefronts * kShared / kClocks,
        items * effort.matrix / kClocks, latency})
    sum += std::pow(limit, kPower);
  const double waves = blocks / (kMultiprocessors * c.resident);
  return std::pow(sum, 1 / kPower) * (1 + 0.5 * (std::ceil(waves) / waves - 1)) + 0.004;
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
  if (plan.launch.blocks == 0 || plan.launch.blocks > kMostBlocks) return false;
  if ((plan.launch.shared_bytes + 1024) * c.resident > kSharedBytes) return false;
  if (registers_of(z.threads, c.resident) < phase_registers(s, z)) return false;
  plan.cost = phase_cost(s, c, plan);
  plan.resident = c.resident, plan.registers = phase_registers(s, z), plan.item_images = z.images;
  if (!named) return true;
  std::array<char, 200> text{};
  const int length =
      z.multiplies ? std::snprintf(text.data(), text.size(), "multiply_phases<%s, PhaseMatrixTile<%d, %d>",
                                   type_name(p.dtype), s.work.w.most_taps(), z.rows)
                   : std::snprintf(text.data(), text.size(), "correlate_phases<%s, PhaseTile<%d, %d, %d, %d>",
                                   type_name(p.dtype), s.work.w.most_taps(), z.rows, z.columns, z.tap_rows);
  std::snprintf(text.data() + length, text.size() - static_cast<std::size_t>(length),
                ", %d, %s, %s, %d, %d, %d, %d>", s.repeat, word(s.work.w.scatters), word(p.channels_last),
                z.load_vector, z.store_vector, z.threads, c.resident);
  plan.kernel = text.data();
  plan.what = "phases of " + std::to_string(z.images) + " x " + std::to_string(z.channels) + " planes in " +
              std::to_string(plan.phases.cut.bands) + " bands, " +
              (z.multiplies ? "16 places of " + std::to_string(z.rows) + " rows"
                            : std::to_string(z.rows) + "x" + std::to_string(z.columns) + ", " +
                                  std::to_string(z.tap_rows) + " rows of taps");
  return true;
}

bool may_use_phases(const Problem& p, const Shape& s) {
  constexpr std::int64_t kMostSize = std::int64_t{1} << 20;
  const Conv2dGeometry& g = p.geometry;
  const auto fits = [](Size2 size) { return std::max(size.h, size.w) < kMostSize; };
  return (p.pass == Pass::Forward || p.pass == Pass::Input) && !p.transforms && p.hook == Hook::None &&
         fits(g.in) && fits(g.out) && fits(g.padding) && fits(g.dilation) && fits(g.stride) &&
         taps_of(s.kernel) > 1 && g.in.h * g.in.w * g.out_channels < (std::int64_t{1} << 30) &&
         g.out.h * g.out.w * g.out_channels < (std::int64_t{1} << 30);
}

PhaseShape describe_phases(const Problem& p, const Shape& s) {
  const Conv2dGeometry& g = p.geometry;
  const bool scatters = p.pass == Pass::Input;
  PhaseShape shape{};
  PhaseWork& work = shape.work;
  work.h = phase_axis(g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, scatters);
  work.w = phase_axis(g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, scatters);
  work.target_h = static_cast<int>(scatters ? g.in.h : g.out.h);
  work.target_w = static_cast<int>(scatters ? g.in.w : g.out.w);
  shape.images = s.images, shape.channels = s.channels;
  shape.repeat = s.kernel.repeat, shape.number = s.number;
  shape.sources = scatters ? shape.repeat : 1, shape.targets = scatters ? 1 : shape.repeat;
  const int read = scatters ? p.output_alignment : p.input_alignment,
            written = scatters ? p.input_alignment : p.output_alignment;
  constexpr int kMostTogether = 4;
  const std::int64_t source_run = p.channels_last ? s.channels * shape.sources : work.w.sources,
                     target_run = p.channels_last ? s.channels * shape.targets : work.target_w;
  const bool neighbours = p.channels_last || work.w.source_every == 1;
  shape.load_vector = neighbours ? std::min(kMostTogether, vector_of(source_run, s.number, read)) : 1;
  shape.store_vector = vector_of(target_run, s.number, written);
  return shape;
}

/// Calls add(sizes) for how much of the problem a block may have at a time.
template <class Add>
void each_share(const PhaseShape& s, bool channels_last, PhaseSizes sizes, std::int64_t bytes,
                const Add& add) {
  const PhaseAxis& h = s.work.h;
  std::array<int, 4> groups{1, 0, 0, 0};
  if (channels_last) groups = {8, 16, 32, 64};
  for (const int group : groups) {
    if (group == 0 || (group > 8 && group / 2 >= s.channels)) continue;
    sizes.channels = static_cast<int>(std::min<std::int64_t>(group, s.channels));
    const auto divides = [&](int vector, int of) {
      while (channels_last && std::int64_t{sizes.channels} * of % vector != 0) vector /= 2;
      return vector;
    };
    sizes.load_vector = divides(s.load_vector, s.sources);
    sizes.store_vector = divides(s.store_vector, s.targets);
    const auto bytes_of = [&](int images, int channels, int band) {
      PhaseSizes of = sizes;
      of.images = images, of.channels = channels, of.band = band;
      PhaseWork work = s.work;
      return cut_correlate_phases(work, s.images, s.channels, channels_last, s.repeat, of, s.number, 1)
          .shared_bytes;
    };
    sizes.band = h.targets, sizes.images = 1;
    const std::int64_t whole = bytes_of(1, sizes.channels, h.targets);
    if (whole == 0) return;
    if (whole <= bytes) {
      // Small planes: more channels, or more images, of what fits.
      const auto most = static_cast<int>(bytes / whole);
      if (!channels_last) {
        PhaseSizes more = sizes;
        more.channels = static_cast<int>(std::min<std::int64_t>(s.channels, most));
        while (more.channels > 1 && bytes_of(1, more.channels, h.targets) > bytes) --more.channels;
        more.images = static_cast<int>(std::min<std::int64_t>(s.images, std::max(1, most / more.channels)));
        while (more.images > 1 && bytes_of(more.images, more.channels, h.targets) > bytes) --more.images;
        add(more);
        more.channels = static_cast<int>(std::min<std::int64_t>(4, s.channels)), more.images = 1;
        if (bytes_of(1, more.channels, h.targets) <= bytes) add(more);
        add(sizes);
        continue;
      }
      sizes.images = static_cast<int>(std::min<std::int64_t>(s.images, most));
      while (sizes.images > 1 && bytes_of(sizes.images, sizes.channels, h.targets) > bytes) --sizes.images;
      add(sizes);
      continue;
    }
    int band = h.targets;
    while (band > h.classes() && bytes_of(1, sizes.channels, band) > bytes) band = band * 7 / 8;
    if (bytes_of(1, sizes.channels, band) > bytes) continue;
    // Bands of about the same size.
    const std::int64_t bands = ceiling(h.targets, round_up(band, h.classes()));
    sizes.band = static_cast<int>(ceiling(h.targets, bands));
    add(sizes);
  }
}

}  // namespace

void add_phase_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_phases(p, s)) return;
  PhaseShape shape = describe_phases(p, s);
  if (shape.work.w.step() > PhaseCut::kMostPhases || shape.work.h.targets < 1 || shape.work.w.targets < 1)
    return;
  shape.rows_met = meetings(shape.work.h);
  std::vector<std::pair<double, PhaseConfig>> configs;
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
        each_share(shape, p.channels_last, c.sizes, kSharedBytes / resident - 1024,
                   [&](const PhaseSizes& sizes) {
                     PhaseConfig of = c;
                     of.sizes = sizes;
                     if (!plan_phases(p, shape, of, false, plan)) return;
                     if (least > 0 && plan.cost >= least) return;
                     least = plan.cost, best = of;
                   });
      }
    if (least > 0) configs.emplace_back(least, best);
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
  for (const int of_columns : {3, 4, 5, 6, 7, 8, 10, 12})
    for (const int of_rows : {1, 2, 3, 4}) {
      if ((of_columns > 3 && of_columns >= 2 * columns) || (of_rows > 1 && of_rows >= 2 * rows)) continue;
      for (const int tap_rows : {1, 2, 4}) {
        if (tap_rows > 1 && (tap_rows * w.most_taps() > 16 || tap_rows > h.most_taps())) continue;
        PhaseSizes tile;
        tile.columns = of_columns, tile.rows = of_rows, tile.tap_rows = tap_rows;
        try_tile(tile);
      }
    }
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_phases(p, shape, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
