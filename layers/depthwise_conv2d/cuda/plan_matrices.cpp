#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_matrices.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Matrices: dense planes of sixteen-bit numbers, moved by the copy engine and multiplied by the matrix units.
namespace lamella::depthwise {
namespace {

struct MatrixConfig {
  MatrixTileSizes tile{};
  int threads = 0, strips = 1;
  std::int64_t bytes = 0, wanted_blocks = 0;
};

int window_rows(const Shape& s, const MatrixTileSizes& t) { return t.rows() + s.kernel.kernel_h - 1; }
/// Products of a step.
int products_of(const Shape& s, const MatrixTileSizes& t) {
  return static_cast<int>(ceiling(std::int64_t{window_rows(s, t)} * t.read / 8, 2));
}

/// Whether the kernel is compiled for the planes' rows: their code must not be long.
bool is_known(const Shape& s, const MatrixConfig& c, const PlaneCut& cut) {
  constexpr std::int64_t kMostCode = 800;
  const std::int64_t steps = ceiling(s.h.output, c.tile.rows());
  return cut.bands == 1 && c.strips == 1 &&
         steps * c.tile.held * (products_of(s, c.tile) + 2 * c.tile.rows() * c.tile.read / 8 + 4) <=
             kMostCode;
}

/// Of a thread, to within some.
int registers(const Shape& s, const MatrixTileSizes& t) {
  return 46 + t.held * (4 * products_of(s, t) + 4) + window_rows(s, t) * t.read / 8 +
         (s.w.input % 2 == 1 ? 8 * t.held - 2 : 0);
}

/// Estimated milliseconds, as of runs, from counted instructions, not fitted.
double cost(const Problem& p, const Shape& s, const MatrixConfig& c, const Plan& plan, bool known,
            double resident) {
  constexpr double kClocks = kMultiprocessors * 1.8e6;  // of all multiprocessors, a millisecond
  const MatrixTileSizes& t = c.tile;
  const PlaneCut& cut = plan.planes.cut;
  const Conv2dGeometry& g = p.geometry;
  const double x = static_cast<double>(g.batch * g.in_channels) * static_cast<double>(g.in.h * g.in.w);
  const double y = static_cast<double>(g.batch * g.out_channels) * static_cast<double>(g.out.h * g.out.w);
  const double products = products_of(s, t), pieces = t.read / 8.0, rows = t.rows();
  const int together = t.together(s.w.output);
  // Of a band: images side by side, passes over its columns, and steps down.
  const double walks = static_cast<double>(ceiling(t.images, together) *
                                           ceiling(t.groups(s.w.output), t.span(s.w.output))),
               strips = cut.row_groups,
               steps = static_cast<double>(ceiling(cut.strip_rows, t.rows())) * strips;
  const double loads = rows * pieces, stores = s.w.output % 2 == 1 ? 4 : 2;
  const double step = products + 2 * loads + 2 * stores + 2 + (known ? 3 : 16);
  const double kept = (window_rows(s, t) - rows) * pieces;
  const double items = plan.planes.items * static_cast<double>(ceiling(s.out_channels, cut.planes));
  const double consumers = c.threads / 32.0 - 1;
  const double of_item = cut.planes * walks * (steps * step + strips * (2 * kept + 60)) + consumers * 150;
  const double wavefronts =
      cut.planes * walks * (steps * (loads * 1.2 + stores * 1.7) + strips * kept * 1.2) +
      static_cast<double>(cut.run_numbers + cut.result_numbers) * t.images * s.number / 128;
  const double page = static_cast<double>(cut.input_numbers) * s.number;
  const double in_flight = resident * page * (t.pages - 1) / 1e3;
  const double memory = 0.99 * (x + y) * s.number / 4.15e9 * (1 + 2.3 / in_flight);
  const double issue = items * of_item / 4 * 1.3 / kClocks;
  const double matrix = items * cut.planes * walks * steps * products * 2 / kClocks;
  const double shared = items * wavefronts * 1.3 / kClocks;
  const double rounds = std::ceil(walks * strips / t.warps) * t.held;  // of a warp
  const double chain = products >= 6 ? products / 2 : products;        // of products that wait for each other
  const double latency = (items * (1800 + rounds * (steps / strips * (60 + 35 * chain) + 150)) +
                          static_cast<double>(plan.launch.blocks) * 2000) /
                         resident / kClocks;
  constexpr double kPower = 4.07;
  double sum = 0;
  for (const double limit : {memory, issue, matrix, shared, latency}) sum += std::pow(limit, kPower);
  const double waves = static_cast<double>(plan.launch.blocks) / (kMultiprocessors * resident);
  return std::pow(sum, 1 / kPower) * (1 + 0.11 * (std::ceil(waves) / waves - 1)) + 0.0087;
}

/// The plan of a configuration; false: it does not fit.
bool plan_matrices(const Problem& p, const Shape& s, const MatrixConfig& c, bool named, Plan& plan) {
  const MatrixTileSizes& t = c.tile;
  plan = {};
  plan.family = Plan::Family::Matrices;
  plan.planes.h = s.h;
  plan.planes.w = s.w;
  plan.launch = cut_forward_matrices(plan.planes, s.images, s.out_channels, s.kernel, t, c.threads, c.strips,
                                     c.bytes, c.wanted_blocks);
  if (!can_launch(p, plan.launch)) return false;
  constexpr int kMostThreads = 1536, kSpilled = 8;
  constexpr std::int64_t kLeastBlocks = 2;  // one computes while the other waits
  const PlaneCut& cut = plan.planes.cut;
  // No warp without work.
  const std::int64_t walks = ceiling(t.images, t.together(s.w.output)) *
                             ceiling(t.groups(s.w.output), t.span(s.w.output)) * cut.row_groups;
  if (walks < t.warps || cut.row_groups < c.strips) return false;
  const bool known = is_known(s, c, cut);
  std::int64_t resident = std::min<std::int64_t>(kMostThreads / c.threads, blocks_by_shared(p, plan.launch));
  while (resident >= kLeastBlocks &&
         registers_of(c.threads, static_cast<int>(resident)) < registers(s, t) - kSpilled)
    --resident;
  if (resident < kLeastBlocks) return false;
  plan.cost = cost(p, s, c, plan, known, static_cast<double>(resident));
  plan.resident = static_cast<int>(resident), plan.registers = registers(s, t) - kSpilled;
  plan.item_images = t.images;
  if (!named) return true;

  std::array<char, 320> text{};
  int length = std::snprintf(text.data(), text.size(),
                             "forward_matrices<%s, Kernel<%d, %d, 1, 1, 1>, MatrixPlane<%d, %d",
                             type_name(p.dtype), s.kernel.kernel_h, s.kernel.kernel_w, s.w.input, s.w.output);
  const auto rest = [&] { return text.size() - static_cast<std::size_t>(length); };
  if (known)
    length += std::snprintf(text.data() + length, rest(), ", %d, %d, %d", s.h.input, s.h.output, s.h.padding);
  std::snprintf(text.data() + length, rest(), ">, MatrixTile<%d, %d, %d, %d, %d, %d>, %s, %d, %d>", t.columns,
                t.read, t.images, t.held, t.warps, t.pages, word(cut.bands > 1), c.threads,
                static_cast<int>(resident));
  plan.kernel = text.data();
  plan.what = "matrices of " + std::to_string(cut.planes) + " planes in " + std::to_string(cut.bands) +
              " bands, " + std::to_string(cut.row_groups) + " strips, " + std::to_string(t.images) +
              " images, " + std::to_string(t.rows()) + "x" + std::to_string(t.columns) + ", " +
              std::to_string(t.pages) + " pages, " + std::to_string(c.threads) + " threads";
  return true;
}

/// Calls add(config) for what may be worth a thought.
template <class Add>
void each_matrix(const Shape& s, const Add& add) {
  const bool odd = s.w.input % 2 == 1;
  MatrixConfig c;
  for (const int columns : {4, 8}) {
    // The least whole eights that a window fits in, with a number before it where it begins within a word.
    const int shift = odd || s.w.padding % 2 == 1 ? 1 : 0, window = columns + s.kernel.kernel_w - 1 + shift;
    if (window > 16) continue;
    const int read = window > 8 ? 16 : 8;
    for (const int images : {1, 2, 4, 8, 16})
      for (const int held : {1, 2, 4})
        for (const int warps : {1, 2, 4, 8}) {
          if (images > s.images && images > 1) continue;
          for (const int threads : {160, 288}) {
            c.tile = {columns, read, images, held, warps, 0};
            constexpr int kMostTaps = 48;  // words of a thread
            if (4 * held * products_of(s, c.tile) > kMostTaps || (threads / 32 - 1) % warps != 0) continue;
            if (c.tile.planes(threads) > s.channels && c.tile.planes(threads) > 1) continue;
            for (const int strips : {1, 2, 4})
              for (const int kilobytes : {8, 16, 32})
                for (const int pages : {2, 3, 4}) {
                  c.tile.pages = pages, c.threads = threads, c.strips = strips;
                  c.bytes = std::int64_t{kilobytes} << 10;
                  add(c);
                }
          }
        }
  }
}

/// Whether the kernel can do it.
bool may_use_matrices(const Problem& p, const Shape& s) {
  constexpr int kWord = 4;  // bytes
  const Conv2dGeometry& g = p.geometry;
  const int read = s.turned ? p.output_alignment : p.input_alignment,
            written = s.turned ? p.input_alignment : p.output_alignment;
  return p.boxes && !p.channels_last && !p.accumulate && !p.exact_taps && s.forward && s.number == 2 &&
         p.hook == Hook::None && !loads_transformed(p) && s.kernel.repeat == 1 && g.stride == Size2(1) &&
         g.dilation == Size2(1) && s.h.padding >= 0 && s.w.padding >= 0 && read >= kWord &&
         (s.w.output % 2 == 1 || written >= kWord) &&
         // All images begin alike.
         (s.w.input % 2 == 0 || s.channels * s.h.input % 2 == 0);
}

}  // namespace

void add_matrix_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_matrices(p, s)) return;
  std::vector<std::pair<double, MatrixConfig>> configs;
  Plan plan;
  each_matrix(s, [&](MatrixConfig c) {
    // The best number of blocks alone: so the plans that are tried first differ in more than that.
    double least = 0;
    MatrixConfig best;
    for (const std::int64_t wanted : {528, 1056, 2112}) {
      c.wanted_blocks = wanted;
      if (!plan_matrices(p, s, c, false, plan) || (least > 0 && plan.cost >= least)) continue;
      least = plan.cost, best = c;
    }
    if (least > 0) configs.emplace_back(least, best);
  });
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_matrices(p, s, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
