#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include "layers/depthwise_conv2d/cuda/cut_rolling_planes.h"
#include "layers/depthwise_conv2d/cuda/plan_phases.h"

// Rolling planes: large kernels on dense planes, from rows as they are.
namespace lamella::depthwise {
namespace {

struct RollingPlaneConfig {
  RollingPlaneSizes sizes;
  int resident = 1;  ///< blocks that share a multiprocessor
  int waves = 1;     ///< of blocks
};

/// Instructions that a number takes to be loaded, widened, and, if it need not exist, asked for; of numbers
/// that are not widened the compiler then moves each, too.
double number_effort(const PhaseShape& s, int form) {
  return form == kPadded ? 4.0 / s.number : s.number == 2 ? 2.6 : 2.4;
}

/// Of a thread, to within some.
int rolling_plane_registers(const Problem& p, const PhaseShape& s, const RollingPlaneSizes& z) {
  const int taps = s.work.w.most_taps(), window = z.columns + taps - 1;
  const bool shifts = z.source_form == kShifted;
  if (weighs(p)) return 56 + z.rows * (taps + z.columns) + 2 * window + z.columns + (shifts ? 8 : 0);
  const int rest = z.rows * (z.columns + window) + static_cast<int>(round_up(taps, 4));
  if (z.source_form == kPadded) return (s.number == 4 ? 56 : 50) + rest;
  // Rows of numbers that are not widened are moved from one place to another.
  const int moved = z.rows < 3 ? 0 : s.number == 4 ? 10 * z.rows - 19 : 3 * z.rows - 6;
  return 60 + rest + (shifts ? 4 : 0) + moved;
}

/// What loops of so many products take over the others: no cache of instructions near the multiprocessor
/// holds them.
double fetch_of(double products) {
  constexpr double kMost = 2048;
  return products > kMost ? 1.15 : 1;
}

/// What copying rows takes, of `listed` planes' in all.
PhaseEffort effort_to_copy(const PhaseRaw& raw, double listed, int word, int form, int threads) {
  const double words = listed * raw.piece_words;
  const double idle = threads / (threads / raw.copy_lanes * static_cast<double>(raw.copy_lanes));
  return {(words * (form == kShifted ? 16 : 13) * idle + listed * 45) / 32, words * word / 4 / 32, 0};
}

/// What a block does for an item: instructions of warps, wavefronts of shared memory.
PhaseEffort effort_to_correlate(const PhaseShape& s, const RollingPlaneConfig& c, const PhaseCut& cut) {
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const RollingPlaneSizes& z = c.sizes;
  const double of_number = number_effort(s, z.source_form);
  const double taps = w.most_taps(), window = z.columns + taps - 1, quads = std::ceil(taps / 4);
  const double products = z.rows * z.columns * taps;
  const double shifts = z.source_form == kShifted ? 3 : 0;
  const double groups = static_cast<double>(h.groups()) * w.groups() * s.sources,
               groups_w = static_cast<double>(w.groups()) * s.sources;
  const double steps = std::min(groups * h.most_taps(), groups_w * s.rows_met + groups * (z.rows - 1));
  const double rows = groups_w * s.rows_met + groups * (z.rows - 1);
  const double planes = static_cast<double>(z.images) * cut.channels;
  const double units = planes * h.classes() * w.classes() * cut.row_groups * cut.tiles;
  const double turns = std::ceil(units / z.threads) * z.threads / 32;
  const double channels = std::ceil(std::min(cut.channels, 32) / 8.0);  // of taps, in quarters of a warp
  const PhaseEffort copy =
      effort_to_copy(cut.source_raw, cut.source_list, z.source_word, z.source_form, z.threads);
  const double y = planes * cut.target_rows * s.work.target_w;
  PhaseEffort effort;
  effort.issue = copy.issue + (cut.target_list * 45 + y * (1 + 12.0 / z.target_vector)) / 32 +
                 turns * fetch_of(z.rows * products) *
                     (200 + groups * 90 + steps * (products + quads + 8) +
                      rows * (window * of_number + 8 + shifts) + z.rows * z.columns * 4);
  effort.wavefronts = copy.wavefronts + y * 2 / 32 +
                      turns * (rows * window * z.wavefronts + steps * quads * std::min(4.0, channels) +
                               z.rows * z.columns * z.target_wavefronts);
  return effort;
}
PhaseEffort effort_to_weigh(const PhaseShape& s, const RollingPlaneConfig& c, const PhaseCut& cut) {
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const RollingPlaneSizes& z = c.sizes;
  const double of_number = number_effort(s, z.source_form);
  const double taps = w.most_taps(), window = z.columns + taps - 1;
  const double shifts = (z.source_form == kShifted ? 3 : 0) + (z.target_form == kShifted ? 3 : 0);
  const double strips =
      static_cast<double>(z.images) * h.classes() * w.classes() * cut.row_groups * cut.tiles;
  const int working = weighing_units(s.work, z.rows) * cut.channels * cut.splits;
  const double turns = std::ceil(strips / cut.splits) * std::ceil(working / 32.0);  // of warps
  // Rows of x that a strip meets.
  const double met = std::min(1.0, (s.rows_met + z.rows - 1) / h.kernel);
  const double rows = (z.strip_rows + z.rows - 1) * met, products = z.rows * taps * z.columns;
  const PhaseEffort x = effort_to_copy(cut.source_raw, cut.source_list, z.source_word, z.source_form,
                                       z.threads),
                    g = effort_to_copy(cut.target_raw, cut.target_list, z.target_word, z.target_form,
                                       z.threads);
  PhaseEffort effort;
  effort.issue = x.issue + g.issue +
                 turns * fetch_of(z.rows * products) *
                     (200 + z.strip_rows * met * products +
                      rows * (window * of_number + z.columns * number_effort(s, z.target_form) + 14 +
                              3 * z.rows + shifts));
  effort.wavefronts =
      x.wavefronts + g.wavefronts + turns * rows * (window * z.wavefronts + z.columns * z.target_wavefronts);
  return effort;
}

/// Estimated milliseconds: limits of memory, the second-level cache, issue and shared memory, joined so that
/// the largest counts most, and what a block waits for between items.
double rolling_plane_cost(const Problem& p, const PhaseShape& s, const RollingPlaneConfig& c,
                          const Plan& plan) {
  constexpr double kClocks = 1.9e6;  // a millisecond
  constexpr double kMemory = 3.9e9, kCache = 5e9;
  const RollingPlaneSizes& z = c.sizes;
  const PhaseWork& work = plan.phases;
  const PhaseCut& cut = work.cut;
  const PhaseEffort of_item = weighs(p) ? effort_to_weigh(s, c, cut) : effort_to_correlate(s, c, cut);
  const double together = kMultiprocessors * c.resident,
               waves = std::ceil(static_cast<double>(plan.launch.blocks) / together);
  // Few warps wait for each other's loads.
  const double warps = z.threads * c.resident / 128.0, idle = 1 + 1.2 / warps;
  const double items = waves * work.items_per_part;  // one after the other
  const double issue = items * c.resident * of_item.issue / 4 * idle / kClocks,
               shared = items * c.resident * of_item.wavefronts / kClocks;
  // Rows straddle sectors.
  const double row_bytes = cut.source_raw.piece_bytes, straddle = z.source_alignment < 32 ? 32 : 0;
  const double rows_read = static_cast<double>(work.items) * cut.channel_blocks * cut.source_list;
  const double x = static_cast<double>(s.images * s.channels) * s.sources * s.source_rows * row_bytes,
               y = static_cast<double>(s.images * s.channels) * s.targets * work.target_h * work.target_w *
                   s.number;
  const double again = std::max(0.0, rows_read * row_bytes / x - 1);
  const double memory = (x * (1 + 0.5 * again) + y) / kMemory,
               cache = (rows_read * (row_bytes + straddle) + y) / kCache;
  // A block meets three times an item; of one buffer, rows are waited for.
  const double taps = static_cast<double>(s.work.h.kernel) * s.work.w.kernel;
  const double wait = z.buffers > 1 ? 1000 : 3500;
  const double of_block = weighs(p) ? 4000 + z.rows * s.work.w.most_taps() * 8.0 +
                                          cut.channels * taps * (40 + 6 * cut.splits) / z.threads
                                    : 4000 + cut.channels * taps * s.sources * 30 / z.threads;
  double cubes = 0;
  for (const double limit : {memory, cache, issue, shared}) cubes += limit * limit * limit;
  double cost = std::cbrt(cubes) + (waves * of_block + items * wait / c.resident) / kClocks + 0.004;
  if (weighs(p))
    cost += static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) * s.repeat * (taps + 1) *
            8 / 3e9;
  return cost;
}

Launch cut_of(const Problem& p, const PhaseShape& s, const RollingPlaneConfig& c, PhaseWork& work) {
  work = s.work;
  const std::int64_t wanted = static_cast<std::int64_t>(kMultiprocessors) * c.resident * c.waves;
  return weighs(p)
             ? cut_weigh_rolling_planes(work, s.images, s.channels, s.repeat, p.bias, c.sizes, s.number,
                                        wanted)
             : cut_correlate_rolling_planes(work, s.images, s.channels, s.repeat, c.sizes, s.number, wanted);
}

/// The plan of a configuration; false: it does not fit.
bool plan_rolling_planes(const Problem& p, const PhaseShape& s, const RollingPlaneConfig& c, bool named,
                         Plan& plan) {
  const RollingPlaneSizes& z = c.sizes;
  plan.family = Plan::Family::RollingPlanes;
  plan.launch = cut_of(p, s, c, plan.phases);
  if (!can_launch(p, plan.launch, c.resident)) return false;
  // Times over the estimate (docs/performance.md, item 32).
  const double measured = p.pass == Pass::Forward ? 1.08 : p.pass == Pass::Input ? 1.25 : 1.2;
  plan.cost = measured * rolling_plane_cost(p, s, c, plan);
  if (!named) return true;
  const PhaseAxis& w = s.work.w;
  std::array<char, 220> text{};
  const char* const ragged = word(w.is_ragged());
  const int apart = w.step() * w.source_every;
  if (weighs(p))
    std::snprintf(text.data(), text.size(),
                  "weigh_rolling_planes<%s, RollingTapTile<%d, %d, %d, %s>, %d, %s, %d, %d, %d, %d, %d, %d, "
                  "%d, %d>",
                  type_name(p.dtype), w.most_taps(), z.columns, z.rows, ragged, s.repeat, word(p.bias),
                  z.source_word, z.source_form, z.target_word, z.target_form, apart, w.classes(), z.threads,
                  c.resident);
  else
    std::snprintf(text.data(), text.size(),
                  "correlate_rolling_planes<%s, RollingTile<%d, %d, %d, %s>, %d, %s, %d, %d, %d, %d, %d, %d>",
                  type_name(p.dtype), w.most_taps(), z.rows, z.columns, ragged, s.repeat, word(w.scatters),
                  z.source_word, z.source_form, z.target_vector, apart, z.threads, c.resident);
  plan.kernel = text.data();
  plan.what = "rolling planes " + std::to_string(z.rows) + "x" + std::to_string(z.columns) + ", " +
              std::to_string(z.images) + " x " + std::to_string(z.channels) + " planes in " +
              std::to_string(plan.phases.cut.bands) + " bands, " +
              (weighs(p) ? "strips of " + std::to_string(z.strip_rows) + ", " : "") +
              (z.buffers > 1 ? "" : "one at a time, ") + std::to_string(z.threads) + " threads";
  return true;
}

/// Looks for the best share of a block for each tile that is tried.
class RollingPlaneSearch {
 public:
  RollingPlaneSearch(const Problem& problem, const PhaseShape& shape) : problem_(problem), shape_(shape) {}

