#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "layers/depthwise_conv2d/cuda/cut_planes.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Pixels and planes: every thread computes its own results.
namespace lamella::depthwise {
namespace {

constexpr double kBandwidth = 4.2e9;          // bytes a millisecond
constexpr double kIssue = 132 * 128 * 1.6e6;  // instructions of threads a millisecond
constexpr double kBytesInFlight = 32 << 10;   // of a multiprocessor, that hide the latency of memory
constexpr std::int64_t kPartsBlocks = 2112;   // a number of its own, so that no sum depends on the GPU
constexpr int kMostRegisters = 200;

/// What a variant is made of.
struct Config {
  TileSizes tile{};
  int tap_rows = 0, threads = 128;
  int channels = 0, stages = 2, strip = 0;  // of pixels
  bool is_double = false;                   // of planes
  std::int64_t bytes = 0;
  std::int64_t rounds = 1;
  int apart = 1;  ///< of planes: a launch for each of so many outputs of a channel
  int steps = 1;  ///< of planes: so many outputs of a channel in one launch, one after the other
};

/// Registers that a thread will want.
int registers(const Problem& p, const Shape& s, const Config& c) {
  const KernelSizes& k = s.kernel;
  const int out = c.tile.lanes * k.repeat, part = c.tap_rows * k.kernel_w * out;
  const bool is_long = c.tap_rows < k.kernel_h;
  if (s.forward) {
    const int window = ((c.tile.columns - 1) * k.stride_w + k.kernel_w) * c.tile.lanes;
    const int live =
        is_long ? c.tile.rows : std::min(c.tile.rows, (k.kernel_h + k.stride_h - 1) / k.stride_h);
    const int hook = has_statistics(p) ? 3 * out + 1 : 0;
    return 40 + part + live * c.tile.columns * out + window + hook;
  }
  const int window = (c.tile.columns + k.reach_w() - 1) * out;
  const int width = c.tile.columns * k.stride_w * c.tile.lanes;
  const int hook = has_norm_sums(p) ? 5 * c.tile.lanes + 2 : 0;
  if (p.pass == Pass::Input) {
    if (is_long || c.steps > 1) return 40 + part + c.tile.rows * k.stride_h * width + window;
    return 40 + part + k.reach_h() * window + width + hook;
  }
  const int reach = (c.tap_rows + k.stride_h - 1) / k.stride_h;
  return 44 + hook + part * (p.pass == Pass::Both ? 2 : 1) + reach * window +
         width * (p.pass == Pass::Both ? 2 : 1);
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
  const double window =
      s.forward ? (c.tile.columns - 1) * k.stride_w + k.kernel_w : c.tile.columns + k.reach_w() - 1;
  const double loaded = rows_in * groups * window * (s.forward ? c.tile.lanes : out);
  double sum = places * taps * (p.pass == Pass::Both ? 2 : 1);
  sum += loaded * (1 / per_access + half) + rows_in * groups * 6;
  if (groups > 1) sum += taps * out;
  if (!p.channels_last) sum += loaded * 0.5;
  const double x_places = c.tile.rows * c.tile.columns * k.stride_h * k.stride_w * c.tile.lanes;
  if (!s.forward && p.pass != Pass::Input)
    sum += x_places * groups * (1 / per_access + half + (p.channels_last ? 0 : 1));
  const double stored = s.forward ? places : p.pass == Pass::Weight ? 0 : x_places;
  sum += stored * (p.channels_last ? (2.5 / out + half * 0.5) : 2 + half);
  // Moving sixteen bytes takes some eight instructions, and planes are moved out, too.
  const double moved =
      (s.forward ? places * k.stride_h * k.stride_w / k.repeat : places + x_places) * s.number / 16;
  sum += moved * 8 + (p.channels_last ? 0 : stored * s.number / 16 * 4);
  return sum / (s.forward ? places : x_places);
}

/// Estimated milliseconds of planes.
double plane_cost(const Problem& p, const Shape& s, const Config& c, const Launch& launch, double used) {
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
  const double by_shared =
      std::floor(static_cast<double>(kSharedBytes) / static_cast<double>(launch.shared_bytes + 1024));
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

std::string expression(const Problem& p, const Shape& s, const Config& c, const char* family,
                       const std::string& rest) {
  const KernelSizes& k = s.kernel;
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), "%s<%s, Kernel<%d, %d, %d, %d, %d>, Tile<%d, %d, %d>, %s>", family,
                type_name(p.dtype), k.kernel_h, k.kernel_w, k.stride_h, k.stride_w, k.repeat * c.steps,
                c.tile.rows, c.tile.columns, c.tile.lanes, rest.c_str());
  return text.data();
}

/// Blocks that launch bounds promise to a multiprocessor: as many as the registers allow that the kernel
/// wants.
int promised_blocks(const Problem& p, const Shape& s, const Config& c) {
  const int most = c.threads < 128 ? 1024 / c.threads : 8;
  const int wanted = registers(p, s, c);
  int blocks = 1;
  while (blocks < most && registers_of(c.threads, blocks + 1) >= wanted) ++blocks;
  return blocks;
}

/// Estimated milliseconds of pixels: four limits, of which the largest counts most. Their weights were fitted
/// to some 5,600 measurements on an H200 (docs/performance.md), from which they are a fifth off on average.
/// `chunk`: bytes that are copied at once.
double pixel_cost(const Problem& p, const Shape& s, const Config& c, const Plan& plan, int chunk) {
  constexpr double kClocks = 132 * 1.8e6;  // of all multiprocessors, a millisecond
  const KernelSizes& k = s.kernel;
  const PixelCut& cut = plan.pixels.cut;
  const Conv2dGeometry& g = p.geometry;
  const bool input = p.pass != Pass::Weight, weight = !s.forward && p.pass != Pass::Input;
  const double x = static_cast<double>(g.batch * g.in_channels) * static_cast<double>(g.in.h * g.in.w),
               y = static_cast<double>(g.batch * g.out_channels) * static_cast<double>(g.out.h * g.out.w);
  const double bytes = (x + y + (p.pass == Pass::Both ? x : 0)) * s.number;
  const double out = c.tile.lanes * k.repeat, half = s.number < 4 ? 1 : 0;
  const double rows = c.tile.rows, columns = c.tile.columns, units = cut.groups * columns;
  const int tap_groups = static_cast<int>(ceiling(k.kernel_h, c.tap_rows));
  double loads = 0, unpacked = 0, stores = 0, products = 0, copied = 0;
  if (s.forward) {
    loads = ((rows - 1) * k.stride_h + c.tap_rows) * tap_groups * ((columns - 1) * k.stride_w + k.kernel_w);
    unpacked = loads * c.tile.lanes * half;
    stores = rows * columns * out;
    products = stores * taps_of(k);
    copied = rows * k.stride_h * ((units - 1) * k.stride_w + k.kernel_w) * c.channels;
  } else {
    const bool parted = weight && tap_groups > 1;
    const double reach = parted ? static_cast<double>(ceiling(c.tap_rows, k.stride_h)) : k.reach_h();
    const double places = rows * columns * k.stride_h * k.stride_w, window = columns + k.reach_w() - 1;
    loads = (rows + reach - 1) * window * k.repeat + (weight ? places : 0);
    unpacked = loads * c.tile.lanes * half;
    stores = input ? places * c.tile.lanes : 0;
    products = rows * columns * out * (parted ? c.tap_rows * k.kernel_w : taps_of(k)) *
               (p.pass == Pass::Both ? 2 : 1);
    copied = (rows * (units + k.reach_w() - 1) * k.repeat +
              (weight ? rows * k.stride_h * units * k.stride_w : 0)) *
             c.channels;
  }
  const double copies = copied * s.number / chunk, page = copied * s.number * (c.stages - 1);
  const int groups = weight ? tap_groups : 1;
  const double resident = std::min<double>(
      {static_cast<double>(promised_blocks(p, s, c)), static_cast<double>(kResidentThreads / c.threads),
       std::floor(static_cast<double>(kSharedBytes) / static_cast<double>(plan.launch.shared_bytes + 1024))});
  if (resident < 1) return std::numeric_limits<double>::infinity();
  const double items = s.forward ? static_cast<double>(plan.launch.blocks)
                                 : static_cast<double>(plan.pixels.items) * cut.channel_blocks;
  const double steps = cut.strip_rows / rows;
  const double working =
      static_cast<double>(ceiling(std::int64_t{cut.groups} * (c.channels / c.tile.lanes) * groups, 32));
  const double thread_steps = items * working * steps, block_steps = items * steps;
  const double in_flight = resident * page / 1e3,
               segment = c.channels < s.channels ? 64.0 / (c.channels * s.number) : 0;
  const int held = registers_of(c.threads, static_cast<int>(resident));
  const double spilled = 1 + 0.447 * std::max(0, registers(p, s, c) - held) / 32;
  const double memory = bytes / 4.15e9 * (0.996 + 1.0 / in_flight + 0.379 * segment);
  const double issue = (thread_steps * (1.36 * products + 5.1 * loads + 1.06 * unpacked + 10 * stores) +
                        block_steps * 67.2 * copies / 32) /
                       4 / kClocks * spilled;
  const double shared = thread_steps * loads * std::max(1.0, c.tile.lanes * s.number / 4.0) * 2.18 / kClocks;
  const double latency = (items * 15980 + block_steps * 6.38 * products) / resident / kClocks * spilled;
  constexpr double kPower = 4.44;
  double sum = 0;
  for (const double limit : {memory, issue, shared, latency}) sum += std::pow(limit, kPower);
  const double waves = static_cast<double>(plan.launch.blocks) / (kMultiprocessors * resident);
  const double parts = weight ? static_cast<double>(plan.launch.parts) * static_cast<double>(s.out_channels) *
                                    (taps_of(k) + 1) * 8 / 1.1e9
                              : 0;
  return std::pow(sum, 1 / kPower) * (1 + 0.323 * (std::ceil(waves) / waves - 1)) + parts + 0.0028;
}

/// The plan of a configuration, with the names only if wanted; false: it does not fit.
bool plan_pixels(const Problem& p, const Shape& s, const Config& c, bool named, Plan& plan) {
  const KernelSizes& k = s.kernel;
  const int chunk = s.forward && p.pass == Pass::Input ? p.output_alignment : p.input_alignment;
  const int both = std::min(p.input_alignment, p.output_alignment);
  const int copied = s.forward ? chunk : reads_input(p) ? both : p.output_alignment;
  plan = {};
  plan.pixels.h = s.h;
  plan.pixels.w = s.w;
  const auto rest = [&] { return std::to_string(c.channels) + ", " + std::to_string(c.tap_rows) + ", "; };
  const auto bounds = [&] {
    return std::to_string(c.threads) + ", " + std::to_string(promised_blocks(p, s, c));
  };
  if (s.forward) {
    plan.launch = cut_forward_pixels(plan.pixels, s.images, s.channels, k, c.tile, c.channels, c.stages,
                                     s.number, c.threads, c.strip);
    if (has_statistics(p)) add_statistics_pixels(plan.pixels.cut, c.channels, k.repeat, plan.launch);
    if (named)
      plan.kernel = expression(p, s, c, "forward_pixels",
                               rest() + std::to_string(c.stages) + ", " + std::to_string(copied) + ", " +
                                   activation_word(p, loads_transformed(p)) + ", " + word(has_statistics(p)) +
                                   ", " + bounds());
  } else {
    const bool weight = p.pass != Pass::Input, input = p.pass != Pass::Weight;
    plan.launch =
        cut_backward_pixels(plan.pixels, s.images, s.channels, k, c.tile, c.channels, c.tap_rows, c.stages,
                            s.number, c.threads, c.strip, reads_input(p), p.bias, kPartsBlocks);
    if (has_norm_sums(p)) add_norm_sums(weight, plan.launch);
    if (named)
      plan.kernel = expression(p, s, c, "backward_pixels",
                               rest() + word(input) + ", " + word(weight) + ", " + word(p.bias) + ", " +
                                   std::to_string(c.stages) + ", " + std::to_string(copied) + ", " +
                                   activation_word(p, loads_transformed(p)) + ", " +
                                   activation_word(p, has_norm_sums(p)) + ", " + bounds());
    if (plan.launch.blocks == 0) return false;
  }
  const PixelCut& cut = plan.pixels.cut;
  // A thread has the bits of at most 32 columns.
  const int numbers = copied / s.number, pixels = c.threads / (c.channels * k.repeat / numbers);
  const std::int64_t columns = (std::int64_t{cut.groups} * c.tile.columns + k.kernel_w) * k.stride_w;
  if (pixels < 1 || c.threads < c.channels / numbers || columns > std::int64_t{32} * pixels) return false;
  plan.cost = pixel_cost(p, s, c, plan, copied) + hook_cost(p, s, plan.launch);
  if (s.forward || p.pass == Pass::Input) plan.launch.parts = 0;
  if (named)
    plan.what = "pixels " + std::to_string(c.tile.rows) + "x" + std::to_string(c.tile.columns) + "x" +
                std::to_string(c.tile.lanes) + ", " + std::to_string(c.channels) + " channels, strips of " +
                std::to_string(cut.strip_rows) + ", " + std::to_string(c.stages) + " stages, " +
                std::to_string(c.threads) + " threads";
  return plan.launch.shared_bytes <= kSharedBytes && plan.launch.blocks <= kMostBlocks &&
         plan.cost < std::numeric_limits<double>::infinity();
}

bool plan_planes(const Problem& p, const Shape& s, const Config& c, bool named, Plan& plan) {
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
  return plan.launch.shared_bytes <= kSharedBytes && plan.launch.blocks <= kMostBlocks &&
         plan.cost < std::numeric_limits<double>::infinity();
}

/// Rows of taps that a thread has at once: all, or so many that they fit into registers.
std::vector<int> tap_rows_of(const Problem& p, const Shape& s) {
  const KernelSizes& k = s.kernel;
  std::vector<int> choices;
  if (taps_of(k) <= 49) choices.push_back(k.kernel_h);
  if (taps_of(k) < 25 || p.pass == Pass::Both || has_norm_sums(p)) return choices;
  const int unit = s.forward ? 1 : k.stride_h;
  for (const int rows : {unit, 2 * unit, 4 * unit})
    if (rows < k.kernel_h && (rows * k.kernel_w <= 49 || rows == unit)) choices.push_back(rows);
  return choices;
}

template <class Add>
void each_tile(const Problem& p, const Shape& s, const std::vector<int>& columns,
               const std::vector<int>& lanes, const Config& from, const Add& add) {
  constexpr int kLongestCode = 1600;
  for (const int tap_rows : tap_rows_of(p, s))
    for (const int rows : {1, 2, 4, 7, 8, 14})
      for (const int width : columns)
        for (const int lane : lanes) {
          Config c = from;
          c.tile = {rows, width, lane};
          // Sums that are kept are of whole strides.
          c.tap_rows = c.steps > 1 ? static_cast<int>(round_up(tap_rows, s.kernel.stride_h)) : tap_rows;
          if (products(s, c) <= kLongestCode && registers(p, s, c) <= kMostRegisters) add(c);
        }
}

/// Rows of a class that strips share.
std::int64_t rows_of(const Shape& s) {
  return s.forward ? ceiling(s.h.output, s.h.output_step)
                   : ceiling(s.h.input, std::int64_t{s.h.output_step} * s.kernel.stride_h);
}

}  // namespace

