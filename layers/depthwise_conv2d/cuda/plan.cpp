#include "layers/depthwise_conv2d/cuda/plan.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cmath>
#include <limits>
#include <utility>

namespace lamella::depthwise {
namespace {

// A model of the machine, of an H200: only ratios matter.
constexpr double kBandwidth = 4.2e9;         // bytes a millisecond
constexpr double kMultiprocessors = 132;
constexpr double kIssue = 132 * 128 * 1.6e6;  // instructions of threads a millisecond
constexpr std::int64_t kSharedBytes = 227 << 10, kRegisters = 65536, kResidentThreads = 2048;
constexpr double kBytesInFlight = 32 << 10;   // of a multiprocessor, that hide the latency of memory
constexpr std::int64_t kPartsBlocks = 2112;   // a number of its own, so that no sum depends on the GPU
constexpr int kMostRegisters = 200;

/// What a variant is made of.
struct Config {
  TileSizes tile{};
  int tap_rows = 0, threads = 128;
  int channels = 0, stages = 2, strip = 0;      // of pixels
  bool is_double = false;                       // of planes
  std::int64_t bytes = 0;
  std::int64_t rounds = 1;
};

struct Shape {
  KernelSizes kernel;
  Axis h, w;
  int number;  ///< bytes
  std::int64_t images, channels, out_channels;
  bool forward;  ///< a correlation; else a walk over x
};

int taps_of(const KernelSizes& kernel) { return kernel.kernel_h * kernel.kernel_w; }

/// Registers that a thread will want.
int registers(const Problem& p, const Shape& s, const Config& c) {
  const KernelSizes& k = s.kernel;
  const int out = c.tile.lanes * k.repeat, part = c.tap_rows * k.kernel_w * out;
  const bool is_long = c.tap_rows < k.kernel_h;
  if (s.forward) {
    const int window = ((c.tile.columns - 1) * k.stride_w + k.kernel_w) * c.tile.lanes;
    const int live = is_long ? c.tile.rows : std::min(c.tile.rows, (k.kernel_h + k.stride_h - 1) / k.stride_h);
    return 40 + part + live * c.tile.columns * out + window;
  }
  const int window = (c.tile.columns + k.reach_w() - 1) * out;
  const int width = c.tile.columns * k.stride_w * c.tile.lanes;
  if (p.pass == Pass::Input) {
    if (is_long) return 40 + part + c.tile.rows * k.stride_h * width + window;
    return 40 + part + k.reach_h() * window + width;
  }
  const int reach = (c.tap_rows + k.stride_h - 1) / k.stride_h;
  return 44 + part * (p.pass == Pass::Both ? 2 : 1) + reach * window + width * (p.pass == Pass::Both ? 2 : 1);
}

/// Multiply-adds of a thread and step: the length of its code.
int products(const Shape& s, const Config& c) {
  return c.tile.rows * c.tile.columns * c.tile.lanes * s.kernel.repeat * c.tap_rows * s.kernel.kernel_w;
}

/// Estimated instructions for each output (of the larger tensor), of all threads.
double instructions(const Problem& p, const Shape& s, const Config& c) {
  const KernelSizes& k = s.kernel;
  const double out = c.tile.lanes * k.repeat, half = s.number < 4 ? 1 : 0, per_access = c.tile.lanes;
  const double taps = taps_of(k), places = c.tile.rows * c.tile.columns * out;
  const double groups = (k.kernel_h + c.tap_rows - 1) / c.tap_rows;
  const double rows_in = s.forward ? (c.tile.rows - 1) * k.stride_h + c.tap_rows
                                   : c.tile.rows + (c.tap_rows + k.stride_h - 1) / k.stride_h - 1;
  const double window = s.forward ? (c.tile.columns - 1) * k.stride_w + k.kernel_w : c.tile.columns + k.reach_w() - 1;
  const double loaded = rows_in * groups * window * (s.forward ? c.tile.lanes : out);
  double sum = places * taps * (p.pass == Pass::Both ? 2 : 1);
  sum += loaded * (1 / per_access + half) + rows_in * groups * 6;
  if (groups > 1) sum += taps * out;
  if (!p.channels_last) sum += loaded * 0.5;
  const double x_places = c.tile.rows * c.tile.columns * k.stride_h * k.stride_w * c.tile.lanes;
  if (!s.forward && p.pass != Pass::Input) sum += x_places * groups * (1 / per_access + half + (p.channels_last ? 0 : 1));
  const double stored = s.forward ? places : p.pass == Pass::Weight ? 0 : x_places;
  sum += stored * (p.channels_last ? (2.5 / out + half * 0.5) : 2 + half);
  // Moving sixteen bytes takes some eight instructions, and planes are moved out, too.
  const double moved = (s.forward ? places * k.stride_h * k.stride_w / k.repeat : places + x_places) * s.number / 16;
  sum += moved * 8 + (p.channels_last ? 0 : stored * s.number / 16 * 4);
  return sum / (s.forward ? places : x_places);
}

double cost(const Problem& p, const Shape& s, const Config& c, const Launch& launch, double used) {
  const Conv2dGeometry& g = p.geometry;
  const double x = static_cast<double>(g.batch * g.in_channels) * static_cast<double>(g.in.h * g.in.w),
               y = static_cast<double>(g.batch * g.out_channels) * static_cast<double>(g.out.h * g.out.w);
  const double bytes = (x + y + (p.pass == Pass::Both ? x : 0)) * s.number;
  const double places = s.forward ? static_cast<double>(s.images * s.out_channels) * s.h.output * s.w.output : x;
  const int wanted = registers(p, s, c);
  const double by_registers = std::floor(static_cast<double>(kRegisters) / (c.threads * std::min(wanted, 255)));
  const double by_shared = std::floor(static_cast<double>(kSharedBytes) / static_cast<double>(launch.shared_bytes + 1024));
  const double resident = std::min({by_registers, by_shared, static_cast<double>(kResidentThreads / c.threads)});
  if (resident < 1) return std::numeric_limits<double>::infinity();
  const double in_flight = resident * static_cast<double>(launch.shared_bytes) * (c.stages > 2 || c.is_double ? 0.6 : 0.4);
  const double memory = bytes / kBandwidth * std::max(1.0, kBytesInFlight / in_flight);
  const double issue = places * instructions(p, s, c) / used / kIssue;
  const double warps = resident * c.threads / 32;
  const double busy = std::min(1.0, warps / 16);  // fewer warps do not fill the pipelines
  const double waves = static_cast<double>(launch.blocks) / (kMultiprocessors * resident);
  const double tail = std::ceil(waves) / waves;
  // The two overlap but for a part.
  const double time = std::max(memory, issue / busy) + 0.15 * std::min(memory, issue / busy);
  return time * (waves > 4 ? 1 + 0.2 * (tail - 1) : tail) + 0.002;
}

const char* type_name(DType dtype) {
  return dtype == DType::Float32 ? "float" : dtype == DType::BFloat16 ? "BFloat16" : "Float16";
}
const char* word(bool value) { return value ? "true" : "false"; }

std::string expression(const Problem& p, const Shape& s, const Config& c, const char* family, const std::string& rest) {
  const KernelSizes& k = s.kernel;
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), "%s<%s, Kernel<%d, %d, %d, %d, %d>, Tile<%d, %d, %d>, %s>", family,
                type_name(p.dtype), k.kernel_h, k.kernel_w, k.stride_h, k.stride_w, k.repeat, c.tile.rows,
                c.tile.columns, c.tile.lanes, rest.c_str());
  return text.data();
}