  /// A tile of a thread: rows and columns of targets, or, for the weight's gradient, rows of taps and columns
  /// of targets. Given up where it takes much longer than another tile.
  void try_tile(int rows, int columns) {
    RollingPlaneSizes sizes;
    sizes.rows = rows, sizes.columns = columns;
    sizes.source_alignment = shape_.source_alignment, sizes.target_alignment = shape_.target_alignment;
    sizes.target_vector = shape_.target_vector;
    constexpr double kMuch = 2;
    Best best{kMuch * least_, std::nullopt};
    each_share(sizes, [&](const RollingPlaneSizes& of_share) {
      const bool fits_three = try_share(of_share, 1, best);
      if (weighs(problem_)) {
        const std::int64_t rows_of_class = class_rows(of_share);
        for (const int strips : {2, 4})
          if (ceiling(rows_of_class, strips) >= 2 * rows) try_share(of_share, strips, best);
      }
      return !fits_three;  // more bands take more rows twice
    });
    if (!best.config) return;
    least_ = std::min(least_, best.cost);
    configs_.emplace_back(best.cost, *best.config);
  }

  /// The best of each tile, with its estimate.
  std::vector<std::pair<double, RollingPlaneConfig>>& configs() { return configs_; }

 private:
  /// Of a tile so far: milliseconds, which the next must fall below, and what takes them.
  struct Best {
    double cost;
    std::optional<RollingPlaneConfig> config;
  };

