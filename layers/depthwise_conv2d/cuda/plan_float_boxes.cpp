#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_float_boxes.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Boxes of float32: moved by the copy engine, multiplied by the threads.
namespace lamella::depthwise {
namespace {

struct FloatConfig {
  FloatTileSizes tile{};
  int strip = 0;
  std::int64_t most_blocks = 0;
};

constexpr int kMostTaps = 49, kMostRegisters = 216, kLongestCode = 1400;
constexpr int kSmallMap = 8, kMiddleMap = 16;

/// Registers that a thread will want.
int float_registers(const Problem& p, const Shape& s, const FloatTileSizes& t) {
  const KernelSizes& k = s.kernel;
  const bool input = p.pass != Pass::Weight;
  const int gradients = p.pass == Pass::Both ? 2 : 1, window = t.columns + k.reach_w() - 1;
  const int hook = (has_norm_sums(p) ? 5 * t.lanes + 2 : 0) + (loads_transformed(p) ? 2 * t.lanes + 4 : 0);
  if (s.forward)
    return 38 + hook + (has_statistics(p) ? 3 * t.lanes + 2 : 0) +
           t.lanes * (taps_of(k) + 1 + std::min(t.rows, k.reach_h()) * t.columns +
                      (t.columns - 1) * k.stride_w + k.kernel_w);
  // For the weight's gradient alone the first row of the window need not be kept.
  return (has_norm_sums(p) ? 52
          : input          ? 44
                           : 30) +
         hook +
         t.lanes * (gradients * taps_of(k) + (k.reach_h() - (input ? 0 : 1)) * window +
                    gradients * t.columns * k.stride_w + (p.bias ? 1 : 0));
}

/// Multiply-adds of a thread for an image: the length of its code.
int float_products(const Problem& p, const Shape& s, const FloatTileSizes& t) {
  return (p.pass == Pass::Both ? 2 : 1) * t.rows * t.columns * t.lanes * taps_of(s.kernel);
}

/// Estimated milliseconds: four limits, of which the largest counts most. Counted, not fitted.
double float_box_cost(const Problem& p, const Shape& s, const FloatTileSizes& t, const Plan& plan,
                      int blocks_of_sm) {
  constexpr double kClocks = kMultiprocessors * 1.75e6;  // of all multiprocessors, a millisecond
  const KernelSizes& k = s.kernel;
  const PixelCut& cut = plan.pixels.cut;
  const double x = static_cast<double>(s.images * s.channels) * s.h.input * s.w.input,
               y = static_cast<double>(s.images * s.channels) * s.h.output * s.w.output;
  const double loaded = (s.forward ? x : y + (reads_input(p) ? x : 0)) * s.number,
               stored = (s.forward                ? y
                         : p.pass == Pass::Weight ? 0
                                                  : x) *
                        s.number;
  const double item_steps = static_cast<double>(cut.strip_rows) / t.step_rows();
  const double steps = static_cast<double>(plan.pixels.items) * cut.channel_blocks * item_steps;
  const double images = static_cast<double>(t.images) / t.image_groups;  // of a thread
  // Of a window: of x, or of y's gradient.
  const int window_columns =
                s.forward ? (t.columns - 1) * k.stride_w + k.kernel_w : t.columns + k.reach_w() - 1,
            window_rows = s.forward ? (t.rows - 1) * k.stride_h + k.kernel_h : t.rows + k.reach_h() - 1;
  const double window = static_cast<double>(window_rows) * window_columns;
  const double places = s.forward ? t.rows * t.columns : t.rows * k.stride_h * t.columns * k.stride_w;
  const double loads = window + (!s.forward && reads_input(p) ? places : 0);
  const double bias = !s.forward && p.bias ? t.rows * window_columns * t.lanes * 1.5 : 0;
  const double hook = has_norm_sums(p) ? 6 * t.lanes : has_statistics(p) ? 3 * t.lanes : 0;
  const double stores = stored > 0 ? places * (2 + hook) : 0;
  const double activations = loads_transformed(p) ? (s.forward ? window : places) * t.lanes * 4 : 0;
  const double instructions =
      images * (float_products(p, s, t) + loads + bias + stores + activations + 5 * window_rows + 40) + 100;
  const double page = static_cast<double>(t.images * t.channels * s.number) *
                      (static_cast<double>(plan.y_box.pixels) * plan.y_box.rows +
                       static_cast<double>(plan.x_box.pixels) * plan.x_box.rows);
  const double resident = blocks_of_sm, warp_steps = steps * t.consumers();
  // What a page has besides zeros.
  const double in_flight = resident * loaded / steps * std::max(1, t.pages - (t.whole ? 1 : 2)) / 1e3;
  const double narrow = s.channels > t.channels ? 0.6 / t.channels : 0;
  // Tiles and strips that meet read each other's edges again, not always from the second-level cache.
  const int edge_h = s.forward ? std::max(k.kernel_h - k.stride_h, 0) : k.reach_h() - 1,
            edge_w = s.forward ? std::max(k.kernel_w - k.stride_w, 0) : k.reach_w() - 1;
  const auto again_of = [&](const Axis& axis, int pieces, int edge) {
    return static_cast<double>(pieces - 1) * edge * (s.forward ? axis.input_step : axis.output_step) /
           (s.forward ? axis.input : axis.output);
  };
  const double again = again_of(s.w, cut.tiles, edge_w) + again_of(s.h, cut.strips, edge_h);
  const double memory = (loaded + stored + 0.5 * again * (s.forward ? x : y) * s.number) / 4.4e9 *
                        (1 + 16 / in_flight + narrow);
  const double issue = warp_steps * instructions / 4 / kClocks * 1.4;
  const double shared = (warp_steps * images * loads * t.lanes + steps * page / 128) / kClocks * 1.2;
  const double latency = steps / resident * (400 + 2.2 * instructions) / kClocks;
  constexpr double kPower = 4;
  double sum = 0;
  for (const double limit : {memory, issue, shared, latency}) sum += std::pow(limit, kPower);
  const double waves = static_cast<double>(plan.launch.blocks) / (kMultiprocessors * resident);
  const double parts = s.forward || p.pass == Pass::Input
                           ? 0
                           : static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) *
                                 (taps_of(k) + 1) * 8 / 1e9;
  return std::pow(sum, 1 / kPower) * (1 + 0.4 * (std::ceil(waves) / waves - 1)) + parts + 0.0026;
}

/// The plan of a configuration. Returns how many blocks a multiprocessor has; 0: it does not fit.
int plan_float_boxes(const Problem& p, const Shape& s, const FloatConfig& c, bool named, Plan& plan) {
  const FloatTileSizes& t = c.tile;
  const bool input = p.pass != Pass::Weight, weight = p.pass != Pass::Input;
  plan = {};
  plan.family = Plan::Family::Boxes;
  plan.pixels.h = s.h;
  plan.pixels.w = s.w;
  const BoxPlan boxes = s.forward ? cut_forward_float_boxes(plan.pixels, s.images, s.channels, s.kernel, t,
                                                            c.strip, c.most_blocks)
                                  : cut_backward_float_boxes(plan.pixels, s.images, s.channels, s.kernel, t,
                                                             c.strip, reads_input(p), p.bias, c.most_blocks);
  plan.launch = boxes.launch;
  plan.x_box = boxes.x, plan.y_box = boxes.y;
  if (!can_launch(p, plan.launch)) return 0;
  const int wanted = float_registers(p, s, t);
  std::int64_t blocks_of_sm =
      std::min(blocks_by_shared(p, plan.launch), kResidentThreads / plan.launch.threads);
  // As many as are there at one time need no more registers than that.
  blocks_of_sm =
      std::min(blocks_of_sm, ceiling(plan.launch.blocks, static_cast<std::int64_t>(kMultiprocessors)));
  while (blocks_of_sm > 0 && registers_of(plan.launch.threads, static_cast<int>(blocks_of_sm)) < wanted)
    --blocks_of_sm;
  if (blocks_of_sm < 1) return 0;
  if (p.hook != Hook::None) plan.launch.hook_parts = plan.launch.parts;
  plan.cost = float_box_cost(p, s, t, plan, static_cast<int>(blocks_of_sm)) + hook_cost(p, s, plan.launch);
  if (s.forward || !weight) plan.launch.parts = 0;
  if (!named) return static_cast<int>(blocks_of_sm);
  const KernelSizes& k = s.kernel;
  std::array<char, 320> text{};
  const int length = std::snprintf(
      text.data(), text.size(), "%s<float, Kernel<%d, %d, %d, %d>, FloatTile<%d, %d, %d, %d, %d, %d, %d, %s",
      s.forward ? "forward_float_boxes" : "backward_float_boxes", k.kernel_h, k.kernel_w, k.stride_h,
      k.stride_w, t.columns, t.column_groups, t.rows, t.row_groups, t.lanes, t.channels, t.pages,
      word(t.whole));
  plan.kernel.assign(text.data(), static_cast<std::size_t>(length));
  if (t.images > 1) plan.kernel += ", " + std::to_string(t.images) + ", " + std::to_string(t.image_groups);
  plan.kernel += ">, ";
  if (!s.forward) plan.kernel += std::string(word(input)) + ", " + word(weight) + ", " + word(p.bias) + ", ";
  plan.kernel += std::string(activation_word(p, loads_transformed(p))) + ", " +
                 (s.forward ? word(has_statistics(p)) : activation_word(p, has_norm_sums(p))) + ", " +
                 std::to_string(blocks_of_sm) + ">";
  plan.what = "boxes of " + std::to_string(t.column_groups) + " x " + std::to_string(t.columns) +
              " columns, " + std::to_string(t.row_groups) + " x " + std::to_string(t.rows) + " rows, " +
              std::to_string(t.channels) + " channels (" + std::to_string(t.lanes) +
              " to a thread), strips of " + std::to_string(plan.pixels.cut.strip_rows) + ", " +
              std::to_string(t.pages) + " pages";
  if (t.images > 1) plan.what += " of " + std::to_string(t.images) + " images";
  return static_cast<int>(blocks_of_sm);
}

/// Calls add(tile) for what may be worth a thought, without pages.
template <class Add>
void each_float_tile(const Problem& p, const Shape& s, std::int64_t rows, std::int64_t columns,
                     const Add& add) {
  const KernelSizes& k = s.kernel;
  constexpr int kMostGroups = 8, kLeastConsumers = 2, kMostConsumers = 16;
  FloatTileSizes t;
  for (const int width : {2, 4, 5, 7, 8})
    for (int groups = 1; groups <= kMostGroups; ++groups) {
      t.columns = width, t.column_groups = groups;
      if ((groups - 1) * width >= columns || wasteful(columns, t.units(), columns < 7 ? 0.5 : 0.85)) continue;
      for (const int height : {1, 2, 4, 7})
        for (int row_groups = 1; row_groups <= kMostGroups; ++row_groups) {
          t.rows = height, t.row_groups = row_groups;
          t.whole = t.step_rows() >= rows;
          // Steps that are no strip are of as many rows as a page need not be small, nor large.
          constexpr int kLeastRows = 2, kMostRows = 8;
          if ((row_groups - 1) * height >= rows || wasteful(rows, t.step_rows(), rows < 7 ? 0.5 : 0.85))
            continue;
          if (!t.whole && (t.step_rows() < kLeastRows || t.step_rows() > kMostRows)) continue;
          for (const int lanes : {1, 2, 4})
            for (const int channels : {16, 32, 64}) {
              t.lanes = lanes, t.channels = channels;
              if (channels > round_up(s.channels, 16) || (channels == 16 && s.channels >= 64)) continue;
              if (wasteful(s.channels, channels, 0.73) && channels > 16) continue;
              // Neighbouring places would meet in the same banks.
              if (channels == 16 && t.column_groups * t.row_groups > 1 && t.columns * k.stride_w % 2 == 0)
                continue;
              for (int images = 1; images <= kSmallMap && images / 2 < s.images; images *= 2)
                for (int image_groups = 1; image_groups <= images; image_groups *= 2) {
                  t.images = images, t.image_groups = image_groups;
                  const std::int64_t map = std::max(rows, columns);
                  if (images > 1 && (!t.whole || map > kMiddleMap || (map > kSmallMap && images > 2)))
                    continue;
                  if (t.consumers() < kLeastConsumers || t.consumers() > kMostConsumers) continue;
                  if (float_products(p, s, t) > kLongestCode || float_registers(p, s, t) > kMostRegisters)
                    continue;
                  add(t);
                }
            }
        }
    }
}

bool may_use_float_boxes(const Problem& p, const Shape& s) {
  constexpr int kBoxAlignment = 16, kLargestStride = 3;
  return p.boxes && p.channels_last && s.number == 4 && s.kernel.repeat == 1 &&
         p.input_alignment >= kBoxAlignment && p.output_alignment >= kBoxAlignment && taps_of(s.kernel) > 1 &&
         taps_of(s.kernel) <= kMostTaps && std::max(s.kernel.stride_h, s.kernel.stride_w) <= kLargestStride;
}

}  // namespace