/// Blocks that launch bounds promise to a multiprocessor: as many as the registers allow that the kernel wants.
int promised_blocks(const Problem& p, const Shape& s, const Config& c) {
  const int wanted = std::max(32, registers(p, s, c) / 8 * 8 + 8);
  return static_cast<int>(std::clamp<std::int64_t>(kRegisters / (std::int64_t{c.threads} * wanted), 1, 8));
}

/// The plan of a configuration, with the names only if wanted; false: it does not fit.
bool plan_pixels(const Problem& p, const Shape& s, const Config& c, bool named, Plan& plan) {
  const KernelSizes& k = s.kernel;
  const int chunk = s.forward && p.pass == Pass::Input ? p.output_alignment : p.input_alignment;
  const int both = std::min(p.input_alignment, p.output_alignment);
  const int copied = s.forward ? chunk : p.pass == Pass::Input ? p.output_alignment : both;
  plan = {};
  plan.pixels.h = s.h;
  plan.pixels.w = s.w;
  const auto rest = [&] { return std::to_string(c.channels) + ", " + std::to_string(c.tap_rows) + ", "; };
  const auto bounds = [&] { return std::to_string(c.threads) + ", " + std::to_string(promised_blocks(p, s, c)); };
  double used = 1;
  if (s.forward) {
    plan.launch = cut_forward_pixels(plan.pixels, s.images, s.channels, k, c.tile, c.channels, c.stages, s.number,
                                     c.threads, c.strip);
    if (named) plan.kernel = expression(p, s, c, "forward_pixels", rest() + std::to_string(c.stages) + ", " + std::to_string(copied) +
                                                            ", " + word(p.transforms) + ", " + bounds());
    const PixelCut& cut = plan.pixels.cut;
    used *= static_cast<double>(ceiling(s.w.output, s.w.output_step)) / (cut.tiles * cut.groups * c.tile.columns);
    used *= static_cast<double>(ceiling(s.h.output, s.h.output_step)) / (cut.strips * cut.strip_rows);
  } else {
    const bool weight = p.pass != Pass::Input, input = p.pass != Pass::Weight;
    plan.launch = cut_backward_pixels(plan.pixels, s.images, s.channels, k, c.tile, c.channels, c.tap_rows, c.stages,
                                      s.number, c.threads, c.strip, weight, p.bias, kPartsBlocks);
    if (named) plan.kernel = expression(p, s, c, "backward_pixels",
                             rest() + word(input) + ", " + word(weight) + ", " + word(p.bias) + ", " +
                                 std::to_string(c.stages) + ", " + std::to_string(copied) + ", " + word(p.transforms) +
                                 ", " + bounds());
    if (plan.launch.blocks == 0) return false;
    const PixelCut& cut = plan.pixels.cut;
    const int groups = weight ? static_cast<int>(ceiling(k.kernel_h, c.tap_rows)) : 1;
    used *= static_cast<double>(cut.groups) * groups * (c.channels / c.tile.lanes) / c.threads;
    used *= static_cast<double>(s.w.input) / (std::int64_t{cut.tiles} * cut.groups * c.tile.columns * k.stride_w);
  }
  const PixelCut& cut = plan.pixels.cut;
  // A thread has the bits of at most 32 columns.
  const int numbers = copied / s.number, pixels = c.threads / (c.channels * k.repeat / numbers);
  const std::int64_t columns = (std::int64_t{cut.groups} * c.tile.columns + k.kernel_w) * k.stride_w;
  if (pixels < 1 || c.threads < c.channels / numbers || columns > std::int64_t{32} * pixels) return false;
  used *= static_cast<double>(s.channels) / (std::int64_t{cut.channel_blocks} * c.channels);
  if (s.forward) used *= std::min(1.0, static_cast<double>(cut.groups) * (c.channels / c.tile.lanes) / c.threads + 0.25);
  plan.cost = cost(p, s, c, plan.launch, used);
  if (named)
    plan.what = "pixels " + std::to_string(c.tile.rows) + "x" + std::to_string(c.tile.columns) + "x" +
              std::to_string(c.tile.lanes) + ", " + std::to_string(c.channels) + " channels, strips of " +
              std::to_string(cut.strip_rows) + ", " + std::to_string(c.stages) + " stages, " + std::to_string(c.threads) +
              " threads";
  return plan.launch.shared_bytes <= kSharedBytes && plan.launch.blocks < (std::int64_t{1} << 31) &&
         plan.cost < std::numeric_limits<double>::infinity();
}