void add_pixel_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  const std::int64_t rows = rows_of(s);
  const int read = s.turned ? p.output_alignment : p.input_alignment,
            written = s.turned ? p.input_alignment : p.output_alignment;
  const int narrowest = std::min(read, written);
  constexpr int kMostOutputs = 16;
  // The outputs of a vector are stored in vectors of their own.
  const auto is_stored = [&](int lane) {
    const int count = lane * (s.forward ? s.kernel.repeat : 1), vector = count & -count;
    return std::min(16, vector * s.number) <= written;
  };
  std::vector<int> lanes;
  for (const int lane : {1, 2, 4, 8})
    if (lane * s.number <= narrowest && lane * s.kernel.repeat <= kMostOutputs && is_stored(lane))
      lanes.push_back(lane);
  // Of each: neighbouring bytes that make whole sectors, and few channels too many; or all that there are,
  // where they are few and are copied in small pieces anyway.
  std::vector<int> blocks;
  const int quantum = std::max(1, 16 / s.number);
  constexpr int kFewChannels = 32;
  if (s.channels <= kFewChannels && s.channels % quantum != 0) blocks.push_back(static_cast<int>(s.channels));
  for (int channels = quantum; channels <= 512; channels += quantum) {
    const std::int64_t count = ceiling(s.channels, channels);
    if (static_cast<double>(count * channels) <= 1.1 * static_cast<double>(s.channels) || count == 1)
      blocks.push_back(channels);
    if (count == 1) break;
  }
  std::vector<int> strips;
  for (const int strip : {7, 14, 28, 56, 112})
    if (strips.empty() || strip <= rows)
      strips.push_back(static_cast<int>(std::min<std::int64_t>(strip, rows)));
  std::vector<std::pair<double, Config>> configs;
  Plan plan;
  const auto try_all = [&](bool narrow) {
    each_tile(p, s, {1, 2, 4, 5, 7}, lanes, {}, [&](Config c) {
      // Smaller tiles were not among those that the estimate was fitted to.
      constexpr int kLeastPixels = 4;
      if (!narrow && c.tile.rows * c.tile.columns < kLeastPixels &&
          rows * s.w.output >= kLeastPixels * kLeastPixels)
        return;
      for (const int channels : blocks) {
        const int vectors = channels / c.tile.lanes;
        const bool is_narrow = channels * s.number < 32 && s.channels * s.number >= 64;
        if (channels % c.tile.lanes != 0 || (is_narrow && !narrow)) continue;
        // Of few channels a narrow map has too little for many threads.
        const bool few = channels % quantum != 0 && s.w.output * vectors <= 256;
        for (const int threads : {32, 64, 128, 256})
          for (const int stages : {2, 3})
            for (const int strip : strips) {
              if (vectors > threads || (threads < 128 && !few)) continue;
              c.channels = channels, c.threads = threads, c.stages = stages, c.strip = strip;
              if (plan_pixels(p, s, c, false, plan)) configs.emplace_back(plan.cost, c);
            }
      }
    });
  };
  try_all(false);
  // Long kernels leave a block few threads for its channels, and large ones few registers for pixels.
  if (configs.empty()) {
    if (std::find(blocks.begin(), blocks.end(), quantum) == blocks.end()) blocks.push_back(quantum);
    try_all(true);
  }
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_pixels(p, s, config, true, best); }, plans);
}

