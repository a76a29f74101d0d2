#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/conv/cuda/pointwise/plan.h"

// Pixels times weights: forward, and the input's gradient.
namespace lamella::pointwise {
namespace {

/// Registers of a thread, to within a dozen: sums, what a hook keeps, and what is on its way to a product.
int registers_wanted(const PointTileSizes& t, Load load, Hook hook) {
  const int m = ceiling(t.outputs, 16), n = t.warp_pixels / 8;
  return 4 * m * n + 2 * n + 34 + (hook == Hook::None ? 0 : 16) + (load == Load::Plain ? 0 : 10);
}

double cost_of(const Problem& p, const PointTileSizes& t, const Plan& plan) {
  const double m = ceiling(t.outputs, 16), n = t.warp_pixels / 8.0, steps = ceiling(t.inputs, 16),
               chunks = ceiling(t.inputs, t.box), out_boxes = ceiling(t.outputs, t.store_box);
  const bool sums = has_sums(p.hook);
  const double pixels = static_cast<double>(p.pixels), slices = plan.work.slices;
  const double x = 2 * pixels * p.inputs(), y = 2 * pixels * p.outputs(), z = sums ? y : 0;
  const double blocks = static_cast<double>(plan.launch.blocks), resident = plan.blocks_of_sm;
  const double warp_items = static_cast<double>(plan.work.items) * slices * t.warps;
  const double items_of_block = static_cast<double>(plan.work.items) * slices / blocks;
  const double of_sm = 1 / (kMultiprocessors * kClocks);
  // Kilobytes through shared memory: 128 bytes a clock.
  const double weights = m * steps * 512;
  const double weights_written =
      2.0 * t.inputs * t.outputs / (t.resident ? std::max(1.0, items_of_block) * t.warps : t.warps);
  const double x_bytes = 2.0 * t.warp_pixels * chunks * t.box,
               y_bytes = 2.0 * t.warp_pixels * out_boxes * t.store_box;
  const double through = weights + weights_written + x_bytes + n / 2 * steps * 512 + 2 * m * n / 2 * 512 +
                         (sums ? y_bytes + m * n / 2 * 512 : 0);
  // Instructions of a warp for an item.
  const double x_pairs = n * steps * 2;
  double instructions = 120 + 25 * (chunks + (sums ? out_boxes : 0)) + steps * (4 + n / 2 * 1.5 + m * 1.5) +
                        m * n * steps + m * n * 2 + m * n / 2 * 2;
  if (p.load == Load::Clamp) instructions += x_pairs * 7 + steps * 2;
  if (p.load == Load::HardSwish) instructions += x_pairs * 17 + steps * 2;
  if (p.hook == Hook::Moments) instructions += m * n * 3 + m * 24;
  if (p.hook == Hook::ClampSums) instructions += m * n * 7 + m * 30;
  if (p.hook == Hook::HardSwishSums) instructions += m * n * 26 + m * 30;

  Limits l;
  l.memory =
      (x * narrow_rows(t.box, t.fold_in) + (y + z) * narrow_rows(t.store_box, t.fold_out)) / kMemoryRate;
  l.cache = (x * slices + y + z + 2.0 * t.inputs * t.outputs * (t.resident ? blocks : warp_items / t.warps)) /
            kCacheRate;
  l.shared = warp_items * through / 128 * 1.1 * of_sm;
  l.products = warp_items * m * n * steps * kProductClocks * of_sm;
  l.issue = warp_items * instructions / 4 * 1.15 * of_sm;
  // A warp's own chain: waits for pages, products that wait for their numbers, and the results' way out.
  l.latency = warp_items / (resident * t.warps) *
              (700 + (chunks + (sums ? out_boxes : 0)) * 80 + steps * (80 + m * n * 4) + instructions * 1.6) *
              of_sm;
  const double page = x_bytes / chunks * t.warps;
  l.in_flight = resident * page * (t.pages - 1);
  const double of_busiest = std::ceil(blocks / kMultiprocessors) * plan.work.items_per_part;
  l.imbalance = of_busiest / (static_cast<double>(plan.work.items) * slices / kMultiprocessors);
  return estimate(l) +
         static_cast<double>(p.hook == Hook::None ? 0 : plan.launch.parts) * 16 * p.outputs() / 1e9;
}

/// Completes a plan; false: it does not fit.
bool complete(const Problem& p, const PointTileSizes& t, int waves, Plan& plan) {
  const bool turned = p.pass == Pass::Input;
  constexpr double kSpilled = 1.0;
  plan = {};
  PointLaunch one;
  one.threads = 32 * (t.warps + 1);
  one.shared_bytes = point_shared_bytes(t, turned, p.load, p.hook);
  if (one.shared_bytes > p.shared_bytes) return false;
  plan.blocks_of_sm =
      std::min(8, blocks_of_sm(p, one, static_cast<int>(kSpilled * registers_wanted(t, p.load, p.hook))));
  if (plan.blocks_of_sm < 1) return false;
  const auto wanted = static_cast<std::int64_t>(kMultiprocessors) * plan.blocks_of_sm * waves;
  const PointCut cut = cut_points(plan.work, p.pixels, p.outputs(), t, turned, p.load, p.hook, wanted);
  plan.launch = cut.launch;
  plan.item_pixels = t.pixels();
  plan.x = cut.x, plan.weights = cut.weights, plan.y = cut.y, plan.z = cut.z;
  plan.cost = cost_of(p, t, plan);
  return true;
}

void name_plan(const Problem& p, const PointTileSizes& t, Plan& plan) {
  std::array<char, 320> text{};
  std::snprintf(text.data(), text.size(),
                "multiply_points<%s, PointTile<%d, %d, %d, %d, %d, %d, %d, %s, %s, %s>, %s, %s, %s, %d>",
                type_name(p.dtype), t.inputs, t.outputs, t.warps, t.warp_pixels, t.box, t.store_box, t.pages,
                word(t.resident), word(t.fold_in), word(t.fold_out), word(p.pass == Pass::Input),
                load_name(p.load), hook_name(p.hook), plan.blocks_of_sm);
  plan.kernel = text.data();
  plan.what = std::to_string(t.warps) + " x " + std::to_string(t.warp_pixels) + " pixels, " +
              std::to_string(plan.work.slices) + " x " + std::to_string(t.outputs) + " outputs, boxes of " +
              std::to_string(t.box) + (t.fold_in ? " (folded)" : "") + " and " + std::to_string(t.store_box) +
              (t.fold_out ? " (folded), " : ", ") + std::to_string(t.pages) + " pages, weights " +
              (t.resident ? "resident" : "with pages") + ", " + std::to_string(plan.launch.blocks) +
              " blocks, " + std::to_string(plan.blocks_of_sm) + " to a multiprocessor, " +
              std::to_string(plan.launch.shared_bytes >> 10) + " KB";
}

/// Calls add(tile) for what may be worth a thought.
template <class Add>
void each_tile(const Problem& p, const Add& add) {
  const int outputs = p.outputs();
  constexpr int kMostSums = 128, kMostOutputs = 256, kMostPixels = 256;
  std::vector<int> slices;
  if (outputs <= kMostOutputs) slices.push_back(outputs);
  for (const int size : {32, 64, 96, 128, 160, 192, 256}) {
    // Slices that the last of which is nearly empty are no better than others.
    const int reached = ceiling(outputs, size) * size;
    if (size < outputs && reached <= outputs + std::max(outputs / 8, 16)) slices.push_back(size);
  }
  PointTileSizes t{};
  t.inputs = p.inputs();
  for (const int slice : slices) {
    t.outputs = slice;
    std::vector<int> store_boxes = box_channels(slice);
    if (slice < outputs) std::erase_if(store_boxes, [&](int box) { return slice % box != 0; });
    for (const int warps : {3, 4, 7, 8, 11, 15})
      for (const int warp_pixels : {16, 32, 48, 64}) {
        t.warps = warps, t.warp_pixels = warp_pixels;
        if (ceiling(slice, 16) * warp_pixels / 8 * 4 > kMostSums || t.pixels() > kMostPixels) continue;
        for (const int box : box_channels(t.inputs))
          for (const int store_box : store_boxes)
            for (const int pages : {2, 3, 4, 6})
              for (const bool resident : {true, false}) {
                t.box = box, t.store_box = store_box, t.pages = pages, t.resident = resident;
                t.fold_in = folds(p, t.inputs, box), t.fold_out = folds(p, outputs, store_box);
                add(t);
              }
      }
  }
}

}  // namespace

void add_multiply_plans(const Problem& p, std::vector<Plan>& plans) {
  struct Config {
    double cost;
    PointTileSizes tile;
    int waves;
  };
  constexpr std::size_t kMostPlans = 32;
  std::vector<Config> configs;
  Plan plan;
  each_tile(p, [&](const PointTileSizes& tile) {
    for (const int waves : {1, 2, 4})
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