bool plan_planes(const Problem& p, const Shape& s, const Config& c, bool named, Plan& plan) {
  const KernelSizes& k = s.kernel;
  const bool is_dilated = s.w.input_step > 1 || s.w.output_step > 1, is_long = c.tap_rows < k.kernel_h;
  plan = {};
  plan.family = Plan::Family::Planes;
  plan.planes.h = s.h;
  plan.planes.w = s.w;
  const auto bounds = [&] { return std::to_string(c.threads) + ", " + std::to_string(promised_blocks(p, s, c)); };
  double used = 1;
  if (s.forward) {
    plan.launch = cut_forward_planes(plan.planes, s.images * s.channels, k, c.tile, s.number, c.threads, c.bytes,
                                     c.is_double, is_long, c.rounds);
    const bool edges = has_edges_alone(s.w, k, c.tile.columns);
    if (named) plan.kernel = expression(p, s, c, "forward_planes",
                             std::to_string(c.tap_rows) + ", " + word(is_dilated) + ", " + word(edges) + ", " +
                                 word(c.is_double) + ", " + word(p.transforms) + ", " + bounds());
    if (!edges) used *= 0.85;
  } else {
    const bool weight = p.pass != Pass::Input, input = p.pass != Pass::Weight;
    bool direct = false;
    const auto cut = [&] {
      return cut_backward_planes(plan.planes, s.images, s.channels, k, c.tile, c.tap_rows, s.number, c.threads, c.bytes,
                                 c.is_double, input, weight, p.bias, direct, kPartsBlocks);
    };
    plan.launch = cut();
    if (plan.launch.blocks == 0 && input) {
      direct = true;
      plan.launch = cut();
      used *= 0.5;
    }
    const bool edges = has_edges_alone_backward(s.w, k, c.tile.columns, p.bias, plan.planes.owner_w);
    if (!edges) used *= 0.85;
    plan.clears = direct;
    if (named) plan.kernel = expression(p, s, c, "backward_planes",
                             std::to_string(c.tap_rows) + ", " + word(input) + ", " + word(weight) + ", " +
                                 word(p.bias) + ", " + word(is_dilated) + ", " + word(edges) + ", " + word(c.is_double) +
                                 ", " + word(direct) + ", " + word(p.transforms) + ", " + bounds());
  }
  if (plan.launch.blocks == 0) return false;
  const PlaneCut& cut = plan.planes.cut;
  const int groups = !s.forward && p.pass != Pass::Input ? static_cast<int>(ceiling(k.kernel_h, c.tap_rows)) : 1;
  const double at_work = static_cast<double>(cut.planes) * cut.column_groups * cut.row_groups * s.h.output_step *
                         s.w.output_step * groups * (s.forward ? k.repeat : 1);
  used *= std::min(1.0, at_work / c.threads + 0.1);
  const double columns = s.forward ? static_cast<double>(ceiling(s.w.output, s.w.output_step))
                                   : static_cast<double>(ceiling(s.w.input, std::int64_t{s.w.output_step} * k.stride_w));
  used *= columns / (static_cast<double>(cut.column_groups) * c.tile.columns);
  const double rows = s.forward ? static_cast<double>(ceiling(s.h.output, s.h.output_step))
                                : static_cast<double>(ceiling(s.h.input, std::int64_t{s.h.output_step} * k.stride_h));
  used *= std::min(1.0, rows / (static_cast<double>(cut.bands) * cut.row_groups * c.tile.rows));
  plan.cost = cost(p, s, c, plan.launch, used);
  if (named)
    plan.what = "planes " + std::to_string(c.tile.rows) + "x" + std::to_string(c.tile.columns) + ", " +
              std::to_string(cut.planes) + " planes, " + std::to_string(cut.bands) + " bands" +
              (c.is_double ? ", ahead" : "") + ", " + std::to_string(c.threads) + " threads";
  return plan.launch.shared_bytes <= kSharedBytes && plan.launch.blocks < (std::int64_t{1} << 31) &&
         plan.cost < std::numeric_limits<double>::infinity();
}

