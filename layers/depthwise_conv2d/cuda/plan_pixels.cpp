#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "layers/depthwise_conv2d/cuda/plan_threads.h"

// Pixels: channels side by side; all threads copy, and compute their own results.
namespace lamella::depthwise {
namespace {

/// Estimated milliseconds of pixels: four limits, of which the largest counts most. Their weights were fitted
/// to some 5,600 measurements on an H200 (docs/performance.md), from which they are a fifth off on average.
/// `chunk`: bytes that are copied at once.
double pixel_cost(const Problem& p, const Shape& s, const ThreadConfig& c, const Plan& plan, int chunk) {
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
  const double resident = std::min<double>({static_cast<double>(promised_blocks(p, s, c)),
                                            static_cast<double>(kResidentThreads / c.threads),
                                            static_cast<double>(blocks_by_shared(p, plan.launch))});
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
bool plan_pixels(const Problem& p, const Shape& s, const ThreadConfig& c, bool named, Plan& plan) {
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
  return can_launch(p, plan.launch) && plan.cost < std::numeric_limits<double>::infinity();
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
  std::vector<std::pair<double, ThreadConfig>> configs;
  Plan plan;
  const auto try_all = [&](bool narrow) {
    each_tile(p, s, {1, 2, 4, 5, 7}, lanes, {}, [&](ThreadConfig c) {
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

}  // namespace lamella::depthwise
