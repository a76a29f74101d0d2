#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "layers/depthwise_conv2d/cuda/cut_planes.h"
#include "layers/depthwise_conv2d/cuda/plan_threads.h"

// Planes: dense planes, likewise.
namespace lamella::depthwise {
namespace {

constexpr double kBandwidth = 4.2e9;          // bytes a millisecond
constexpr double kIssue = 132 * 128 * 1.6e6;  // instructions of threads a millisecond
constexpr double kBytesInFlight = 32 << 10;   // of a multiprocessor, that hide the latency of memory

/// Estimated instructions for each output (of the larger tensor), of all threads.
double instructions(const Problem& p, const Shape& s, const ThreadConfig& c) {
  const KernelSizes& k = s.kernel;
  const double out = c.tile.lanes * k.repeat, half = s.number < 4 ? 1 : 0, per_access = c.tile.lanes;
  const double taps = taps_of(k), places = c.tile.rows * c.tile.columns * out;
  const double groups = (k.kernel_h + c.tap_rows - 1) / c.tap_rows;
  const double rows_in = s.forward ? (c.tile.rows - 1) * k.stride_h + c.tap_rows
                                   : c.tile.rows + (c.tap_rows + k.stride_h - 1) / k.stride_h - 1;
  const double window =
      s.forward ? (c.tile.columns - 1) * k.stride_w + k.kernel_w : c.tile.columns + k.reach_w() - 1;
  const double loaded = rows_in * groups * window * (s.forward ? c.tile.lanes : out);
  double sum = places * taps * (p.pass == Pass::Both ? 2 : 1);
  sum += loaded * (1 / per_access + half) + rows_in * groups * 6;
  if (groups > 1) sum += taps * out;
  sum += loaded * 0.5;
  const double x_places = c.tile.rows * c.tile.columns * k.stride_h * k.stride_w * c.tile.lanes;
  if (!s.forward && p.pass != Pass::Input) sum += x_places * groups * (1 / per_access + half + 1);
  const double stored = s.forward ? places : p.pass == Pass::Weight ? 0 : x_places;
  sum += stored * (2 + half);
  // Moving sixteen bytes takes some eight instructions, and results are moved out, too.
  const double moved =
      (s.forward ? places * k.stride_h * k.stride_w / k.repeat : places + x_places) * s.number / 16;
  sum += moved * 8 + stored * s.number / 16 * 4;
  return sum / (s.forward ? places : x_places);
}

/// Estimated milliseconds of planes.
double plane_cost(const Problem& p, const Shape& s, const ThreadConfig& c, const Launch& launch,
                  double used) {
  const Conv2dGeometry& g = p.geometry;
  const double x = static_cast<double>(g.batch * g.in_channels) * static_cast<double>(g.in.h * g.in.w),
               y = static_cast<double>(g.batch * g.out_channels / c.apart) *
                   static_cast<double>(g.out.h * g.out.w);
  const double bytes = (x + y + (p.pass == Pass::Both ? x : 0)) * s.number;
  const double places =
      s.forward ? static_cast<double>(s.images * s.out_channels) * s.h.output * s.w.output : x;
  const int wanted = registers(p, s, c);
  const double by_registers =
      std::floor(static_cast<double>(kRegisters) / (c.threads * std::min(wanted, 255)));
  const auto by_shared = static_cast<double>(blocks_by_shared(p, launch));
  const double resident =
      std::min({by_registers, by_shared, static_cast<double>(kResidentThreads / c.threads)});
  if (resident < 1) return std::numeric_limits<double>::infinity();
  const double in_flight =
      resident * static_cast<double>(launch.shared_bytes) * (c.stages > 2 || c.is_double ? 0.6 : 0.4);
  const double memory = bytes / kBandwidth * std::max(1.0, kBytesInFlight / in_flight);
  const double issue = places * c.steps * instructions(p, s, c) / used / kIssue;
  const double warps = resident * c.threads / 32;
  const double busy = std::min(1.0, warps / 16);  // fewer warps do not fill the pipelines
  const double waves = static_cast<double>(launch.blocks) / (kMultiprocessors * resident);
  const double tail = std::ceil(waves) / waves;
  // The two overlap but for a part.
  const double time = std::max(memory, issue / busy) + 0.15 * std::min(memory, issue / busy);
  return time * (waves > 4 ? 1 + 0.2 * (tail - 1) : tail) + 0.002;
}

/// The plan of a configuration, with the names only if wanted; false: it does not fit.
bool plan_planes(const Problem& p, const Shape& s, const ThreadConfig& c, bool named, Plan& plan) {
  const KernelSizes& k = s.kernel;
  const bool is_dilated = s.w.input_step > 1 || s.w.output_step > 1, is_long = c.tap_rows < k.kernel_h;
  const int reads = s.forward ? (c.tile.columns - 1) * k.stride_w + k.kernel_w
                              : std::max(c.tile.columns + k.reach_w() - 1, c.tile.columns * k.stride_w);
  if (reads > kMostWindow) return false;
  plan = {};
  plan.family = Plan::Family::Planes;
  plan.planes.y_step = c.apart;
  plan.planes.h = s.h;
  plan.planes.w = s.w;
  const auto bounds = [&] {
    return std::to_string(c.threads) + ", " + std::to_string(promised_blocks(p, s, c));
  };
  double used = 1;
  if (s.forward) {
    plan.launch = cut_forward_planes(plan.planes, s.images * s.channels, k, c.tile, s.number, c.threads,
                                     c.bytes, c.is_double, is_long, c.rounds);
    if (has_statistics(p) && plan.launch.blocks > 0)
      add_statistics_planes(plan.planes.cut, s.images, plan.launch);
    const bool edges = has_edges_alone(s.w, k, c.tile.columns);
    if (named)
      plan.kernel =
          expression(p, s, c, "forward_planes",
                     std::to_string(c.tap_rows) + ", " + word(is_dilated) + ", " + word(edges) + ", " +
                         word(c.is_double) + ", " + activation_word(p, loads_transformed(p)) + ", " +
                         word(has_statistics(p)) + ", " + bounds());
    if (!edges) used *= 0.85;
  } else {
    const bool weight = p.pass != Pass::Input, input = p.pass != Pass::Weight;
    bool direct = false;
    KernelSizes all = k;
    all.repeat *= c.steps;
    const auto cut = [&] {
      return cut_backward_planes(plan.planes, s.images, s.channels, all, c.tile, c.tap_rows, s.number,
                                 c.threads, c.bytes, c.is_double, input, reads_input(p), p.bias, direct,
                                 kPartsBlocks);
    };
    plan.launch = cut();
    if (plan.launch.blocks == 0 && input) {
      direct = true;
      plan.launch = cut();
      used *= 0.5;
    }
    const bool edges = has_edges_alone_backward(s.w, k, c.tile.columns, p.bias, plan.planes.owner_w);
    if (!edges) used *= 0.85;
    if (has_norm_sums(p)) add_norm_sums(weight, plan.launch);
    plan.clears = direct;
    if (named)
      plan.kernel = expression(p, s, c, "backward_planes",
                               std::to_string(c.tap_rows) + ", " + word(input) + ", " + word(weight) + ", " +
                                   word(p.bias) + ", " + word(is_dilated) + ", " + word(edges) + ", " +
                                   word(c.is_double) + ", " + word(direct) + ", " +
                                   activation_word(p, loads_transformed(p)) + ", " +
                                   activation_word(p, has_norm_sums(p)) + ", " + bounds());
  }
  if (plan.launch.blocks == 0) return false;
  const PlaneCut& cut = plan.planes.cut;
  const int groups =
      !s.forward && p.pass != Pass::Input ? static_cast<int>(ceiling(k.kernel_h, c.tap_rows)) : 1;
  const double at_work = static_cast<double>(cut.planes) * cut.column_groups * cut.row_groups *
                         s.h.output_step * s.w.output_step * groups * (s.forward ? k.repeat : 1);
  used *= std::min(1.0, at_work / c.threads + 0.1);
  const double columns =
      s.forward ? static_cast<double>(ceiling(s.w.output, s.w.output_step))
                : static_cast<double>(ceiling(s.w.input, std::int64_t{s.w.output_step} * k.stride_w));
  used *= columns / (static_cast<double>(cut.column_groups) * c.tile.columns);
  const double rows =
      s.forward ? static_cast<double>(ceiling(s.h.output, s.h.output_step))
                : static_cast<double>(ceiling(s.h.input, std::int64_t{s.h.output_step} * k.stride_h));
  used *= std::min(1.0, rows / (static_cast<double>(cut.bands) * cut.row_groups * c.tile.rows));
  plan.cost = c.apart * plane_cost(p, s, c, plan.launch, used) + hook_cost(p, s, plan.launch);
  if (s.forward || p.pass == Pass::Input) plan.launch.parts = 0;
  if (named)
    plan.what = "planes " + std::to_string(c.tile.rows) + "x" + std::to_string(c.tile.columns) + ", " +
                std::to_string(cut.planes) + " planes, " + std::to_string(cut.bands) + " bands" +
                (c.is_double ? ", ahead" : "") + ", " + std::to_string(c.threads) + " threads" +
                (c.apart > 1 ? ", an output of a channel at a time" : "") +
                (c.steps > 1 ? ", outputs of a channel in turn" : "");
  return can_launch(p, plan.launch) && plan.cost < std::numeric_limits<double>::infinity();
}

}  // namespace

void add_plane_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  // Large planes of several outputs a channel do not fit into a block together: then one after the other, dx
  // in one launch. Launches round it after each, so they are for float32 alone. Neither leaves sums for a
  // norm.
  Shape one = s;
  one.kernel.repeat = 1;
  one.out_channels /= s.kernel.repeat;
  const int outputs = s.kernel.repeat;
  const bool several = outputs > 1 && !has_norm_sums(p);
  std::vector<ThreadConfig> ways;
  if (s.forward || outputs == 1) ways.emplace_back();
  if (several && p.pass == Pass::Input) ways.emplace_back().steps = outputs;
  if (several && (p.pass == Pass::Forward || p.pass == Pass::Weight || s.number == 4))
    ways.emplace_back().apart = outputs;
  const auto shape_of = [&](const ThreadConfig& c) -> const Shape& {
    return c.apart * c.steps > 1 ? one : s;
  };
  std::vector<std::pair<double, ThreadConfig>> configs;
  Plan plan;
  const auto try_all = [&](const std::vector<int>& columns, const std::vector<int>& sizes) {
    for (const ThreadConfig& way : ways) {
      const Shape& of = shape_of(way);
      each_tile(p, of, columns, {1}, way, [&](ThreadConfig c) {
        for (const int threads : sizes)
          for (const bool ahead : {false, true})
            for (const int kilobytes : {16, 32, 56, 96}) {
              c.threads = threads, c.is_double = ahead, c.bytes = std::int64_t{kilobytes} << 10;
              c.rounds = ahead && s.forward ? 4 : 1;
              if (plan_planes(p, of, c, false, plan)) configs.emplace_back(plan.cost, c);
            }
      });
    }
  };
  try_all({1, 3, 5, 7, 9}, {128, 256, 512});
  // Many groups of taps and classes of dilation leave a block few threads for a row.
  if (configs.empty()) try_all({13}, {256, 384, 512});
  const auto plan_of = [&](const ThreadConfig& c, Plan& best) { plan_planes(p, shape_of(c), c, true, best); };
  add_best(configs, plan_of, plans);
}

}  // namespace lamella::depthwise
