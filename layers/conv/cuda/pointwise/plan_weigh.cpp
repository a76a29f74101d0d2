#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/conv/cuda/pointwise/plan.h"

// The weight's gradient.
namespace lamella::pointwise {
namespace {

/// Registers of a thread, to within a dozen.
int registers_wanted(const WeighTileSizes& t, const Problem& p) {
  const int m = t.warp_outputs / 16, n = t.warp_inputs / 8;
  return 4 * m * n + 2 * n + 36 + (p.bias ? 4 * m : 0) + (p.load == Load::Plain ? 0 : 2 * n + 6);
}

double cost_of(const Problem& p, const WeighTileSizes& t, const Plan& plan) {
  const double m = t.warp_outputs / 16.0, n = t.warp_inputs / 8.0, pixels = static_cast<double>(p.pixels);
  const double rows = t.down() * t.warp_outputs, columns = t.across() * t.warp_inputs;
  const double x = 2 * pixels * p.in_channels, g = 2 * pixels * p.out_channels;
  const double tiles = plan.weigh.input_tiles * plan.weigh.output_tiles, resident = plan.blocks_of_sm;
  const double blocks = static_cast<double>(plan.launch.blocks), items = plan.weigh.items * tiles;
  const double of_sm = 1 / (kMultiprocessors * kClocks);
  const double parts = 4.0 * plan.launch.parts * p.in_channels * p.out_channels;
  // Of a warp in a page.
  const double steps = static_cast<double>(t.pixels) / 16 / t.depths;
  const double page =
      2.0 * t.pixels * (std::ceil(rows / t.g_box) * t.g_box + std::ceil(columns / t.x_box) * t.x_box);
  const double loads = steps * (m + n / 2);
  double instructions = 40 + steps * (12 + (m + n / 2) * 2 + m * n + (p.bias ? m : 0));
  if (p.load == Load::Clamp) instructions += steps * n * 2 * 7;
  if (p.load == Load::HardSwish) instructions += steps * n * 2 * 17;
  const double warps = t.warps(), warp_items = items * warps;

  Limits l;
  l.memory = (x * narrow_rows(t.x_box, t.fold_x) + g * narrow_rows(t.g_box, t.fold_g)) / kMemoryRate;
  l.cache = (x * plan.weigh.output_tiles + g * plan.weigh.input_tiles + 2 * parts) / kCacheRate;
  l.shared = (items * page + warp_items * loads * 512) / 128 * 1.1 * of_sm;
  l.products = warp_items * steps * (m * n + (p.bias ? m / t.across() : 0)) * kProductClocks * of_sm;
  l.issue = warp_items * instructions / 4 * 1.15 * of_sm;
  l.latency = warp_items / (resident * warps) * (200 + steps * (90 + m * n * 4) + instructions * 1.2) * of_sm;
  l.in_flight = resident * page * (t.pages - 1);
  const double of_busiest = std::ceil(blocks / kMultiprocessors) * plan.weigh.items_per_part;
  l.imbalance = of_busiest / (items / kMultiprocessors);
  // What each block does at its end, one after the other, and the second kernel.
  const double end =
      (t.depths - 1) * (rows * columns / 32 / (t.across() * t.down()) * 4 + 100) + rows * columns * 4 / 64;
  return estimate(l) + std::ceil(blocks / kMultiprocessors / resident) * end / kClocks + 0.003 +
         2 * parts / kCacheRate;
}

bool complete(const Problem& p, const WeighTileSizes& t, int waves, Plan& plan) {
  plan = {};
  PointLaunch one;
  one.threads = 32 * (t.warps() + 1);
  one.shared_bytes = weigh_shared_bytes(t);
  if (one.shared_bytes > p.shared_bytes) return false;
  plan.blocks_of_sm = std::min(8, blocks_of_sm(p, one, registers_wanted(t, p)));
  if (plan.blocks_of_sm < 1) return false;
  const auto wanted = static_cast<std::int64_t>(kMultiprocessors) * plan.blocks_of_sm * waves;
  const WeighCut cut = cut_weigh(plan.weigh, p.pixels, p.in_channels, p.out_channels, t, wanted);
  plan.launch = cut.launch;
  plan.item_pixels = t.pixels;
  plan.x = cut.x, plan.g = cut.g;
  plan.cost = cost_of(p, t, plan);
  return true;
}

void name_plan(const Problem& p, const WeighTileSizes& t, Plan& plan) {
  std::array<char, 320> text{};
  std::snprintf(text.data(), text.size(),
                "weigh_points<%s, WeighTile<%d, %d, %d, %d, %d, %d, %d, %d, %d, %s, %s>, %s, %s, %d>",
                type_name(p.dtype), t.outputs, t.inputs, t.warp_outputs, t.warp_inputs, t.depths, t.pixels,
                t.g_box, t.x_box, t.pages, word(t.fold_g), word(t.fold_x), load_name(p.load), word(p.bias),
                plan.blocks_of_sm);
  plan.kernel = text.data();
  plan.what = std::to_string(plan.weigh.output_tiles) + " x " + std::to_string(plan.weigh.input_tiles) +
              " tiles of " + std::to_string(t.outputs) + " x " + std::to_string(t.inputs) + ", warps of " +
              std::to_string(t.warp_outputs) + " x " + std::to_string(t.warp_inputs) + " and " +
              std::to_string(t.depths) + " deep, " + std::to_string(t.pixels) + " pixels, boxes of " +
              std::to_string(t.g_box) + " and " + std::to_string(t.x_box) + ", " + std::to_string(t.pages) +
              " pages, " + std::to_string(plan.launch.blocks) + " blocks, " +
              std::to_string(plan.blocks_of_sm) + " to a multiprocessor, " +
              std::to_string(plan.launch.shared_bytes >> 10) + " KB";
}

/// Sizes to cut so many channels into: all of them, or several equal pieces of thirty-twos.
std::vector<int> tile_sizes(int channels) {
  constexpr int kLargest = 256;
  std::vector<int> sizes;
  if (channels <= kLargest) sizes.push_back(channels);
  for (const int size : {64, 96, 128, 160, 192, 256})
    if (size < channels && ceiling(channels, size) * size <= channels + std::max(channels / 8, 16))
      sizes.push_back(size);
  if (sizes.empty()) sizes.push_back(128);
  return sizes;
}

/// Sizes to share so many channels of a tile out among warps: sixteens that waste little.
std::vector<int> warp_sizes(int channels) {
  constexpr int kLargest = 128;
  const int whole = ceiling(channels, 16) * 16;
  std::vector<int> sizes;
  for (int warps = 1; warps <= 8; ++warps) {
    const int size = ceiling(ceiling(whole, warps), 16) * 16;
    if (size <= kLargest && (sizes.empty() || sizes.back() != size)) sizes.push_back(size);
  }
  return sizes;
}

template <class Add>
void each_tile(const Problem& p, const Add& add) {
  constexpr int kMostSums = 128, kMostWarps = 15, kLeastWarps = 3;
  WeighTileSizes t{};
  for (const int outputs : tile_sizes(p.out_channels))
    for (const int inputs : tile_sizes(p.in_channels))
      for (const int warp_outputs : warp_sizes(outputs))
        for (const int warp_inputs : warp_sizes(inputs)) {
          if (warp_outputs / 16 * (warp_inputs / 8) * 4 > kMostSums) continue;
          for (const int depths : {1, 2, 3, 4, 7, 8}) {
            t = {outputs, inputs, warp_outputs, warp_inputs, depths, 0, 0, 0, 0};
            if (t.warps() > kMostWarps || t.warps() < kLeastWarps) continue;
            // Boxes cover what the warps have.
            const int g_box = box_channels(t.down() * warp_outputs).front(),
                      x_box = box_channels(t.across() * warp_inputs).front();
            for (const int deep : {1, 2, 4, 8}) {
              t.pixels = 16 * depths * deep;
              if (t.pixels < 32 || t.pixels > 256) continue;
              for (const int pages : {2, 3, 4}) {
                t.g_box = g_box, t.x_box = x_box, t.pages = pages;
                t.fold_g = outputs == p.out_channels && folds(p, outputs, g_box);
                t.fold_x = inputs == p.in_channels && folds(p, inputs, x_box);
                add(t);
              }
            }
          }
        }
}

}  // namespace

void add_weigh_plans(const Problem& p, std::vector<Plan>& plans) {
  struct Config {
    double cost;
    WeighTileSizes tile;
    int waves;
  };
  constexpr std::size_t kMostPlans = 32;
  std::vector<Config> configs;
  Plan plan;
  each_tile(p, [&](const WeighTileSizes& tile) {
    for (const int waves : {1, 2})
      if (complete(p, tile, waves, plan)) configs.push_back({plan.cost, tile, waves});
  });
  const auto last = configs.begin() + static_cast<std::ptrdiff_t>(std::min(configs.size(), kMostPlans));
  std::partial_sort(configs.begin(), last, configs.end(),
                    [](const Config& a, const Config& b) { return a.cost < b.cost; });
  for (auto config = configs.begin(); config != last; ++config) {
    complete(p, config->tile, config->waves, plan);
    name_plan(p, config->tile, plan);
    plans.push_back(plan);
  }
}

}  // namespace lamella::pointwise
