#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_rolling_planes.h"
#include "layers/depthwise_conv2d/cuda/plan_phases.h"

// Rolling planes: large kernels on dense planes, from rows as they are.
namespace lamella::depthwise {
namespace {

struct RollingPlaneConfig {
  RollingPlaneSizes sizes;
  int resident = 1;  ///< blocks that share a multiprocessor
  int waves = 1;     ///< of blocks
  double whole = 1;  ///< the share of windows that lie inside
};

bool aligned(const PhaseShape& s, int word) { return s.source_alignment >= word; }

/// Of a thread, to within some.
int rolling_plane_registers(const PhaseShape& s, const RollingPlaneSizes& z) {
  const int taps = s.work.w.most_taps(), window = z.columns + taps - 1;
  return 60 + z.rows * (z.columns + window) + static_cast<int>(round_up(taps, 4)) +
         (aligned(s, z.source_word) ? 0 : 4);
}

/// What a block does for an item: instructions of warps, wavefronts of shared memory.
PhaseEffort effort_of(const PhaseShape& s, const RollingPlaneConfig& c, const PhaseCut& cut) {
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const RollingPlaneSizes& z = c.sizes;
  const double taps = w.most_taps(), window = z.columns + taps - 1, convert = s.number == 2 ? 1 : 0;
  const double shifts = aligned(s, z.source_word) ? 0 : 3;
  // Of windows that are not whole each number is asked for, and lanes of both kinds take both ways.
  const int planes = z.images * cut.channels;
  const double mixed = planes < 32 && cut.tiles > 1 ? c.whole * (1 - c.whole) * 2 : 0;
  const double of_number = 1 + convert + 1.5 * (1 - c.whole) + mixed;
  const double groups = static_cast<double>(h.groups()) * w.groups() * s.sources,
               groups_w = static_cast<double>(w.groups()) * s.sources;
  const double steps = std::min(groups * h.most_taps(), groups_w * s.rows_met + groups * (z.rows - 1));
  const double rows = groups_w * s.rows_met + groups * (z.rows - 1), quads = std::ceil(taps / 4);
  const double units = static_cast<double>(planes) * h.classes() * w.classes() * cut.row_groups * cut.tiles;
  const double turns = std::ceil(units / z.threads) * z.threads / 32;
  const double channels = std::ceil(std::min(cut.channels, 32) / 8.0);  // of taps, in quarters of a warp
  PhaseEffort effort;
  effort.issue = turns * (200 + groups * 90 + steps * (z.rows * z.columns * taps + quads + 8) +
                          rows * (window * of_number + 8 + shifts) + z.rows * z.columns * 4);
  effort.wavefronts =
      turns * (rows * window * z.wavefronts * (1 + mixed) + steps * quads * std::min(4.0, channels) +
               z.rows * z.columns * z.target_wavefronts);
  // Copying rows, and storing targets.
  const double idle =
      z.threads / (z.threads / cut.source_raw.copy_lanes * static_cast<double>(cut.source_raw.copy_lanes));
  const double words = static_cast<double>(cut.source_list) * cut.source_raw.piece_words,
               y = static_cast<double>(planes) * cut.target_rows * s.work.target_w;
  effort.issue +=
      (words * (aligned(s, z.source_word) ? 11 : 20) * idle +
       (static_cast<double>(cut.source_list) + cut.target_list) * 45 + y * (1 + 12.0 / z.target_vector)) /
      32;
  effort.wavefronts += (words * z.source_word / 4 + y * 2) / 32;
  return effort;
}

/// Estimated milliseconds: limits of memory, the second-level cache, issue and shared memory, joined so that
/// the largest counts most, and what a block waits for between items.
double rolling_plane_cost(const PhaseShape& s, const RollingPlaneConfig& c, const Plan& plan) {
  constexpr double kClocks = 1.9e6;  // a millisecond
  constexpr double kMemory = 3.9e9, kCache = 5e9;
  const RollingPlaneSizes& z = c.sizes;
  const PhaseWork& work = plan.phases;
  const PhaseCut& cut = work.cut;
  const PhaseEffort of_item = effort_of(s, c, cut);
  const double together = kMultiprocessors * c.resident,
               waves = std::ceil(static_cast<double>(plan.launch.blocks) / together);
  // Few warps wait for each other's loads.
  const double warps = z.threads * c.resident / 128.0, idle = 1 + 1.2 / warps;
  const double items = waves * work.items_per_part;  // one after the other
  const double issue = items * c.resident * of_item.issue / 4 * idle / kClocks,
               shared = items * c.resident * of_item.wavefronts / kClocks;
  const double number = s.number;
  const double row_bytes = cut.source_raw.piece_bytes;
  const double loaded = static_cast<double>(work.items) * cut.channel_blocks * cut.source_list *
                        (row_bytes + (s.source_alignment < 32 ? 32 : 0));
  const double x = static_cast<double>(s.images * s.channels) * s.sources * s.source_rows * row_bytes,
               y = static_cast<double>(s.images * s.channels) * s.targets * work.target_h * work.target_w *
                   number;
  const double again = std::max(
      0.0, static_cast<double>(work.items) * cut.channel_blocks * cut.source_list * row_bytes / x - 1);
  const double memory = (x * (1 + 0.3 * again) + y) / kMemory, cache = (loaded + y) / kCache;
  // A block meets three times an item; of one buffer, rows are waited for.
  const double wait = z.buffers > 1 ? 1000 : 3500;
  const double begin = waves * (4000 + static_cast<double>(cut.channels) * s.work.h.kernel * s.work.w.kernel *
                                           s.sources * 30 / z.threads) +
                       items * wait / c.resident;
  constexpr double kPower = 3;
  double sum = 0;
  for (const double limit : {memory, cache, issue, shared}) sum += std::pow(limit, kPower);
  return std::pow(sum, 1 / kPower) + begin / kClocks + 0.004;
}

Launch cut_of(const PhaseShape& s, const RollingPlaneConfig& c, PhaseWork& work) {
  work = s.work;
  const std::int64_t wanted = static_cast<std::int64_t>(kMultiprocessors) * c.resident * c.waves;
  return cut_correlate_rolling_planes(work, s.images, s.channels, s.repeat, c.sizes, s.number, wanted);
}

/// The plan of a configuration; false: it does not fit.
bool plan_rolling_planes(const Problem& p, const PhaseShape& s, const RollingPlaneConfig& c, bool named,
                         Plan& plan) {
  const RollingPlaneSizes& z = c.sizes;
  plan.family = Plan::Family::Rolling;
  plan.launch = cut_of(s, c, plan.phases);
  if (plan.launch.blocks == 0 || plan.launch.blocks > kMostBlocks) return false;
  if ((plan.launch.shared_bytes + 1024) * c.resident > kSharedBytes) return false;
  plan.cost = rolling_plane_cost(s, c, plan);
  if (!named) return true;
  const PhaseAxis& w = s.work.w;
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(),
                "correlate_rolling_planes<%s, RollingTile<%d, %d, %d, %s>, %d, %s, %d, %s, %d, %d, %d, %d>",
                type_name(p.dtype), w.most_taps(), z.rows, z.columns, word(w.is_ragged()), s.repeat,
                word(w.scatters), z.source_word, word(aligned(s, z.source_word)), z.target_vector,
                w.step() * w.source_every, z.threads, c.resident);
  plan.kernel = text.data();
  plan.what = "rolling planes " + std::to_string(z.rows) + "x" + std::to_string(z.columns) + ", " +
              std::to_string(z.images) + " x " + std::to_string(z.channels) + " planes in " +
              std::to_string(plan.phases.cut.bands) + " bands, " + (z.buffers > 1 ? "" : "one at a time, ") +
              std::to_string(z.threads) + " threads";
  return true;
}

/// Calls visit(sizes) for what of the problem a block may have at a time, with what is settled by that: how
/// its rows are copied, and how they lie. Bands of one share come one after the other, the largest first.
template <class Visit>
void each_share(const PhaseShape& s, RollingPlaneSizes sizes, const Visit& visit) {
  constexpr int kMostPlanes = 32;
  const PhaseAxis& h = s.work.h;
  std::array<int, 2> words{4, 0};
  if (s.source_alignment >= 8) words[1] = std::min(16, s.source_alignment);
  for (int channels = 1; channels <= kMostPlanes && channels < 2 * s.channels; channels *= 2)
    for (int images = 1; images * channels <= kMostPlanes && images < 2 * s.images; images *= 2)
      for (const int word : words) {
        if (word == 0) continue;
        sizes.channels = static_cast<int>(std::min<std::int64_t>(channels, s.channels));
        sizes.images = static_cast<int>(std::min<std::int64_t>(images, s.images));
        sizes.source_word = word;
        int last = 0;
        for (const int bands : {1, 2, 3, 4, 6, 8, 12, 16}) {
          sizes.band = static_cast<int>(round_up(ceiling(h.targets, bands), h.classes()));
          if (sizes.band == last) continue;
          last = sizes.band;
          if (!visit(sizes)) break;
        }
      }
}

}  // namespace

