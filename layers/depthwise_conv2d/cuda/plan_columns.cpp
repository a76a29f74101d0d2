#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>

#include "layers/depthwise_conv2d/cuda/cut_columns.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Columns: dense planes in float32, large kernels.
namespace lamella::depthwise {
namespace {

struct ColumnConfig {
  ColumnTileSizes tile{};
  int strips = 1;
  std::int64_t waves = 1;  ///< teams, in so many times what the GPU has at once
  double handicap = 1;     ///< of its cost: what differs little from another is tried after what differs more
};

int products(const Shape& s, const ColumnTileSizes& t) { return taps_of(s.kernel) * t.columns * t.rows; }

/// As compiled, but for a few.
int registers(const Problem& p, const Shape& s, const ColumnTileSizes& t) {
  const KernelSizes& k = s.kernel;
  const int window = t.columns % 4 == 0 ? (t.columns + k.kernel_w + 2) / 4 * 4 : t.columns + k.kernel_w - 1,
            kept = k.kernel_h - 1;
  const int own = 25 + 4 * (t.copies_x + t.copies_g) + taps_of(k) + window;
  return own + (kept + (weighs(p) ? t.rows : 1)) * t.columns;
}

/// Instructions of a step, as counted in compiled kernels.
double instructions(const Problem& p, const Shape& s, const ColumnTileSizes& t) {
  const int unit = t.columns % 4 == 0 ? 4 : t.columns % 2 == 0 ? 2 : 1;
  const double reads = (t.columns + s.kernel.kernel_w + unit + 1) / unit, columns = t.columns;
  const double copies = t.copies_x + t.copies_g;
  if (weighs(p))
    return products(s, t) + t.rows * (reads + columns / unit + 4 * copies + 8) +
           (s.kernel.kernel_h - 1) * columns + 35;
  const double stores = t.copies_g > 0 ? columns / unit + t.copies_g + 3 : columns / t.vector_g * 2;
  return products(s, t) + t.rows * (reads + stores + 4 * copies + 8) + 25;
}

/// Clocks of a multiprocessor for what a warp moves between memory and shared memory in a step, by the lines
/// of 128 bytes that its instructions touch: short rows lie in many.
double moves(const Shape& s, const ColumnTileSizes& t, const PlaneCut& cut) {
  constexpr double kOfLine = 2, kBegun = 1.2, kLine = 32;
  const auto lines = [&](double rows, double width) { return rows * std::max(1.0, width / kLine) * kBegun; };
  double count = t.copies_x * lines(std::max(1.0, 32.0 * t.vector_x / s.w.input), s.w.input);
  if (t.copies_g > 0)
    count += t.copies_g * lines(std::max(1.0, 32.0 * t.vector_g / s.w.output), s.w.output);
  else
    count += static_cast<double>(t.columns) / t.vector_g *
             lines(std::max(1.0, 32.0 / cut.column_groups), s.w.output);
  return count * kOfLine * t.rows;
}

/// Estimated milliseconds: counted instructions at a guessed share of all clocks, and memory.
double cost(const Problem& p, const Shape& s, const ColumnConfig& c, const Plan& plan, double resident) {
  constexpr double kClock = 1.75e6;  // a millisecond
  const Conv2dGeometry& g = p.geometry;
  const PlaneCut& cut = plan.planes.cut;
  const double x = static_cast<double>(g.batch * g.in_channels) * static_cast<double>(g.in.h * g.in.w);
  const double y = static_cast<double>(g.batch * g.out_channels) * static_cast<double>(g.out.h * g.out.w);
  const double warps = resident * c.tile.warps;
  const double kept = s.kernel.kernel_h - 1.0;
  const double read = std::min<double>(cut.band_rows + kept, s.h.input);
  const double steps =
      std::ceil((weighs(p) ? std::min<double>(cut.band_rows, s.h.input) : read) / c.tile.rows);
  // Some steps of a weight's gradient, or a strip's last rows, multiply nothing.
  const double of_item = steps * instructions(p, s, c.tile) + kept * 40 + 200;
  // Longer code has fallen off a cliff elsewhere: it is not in the nearest instruction cache.
  constexpr int kLong = 600;
  const double slower = products(s, c.tile) > kLong ? 1.15 : 1;
  const double blocks_at_once = kMultiprocessors * resident;
  const double rounds = std::ceil(static_cast<double>(plan.launch.blocks) / blocks_at_once);
  const double begin = weighs(p) ? 2500 + 40.0 * taps_of(s.kernel) : 2500;  // clocks of a block
  const double share = 0.78 * std::min(1.0, 0.5 + warps / 24);              // of clocks in which it issues
  const double clocks =
      std::max(of_item * std::max(1.0, warps / 4) / share, steps * moves(s, c.tile, cut) * warps);
  const double issue = slower * rounds * (begin + plan.planes.items_per_part * clocks) / kClock;
  const double memory = (x + y) * 4 / 4.15e9 * 1.1;
  const double parts = static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) *
                       (taps_of(s.kernel) + 1) * 8 / 3e9;
  constexpr double kPower = 4;
  return std::pow(std::pow(issue, kPower) + std::pow(memory, kPower), 1 / kPower) + parts + 0.0087;
}

/// The plan of a configuration; false: it does not fit.
bool plan_columns(const Problem& p, const Shape& s, ColumnConfig c, bool named, Plan& plan) {
  constexpr int kMostCopies = 8;
  const KernelSizes& k = s.kernel;
  ColumnTileSizes& t = c.tile;
  plan = {};
  plan.family = Plan::Family::Columns;
  const std::int64_t rows = weighs(p) ? s.h.input : s.h.output;
  // What is resident follows from the cut, whose share of work follows from that.
  std::int64_t resident = 1;
  for (const bool last : {false, true}) {
    plan.planes = {};
    plan.planes.h = s.h;
    plan.planes.w = s.w;
    plan.launch =
        cut_columns(plan.planes, s.images, s.channels, k, weighs(p), t, ceiling(rows, c.strips),
                    static_cast<std::int64_t>(kMultiprocessors) * resident * (t.warps / t.team) * c.waves);
    if (!can_launch(p, plan.launch)) return false;
    if (last) break;
    resident = std::min<std::int64_t>(kResidentThreads / (32 * t.warps), blocks_by_shared(p, plan.launch));
    while (resident > 0 && registers_of(32 * t.warps, static_cast<int>(resident)) < registers(p, s, t))
      --resident;
    if (resident < 1) return false;
  }
  if (plan.planes.cut.bands != c.strips || std::max(t.copies_x, t.copies_g) > kMostCopies) return false;
  plan.cost = cost(p, s, c, plan, static_cast<double>(resident)) * c.handicap;
  if (!named) return true;
  std::array<char, 320> text{};
  const int start = std::snprintf(
      text.data(), text.size(),
      "%s<float, Kernel<%d, %d, 1, 1, 1>, ColumnTile<%d, %d, %d, %d, %d, %d, %d, %d, %d>, %d",
      weighs(p) ? "weigh_columns" : "forward_columns", k.kernel_h, k.kernel_w, t.columns, t.rows, t.slots,
      t.team, t.warps, t.vector_x, t.copies_x, t.vector_g, t.copies_g, s.w.padding);
  plan.kernel.assign(text.data(), static_cast<std::size_t>(start));
  if (weighs(p)) plan.kernel += std::string(", ") + word(p.bias);
  plan.kernel += ", " + std::to_string(resident) + ">";
  plan.what = std::to_string(t.columns) + " columns, " + std::to_string(t.rows) + " rows a step, " +
              std::to_string(plan.planes.cut.planes) + " planes of " + std::to_string(t.team) + " warps, " +
              std::to_string(plan.planes.cut.bands) + " strips, " + std::to_string(t.slots) + " slots, " +
              std::to_string(t.warps * 32) + " threads";
  return true;
}

/// Calls add(config) for what may be worth a thought.
template <class Add>
void each_column(const Problem& p, const Shape& s, const Add& add) {
  constexpr int kLongest = 1000, kMostRegisters = 240;
  const int read = s.turned ? p.output_alignment : p.input_alignment,
            written = s.turned ? p.input_alignment : p.output_alignment;
  ColumnConfig c;
  ColumnTileSizes& t = c.tile;
  t.vector_x = vector_of(s.w.input, s.number, read), t.vector_g = vector_of(s.w.output, s.number, written);
  for (const int columns : {4, 7, 8, 14})
    for (const int rows : {1, 2, 4}) {
      t.columns = columns, t.rows = rows;
      // Results of threads whose columns do not divide by four go side by side.
      t.copies_g = weighs(p) || t.vector_g < 4 || columns % 4 != 0 ? 1 : 0;
      t.copies_x = 1;
      if (columns % 4 != 0 && s.w.output % columns != 0) continue;
      if (products(s, t) > kLongest || registers(p, s, t) > kMostRegisters) continue;
      if (columns >= s.w.output + 4) continue;
      for (const int team : {1, 2, 4, 7, 8}) {
        t.team = team, t.warps = team == 1 ? 4 : team;
        for (const int ahead : {2, 4, 8}) {  // rows
          t.slots = std::max(ahead / rows, 2) + 1;
          for (const int strips : {1, 2, 4, 8}) {
            const std::int64_t of_strip = ceiling(weighs(p) ? s.h.input : s.h.output, strips);
            if (strips > 1 && of_strip < 2 * s.kernel.kernel_h) break;
            c.strips = strips;
            for (const std::int64_t waves : {1, 2, 4}) {
              c.waves = waves;
              add(c);
            }
          }
        }
      }
    }
}

/// What a variant of weigh_whole_columns is made of.
struct WholeConfig {
  int pages = 0, warps = 0;
  std::int64_t waves = 1;
};

/// Multiply-adds of a plane.
std::int64_t whole_products(const Shape& s) {
  const auto meetings = [](const Axis& axis, int kernel) {
    std::int64_t count = 0;
    for (int k = 0; k < kernel; ++k)
      for (int i = 0; i < axis.input; ++i)
        count += i + axis.padding - k >= 0 && i + axis.padding - k < axis.output ? 1 : 0;
    return count;
  };
  return meetings(s.h, s.kernel.kernel_h) * meetings(s.w, s.kernel.kernel_w);
}

bool plan_whole(const Problem& p, const Shape& s, const WholeConfig& c, bool named, Plan& plan) {
  constexpr double kClock = 1.75e6, kShare = 0.5;  // a millisecond; of clocks in which it issues
  const KernelSizes& k = s.kernel;
  plan = {};
  plan.family = Plan::Family::Columns;
  const int wanted = 40 + taps_of(k) + k.kernel_h * s.w.output + s.w.input;
  std::int64_t resident = 1;
  for (const bool last : {false, true}) {
    plan.planes = {};
    plan.planes.h = s.h;
    plan.planes.w = s.w;
    plan.launch =
        cut_whole_columns(plan.planes, s.images, s.channels, c.pages, c.warps,
                          static_cast<std::int64_t>(kMultiprocessors) * resident * c.warps * c.waves);
    if (!can_launch(p, plan.launch)) return false;
    if (last) break;
    resident = std::min<std::int64_t>(kResidentThreads / (32 * c.warps), blocks_by_shared(p, plan.launch));
    while (resident > 0 && registers_of(32 * c.warps, static_cast<int>(resident)) < wanted) --resident;
    if (resident < 1) return false;
  }
  const double numbers = static_cast<double>(s.h.input * s.w.input + s.h.output * s.w.output);
  const double images = static_cast<double>(s.images * s.channels);
  const double rounds =
      std::ceil(static_cast<double>(plan.launch.blocks) / (kMultiprocessors * static_cast<double>(resident)));
  const double warps = static_cast<double>(resident) * c.warps;
  const double of_item = 1.05 * static_cast<double>(whole_products(s)) + numbers + 60;
  const double issue =
      rounds * (2500 + plan.planes.items_per_part * of_item * std::max(2.0, warps / 4 / kShare)) / kClock;
  const double memory = images * numbers * 4 / 4.15e9 * 1.15;
  const double parts = static_cast<double>(plan.launch.parts * s.channels) * (taps_of(k) + 1) * 8 / 3e9;
  plan.cost = std::hypot(issue, memory) + parts + 0.0087;
  if (!named) return true;
  std::array<char, 320> text{};
  std::snprintf(text.data(), text.size(),
                "weigh_whole_columns<float, Kernel<%d, %d, 1, 1, 1>, Map<%d, %d, %d, %d>, %s, %d, %d, %d>",
                k.kernel_h, k.kernel_w, s.h.input, s.w.input, s.h.padding, s.w.padding, word(p.bias), c.pages,
                c.warps, static_cast<int>(resident));
  plan.kernel = text.data();
  plan.what =
      "whole planes, " + std::to_string(c.pages) + " pages, " + std::to_string(32 * c.warps) + " threads";
  return true;
}

void add_whole_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  constexpr std::int64_t kLongest = 1000;
  constexpr int kMostWidth = 15;
  const auto is_exact = [](const Axis& axis, int kernel) {
    return axis.output == axis.input + 2 * axis.padding - kernel + 1;
  };
  if (!weighs(p) || p.input_alignment < 16 || p.output_alignment < 16 ||
      std::max({s.h.input, s.w.input, s.h.output, s.w.output}) > kMostWidth ||
      !is_exact(s.h, s.kernel.kernel_h) || !is_exact(s.w, s.kernel.kernel_w) || whole_products(s) > kLongest)
    return;
  std::vector<std::pair<double, WholeConfig>> configs;
  Plan plan;
  for (const int pages : {2, 3, 4})
    for (const int warps : {1, 2, 4, 8})
      for (const std::int64_t waves : {1, 2}) {
        const WholeConfig c{pages, warps, waves};
        if (plan_whole(p, s, c, false, plan)) configs.emplace_back(plan.cost, c);
      }
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_whole(p, s, config, true, best); }, plans);
}