void add_plane_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  // Large planes of several outputs a channel do not fit into a block together: then one after the other, dx
  // in one launch. Launches round it after each, so they are for float32 alone. Neither leaves sums for a
  // norm.
  Shape one = s;
  one.kernel.repeat = 1;
  one.out_channels /= s.kernel.repeat;
  const int outputs = s.kernel.repeat;
  const bool several = outputs > 1 && !has_norm_sums(p);
  std::vector<Config> ways;
  if (s.forward || outputs == 1) ways.emplace_back();
  if (several && p.pass == Pass::Input) ways.emplace_back().steps = outputs;
  if (several && (p.pass == Pass::Forward || p.pass == Pass::Weight || s.number == 4))
    ways.emplace_back().apart = outputs;
  const auto shape_of = [&](const Config& c) -> const Shape& { return c.apart * c.steps > 1 ? one : s; };
  std::vector<std::pair<double, Config>> configs;
  Plan plan;
  const auto try_all = [&](const std::vector<int>& columns, const std::vector<int>& sizes) {
    for (const Config& way : ways) {
      const Shape& of = shape_of(way);
      each_tile(p, of, columns, {1}, way, [&](Config c) {
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
  const auto plan_of = [&](const Config& c, Plan& best) { plan_planes(p, shape_of(c), c, true, best); };
  add_best(configs, plan_of, plans);
}

}  // namespace lamella::depthwise