/// A plan in boxes, and what its cost depends on.
struct BoxConfig {
  BoxTileSizes tile{};
  int strip = 0;
  std::int64_t wanted_blocks = 0;
};

/// Registers of a thread, to within some tens.
int box_registers(const Problem& p, const Shape& s, const BoxTileSizes& t) {
  const KernelSizes& k = s.kernel;
  const int eights = t.warp_channels / 8, taps = taps_of(k);
  if (s.forward) return 44 + t.tap_rows * k.kernel_w * eights + t.rows * eights * 4 + 8 * (k.kernel_w + 1) / 2 * eights;
  int count = 52 + 8 * eights + (k.reach_w() / 2) * eights;
  if (p.pass != Pass::Weight) count += taps * eights + t.rows * k.stride_h * k.stride_w * eights * 4;
  if (p.pass != Pass::Input)
    count += t.tap_rows * k.stride_w * ((k.reach_w() + 1) / 2) * eights * 4 + t.rows * k.stride_h * k.stride_w * eights * 2;
  return count;
}

/// Estimated milliseconds: five limits, of which the largest counts most. Their weights were fitted to some 3,300
/// measurements on an H200 (docs/performance.md), from which they are a fifth off on average.
double box_cost(const Problem& p, const Shape& s, const BoxTileSizes& t, const Plan& plan, int blocks_of_sm) {
  constexpr double kClocks = 1.85e6;  // a millisecond
  const KernelSizes& k = s.kernel;
  const PixelCut& cut = plan.pixels.cut;
  const double eights = t.warp_channels / 8.0, taps = taps_of(k);
  const double x = static_cast<double>(p.geometry.batch * p.geometry.in_channels) *
                   static_cast<double>(p.geometry.in.h * p.geometry.in.w);
  const double y = static_cast<double>(p.geometry.batch * p.geometry.out_channels) *
                   static_cast<double>(p.geometry.out.h * p.geometry.out.w);
  const double bytes = (x + y + (p.pass == Pass::Both ? x : 0)) * s.number;
  const int step_rows = t.step_rows();
  const double item_steps = static_cast<double>(cut.strip_rows) / step_rows;
  const double items = static_cast<double>(plan.pixels.items) * cut.channel_blocks, steps = items * item_steps;
  const double warps = plan.launch.threads / 32 - 1;
  double loads = 0, products = 0, issued = 0, stores = 0, instructions = 0, chain = 0, page = 0, results = 0;
  const double units = t.units();
  if (s.forward) {
    const double pairs = k.kernel_w / 2, odd = k.kernel_w % 2;
    chain = (t.rows - 1) * t.down() * k.stride_h + k.kernel_h;
    loads = chain * eights * (pairs * 4 + odd * 2);
    products = t.rows * k.kernel_h * eights * (pairs + odd / 2);
    issued = t.rows * k.kernel_h * eights * (pairs + odd);
    stores = t.rows * 2 * eights;
    instructions = chain * (pairs * eights + odd) + issued + t.rows * (2 * eights + 2);
    page = static_cast<double>(plan.x_box.pixels) * plan.x_box.rows * k.stride_w * t.channels * s.number;
    results = step_rows * units * t.channels * s.number;
  } else {
    const double span = k.stride_w > 1 ? k.reach_w() : k.kernel_w, places = std::floor((span + 1) / 2);
    const double phases = k.stride_h * k.stride_w;
    const bool parted = t.tap_rows < k.kernel_h;
    chain = (t.rows - 1) * t.down() + (parted ? t.tap_rows / k.stride_h : k.reach_h());
    if (p.pass != Pass::Weight) {
      const double some = t.rows * taps * eights;
      loads += chain * eights * span * 2;
      issued += some * 0.6, products += some * 0.5, stores = t.rows * phases * 2 * eights;
      results = step_rows * units * phases * t.channels * s.number;
    }
    if (p.pass != Pass::Input) {
      const double some = t.rows * t.tap_rows * k.stride_w * std::ceil(std::ceil(static_cast<double>(k.kernel_w) / k.stride_w) / 2) * eights;
      loads += chain * places * eights * 4 + t.rows * phases * 2 * eights;
      issued += some, products += some;
    }
    instructions = loads / 4 + issued + stores * 2;
    page = (static_cast<double>(plan.y_box.pixels) * plan.y_box.rows +
            static_cast<double>(plan.x_box.pixels) * plan.x_box.rows * k.stride_w) * t.channels * s.number;
  }
  const double of_sm = 1 / (kMultiprocessors * kClocks), resident = blocks_of_sm, warp_steps = steps * warps;
  const double in_flight = resident * page * std::max(1, t.pages - 1) / 1e3;
  const double memory = bytes / 4.15e9 * 1.13 * (1 + 5.8 / in_flight);
  const double matrix = warp_steps * products * 2 * 2.33 * of_sm;
  const double shared = (warp_steps * (loads + stores) + steps * (page + results) / 128) * 1.54 * of_sm;
  const double issue = (warp_steps * (instructions * 9.3 + 44) + items * warps * 134) / 4 * of_sm;
  const double latency = (warp_steps / (resident * warps) * (613 + chain * 145 + issued * 3.4) + items / resident * 530) * of_sm;
  constexpr double kPower = 10.7;
  double sum = 0;
  for (const double limit : {memory, matrix, shared, issue, latency}) sum += std::pow(limit, kPower);
  const double waves = static_cast<double>(plan.launch.blocks) / (kMultiprocessors * resident);
  const double parts = static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) * (taps + 1) * 8 / 3e9;
  return std::pow(sum, 1 / kPower) * (1 + 0.46 * (std::ceil(waves) / waves - 1)) + parts + 0.0097;
}