void add_rolling_plane_plans(const Problem& p, const Shape& problem_shape, std::vector<Plan>& plans) {
  if (p.channels_last || weighs(p)) return;
  PhaseShape shape{};
  if (!describe_phases(p, problem_shape, shape)) return;
  const PhaseAxis &h = shape.work.h, &w = shape.work.w;
  std::vector<std::pair<double, RollingPlaneConfig>> configs;
  const int rows = static_cast<int>(ceiling(h.targets, h.classes())), columns = w.targets_of(0);
  constexpr std::pair<int, int> kBlocks[] = {{128, 1}, {128, 2}, {128, 3}, {256, 1}, {256, 2},
                                             {256, 3}, {384, 1}, {384, 2}, {512, 1}, {512, 2}};
  // Of each tile the best share of a block.
  const auto try_tile = [&](int of_rows, int of_columns, double whole) {
    RollingPlaneConfig best;
    double least = 0;
    Plan plan;
    RollingPlaneSizes tile;
    tile.rows = of_rows, tile.columns = of_columns;
    tile.source_alignment = shape.source_alignment, tile.target_vector = shape.target_vector;
    const int wanted = rolling_plane_registers(shape, tile);
    each_share(shape, tile, [&](RollingPlaneSizes sizes) {
      RollingPlaneConfig c;
      c.sizes = sizes, c.whole = whole;
      PhaseWork work;
      // Of as much as fits at all, without what is between planes.
      c.sizes.buffers = 1;
      if (cut_of(shape, c, work).shared_bytes > kSharedBytes - 1024) return true;
      const std::int64_t units = std::int64_t{sizes.images} * work.cut.channels * h.classes() * w.classes() *
                                 work.cut.row_groups * work.cut.tiles;
      spread_rolling_targets(shape.work, shape.repeat, c.sizes, shape.number);
      bool fits_three = false;
      for (const auto& [threads, resident] : kBlocks) {
        if (registers_of(threads, resident) < wanted || (threads > 128 && threads > 2 * units)) continue;
        c.sizes.threads = threads, c.resident = resident;
        for (const int buffers : {2, 1}) {
          c.sizes.buffers = buffers;
          bool fits = false;
          for (const int waves : {1, 2}) {
            c.waves = waves;
            if (!plan_rolling_planes(p, shape, c, false, plan)) break;
            fits = true;
            if (least > 0 && plan.cost >= least) continue;
            least = plan.cost, best = c;
          }
          if (fits && buffers == 2 && resident == 3) fits_three = true;
          if (fits) break;
        }
      }
      // More bands take more rows twice.
      return !fits_three;
    });
    if (least > 0) configs.emplace_back(least, best);
  };
  constexpr int kMostWindow = 32;
  for (const int of_columns : {2, 3, 4, 5, 6, 7, 8, 10, 12}) {
    if ((of_columns > 2 && of_columns >= 2 * columns) || of_columns + w.most_taps() - 1 > kMostWindow)
      continue;
    const double whole = whole_windows(w, of_columns);
    for (const int of_rows : {1, 2, 3, 4, 6})
      if (of_rows == 1 || of_rows < 2 * rows) try_tile(of_rows, of_columns, whole);
  }
  add_best(
      configs,
      [&](const RollingPlaneConfig& config, Plan& best) {
        plan_rolling_planes(p, shape, config, true, best);
      },
      plans);
}

}  // namespace lamella::depthwise