/// Whether columns can do it, and are worth a try.
bool may_use_columns(const Problem& p, const Shape& s) {
  constexpr int kFewestTaps = 15;
  const Conv2dGeometry& g = p.geometry;
  const auto suits = [](const Axis& axis, int kernel) { return axis.padding >= 0 && axis.padding < kernel; };
  return p.boxes && !p.channels_last && p.dtype == DType::Float32 && !p.accumulate && !p.transforms &&
         p.hook == Hook::None && (s.forward || weighs(p)) && g.stride == Size2(1) && g.dilation == Size2(1) &&
         g.multiplier() == 1 && taps_of(s.kernel) >= kFewestTaps && suits(s.h, s.kernel.kernel_h) &&
         suits(s.w, s.kernel.kernel_w) && s.h.output <= s.h.input + s.h.padding;
}

}  // namespace

void add_column_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_columns(p, s)) return;
  std::vector<std::pair<double, ColumnConfig>> configs;
  Plan plan;
  each_column(p, s, [&](const ColumnConfig& c) {
    if (plan_columns(p, s, c, false, plan)) configs.emplace_back(plan.cost, c);
  });
  std::stable_sort(configs.begin(), configs.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  constexpr double kLater = 0.05;
  std::map<std::array<int, 3>, int> seen;
  for (auto& [cost, c] : configs) {
    c.handicap = 1 + kLater * seen[{c.tile.columns, c.tile.rows, c.tile.team}]++;
    cost *= c.handicap;
  }
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_columns(p, s, config, true, best); }, plans);
  add_whole_plans(p, s, plans);
}

}  // namespace lamella::depthwise