/// The plan of a configuration; false: it does not fit.
bool plan_boxes(const Problem& p, const Shape& s, const BoxConfig& c, bool named, Plan& plan) {
  const BoxTileSizes& t = c.tile;
  const bool input = p.pass != Pass::Weight, weight = p.pass != Pass::Input;
  plan = {};
  plan.family = Plan::Family::Boxes;
  plan.pixels.h = s.h;
  plan.pixels.w = s.w;
  const BoxPlan boxes = s.forward ? cut_forward_boxes(plan.pixels, s.images, s.channels, s.kernel, t, c.strip, c.wanted_blocks)
                                  : cut_backward_boxes(plan.pixels, s.images, s.channels, s.kernel, t, c.strip, input, weight,
                                                       p.bias, c.wanted_blocks);
  plan.launch = boxes.launch;
  plan.x_box = boxes.x, plan.y_box = boxes.y, plan.dx_box = boxes.dx;
  if (s.forward) plan.launch.parts = 0;
  const int registers = round_up(box_registers(p, s, t), 8);
  if (plan.launch.blocks == 0 || plan.launch.blocks >= (std::int64_t{1} << 31) || plan.launch.shared_bytes > kSharedBytes)
    return false;
  const std::int64_t blocks_of_sm =
      std::min({kSharedBytes / (plan.launch.shared_bytes + 1024), kRegisters / (std::int64_t{plan.launch.threads} * registers),
                kResidentThreads / plan.launch.threads});
  if (blocks_of_sm < 1 || registers > 255) return false;
  plan.cost = box_cost(p, s, t, plan, static_cast<int>(blocks_of_sm));
  if (!named) return true;
  const KernelSizes& k = s.kernel;
  std::array<char, 320> text{};
  const int length = std::snprintf(
      text.data(), text.size(), "%s<%s, Kernel<%d, %d, %d, %d>, BoxTile<%d, %d, %d, %d, %d, %d, %d, %s>, ",
      s.forward ? "forward_boxes" : "backward_boxes", type_name(p.dtype), k.kernel_h, k.kernel_w, k.stride_h, k.stride_w,
      t.columns, t.blocks, t.rows, t.channels, t.warp_channels, t.tap_rows, t.pages, word(t.whole));
  plan.kernel.assign(text.data(), static_cast<std::size_t>(length));
  if (!s.forward)
    plan.kernel += std::string(word(input)) + ", " + word(weight) + ", " + word(p.bias) + ", " +
                   std::to_string(phase_of(s.h, k.stride_h)) + ", " + std::to_string(phase_of(s.w, k.stride_w)) + ", ";
  plan.kernel += std::to_string(blocks_of_sm) + ">";
  plan.what = "boxes of " + std::to_string(t.blocks) + " x " + std::to_string(t.columns) + " columns, " +
              std::to_string(t.step_rows()) + " rows, " + std::to_string(t.channels) + " channels (" +
              std::to_string(t.warp_channels) + " to a warp), strips of " + std::to_string(plan.pixels.cut.strip_rows) + ", " +
              std::to_string(t.pages) + " pages";
  return true;
}

