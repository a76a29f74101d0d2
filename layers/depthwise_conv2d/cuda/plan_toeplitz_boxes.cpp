#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_toeplitz_boxes.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Boxes of sixteen-bit pixels, multiplied by Toeplitz matrices of large kernels.
namespace lamella::depthwise {
namespace {

struct ToeplitzConfig {
  ToeplitzTileSizes tile{};
  int strip = 0;
  int waves = 0;  ///< of blocks, at most
};

constexpr int kLargestMap = 16;  ///< whose images share an item

/// Registers that a thread will want.
int toeplitz_registers(const Shape& s, const ToeplitzTileSizes& t) {
  const KernelSizes& k = s.kernel;
  const int eights = toeplitz_window(k) + (t.tiles > 1 ? k.stride_w : 0);
  return 40 + 32 * t.rows * t.tiles * k.repeat + 16 * eights +
         8 * toeplitz_words(k) * k.repeat * ((t.rows - 1) * k.stride_h + 1);
}

/// Estimated milliseconds: five limits, of which the largest counts most. Counted, not fitted; on
/// an H200 the best of a shape took 0.87 of it, as the median of those measured.
double toeplitz_cost(const Shape& s, const ToeplitzTileSizes& t, const Plan& plan, double resident) {
  constexpr double kClocks = kMultiprocessors * 1.75e6;  // of all multiprocessors, a millisecond
  const KernelSizes& k = s.kernel;
  const PixelCut& cut = plan.pixels.cut;
  const double x = static_cast<double>(s.images * s.channels) * s.h.input * s.w.input,
               y = static_cast<double>(s.images * s.out_channels) * s.h.output * s.w.output;
  const double item_steps = static_cast<double>(cut.strip_rows) / t.step_rows();
  const double items = static_cast<double>(plan.pixels.items) * cut.channel_blocks,
               steps = items * item_steps, warp_steps = steps * t.consumers();
  // Of a step of a warp.
  const double window = toeplitz_window(k), words = toeplitz_words(k), results = t.rows * t.tiles * k.repeat;
  const double rows = (t.rows - 1) * k.stride_h + k.kernel_h,
               eights = rows * ((t.tiles - 1) * k.stride_w + window);
  const double products = 8 * results * k.kernel_h * window / 2;
  const double instructions = eights * (4 + 16) + rows * (2 * words * k.repeat + 10) + products +
                              8 * results * k.kernel_h * (words > 1 ? 0 : window) * (t.tiles > 1 ? 2 : 1) +
                              results * 40 + 200;
  const double wavefronts = 16 * eights + 8 * rows * words * k.repeat + 16 * results;
  const double page = 2.0 * t.images() * t.channels * plan.x_box.pixels,  // a row of it
      page_rows = t.whole ? t.page_rows : t.step_rows() * k.stride_h;
  const double stored = 2.0 * t.images() * t.channels * k.repeat * t.step_rows() * t.units();
  // What is asked for ahead of the step at hand, besides rows that do not exist.
  const double ahead = page * t.page_rows * (t.pages - t.reach(k)) *
                       std::min(1.0, x * 2 / (items * page * (item_steps * page_rows)));
  const double in_flight = std::max(resident * ahead / 1e3, 2.0);
  const int edge_h = std::max(k.kernel_h - k.stride_h, 0), edge_w = std::max(k.kernel_w - k.stride_w, 0);
  const double again = static_cast<double>(cut.strips - 1) * edge_h * s.h.input_step / s.h.input +
                       static_cast<double>(cut.tiles - 1) * edge_w * s.w.input_step / s.w.input;
  const double narrow = s.channels > t.channels ? 0.6 / t.channels : 0;
  const double memory = (x + y + 0.5 * again * x) * 2 / 4.15e9 *
                        (0.99 + 19.2 / in_flight + 2 * (sectors_of(s.channels, t.channels) - 1) + narrow);
  const double matrix = warp_steps * products * 1.1 / kClocks;
  const double shared = (warp_steps * wavefronts + steps * (page * page_rows + stored) / 128) * 1.3 / kClocks;
  const double issue = warp_steps * instructions / 4 * 1.3 / kClocks;
  const double latency = (steps / resident * (1000 + 2.4 * instructions) + items / resident * 800) / kClocks;
  constexpr double kPower = 4;
  double sum = 0;
  for (const double limit : {memory, matrix, shared, issue, latency}) sum += std::pow(limit, kPower);
  const double places = kMultiprocessors * resident, blocks = static_cast<double>(plan.launch.blocks);
  const double uneven = std::ceil(blocks / places) * plan.pixels.items_per_part * places / items;
  const double tables = std::ceil(blocks / places) * 2e-3;
  const double unsure = t.asks ? 1.05 : 1;  // those have not been measured
  return std::pow(sum, 1 / kPower) * (1 + 0.7 * std::max(0.0, uneven - 1)) * unsure + tables + 0.0026;
}

// A few numbers that do not find a register cost less than a block that is not there.
constexpr int kSpilled = 8;

/// How many blocks a multiprocessor has.
int resident_blocks(const Problem& p, const Shape& s, const ToeplitzTileSizes& t, const Launch& launch) {
  const int wanted = toeplitz_registers(s, t) - kSpilled;
  auto blocks = static_cast<int>(std::min(blocks_by_shared(p, launch), kResidentThreads / launch.threads));
  while (blocks > 0 && registers_of(launch.threads, blocks) < wanted) --blocks;
  return blocks;
}

/// The plan of a configuration. Returns how many blocks a multiprocessor has; 0: it does not fit.
int plan_toeplitz_boxes(const Problem& p, const Shape& s, const ToeplitzConfig& c, bool named, Plan& plan) {
  ToeplitzTileSizes t = c.tile;
  plan = {};
  plan.family = Plan::Family::ToeplitzBoxes;
  plan.pixels.h = s.h;
  plan.pixels.w = s.w;
  t.box_columns = narrow_toeplitz_boxes(plan.pixels, s.kernel, t);
  constexpr auto kAll = static_cast<std::int64_t>(kMultiprocessors);
  const BoxPlan boxes = cut_toeplitz_boxes(plan.pixels, s.images, s.channels, s.kernel, t, c.strip, kAll);
  plan.launch = boxes.launch;
  plan.x_box = boxes.x, plan.y_box = boxes.y;
  if (plan.launch.blocks == 0 || plan.launch.shared_bytes > p.shared_bytes) return 0;
  const int resident = resident_blocks(p, s, t, plan.launch);
  if (resident < 1) return 0;
  share_items_among(plan.pixels, plan.launch, plan.pixels.items, kAll * resident * c.waves);
  if (plan.launch.blocks > kMostBlocks) return 0;
  plan.launch.parts = 0;
  plan.cost = toeplitz_cost(s, t, plan, resident);
  plan.resident = resident, plan.registers = toeplitz_registers(s, t) - kSpilled,
  plan.item_images = t.images();
  if (!named) return resident;
  const KernelSizes& k = s.kernel;
  std::array<char, 320> text{};
  const int length = std::snprintf(
      text.data(), text.size(),
      "forward_toeplitz_boxes<%s, Kernel<%d, %d, %d, %d%s>, ToeplitzTile<%d, %d, "
      "%d, %d, %d, %d, %d, %d, %d, %s",
      type_name(p.dtype), k.kernel_h, k.kernel_w, k.stride_h, k.stride_w, k.repeat > 1 ? ", 2" : "", t.tiles,
      t.rows, t.high, t.wide, t.across, t.image_groups, t.channels, t.page_rows, t.pages, word(t.whole));
  plan.kernel.assign(text.data(), static_cast<std::size_t>(length));
  if (t.box_columns > 0 || t.asks) plan.kernel += ", " + std::to_string(t.box_columns);
  if (t.asks) plan.kernel += ", true";
  plan.kernel += ">, " + std::to_string(resident) + ">";
  plan.what = "toeplitz boxes of " + std::to_string(t.across) + " x " + std::to_string(t.columns()) +
              " columns, " + std::to_string(t.step_rows()) + " rows, " + std::to_string(t.channels) +
              " channels, strips of " + std::to_string(plan.pixels.cut.strip_rows) + ", " +
              std::to_string(t.pages) + " pages";
  if (t.images() > 1) plan.what += " of " + std::to_string(t.images()) + " images";
  if (t.asks) plan.what += ", asked for by a warp that computes";
  return resident;
}

/// Calls add(tile) for what may be worth a thought, without pages.
template <class Add>
void each_toeplitz_tile(const Shape& s, std::int64_t rows, std::int64_t columns, const Add& add) {
  const int most_results = s.kernel.kernel_w > 9 || s.kernel.repeat > 1 ? 2 : 4;
  ToeplitzTileSizes t{};
  for (const auto& [tiles, tile_rows] :
       {std::pair{1, 1}, {1, 2}, {1, 3}, {2, 1}, {1, 4}, {2, 2}, {4, 1}, {3, 1}}) {
    if (tiles * tile_rows > most_results) continue;
    t.tiles = tiles, t.rows = tile_rows;
    for (const int high : {2, 4, 8, 16})
      for (const int wide : {1, 2, 4}) {
        t.high = high, t.wide = wide;
        if (high * wide > 16 || (s.images > 1 && t.deep() / 2 >= s.images)) continue;
        if (s.images == 1 && t.deep() > 1) continue;
        if (t.deep() > 1 && std::max(rows, columns) > 2 * kLargestMap) continue;
        if (wasteful(rows, t.step_rows(), rows < t.step_rows() ? 0.4 : 0.8)) continue;
        for (const int across : {1, 2, 3, 4, 5, 7}) {
          t.across = across;
          if (wasteful(columns, t.units(), columns < 8 ? 0.4 : 0.8)) continue;
          for (const int image_groups : {1, 2, 4}) {
            t.image_groups = image_groups;
            const bool shares = t.images() > 1;
            if (image_groups > 1 &&
                (t.step_rows() < rows || std::max(rows, columns) > kLargestMap || t.images() / 2 >= s.images))
              continue;
            if (shares && wasteful(s.images, t.images(), 0.7)) continue;
            for (const int channels : {16, 32, 64}) {
              t.channels = channels;
              if (channels > round_up(s.channels, 16) || (channels == 16 && s.channels >= 256)) continue;
              if (wasteful(s.channels, channels, 0.73) && channels > 16) continue;
              constexpr int kLeastWarps = 2, kMostWarps = 16;
              if (t.consumers() < kLeastWarps || t.consumers() > kMostWarps) continue;
              // Registers are those of a quarter of a multiprocessor: a warp more may cost all others many.
              for (const bool asks : {false, true}) {
                t.asks = asks;
                if (!asks || t.consumers() % 4 == 0) add(t);
              }
            }
          }
        }
      }
  }
}

bool may_use_toeplitz_boxes(const Problem& p, const Shape& s) {
  constexpr int kBoxAlignment = 16, kLargestStride = 2;
  return p.boxes && p.channels_last && s.forward && s.number == 2 && s.kernel.repeat <= 2 && !p.accumulate &&
         !p.exact_taps && p.hook == Hook::None && !loads_transformed(p) &&
         p.input_alignment >= kBoxAlignment && p.output_alignment >= kBoxAlignment && s.kernel.kernel_w > 1 &&
         std::max(s.kernel.stride_h, s.kernel.stride_w) <= kLargestStride;
}

}  // namespace

void add_toeplitz_box_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_toeplitz_boxes(p, s)) return;
  const std::int64_t rows = ceiling(s.h.output, s.h.output_step),
                     columns = ceiling(s.w.output, s.w.output_step);
  // By the results of a lane, the blocks of a multiprocessor, and who asks for pages: estimates cannot tell
  // which are best.
  constexpr std::size_t kResults = 3, kMostResident = 4, kKinds = kResults * kMostResident * 2, kOfEach = 12;
  using Costed = std::pair<double, ToeplitzConfig>;
  std::array<std::vector<Costed>, kKinds> kinds;
  Plan plan;
  each_toeplitz_tile(s, rows, columns, [&](const ToeplitzTileSizes& tile) {
    std::array<Costed, kKinds> of_tile{};
    ToeplitzConfig c;
    c.tile = tile;
    const KernelSizes& k = s.kernel;
    const int step = tile.step_rows();
    for (const int pieces : {0, 1, 2, 4}) {
      c.tile.whole = pieces == 0;
      if (c.tile.whole != (step >= rows) || (pieces > 0 && step % pieces != 0)) continue;
      c.tile.page_rows =
          c.tile.whole ? (static_cast<int>(rows) - 1) * k.stride_h + k.kernel_h : step * k.stride_h / pieces;
      for (const int more : {1, 2, 3, 4}) {
        c.tile.pages = c.tile.reach(k) + more;
        for (const int strip : {16, 32, 64, 128}) {
          if (strip > 16 && (c.tile.whole || strip / 2 >= rows)) break;
          c.strip = c.tile.whole ? step : strip;
          for (const int waves : {1, 2}) {
            c.waves = waves;
            const int resident = plan_toeplitz_boxes(p, s, c, false, plan);
            if (resident == 0) break;
            const int results = tile.tiles * tile.rows;
            const std::size_t of_results = results <= 1 ? 0 : results <= 2 ? 1 : 2;
            const std::size_t kind = ((tile.asks ? kResults : 0) + of_results) * kMostResident +
                                     std::min(static_cast<std::size_t>(resident), kMostResident) - 1;
            Costed& best = of_tile[kind];
            if (best.first == 0 || plan.cost < best.first) best = {plan.cost, c};
          }
        }
      }
    }
    for (std::size_t i = 0; i < of_tile.size(); ++i)
      if (of_tile[i].first > 0) kinds[i].push_back(of_tile[i]);
  });
  std::vector<Costed> configs;
  for (std::vector<Costed>& some : kinds) {
    const auto last = some.begin() + static_cast<std::ptrdiff_t>(std::min(some.size(), kOfEach));
    std::partial_sort(some.begin(), last, some.end(),
                      [](const Costed& a, const Costed& b) { return a.first < b.first; });
    configs.insert(configs.end(), some.begin(), last);
  }
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_toeplitz_boxes(p, s, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