  /// Rows of targets of a band, of one class.
  std::int64_t class_rows(const RollingPlaneSizes& sizes) const {
    const PhaseAxis& h = shape_.work.h;
    return ceiling(std::min(sizes.band, h.targets), h.classes());
  }

  /// Calls visit(sizes) for what of the problem a block may have at a time, with what is settled by that: how
  /// its rows are copied. Bands of one share come one after the other, the largest first, until visit()
  /// returns false.
  template <class Visit>
  void each_share(RollingPlaneSizes sizes, const Visit& visit) const {
    constexpr int kMostPlanes = 32;
    const PhaseAxis& h = shape_.work.h;
    std::array<int, 2> words{4, 0};
    if (shape_.source_alignment >= 8) words[1] = std::min(16, shape_.source_alignment);
    for (int channels = 1; channels <= kMostPlanes && channels < 2 * shape_.channels; channels *= 2)
      for (int images = 1; images * channels <= kMostPlanes && images < 2 * shape_.images; images *= 2)
        for (const int word : words) {
          if (word == 0) continue;
          sizes.channels = static_cast<int>(std::min<std::int64_t>(channels, shape_.channels));
          sizes.images = static_cast<int>(std::min<std::int64_t>(images, shape_.images));
          sizes.source_word = word;
          sizes.target_word =
              word > 4 && shape_.target_alignment >= 8 ? std::min(16, shape_.target_alignment) : 4;
          int last = 0;
          for (const int bands : {1, 2, 3, 4, 6, 8, 12, 16}) {
            sizes.band = static_cast<int>(round_up(ceiling(h.targets, bands), h.classes()));
            if (sizes.band == last) continue;
            last = sizes.band;
            if (!visit(sizes)) break;
          }
        }
  }