/// Calls add(config) for what may be worth a thought.
template <class Add>
void each_box(const Problem& p, const Shape& s, const Add& add) {
  const KernelSizes& k = s.kernel;
  const bool weight = !s.forward && p.pass != Pass::Input;
  const auto in_units = [&](const Axis& axis, int stride) {
    return s.forward ? ceiling(axis.output, axis.output_step) : ceiling(axis.input, std::int64_t{axis.output_step} * stride);
  };
  const std::int64_t rows = in_units(s.h, k.stride_h), columns = in_units(s.w, k.stride_w);
  const auto wasteful = [](std::int64_t size, std::int64_t piece, double least) {
    return static_cast<double>(size) < least * static_cast<double>(round_up(size, piece));
  };
  BoxConfig c;
  for (const int width : {16, 8})
    for (const int blocks : {1, 2, 3, 4, 5, 7}) {
      const int units = width * blocks;
      if (wasteful(columns, units, columns < 8 ? 0.4 : 0.8) || (width == 8 && columns % 16 == 0)) continue;
      for (const int channels : {16, 32, 64}) {
        if (channels > round_up(s.channels, 16) || (channels == 16 && s.channels >= 64)) continue;
        if (wasteful(s.channels, channels, 0.73) && channels > 16) continue;
        for (const int rows_of_step : {1, 2, 3, 4, 7, 8}) {
          const int step = rows_of_step * 16 / width;
          if (wasteful(rows, step, rows < step ? 0.4 : 0.74)) continue;
          for (const int warp_channels : {8, 16})
            for (const int tap_rows : {k.kernel_h, (k.kernel_h + 1) / 2, 2}) {
              const bool parted = tap_rows < k.kernel_h;
              if (parted && (k.kernel_h < 5 || width == 8 || (!s.forward && (p.pass != Pass::Weight || tap_rows % k.stride_h != 0))))
                continue;
              if (tap_rows > k.kernel_h) continue;
              const int groups = weight ? static_cast<int>(ceiling(k.kernel_h, tap_rows)) : 1;
              const int warps = blocks * channels / warp_channels * groups;
              if (warps < 2 || warps > 16) continue;
              for (const int more : {1, 2, 3}) {
                const bool whole = step >= rows;
                const int read = s.forward ? (step - 1) * k.stride_h + k.kernel_h
                                           : step + WindowSizes(k.kernel_h, k.stride_h, std::max(0, phase_of(s.h, k.stride_h))).span - 1;
                const int page_rows = whole ? read : s.forward ? step * k.stride_h : step;
                c.tile = {width, blocks, rows_of_step, channels, warp_channels, tap_rows,
                          static_cast<int>(ceiling(read, page_rows)) + more, whole};
                for (const int strip : {14, 28, 56, 112}) {
                  if (strip > 14 && strip / 2 >= rows) break;
                  c.strip = whole ? step : strip;
                  for (const std::int64_t wanted : {264, 528, 1056, 2112}) {
                    if (weight ? wanted > 1056 : wanted < 528) continue;
                    c.wanted_blocks = wanted;
                    add(c);
                  }
                  if (whole) break;
                }
              }
            }
        }
      }
    }
}

