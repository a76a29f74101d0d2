#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "layers/depthwise_conv2d/cuda/cut_rolling.h"
#include "layers/depthwise_conv2d/cuda/plan_phases.h"

// Rolling: large kernels on channels side by side, straight from memory.
namespace lamella::depthwise {
namespace {

struct RollingConfig {
  RollingSizes sizes;
  int resident = 1;  ///< blocks that share a multiprocessor
};

/// A problem as these kernels see it, and what all of its plans share.
struct RollingShape {
  PhaseWork work;
  std::int64_t images, channels;  ///< channels: of targets, or of y
  int repeat, sources;            ///< output channels of one of x; channels of sources for one of targets
  int number;                     ///< bytes of one
  double rows_met;                ///< rows of taps of a target that meet a source, on average
  std::int64_t source_apart, target_apart;  ///< numbers from one column of a class to the next; 0: not known
};

/// What a warp does for a thread's share: instructions, wavefronts of the first-level cache, and rows that it
/// may wait for.
struct RollingEffort {
  double issue = 0, wavefronts = 0, waits = 0;
};

/// Fitted to some 600 measurements on an H200; `lines` and `measured` to other 800 (docs/performance.md,
/// items 32 and 33).
struct RollingModel {
  double unit, group, step, row, tap_row, store;  ///< instructions beside loads and products
  double masked;                                  ///< of a number of a window that is not whole, more
  double most_code, code;                         ///< products of a loop that instruction caches hold; beyond
  double spill;                                   ///< for each register that is missing
  double busy, idle;                              ///< of issue: with many warps, and how few warps wait
  double lines, shared, wait;                     ///< of the first-level cache
  double memory, cache, piece;                    ///< bytes a millisecond; bytes that a piece is longer
  double begin;                                   ///< clocks of a block beside its units
  double power;                                   ///< of the mean of limits
  double measured;                                ///< over all that
};
constexpr RollingModel kCorrelates{.unit = 69,
                                   .group = 30,
                                   .step = 40,
                                   .row = 40,
                                   .tap_row = 0,
                                   .store = 20,
                                   .masked = 1.73,
                                   .most_code = 702,
                                   .code = 0.448,
                                   .spill = 0.00707,
                                   .busy = 0.7,
                                   .idle = 0.882,
                                   .lines = 3,
                                   .shared = 1.09,
                                   .wait = 1070,
                                   .memory = 4.5e9,
                                   .cache = 2.67e9,
                                   .piece = 8,
                                   .begin = 1000,
                                   .power = 1.73,
                                   .measured = 1};
constexpr RollingModel kWeighs{.unit = 574,
                               .group = 0,
                               .step = 0,
                               .row = 40,
                               .tap_row = 9.39,
                               .store = 0,
                               .masked = 0.5,
                               .most_code = 1000,
                               .code = 0.243,
                               .spill = 0.00994,
                               .busy = 0.7,
                               .idle = 1.44,
                               .lines = 2,
                               .shared = 2.32,
                               .wait = 242,
                               .memory = 2.51e9,
                               .cache = 5.64e9,
                               .piece = 8,
                               .begin = 1000,
                               .power = 2.15,
                               .measured = 0.88};

RollingShape describe_rolling(const Problem& p, const Shape& s) {
  const Conv2dGeometry& g = p.geometry;
  const bool scatters = p.pass == Pass::Input;
  RollingShape shape{};
  PhaseWork& work = shape.work;
  work.h = phase_axis(g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, scatters);
  work.w = phase_axis(g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, scatters);
  work.target_h = static_cast<int>(scatters ? g.in.h : g.out.h);
  work.target_w = static_cast<int>(scatters ? g.in.w : g.out.w);
  shape.images = s.images, shape.channels = scatters ? g.in_channels : g.out_channels;
  shape.repeat = s.kernel.repeat, shape.sources = scatters ? shape.repeat : 1;
  shape.number = s.number;
  shape.rows_met = phase_meetings(work.h);
  const bool source_gaps = scatters ? p.output_gaps : p.input_gaps,
             target_gaps = scatters ? p.input_gaps : p.output_gaps;
  const std::int64_t of_source = scatters ? g.out_channels : g.in_channels;
  shape.source_apart = source_gaps ? 0 : std::int64_t{work.w.step()} * work.w.source_every * of_source;
  shape.target_apart = target_gaps ? 0 : work.w.classes() * g.out_channels;  // weight gradient
  return shape;
}

/// Of a thread, to within some.
int rolling_registers(const Problem& p, const RollingShape& s, const RollingSizes& z) {
  const int taps = s.work.w.most_taps(), window = z.columns + taps - 1;
  if (weighs(p)) return 42 + z.rows * (taps + z.columns) + 2 * window + z.columns;
  return 58 + z.rows * (z.columns + window) + static_cast<int>(round_up(taps, 4));
}

/// The share of windows that lie inside.
double whole_windows(const RollingShape& s, int columns) {
  const PhaseAxis& w = s.work.w;
  const int window = columns + w.most_taps() - 1;
  int count = 0, whole = 0;
  for (int of_class = 0; of_class < w.classes(); ++of_class)
    for (int left = 0; left < w.targets_of(of_class); left += columns)
      for (int number = 0; number < w.groups(); ++number) {
        const int first = w.group(of_class, number).first + left * w.step();
        ++count;
        if (first >= 0 && first + (window - 1) * w.step() < w.sources) ++whole;
      }
  return count > 0 ? static_cast<double>(whole) / count : 1;
}

RollingEffort effort_of(const Problem& p, const RollingShape& s, const RollingSizes& z, double whole) {
  const RollingModel& m = weighs(p) ? kWeighs : kCorrelates;
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const double taps = w.most_taps(), window = z.columns + taps - 1, convert = s.number == 2 ? 1 : 0;
  // Lanes that are not of one pixel read lines of their own.
  const double lines = std::max(1.0, m.lines / z.channels);
  const double of_number = 1 + convert + m.masked * (1 - whole);
  const double products = z.rows * z.columns * taps;  // of a step
  const double code = 1 + m.code * std::max(0.0, std::log(products * z.rows / m.most_code));
  if (weighs(p)) {
    const double met = std::min(1.0, (s.rows_met + z.rows - 1) / h.kernel);
    const double rows = (z.strip_rows + z.rows - 1) * met;
    return {(m.unit + rows * ((window + z.columns) * of_number + m.row + m.tap_row * z.rows) +
             z.strip_rows * met * products) *
                code,
            rows * (window + z.columns) * lines * m.shared, rows * m.wait};
  }
  const double groups = static_cast<double>(h.groups()) * w.groups() * s.sources,
               groups_w = static_cast<double>(w.groups()) * s.sources;
  const double rows = groups_w * s.rows_met + groups * (z.rows - 1),
               steps = std::min(groups * h.most_taps(), rows), quads = std::ceil(taps / 4);
  return {(m.unit + groups * m.group + steps * (products + quads + m.step) +
           rows * (window * of_number + m.row) + z.rows * z.columns * m.store) *
              code,
          (rows * window * lines + steps * quads * 4 + z.rows * z.columns * lines) * m.shared,
          groups * m.wait};
}

/// Estimated milliseconds: limits of memory, the second-level cache, issue, the first-level cache and waits,
/// joined so that the largest counts most.
double rolling_cost(const Problem& p, const RollingShape& s, const RollingConfig& c, const Plan& plan,
                    double whole) {
  constexpr double kClocks = 1.9e6;  // a millisecond
  const RollingModel& m = weighs(p) ? kWeighs : kCorrelates;
  const RollingSizes& z = c.sizes;
  const PhaseWork& work = plan.phases;
  const PhaseAxis &h = work.h, &w = work.w;
  const RollingEffort of = effort_of(p, s, z, whole);
  const double units = work.items_per_part;
  // Of a block: warps that work, and their turns.
  double warps = z.threads / 32.0, turns = std::ceil(units * z.channels / z.threads);
  if (weighs(p)) {
    warps = std::ceil(weighing_units(work, z.rows) * z.channels * work.cut.splits / 32.0);
    turns = std::ceil(units / work.cut.splits);
  }
  const double missing = std::max(0, rolling_registers(p, s, z) - registers_of(z.threads, c.resident));
  const double waves = std::ceil(static_cast<double>(plan.launch.blocks) / (kMultiprocessors * c.resident));
  const double idle = m.busy + m.idle / (warps * c.resident / 4), spilled = 1 + m.spill * missing;
  const double begin =
      waves * (m.begin + static_cast<double>(plan.launch.shared_bytes) / 4 / z.threads * 30) / kClocks;
  turns *= waves;
  const double issue = turns * warps * c.resident * of.issue / 4 * idle * spilled / kClocks,
               shared = turns * warps * c.resident * of.wavefronts / kClocks,
               wait = turns * of.waits / kClocks;
  const double images = static_cast<double>(s.images) * s.number;
  const double x_channels = static_cast<double>(s.channels) / (weighs(p) || s.sources == 1 ? s.repeat : 1),
               source_channels = w.scatters ? x_channels * s.repeat : x_channels;
  // Of columns that no tap meets, what lies in the same piece of memory as others is loaded.
  constexpr double kPiece = 64;
  const double every = std::min<double>(w.source_every, std::max(1.0, kPiece / (source_channels * s.number)));
  const double sources = images * source_channels * h.sources * w.sources * every,
               targets = images * static_cast<double>(s.channels) * work.target_h * work.target_w;
  // Rows that a row of threads reads come from the second-level cache unless the first has them still.
  const double of_unit = z.rows + h.most_taps() - 1.0,
               row_bytes = static_cast<double>(w.sources) * z.channels * s.number;
  constexpr double kFirstLevel = 230e3;
  const double kept = kFirstLevel / c.resident - static_cast<double>(plan.launch.shared_bytes);
  const double again = weighs(p) || of_unit * row_bytes < kept ? 1.3 : of_unit / z.rows;
  const double piece = z.channels * s.number;
  const double memory = (sources + targets) / m.memory,
               cache = (sources * again + targets) * (piece + m.piece) / piece / m.cache;
  double sum = 0;
  for (const double limit : {memory, cache, issue, shared, wait}) sum += std::pow(limit, m.power);
  double cost = (std::pow(sum, 1 / m.power) + begin + 0.004) * m.measured;
  if (weighs(p))
    cost += static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) *
            (h.kernel * w.kernel + 1.0) * 8 / 3e9;
  return cost;
}

/// The plan of a configuration; false: it does not fit.
bool plan_rolling(const Problem& p, const RollingShape& s, const RollingConfig& c, std::int64_t waves,
                  double whole, bool named, Plan& plan) {
  const RollingSizes& z = c.sizes;
  plan = {};
  plan.family = Plan::Family::Rolling;
  plan.phases = s.work;
  const std::int64_t wanted = static_cast<std::int64_t>(kMultiprocessors) * c.resident * waves;
  plan.launch = weighs(p) ? cut_weigh_rolling(plan.phases, s.images, s.channels, p.bias, z, wanted)
                          : cut_correlate_rolling(plan.phases, s.images, s.channels, s.sources, z, wanted);
  constexpr std::int64_t kMostShared = 160 << 10;  // the first-level cache has the rest
  if (!can_launch(p, plan.launch)) return false;
  if (plan.launch.shared_bytes * c.resident > std::min(kMostShared, p.shared_bytes)) return false;
  // Inputs between those that take part stay zero.
  plan.clears = p.pass == Pass::Input && s.work.h.target_every * s.work.w.target_every > 1;
  plan.cost = rolling_cost(p, s, c, plan, whole);
  if (!named) return true;
  std::array<char, 200> text{};
  const int taps = s.work.w.most_taps();
  const char* const ragged = word(s.work.w.is_ragged());
  if (weighs(p))
    std::snprintf(text.data(), text.size(),
                  "weigh_rolling<%s, RollingTapTile<%d, %d, %d, %s>, %d, %s, %lld, %lld, %d, %d>",
                  type_name(p.dtype), taps, z.columns, z.rows, ragged, s.repeat, word(p.bias),
                  static_cast<long long>(s.source_apart), static_cast<long long>(s.target_apart), z.threads,
                  c.resident);
  else
    std::snprintf(text.data(), text.size(),
                  "correlate_rolling<%s, RollingTile<%d, %d, %d, %s>, %d, %s, %lld, %d, %d>",
                  type_name(p.dtype), taps, z.rows, z.columns, ragged, s.repeat, word(s.work.w.scatters),
                  static_cast<long long>(s.source_apart), z.threads, c.resident);
  plan.kernel = text.data();
  plan.what = "rolling " + std::to_string(z.rows) + "x" + std::to_string(z.columns) + ", " +
              std::to_string(z.channels) + " channels" +
              (weighs(p) ? ", strips of " + std::to_string(z.strip_rows) : "") + ", " +
              std::to_string(z.threads) + " threads";
  return true;
}

/// Channels of a block: all, or parts of about so many, and whole sectors.
std::vector<int> shares_of_channels(std::int64_t channels, int number) {
  std::vector<int> shares;
  const auto add = [&](std::int64_t share) {
    const int of = static_cast<int>(std::min(share, channels));
    if (std::find(shares.begin(), shares.end(), of) == shares.end()) shares.push_back(of);
  };
  const std::int64_t sector = 32 / number;
  for (const std::int64_t most : {16, 32, 64, 96, 128}) {
    const std::int64_t share = ceiling(channels, ceiling(channels, most));
    add(share), add(round_up(share, sector));
  }
  return shares;
}

}  // namespace