  /// Zeros beside rows, unless they make them twice as long. `cut_without`: without any.
  void choose_forms(RollingPlaneConfig& c, const PhaseWork& cut_without) const {
    const auto is_aligned = [](int alignment, int word) { return alignment >= word; };
    RollingPlaneConfig of = c;
    if (is_aligned(c.sizes.source_alignment, c.sizes.source_word))
      of.sizes.source_form = kPadded, c.sizes.source_form = kAtWords;
    if (is_aligned(c.sizes.target_alignment, c.sizes.target_word))
      of.sizes.target_form = kPadded, c.sizes.target_form = kAtWords;
    PhaseWork with;
    const Launch launch = cut_of(problem_, shape_, of, with);
    if (!can_launch(problem_, launch, 1)) return;
    const RollingPlaneCut &padded = with.cut.rolling, &close = cut_without.cut.rolling;
    if (padded.source_row <= 2 * close.source_row) c.sizes.source_form = of.sizes.source_form;
    if (padded.target_row <= 2 * close.target_row) c.sizes.target_form = of.sizes.target_form;
  }

  /// Of a share of a block, its threads; returns whether three blocks fit side by side. strips: of a band.
  bool try_share(const RollingPlaneSizes& sizes, int strips, Best& best) const {
    constexpr std::pair<int, int> kBlocks[] = {{128, 1}, {128, 2}, {128, 3}, {256, 1}, {256, 2},
                                               {256, 3}, {384, 1}, {384, 2}, {512, 1}, {512, 2}};
    RollingPlaneConfig c;
    c.sizes = sizes;
    c.sizes.strip_rows = static_cast<int>(ceiling(class_rows(sizes), strips));
    // Of as much as fits at all, without what is between planes.
    c.sizes.buffers = 1, c.sizes.threads = 512;
    c.sizes.source_form = c.sizes.target_form = kShifted;
    PhaseWork work;
    const Launch whole = cut_of(problem_, shape_, c, work);
    if (!can_launch(problem_, whole, 1)) return false;
    choose_forms(c, work);
    const PhaseAxis &h = work.h, &w = work.w;
    const std::int64_t units = std::int64_t{sizes.images} * work.cut.channels * h.classes() * w.classes() *
                               work.cut.row_groups * work.cut.tiles *
                               (weighs(problem_) ? weighing_units(work, sizes.rows) : 1);
    const int wanted = rolling_plane_registers(problem_, shape_, c.sizes);
    // Planes without padding, as if no lanes met: a bound from below, which saves the search for padding.
    const RollingPlaneConfig close = c;
    bool fits_three = false;
    int padded_for = 0;  // threads
    Plan plan;
    for (const auto& [threads, resident] : kBlocks) {
      if (registers_of(threads, resident) < wanted || (threads > 128 && threads > 2 * units)) continue;
      for (const int buffers : {2, 1}) {
        bool fits = false;
        for (const int waves : {1, 2}) {
          const auto settle = [&, threads = threads, resident = resident](RollingPlaneConfig& of) {
            of.sizes.threads = threads, of.resident = resident, of.sizes.buffers = buffers, of.waves = waves;
            return plan_rolling_planes(problem_, shape_, of, false, plan);
          };
          RollingPlaneConfig lower = close;
          if (!settle(lower)) break;
          fits = true;
          if (plan.cost >= best.cost) continue;
          if (padded_for == 0 || (weighs(problem_) && threads != padded_for)) {
            c.sizes.threads = padded_for = threads;
            weighs(problem_) ? pad_for_weighing(shape_.work, shape_.repeat, c.sizes, shape_.number)
                             : pad_for_correlation(shape_.work, shape_.repeat, c.sizes, shape_.number);
          }
          if (!settle(c) || plan.cost >= best.cost) continue;
          best = {plan.cost, c};
        }
        if (fits && buffers == 2 && resident == 3) fits_three = true;
        if (fits) break;
      }
    }
    return fits_three;
  }