/// Whether the tensors can be moved in boxes and their numbers multiplied by the matrix units.
bool may_use_boxes(const Problem& p, const Shape& s) {
  constexpr int kBoxAlignment = 16, kLargestBoxStride = 3;
  return p.boxes && p.channels_last && s.number == 2 && s.kernel.repeat == 1 && !p.transforms && !p.accumulate &&
         !p.exact_taps && p.input_alignment >= kBoxAlignment && p.output_alignment >= kBoxAlignment &&
         s.kernel.kernel_w > 1 && std::max(s.kernel.stride_h, s.kernel.stride_w) <= kLargestBoxStride;
}

/// Rows of taps that a thread has at once: all, or so many that they fit into registers.
std::vector<int> tap_rows_of(const Problem& p, const Shape& s) {
  const KernelSizes& k = s.kernel;
  std::vector<int> choices;
  if (taps_of(k) <= 49) choices.push_back(k.kernel_h);
  if (taps_of(k) < 25 || p.pass == Pass::Both) return choices;
  const int unit = s.forward ? 1 : k.stride_h;
  for (const int rows : {unit, 2 * unit, 4 * unit})
    if (rows < k.kernel_h && rows * k.kernel_w <= 49) choices.push_back(rows);
  return choices;
}

template <class Add>
void each_tile(const Problem& p, const Shape& s, const std::vector<int>& columns, const std::vector<int>& lanes,
               const Add& add) {
  constexpr int kLongestCode = 2600;
  for (const int tap_rows : tap_rows_of(p, s))
    for (const int rows : {1, 2, 4, 7, 8, 14})
      for (const int width : columns)
        for (const int lane : lanes) {
          Config c;
          c.tile = {rows, width, lane};
          c.tap_rows = tap_rows;
          if (products(s, c) <= kLongestCode && registers(p, s, c) <= kMostRegisters) add(c);
        }
}

}  // namespace

bool operator==(const Problem& a, const Problem& b) {
  const Conv2dGeometry &g = a.geometry, &h = b.geometry;
  return a.pass == b.pass && a.dtype == b.dtype && a.channels_last == b.channels_last &&
         a.input_alignment == b.input_alignment && a.output_alignment == b.output_alignment && a.bias == b.bias &&
         a.transforms == b.transforms && a.accumulate == b.accumulate && a.boxes == b.boxes &&
         a.exact_taps == b.exact_taps && g.batch == h.batch &&
         g.in_channels == h.in_channels && g.out_channels == h.out_channels && g.in == h.in && g.out == h.out &&
         g.kernel == h.kernel && g.stride == h.stride && g.padding == h.padding && g.dilation == h.dilation;
}

