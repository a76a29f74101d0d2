#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

#include "layers/depthwise_conv2d/cuda/cut_map_boxes.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Boxes of whole small maps, of sixteen bits.
namespace lamella::depthwise {
namespace {

constexpr int kSpilled = 8;  // registers, which cost less than a block that is not there

/// Registers that a thread will want: of taps, sources and results.
int map_registers(const Shape& s, const MapTileSizes& t) {
  const int matrices = t.matrices(s.kernel);
  return 40 + t.warp_channels * (4 * matrices + 2 * t.sources(s.kernel) + 5);
}

/// Estimated milliseconds: four limits, of which the largest counts most. Counted, and scaled so that on an
/// H200 the best of a shape takes about as much of it as in other families, 0.84.
double map_cost(const Shape& s, const MapTileSizes& t, const Plan& plan, double resident) {
  constexpr double kClocks = kMultiprocessors * 1.75e6;  // of all multiprocessors, a millisecond
  const double x = static_cast<double>(s.images * s.channels) * s.h.input * s.w.input,
               y = static_cast<double>(s.images * s.channels) * s.h.output * s.w.output;
  const double items = static_cast<double>(plan.pixels.items) * plan.pixels.cut.channel_blocks;
  // Of a turn of a warp.
  const double turns = items * t.consumers() * t.turns, channels = t.warp_channels;
  const double sources = t.sources(s.kernel), results = t.results();
  double products = 0;
  for (int i = 0; i < t.results(); ++i)
    products += std::min(t.highest(s.kernel), t.sources(s.kernel) - 1 - i) - std::max(t.lowest(), -i) + 1;
  const double matrices = t.turns > 1 ? t.matrices(s.kernel) : 0;
  const double instructions = sources * (4 + 2 * channels) + channels * products +
                              results * (channels * 6 + 4) + matrices * 4 * channels + 30;
  const double wavefronts = sources * 16 + results * 16 + matrices * 4 * channels;
  const double page = static_cast<double>(box_bytes(plan.x_box));
  const double in_flight = std::max(resident * (t.pages - 1) * 2 * t.images() * t.channels *
                                        static_cast<double>(s.h.input) * s.w.input / 1e3,
                                    2.0);
  const double narrow = s.channels > t.channels ? 0.6 / t.channels : 0;
  const double memory = (x + y) * 2 / 4.15e9 *
                        (0.99 + 19.2 / in_flight + 2 * (sectors_of(s.channels, t.channels) - 1) + narrow);
  const double shared = (turns * wavefronts + items * 2 * page / 128) * 1.3 / kClocks;
  const double issue = turns * instructions / 4 * 1.3 / kClocks;
  // One page after the other, of which all but one are on their way.
  const double latency = items / resident * (2500 + t.turns * 2.0 * instructions) / kClocks;
  constexpr double kPower = 4;
  double sum = 0;
  for (const double limit : {memory, shared, issue, latency}) sum += std::pow(limit, kPower);
  const double places = kMultiprocessors * resident, blocks = static_cast<double>(plan.launch.blocks);
  const double uneven = std::ceil(blocks / places) * plan.pixels.items_per_part * places / items;
  const double scale = t.width == 8 ? 0.8 : 1.2;
  return scale * (std::pow(sum, 1 / kPower) * (1 + 0.5 * std::max(0.0, uneven - 1)) +
                  std::ceil(blocks / places) * 2e-3 + 0.0026);
}

/// The plan of a tile. Returns whether it fits.
bool plan_map_boxes(const Problem& p, const Shape& s, const MapTileSizes& t, bool named, Plan& plan) {
  plan = {};
  plan.family = Plan::Family::MapBoxes;
  plan.pixels.h = s.h, plan.pixels.w = s.w;
  constexpr auto kAll = static_cast<std::int64_t>(kMultiprocessors);
  const BoxPlan boxes = cut_map_boxes(plan.pixels, s.images, s.channels, s.kernel, t, kAll);
  plan.launch = boxes.launch;
  plan.x_box = boxes.x, plan.y_box = boxes.y;
  if (!can_launch(p, plan.launch)) return false;
  const int wanted = map_registers(s, t) - kSpilled;
  auto resident =
      static_cast<int>(std::min(blocks_by_shared(p, plan.launch), kResidentThreads / plan.launch.threads));
  while (resident > 0 && registers_of(plan.launch.threads, resident) < wanted) --resident;
  if (resident < 1) return false;
  share_items_among(plan.pixels, plan.launch, plan.pixels.items, kAll * resident);
  if (plan.launch.blocks > kMostBlocks) return false;
  plan.launch.parts = 0;
  plan.cost = map_cost(s, t, plan, resident);
  if (!named) return true;
  std::array<char, 256> text{};
  std::snprintf(
      text.data(), text.size(),
      "forward_map_boxes<%s, Kernel<%d, %d, 1, 1>, MapTile<%d, %d, %d, %d, %d, %d, %d, %d, %d, %d>, %d>",
      type_name(p.dtype), s.kernel.kernel_h, s.kernel.kernel_w, t.width, t.in_rows, t.out_rows, t.lead,
      t.bands, t.channels, t.warp_channels, t.turns, t.groups, t.pages, resident);
  plan.kernel = text.data();
  plan.what = "map boxes of " + std::to_string(t.width) + " columns, " + std::to_string(t.channels) +
              " channels (" + std::to_string(t.turns) + " x " + std::to_string(t.warp_channels) +
              " to a warp), " + std::to_string(t.pages) + " pages of " + std::to_string(t.images()) +
              " images";
  if (t.bands > 1) plan.what += ", two bands";
  return true;
}

/// Calls add(tile) for what may be worth a thought.
template <class Add>
void each_map_tile(const Shape& s, const Add& add) {
  constexpr int kLargestMap = 16;
  const int columns = std::max(s.w.input, s.w.output), rows = std::max(s.h.input, s.h.output);
  if (columns > kLargestMap || rows > kLargestMap) return;
  MapTileSizes t{};
  t.width = columns <= 8 ? 8 : 16;
  t.in_rows = s.h.input, t.out_rows = s.h.output, t.lead = -s.h.origin(0);
  for (const int bands : {1, 2}) {
    if (bands == 2 && (t.width == 8 || t.out_rows < 4)) continue;  // a band of two rows is mostly edge
    t.bands = bands;
    for (const int channels : {16, 32, 64}) {
      if (channels > round_up(s.channels, 16) || (wasteful(s.channels, channels, 0.73) && channels > 16))
        continue;
      t.channels = channels;
      for (const int warp_channels : {2, 4, 8})
        for (const int turns : {1, 2, 4})
          for (const int groups : {1, 2, 4})
            for (const int pages : {2, 3, 4, 6}) {
              t.warp_channels = warp_channels, t.turns = turns, t.groups = groups, t.pages = pages;
              if (warp_channels * turns > 8 || t.images() / 2 >= s.images) continue;
              constexpr int kLeastWarps = 2, kMostWarps = 16;
              if (t.consumers() < kLeastWarps || t.consumers() > kMostWarps) continue;
              add(t);
            }
    }
  }
}

bool may_use_map_boxes(const Problem& p, const Shape& s) {
  constexpr int kBoxAlignment = 16;
  return p.boxes && p.channels_last && s.forward && s.number == 2 && s.kernel.repeat == 1 && !p.accumulate &&
         !p.exact_taps && p.hook == Hook::None && !loads_transformed(p) &&
         p.input_alignment >= kBoxAlignment && p.output_alignment >= kBoxAlignment &&
         s.kernel.stride_h == 1 && s.kernel.stride_w == 1;
}

}  // namespace

void add_map_box_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_map_boxes(p, s)) return;
  Plan plan;
  std::vector<std::pair<double, MapTileSizes>> tiles;
  each_map_tile(s, [&](const MapTileSizes& tile) {
    if (plan_map_boxes(p, s, tile, false, plan)) tiles.emplace_back(plan.cost, tile);
  });
  add_best(
      tiles, [&](const MapTileSizes& tile, Plan& best) { plan_map_boxes(p, s, tile, true, best); }, plans);
}

}  // namespace lamella::depthwise