void add_float_box_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_float_boxes(p, s)) return;
  PixelWork work;
  work.h = s.h, work.w = s.w;
  const KernelSizes& k = s.kernel;
  const auto units = [&](const Axis& axis, int stride, int reach) {
    if (s.forward) return ceiling(axis.output, axis.output_step);
    return std::int64_t{widest_class(axis, stride, p.bias, owner_of(axis, stride, reach)).count};
  };
  const std::int64_t rows = units(s.h, k.stride_h, k.reach_h()),
                     columns = units(s.w, k.stride_w, k.reach_w());
  // By the blocks that a multiprocessor has at one time: estimates cannot tell which number is best.
  constexpr std::size_t kMostResident = 4, kOfEach = 24;
  using Costed = std::pair<double, FloatConfig>;
  std::array<std::vector<Costed>, kMostResident> by_resident;
  Plan plan;
  each_float_tile(p, s, rows, columns, [&](const FloatTileSizes& tile) {
    std::array<Costed, kMostResident> of_tile{};
    FloatConfig c;
    c.tile = tile;
    const int page_rows = tile.step_rows() * (s.forward ? k.stride_h : 1),
              read = s.forward ? page_rows - k.stride_h + k.kernel_h : page_rows + k.reach_h() - 1,
              reach = tile.whole ? 1 : static_cast<int>(ceiling(read, page_rows));
    for (const int more : {1, 2, 3})
      for (const int strip : {14, 28, 56, 112}) {
        if (strip > 14 && (tile.whole || strip / 2 >= rows)) break;
        if (!tile.whole && strip < 112 && strip * 4 <= rows) continue;
        c.tile.pages = reach + more;
        c.strip = tile.whole ? tile.step_rows() : strip;
        for (const std::int64_t most : {132, 264, 396, 528}) {
          c.most_blocks = most;
          const int resident = plan_float_boxes(p, s, c, false, plan);
          if (resident == 0) continue;
          auto& best = of_tile[std::min(static_cast<std::size_t>(resident), kMostResident) - 1];
          if (best.first == 0 || plan.cost < best.first) best = {plan.cost, c};
        }
      }
    for (std::size_t i = 0; i < kMostResident; ++i)
      if (of_tile[i].first > 0) by_resident[i].push_back(of_tile[i]);
  });
  const auto by_cost = [](const Costed& a, const Costed& b) { return a.first < b.first; };
  std::vector<Costed> configs;
  for (std::vector<Costed>& some : by_resident) {
    const auto last = some.begin() + static_cast<std::ptrdiff_t>(std::min(some.size(), kOfEach));
    std::partial_sort(some.begin(), last, some.end(), by_cost);
    configs.insert(configs.end(), some.begin(), last);
  }
  if (configs.empty()) return;
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_float_boxes(p, s, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