std::vector<Plan> plans_for(const Problem& p) {
  const Conv2dGeometry& g = p.geometry;
  static constexpr std::size_t kMostPlans = 32;
  std::vector<Plan> plans;
  std::vector<std::pair<double, Config>> configs;
  Plan plan;
  Shape s{};
  s.number = static_cast<int>(size_of(p.dtype));
  if (s.number > 4 || g.multiplier() > 8) return plans;
  s.images = g.batch;
  s.channels = g.in_channels;
  s.out_channels = g.out_channels;
  s.kernel = {static_cast<int>(g.kernel.h), static_cast<int>(g.kernel.w), 1, 1, static_cast<int>(g.multiplier())};
  s.kernel.stride_h = divide_dilation(s.h, g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
  s.kernel.stride_w = divide_dilation(s.w, g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
  constexpr int kLargestKernel = 15, kLargestStride = 4, kMostClasses = 64;
  if (std::max(s.kernel.kernel_h, s.kernel.kernel_w) > kLargestKernel) return plans;
  if (std::max(s.kernel.stride_h, s.kernel.stride_w) > kLargestStride) return plans;
  if (std::max(s.h.output_step, s.w.output_step) > kMostClasses) return plans;
  const bool all_are_read = g.stride == Size2(s.kernel.stride_h, s.kernel.stride_w);
  s.forward = p.pass == Pass::Forward || (p.pass == Pass::Input && g.stride == Size2(1) && g.multiplier() == 1);
  const bool turned = s.forward && p.pass == Pass::Input;
  if (turned)
    for (Axis* axis : {&s.h, &s.w}) {
      std::swap(axis->input, axis->output);
      axis->padding = static_cast<int>((axis == &s.h ? g.kernel.h - 1 : g.kernel.w - 1)) * axis->input_step - axis->padding;
    }
  if (p.pass == Pass::Both && !all_are_read) return plans;

  const std::int64_t rows = s.forward ? ceiling(s.h.output, s.h.output_step)
                                      : ceiling(s.h.input, std::int64_t{s.h.output_step} * s.kernel.stride_h);
  std::vector<std::pair<double, BoxConfig>> boxes;
  if (may_use_boxes(p, s))
    each_box(p, s, [&](const BoxConfig& c) {
      if (plan_boxes(p, s, c, false, plan)) boxes.emplace_back(plan.cost, c);
    });
  const auto keep_best = [](auto& some) {
    const auto best = some.begin() + static_cast<std::ptrdiff_t>(std::min(some.size(), kMostPlans));
    std::partial_sort(some.begin(), best, some.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    some.erase(best, some.end());
  };
  const auto add_plan = [&] {
    plan.turned = turned;
    plan.clears = p.pass != Pass::Forward && p.pass != Pass::Weight && !all_are_read &&
                  (plan.clears || plan.family != Plan::Family::Planes);
    plans.push_back(plan);
  };
  keep_best(boxes);
  for (const auto& [cost, config] : boxes) {
    plan_boxes(p, s, config, true, plan);
    add_plan();
  }
  if (p.channels_last) {
    const int read = turned ? p.output_alignment : p.input_alignment, written = turned ? p.input_alignment : p.output_alignment;
    const int narrowest = std::min(read, written);
    std::vector<int> lanes;
    for (const int lane : {1, 2, 4, 8})
      if (lane * s.number <= narrowest && lane * s.kernel.repeat <= 16) lanes.push_back(lane);
    // Of each: neighbouring bytes that make whole sectors, and few channels too many.
    std::vector<int> blocks;
    const int quantum = std::max(1, 16 / s.number);
    for (int channels = quantum; channels <= 512; channels += quantum) {
      const std::int64_t count = ceiling(s.channels, channels);
      if (static_cast<double>(count * channels) <= 1.1 * static_cast<double>(s.channels) || count == 1) blocks.push_back(channels);
      if (count == 1) break;
    }
    std::vector<int> strips;
    for (const int strip : {7, 14, 28, 56, 112})
      if (strips.empty() || strip <= rows) strips.push_back(static_cast<int>(std::min<std::int64_t>(strip, rows)));
    each_tile(p, s, {1, 2, 4, 5, 7}, lanes, [&](Config c) {
      for (const int channels : blocks) {
        const int vectors = channels / c.tile.lanes;
        if (channels % c.tile.lanes != 0 || (channels * s.number < 32 && s.channels * s.number >= 64)) continue;
        for (const int threads : {128, 256})
          for (const int stages : {2, 3})
            for (const int strip : strips) {
              if (vectors > threads) continue;
              c.channels = channels, c.threads = threads, c.stages = stages, c.strip = strip;
              if (plan_pixels(p, s, c, false, plan)) configs.emplace_back(plan.cost, c);
            }
      }
    });
  } else {
    if (!s.forward && s.kernel.repeat > 1) return plans;
    each_tile(p, s, {1, 3, 5, 7, 9}, {1}, [&](Config c) {
      for (const int threads : {128, 256, 512})
        for (const bool ahead : {false, true})
          for (const int kilobytes : {16, 32, 56, 96}) {
            c.threads = threads, c.is_double = ahead, c.bytes = std::int64_t{kilobytes} << 10;
            c.rounds = ahead && s.forward ? 4 : 1;
            if (plan_planes(p, s, c, false, plan)) configs.emplace_back(plan.cost, c);
          }
    });
  }
  keep_best(configs);
  for (const auto& [cost, config] : configs) {
    p.channels_last ? plan_pixels(p, s, config, true, plan) : plan_planes(p, s, config, true, plan);
    add_plan();
  }
  return plans;
}

}  // namespace lamella::depthwise