  const Problem& problem_;
  const PhaseShape& shape_;
  std::vector<std::pair<double, RollingPlaneConfig>> configs_;
  double least_ = std::numeric_limits<double>::infinity();  ///< milliseconds, of configs_
};

}  // namespace

void add_rolling_plane_plans(const Problem& p, const Shape& problem_shape, std::vector<Plan>& plans) {
  if (p.channels_last) return;
  PhaseShape shape{};
  if (!describe_phases(p, problem_shape, shape)) return;
  const PhaseAxis &h = shape.work.h, &w = shape.work.w;
  const int rows = static_cast<int>(ceiling(h.targets, h.classes())), columns = w.targets_of(0);
  RollingPlaneSearch search(p, shape);
  for (const int of_columns : {2, 3, 4, 5, 6, 7, 8, 10, 12}) {
    if ((of_columns > 2 && of_columns >= 2 * columns) || of_columns + w.most_taps() - 1 > kMostWindow)
      continue;
    for (const int of_rows : {1, 2, 3, 4, 6}) {
      const int most = weighs(p) ? h.most_taps() + 1 : 2 * rows;
      if (of_rows == 1 || of_rows < most) search.try_tile(of_rows, of_columns);
    }
  }
  const auto plan_of = [&](const RollingPlaneConfig& config, Plan& plan) {
    plan_rolling_planes(p, shape, config, true, plan);
  };
  add_best(search.configs(), plan_of, plans);
}

}  // namespace lamella::depthwise
