#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_runs.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Runs: dense planes, moved by the copy engine.
namespace lamella::depthwise {
namespace {

/// What a variant is made of.
struct RunConfig {
  RunTileSizes tile{};
  UnitTileSizes units{};  ///< of a walk over x
  int threads = 0;
  std::int64_t bytes = 0, wanted_blocks = 0;
};

/// The problem with its stride and dilation as they are.
struct RunShape {
  Axis h, w;
  int distance_h, distance_w;  ///< of taps
  KernelSizes kernel;
};

RunShape run_shape(const Problem& p, const Shape& s) {
  const Conv2dGeometry& g = p.geometry;
  RunShape r{};
  r.kernel = {static_cast<int>(g.kernel.h), static_cast<int>(g.kernel.w), static_cast<int>(g.stride.h),
              static_cast<int>(g.stride.w), static_cast<int>(g.multiplier())};
  r.distance_h = g.kernel.h == 1 ? 1 : static_cast<int>(g.dilation.h);
  r.distance_w = g.kernel.w == 1 ? 1 : static_cast<int>(g.dilation.w);
  r.h = s.h, r.w = s.w;
  r.h.input_step = r.distance_h, r.w.input_step = r.distance_w;
  r.h.output_step = r.w.output_step = 1;
  return r;
}

/// What a thread does for its tile, and a block for a page of items.
struct Load {
  double products = 0, instructions = 0, wavefronts = 0, rows = 0, steps = 0, page = 0;
};

/// Reads of `count` numbers, the first of them `offset` behind a whole vector: adds what one row of them
/// takes.
void add_row(Load& load, int count, int offset, int vector, int number, double rows) {
  if (vector == 1 && number == 2) {
    load.instructions += rows * (count * 1.5 + count / 2 + 1);
    load.wavefronts += rows * (count / 2 + 1);
    return;
  }
  const double reads = static_cast<double>(ceiling(offset + count, vector));
  load.instructions += rows * (reads + (number == 2 ? count : 0));
  load.wavefronts += rows * reads * std::max(1.0, vector * number / 4.0);
}
/// Puts `count` results into shared memory.
void add_results(Load& load, double count, int vector, int number) {
  load.instructions += count / vector + (number == 2 ? (vector > 1 ? 0.5 : 1) * count : 0);
  load.wavefronts += count / vector * std::max(1.0, vector * number / 4.0);
}

Load load_of(const Problem& p, const Shape& s, const RunShape& r, const RunConfig& c, const PlaneCut& cut) {
  const KernelSizes& k = r.kernel;
  Load load;
  if (s.forward) {
    const RunTileSizes& t = c.tile;
    const int window = (t.columns - 1) * k.stride_w + (k.kernel_w - 1) * r.distance_w + 1;
    load.rows = (t.rows - 1) * k.stride_h + (k.kernel_h - 1) * r.distance_h + 1;
    add_row(load, window, t.offset, t.vector, s.number, load.rows);
    add_results(load, t.rows * t.columns, t.vector_out, s.number);
    load.instructions += load.rows * (4 + 2 * r.w.padding) + 20;
    load.products = static_cast<double>(t.rows) * t.columns * taps_of(k);
    load.steps =
        static_cast<double>(ceiling(ceiling(std::min(cut.band_rows, r.h.output), t.rows), cut.row_groups));
    load.page =
        cut.bands == 1
            ? static_cast<double>(r.h.input) * r.w.input * static_cast<double>(ceiling(cut.planes, k.repeat))
            : ((cut.band_rows - 1.0) * k.stride_h + (k.kernel_h - 1) * r.distance_h + 1) * r.w.input;
  } else {
    const UnitTileSizes& t = c.units;
    const bool input = p.pass != Pass::Weight, weight = p.pass != Pass::Input;
    const UnitReachSizes reach_h(k.kernel_h, k.stride_h, r.distance_h, r.h.padding % k.stride_h);
    const UnitReachSizes reach_w(k.kernel_w, k.stride_w, r.distance_w, r.w.padding % k.stride_w);
    const int window = t.columns + reach_w.span - 1, width = t.columns * k.stride_w;
    const double height = static_cast<double>(t.rows) * k.stride_h,
                 unit_rows = static_cast<double>(ceiling(r.h.input, k.stride_h));
    load.rows = t.rows + reach_h.span - 1;
    add_row(load, window, t.offset, t.vector_g, s.number, load.rows * k.repeat);
    load.instructions += load.rows * k.repeat * (window + 4) + 20;
    if (weight) {
      add_row(load, width, 0, t.vector_x, s.number, height);
      load.instructions += height * (width + 3);
    }
    if (input) add_results(load, height * width, t.vector_x, s.number);
    load.products =
        static_cast<double>(t.rows) * t.columns * taps_of(k) * k.repeat * (p.pass == Pass::Both ? 2 : 1);
    load.steps = static_cast<double>(
        ceiling(ceiling(std::min<std::int64_t>(cut.band_rows, static_cast<std::int64_t>(unit_rows)), t.rows),
                cut.row_groups));
    load.page = cut.bands == 1
                    ? (static_cast<double>(r.h.output) * r.w.output * k.repeat +
                       (weight ? static_cast<double>(r.h.input) * r.w.input : 0)) *
                          cut.planes
                    : (cut.band_rows + reach_h.span - 1.0) * r.w.output * k.repeat +
                          (weight ? static_cast<double>(cut.band_rows) * k.stride_h * r.w.input : 0);
  }
  load.page *= s.number;
  return load;
}

int registers(const Problem& p, const Shape& s, const RunShape& r, const RunConfig& c) {
  const KernelSizes& k = r.kernel;
  const int taps = taps_of(k);
  if (s.forward) {
    const RunTileSizes& t = c.tile;
    const int window = (t.columns - 1) * k.stride_w + (k.kernel_w - 1) * r.distance_w + 1;
    return 40 + taps + t.rows * t.columns + window + t.vector + (r.w.padding > 0 ? window / 2 : 0) +
           (has_statistics(p) ? 4 : 0);
  }
  const UnitTileSizes& t = c.units;
  const int passes = p.pass == Pass::Both ? 2 : 1;
  const UnitReachSizes reach_w(k.kernel_w, k.stride_w, r.distance_w, r.w.padding % k.stride_w);
  const int window = t.columns + reach_w.span - 1, width = t.columns * k.stride_w;
  return 48 + (taps * k.repeat + t.rows * k.stride_h * width) * passes + 2 * window +
         (p.pass != Pass::Input ? width / 2 : 0) + (has_norm_sums(p) ? 5 + width : 0);
}

/// Estimated milliseconds: four limits, of which the largest counts most. Their weights were fitted to some
/// 5,000 measurements on an H200 (docs/performance.md), from which they are a tenth off on average.
double cost(const Problem& p, const Shape& s, const RunShape& r, const RunConfig& c, const Plan& plan,
            double resident) {
  constexpr double kClocks = kMultiprocessors * 1.8e6;  // of all multiprocessors, a millisecond
  const PlaneCut& cut = plan.planes.cut;
  const Conv2dGeometry& g = p.geometry;
  const double x = static_cast<double>(g.batch * g.in_channels) * static_cast<double>(g.in.h * g.in.w);
  const double y = static_cast<double>(g.batch * g.out_channels) * static_cast<double>(g.out.h * g.out.w);
  const double bytes = (x + y + (p.pass == Pass::Both ? x : 0)) * s.number;
  const Load load = load_of(p, s, r, c, cut);
  const double groups = static_cast<double>(ceiling(s.forward ? s.out_channels : s.channels, cut.planes)),
               items = plan.planes.items * groups;
  const double workers = c.threads / 32.0 - 1;
  const double warps =
      static_cast<double>(ceiling(std::int64_t{cut.planes} * cut.column_groups * cut.row_groups, 32));
  const double warp_steps = items * warps * load.steps;
  const double in_flight = resident * load.page * ((s.forward ? c.tile.pages : c.units.pages) - 1) / 1e3;
  const double memory = 0.99 * bytes / 4.15e9 * (1 + 2.3 / in_flight);
  const double issue = warp_steps * (load.products + 1.2 * load.instructions + 1.85) / 4 * 1.3 / kClocks;
  const double shared = warp_steps * load.wavefronts * 0.16 / kClocks;
  const double latency =
      items * (1500 + load.steps * (20.5 + 60.6 * load.rows + 2.57 * load.products / workers * warps)) /
      resident / kClocks;
  constexpr double kPower = 4.07;
  double sum = 0;
  for (const double limit : {memory, issue, shared, latency}) sum += std::pow(limit, kPower);
  const double waves = static_cast<double>(plan.launch.blocks) / (kMultiprocessors * resident);
  const double parts = static_cast<double>(plan.launch.parts) * static_cast<double>(s.out_channels) *
                       (taps_of(r.kernel) + 1) * 8 / 3e9;
  return std::pow(sum, 1 / kPower) * (1 + 0.11 * (std::ceil(waves) / waves - 1)) + parts + 0.0087;
}

/// The plan of a configuration; false: it does not fit.
bool plan_runs(const Problem& p, const Shape& s, const RunShape& r, const RunConfig& c, bool named,
               Plan& plan) {
  const bool input = p.pass != Pass::Weight, weight = p.pass != Pass::Input;
  const KernelSizes& k = r.kernel;
  plan = {};
  plan.family = Plan::Family::Runs;
  plan.planes.h = r.h;
  plan.planes.w = r.w;
  plan.launch = s.forward ? cut_forward_runs(plan.planes, s.images, s.out_channels, k, r.distance_h, c.tile,
                                             s.number, c.threads, c.bytes, c.wanted_blocks)
                          : cut_backward_runs(plan.planes, s.images, s.channels, k, r.distance_h,
                                              r.distance_w, c.units, s.number, c.threads, c.bytes, input,
                                              reads_input(p), p.bias, c.wanted_blocks);
  if (plan.launch.blocks > 0 && has_statistics(p)) add_statistics_runs(plan.planes, s.number, plan.launch);
  if (has_norm_sums(p)) add_norm_sums(weight, plan.launch);
  if (!can_launch(p, plan.launch)) return false;
  constexpr double kLeastAtWork = 0.7;
  constexpr int kMostThreads = 1536;
  constexpr std::int64_t kLeastBlocks = 2;  // one computes while the other waits
  const PlaneCut& cut = plan.planes.cut;
  const std::int64_t channels = s.forward ? s.out_channels : s.channels;
  const std::int64_t at_work = std::int64_t{cut.planes} * cut.column_groups * cut.row_groups;
  if (static_cast<double>(at_work) < kLeastAtWork * (c.threads - 32) && channels > cut.planes) return false;
  const int wanted = registers(p, s, r, c);
  std::int64_t resident = std::min<std::int64_t>(kMostThreads / c.threads, blocks_by_shared(p, plan.launch));
  while (resident >= kLeastBlocks && registers_of(c.threads, static_cast<int>(resident)) < wanted) --resident;
  if (resident < kLeastBlocks) return false;
  plan.cost = cost(p, s, r, c, plan, static_cast<double>(resident)) + hook_cost(p, s, plan.launch);
  if (!named) return true;

  const RunTileSizes& t = c.tile;
  const UnitTileSizes& u = c.units;
  std::array<char, 320> text{};
  const int start =
      std::snprintf(text.data(), text.size(), "%s<%s, Kernel<%d, %d, %d, %d, %d>, Spread<%d, %d>, ",
                    s.forward ? "forward_runs" : "backward_runs", type_name(p.dtype), k.kernel_h, k.kernel_w,
                    k.stride_h, k.stride_w, k.repeat, r.distance_h, r.distance_w);
  char* const rest = text.data() + start;
  const std::size_t left = text.size() - static_cast<std::size_t>(start);
  if (s.forward) {
    const std::int64_t last = (r.w.output - 1) * k.stride_w + (k.kernel_w - 1) * r.distance_w - r.w.padding;
    const bool masks = r.w.padding > 0 || last >= r.w.input;
    int inside = masks && r.w.output % t.columns == 0
                     ? r.w.input - ((r.w.output - t.columns) * k.stride_w - r.w.padding)
                     : 0;
    inside = std::max(inside, 0);
    std::snprintf(rest, left, "RunTile<%d, %d, %d, %d, %d, %d>, %s, %d, %d, %s, %s, %d, %d>", t.columns,
                  t.rows, t.vector, t.vector_out, t.offset, t.pages, word(masks),
                  inside > 0 ? r.w.padding : 0, inside, activation_word(p, loads_transformed(p)),
                  word(has_statistics(p)), c.threads, static_cast<int>(resident));
  } else {
    std::snprintf(rest, left, "UnitTile<%d, %d, %d, %d, %d, %d>, %s, %s, %s, %d, %d, true, %s, %s, %d, %d>",
                  u.columns, u.rows, u.vector_x, u.vector_g, u.offset, u.pages, word(input), word(weight),
                  word(p.bias), r.h.padding % k.stride_h, r.w.padding % k.stride_w,
                  activation_word(p, loads_transformed(p)), activation_word(p, has_norm_sums(p)), c.threads,
                  static_cast<int>(resident));
  }
  plan.kernel = text.data();
  plan.what = "runs of " + std::to_string(cut.planes) + " planes in " + std::to_string(cut.bands) +
              " bands, " + std::to_string(s.forward ? t.rows : u.rows) + "x" +
              std::to_string(s.forward ? t.columns : u.columns) + ", " +
              std::to_string(s.forward ? t.pages : u.pages) + " pages, " + std::to_string(c.threads) +
              " threads";
  return true;
}

/// Calls add(config) for what may be worth a thought.
template <class Add>
void each_run(const Problem& p, const Shape& s, const RunShape& r, const Add& add) {
  const KernelSizes& k = r.kernel;
  const int read = s.turned ? p.output_alignment : p.input_alignment,
            written = s.turned ? p.input_alignment : p.output_alignment;
  constexpr int kLongestForward = 1600, kLongestBackward = 1000;  // multiply-adds, the length of the code
  const std::int64_t rows = s.forward ? r.h.output : ceiling(r.h.input, k.stride_h);
  const std::int64_t columns = s.forward ? r.w.output : ceiling(r.w.input, k.stride_w);
  const int least = columns * rows < 4 ? 1 : 4;
  RunConfig c;
  for (const int width : {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 28})
    for (const int height : {1, 2, 4, 6, 7, 8, 14}) {
      if (width > 2 * columns || height > 2 * rows) continue;
      if (wasteful(columns, width, columns < 8 ? 0.5 : 0.8) || wasteful(rows, height, rows < 8 ? 0.5 : 0.7))
        continue;
      const int products =
          height * width * taps_of(k) * (p.pass == Pass::Both ? 2 : 1) * (s.forward ? 1 : k.repeat);
      if (products > (s.forward ? kLongestForward : kLongestBackward)) continue;
      if (s.forward) {
        const int vector = vector_of(r.w.input, s.number, read);
        int out = vector_of(r.w.output, s.number, written);
        while (width % out != 0) out /= 2;
        const int wide = width * k.stride_w;
        if (wide % vector != 0 || (wide / vector % 2 == 0 && wide != r.w.input) || height * width < least)
          continue;
        c.tile = {width, height, vector, out, (vector - r.w.padding % vector) % vector, 0};
      } else {
        const int vector_x = vector_of(r.w.input, s.number, p.input_alignment);
        const int vector_g = vector_of(r.w.output, s.number, p.output_alignment);
        if (width % vector_g != 0 || width * k.stride_w % vector_x != 0) continue;
        if (height * width * k.stride_h * k.stride_w < least) continue;
        const UnitReachSizes reach(k.kernel_w, k.stride_w, r.distance_w, r.w.padding % k.stride_w);
        const int low = r.w.padding / k.stride_w + reach.low;
        c.units = {width, height, vector_x, vector_g, (low % vector_g + vector_g) % vector_g, 0};
      }
      constexpr int kMostRegisters = 220;
      if (registers(p, s, r, c) > kMostRegisters) continue;
      for (const int threads : {160, 288})
        for (const int kilobytes : {8, 16, 32, 64, 96})
          for (const int pages : {2, 3, 4})
            for (const std::int64_t wanted : {528, 1056, 2112}) {
              c.tile.pages = c.units.pages = pages;
              c.threads = threads, c.bytes = std::int64_t{kilobytes} << 10, c.wanted_blocks = wanted;
              add(c);
            }
    }
}

/// Whether planes can be moved in runs.
bool may_use_runs(const Problem& p, const RunShape& r) {
  constexpr int kLargestStride = 3, kMostTaps = 81;
  return p.boxes && !p.channels_last && !p.accumulate && r.h.padding >= 0 && r.w.padding >= 0 &&
         taps_of(r.kernel) * r.kernel.repeat <= kMostTaps &&
         std::max(r.kernel.stride_h, r.kernel.stride_w) <= kLargestStride;
}

}  // namespace

void add_run_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  const RunShape r = run_shape(p, s);
  if (!may_use_runs(p, r)) return;
  std::vector<std::pair<double, RunConfig>> configs;
  Plan plan;
  each_run(p, s, r, [&](const RunConfig& c) {
    if (plan_runs(p, s, r, c, false, plan)) configs.emplace_back(plan.cost, c);
  });
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_runs(p, s, r, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