void add_rolling_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!p.channels_last || !may_use_rolling(p, s)) return;
  const RollingShape shape = describe_rolling(p, s);
  if (!can_cut_phases(shape.work)) return;
  const PhaseAxis &h = shape.work.h, &w = shape.work.w;
  const int rows = h.targets_of(0), columns = w.targets_of(0);
  struct Choice {
    RollingConfig config;
    std::int64_t waves = 1;
    double whole = 1;
  };
  std::vector<std::pair<double, Choice>> choices;
  const std::vector<int> shares = shares_of_channels(shape.channels, shape.number);
  // Of each tile the best share of a block.
  const auto try_tile = [&](int of_rows, int of_columns, double whole) {
    Choice best;
    double least = 0;
    Plan plan;
    RollingConfig c;
    c.sizes.rows = of_rows, c.sizes.columns = of_columns;
    const int wanted = rolling_registers(p, shape, c.sizes);
    for (const auto& [threads, resident] :
         {std::pair(256, 1), {384, 1}, {512, 1}, {256, 2}, {256, 3}, {384, 2}, {512, 2}}) {
      constexpr int kMostMissing = 12;  // registers: some spills cost less than idle warps
      if (registers_of(threads, resident) + kMostMissing < wanted) continue;
      c.sizes.threads = threads, c.resident = resident;
      for (const int channels : shares)
        for (const std::int64_t waves : {1, 2, 4})
          for (const int strips : {1, 2, 4, 8}) {
            if (strips > 1 && (!weighs(p) || ceiling(rows, strips) < 2 * of_rows)) continue;
            c.sizes.channels = channels;
            c.sizes.strip_rows = static_cast<int>(ceiling(rows, strips));
            if (!plan_rolling(p, shape, c, waves, whole, false, plan)) continue;
            if (least > 0 && plan.cost >= least) continue;
            least = plan.cost, best = {c, waves, whole};
          }
    }
    if (least > 0) choices.emplace_back(least, best);
  };
  for (const int of_columns : {2, 3, 4, 5, 6, 7, 8, 10, 12}) {
    if ((of_columns > 2 && of_columns >= 2 * columns) || of_columns + w.most_taps() - 1 > kMostWindow)
      continue;
    const double whole = whole_windows(shape, of_columns);
    for (const int of_rows : {1, 2, 3, 4, 5, 6, 8}) {
      const int most = weighs(p) ? h.most_taps() : rows;
      if (of_rows > 1 && of_rows >= (weighs(p) ? most + 1 : 2 * most)) continue;
      try_tile(of_rows, of_columns, whole);
    }
  }
  const auto plan_of = [&](const Choice& choice, Plan& best) {
    plan_rolling(p, shape, choice.config, choice.waves, choice.whole, true, best);
  };
  add_best(choices, plan_of, plans);
}

}  // namespace lamella::depthwise
