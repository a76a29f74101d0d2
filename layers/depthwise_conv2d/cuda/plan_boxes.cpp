#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/planning.h"

// Boxes: sixteen-bit pixels, moved by the copy engine and multiplied by the matrix units.
namespace lamella::depthwise {
namespace {

/// A plan in boxes, and what its cost depends on.
struct BoxConfig {
  BoxTileSizes tile{};
  int strip = 0;
  std::int64_t wanted_blocks = 0;
};

/// Products of a row for so many shifts of g: of two, or of one where a channel has two outputs.
int products_of_row(int shifts, int repeat) { return repeat == 1 ? (shifts + 1) / 2 : shifts; }

/// Registers of a thread, to within some tens.
int box_registers(const Problem& p, const Shape& s, const BoxTileSizes& t) {
  const KernelSizes& k = s.kernel;
  const int eights = t.warp_channels / 8, taps = taps_of(k);
  const int statistics = has_statistics(p) ? 6 * eights + 6 : 0;
  const int images = t.images > 1 ? 4 : 0;
  if (s.forward)
    return statistics + images + 44 + t.tap_rows * k.kernel_w * eights + t.rows * eights * 4 +
           8 * (k.kernel_w + 1) / 2 * eights;
  int count = (has_norm_sums(p) ? 9 * eights + 6 : 0) + (loads_transformed(p) ? 2 * eights + 4 : 0) + images +
              52 + 8 * eights + (k.reach_w() / 2) * eights;
  if (p.pass != Pass::Weight)
    count += taps * k.repeat * eights + t.rows * k.stride_h * k.stride_w * eights * 4;
  if (p.pass != Pass::Input)
    count += t.tap_rows * k.stride_w * products_of_row(k.reach_w(), k.repeat) * eights * 4 +
             t.rows * k.stride_h * k.stride_w * eights * 2;
  return count;
}

/// Estimated milliseconds: five limits, of which the largest counts most. Their weights were fitted to some
/// 1,700 measurements on an H200 (docs/performance.md), from which they are a tenth off on average.
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
  // Of several images, each is worked on by itself, and all share what an item and a step cost.
  const double images = t.images, block_images = t.block_images();
  const double items = static_cast<double>(plan.pixels.items) * cut.channel_blocks,
               steps = items * item_steps;
  const double warps = t.blocks * t.warp_groups() *
                       (s.forward ? 1.0 : std::ceil(static_cast<double>(k.kernel_h) / t.tap_rows));
  double loads = 0, products = 0, issued = 0, stores = 0, instructions = 0, page = 0, results = 0;
  const double units = t.units();
  if (s.forward) {
    const double pairs = k.kernel_w / 2, odd = k.kernel_w % 2;
    const double chain = (t.rows - 1) * t.down() * k.stride_h + k.kernel_h;
    loads = chain * eights * (pairs * 4 + odd * 2);
    products = t.rows * k.kernel_h * eights * (pairs + odd / 2);
    issued = t.rows * k.kernel_h * eights * (pairs + odd);
    stores = t.rows * 2 * eights;
    instructions = chain * (pairs * eights + odd) + issued + t.rows * (2 * eights + 2);
    page = static_cast<double>(plan.x_box.pixels) * plan.x_box.rows * k.stride_w * t.channels * s.number;
    results = step_rows * units * t.channels * s.number;
  } else {
    const int span = k.stride_w > 1 ? k.reach_w() : k.kernel_w;
    const double places = products_of_row(span, k.repeat);
    const double phases = k.stride_h * k.stride_w;
    const bool parted = t.tap_rows < k.kernel_h;
    const double chain = (t.rows - 1) * t.down() + (parted ? t.tap_rows / k.stride_h : k.reach_h());
    if (p.pass != Pass::Weight) {
      const double some = t.rows * taps * eights;
      loads += chain * eights * span * 2 * k.repeat;
      issued += some * (k.repeat == 1 ? 0.6 : 1), products += some * 0.5 * k.repeat;
      stores = t.rows * phases * 2 * eights;
      results = step_rows * units * phases * t.channels * s.number;
    }
    if (p.pass != Pass::Input) {
      const double some = t.rows * t.tap_rows * k.stride_w *
                          products_of_row(static_cast<int>(ceiling(k.kernel_w, k.stride_w)), k.repeat) *
                          eights;
      loads += chain * places * eights * 4 + t.rows * phases * 2 * eights;
      issued += some, products += some;
    }
    instructions = loads / 4 + issued + stores * 2;
    page = (static_cast<double>(plan.y_box.pixels) * plan.y_box.rows * k.repeat +
            static_cast<double>(plan.x_box.pixels) * plan.x_box.rows * k.stride_w) *
           t.channels * s.number;
  }
  loads *= block_images, products *= block_images, issued *= block_images, stores *= block_images;
  instructions *= block_images, page *= images, results *= images;
  const double of_sm = 1 / (kMultiprocessors * kClocks), resident = blocks_of_sm, warp_steps = steps * warps;
  const double blocks = static_cast<double>(plan.launch.blocks);
  const double in_flight = resident * page * std::max(1, t.pages - 1) / 1e3;
  // Blocks that share pixels drift apart: what one has read is gone from the cache when the next asks for the
  // rest of it, the more the less of a pixel each takes and the longer it runs.
  const double drift = s.channels > t.channels ? 0.0485 * std::pow(bytes / blocks / 1e6, 0.183) *
                                                     std::pow(32.0 / t.channels, 1.56)
                                               : 0;
  const double strided = k.stride_w > 1 && p.pass != Pass::Weight ? 0.062 : 0;
  const double memory = bytes / 4.15e9 *
                        (0.988 + 19.2 / in_flight +
                         (t.by_rows ? 0 : 2 * (sectors_of(s.channels, t.channels) - 1)) + drift + strided);
  const double matrix = warp_steps * products * 0.3 * of_sm;
  // By rows two of eight neighbours meet in a bank where pixels have an even number of eights.
  const double conflicts = t.by_rows && t.channels / 8 % 2 == 0 ? 2 : 1;
  const double shared =
      (warp_steps * conflicts * (loads + stores) + steps * (page + results) / 128) * 1.37 * of_sm;
  const double issue = (warp_steps * instructions * 7.38 + items * warps * 386) / 4 * of_sm;
  const double latency = (warp_steps / (resident * warps) * (864 + issued * 9.89) + items / resident * 1520 +
                          blocks / resident * 4170) *
                         of_sm;
  constexpr double kPower = 5.64;
  double sum = 0;
  for (const double limit : {memory, matrix, shared, issue, latency}) sum += std::pow(limit, kPower);
  const double waves = blocks / (kMultiprocessors * resident);
  const double parts =
      static_cast<double>(plan.launch.parts) * static_cast<double>(s.out_channels) * (taps + 1) * 8 / 1e9;
  // Of an odd number of eights, and by rows, they are too low by so much, as medians of what was measured.
  const double optimism = t.by_rows                 ? (s.forward ? 1.15 : 1.1)
                          : t.channels / 8 % 2 == 0 ? 1
                          : s.forward               ? 1.2
                                                    : 1.1;
  return optimism *
         (std::pow(sum, 1 / kPower) * (1 + 0.435 * (std::ceil(waves) / waves - 1)) + parts + 0.0026);
}

/// The plan of a configuration; false: it does not fit.
bool plan_boxes(const Problem& p, const Shape& s, const BoxConfig& c, bool named, Plan& plan) {
  BoxTileSizes t = c.tile;
  const bool input = p.pass != Pass::Weight, weight = p.pass != Pass::Input;
  plan = {};
  plan.family = Plan::Family::Boxes;
  plan.pixels.h = s.h;
  plan.pixels.w = s.w;
  t.box_columns = s.forward ? narrow_forward_boxes(plan.pixels, s.kernel, t)
                            : narrow_backward_boxes(plan.pixels, s.kernel, t, p.bias);
  const BoxPlan boxes =
      s.forward ? cut_forward_boxes(plan.pixels, s.images, s.channels, s.kernel, t, c.strip, c.wanted_blocks)
                : cut_backward_boxes(plan.pixels, s.images, s.channels, s.kernel, t, c.strip, input,
                                     reads_input(p), p.bias, c.wanted_blocks);
  plan.launch = boxes.launch;
  plan.x_box = boxes.x, plan.y_box = boxes.y, plan.dx_box = boxes.dx;
  if (has_statistics(p)) add_statistics_boxes(t, plan.launch);
  if (has_norm_sums(p)) add_norm_sums(weight, plan.launch);
  if (s.forward && loads_transformed(p)) add_transform_boxes(t, plan.launch);
  if (s.forward) plan.launch.parts = 0;
  if (!can_launch(p, plan.launch)) return false;
  // A few numbers that do not find a register cost less than a block that is not there.
  constexpr int kSpilled = 24;
  const int wanted = box_registers(p, s, t) - kSpilled;
  std::int64_t blocks_of_sm =
      std::min(blocks_by_shared(p, plan.launch), kResidentThreads / plan.launch.threads);
  while (blocks_of_sm > 0 && registers_of(plan.launch.threads, static_cast<int>(blocks_of_sm)) < wanted)
    --blocks_of_sm;
  if (blocks_of_sm < 1) return false;
  plan.cost = box_cost(p, s, t, plan, static_cast<int>(blocks_of_sm)) + hook_cost(p, s, plan.launch);
  plan.resident = static_cast<int>(blocks_of_sm), plan.registers = wanted, plan.item_images = t.images;
  if (!named) return true;
  const KernelSizes& k = s.kernel;
  std::array<char, 320> text{};
  const int length = std::snprintf(
      text.data(), text.size(), "%s<%s, Kernel<%d, %d, %d, %d%s>, BoxTile<%d, %d, %d, %d, %d, %d, %d, %s",
      s.forward ? "forward_boxes" : "backward_boxes", type_name(p.dtype), k.kernel_h, k.kernel_w, k.stride_h,
      k.stride_w, k.repeat > 1 ? ", 2" : "", t.columns, t.blocks, t.rows, t.channels, t.warp_channels,
      t.tap_rows, t.pages, word(t.whole));
  plan.kernel.assign(text.data(), static_cast<std::size_t>(length));
  if (t.box_columns > 0 || t.images > 1 || t.by_rows) plan.kernel += ", " + std::to_string(t.box_columns);
  if (t.images > 1 || t.by_rows) plan.kernel += ", " + std::to_string(t.images);
  if (t.by_rows) plan.kernel += ", true";
  plan.kernel += ">, ";
  if (!s.forward)
    plan.kernel += std::string(word(input)) + ", " + word(weight) + ", " + word(p.bias) + ", " +
                   std::to_string(phase_of(s.h, k.stride_h)) + ", " +
                   std::to_string(phase_of(s.w, k.stride_w)) + ", ";
  plan.kernel += std::string(activation_word(p, loads_transformed(p))) + ", " +
                 (s.forward ? word(has_statistics(p)) : activation_word(p, has_norm_sums(p))) + ", " +
                 std::to_string(blocks_of_sm) + ">";
  plan.what = std::string(t.by_rows ? "boxes by rows of " : "boxes of ") + std::to_string(t.blocks) + " x " +
              std::to_string(t.columns) + " columns, " + std::to_string(t.step_rows()) + " rows, " +
              std::to_string(t.channels) + " channels (" + std::to_string(t.warp_channels) +
              " to a warp), strips of " + std::to_string(plan.pixels.cut.strip_rows) + ", " +
              std::to_string(t.pages) + " pages";
  if (t.images > 1) plan.what += " of " + std::to_string(t.images) + " images";
  return true;
}

/// Whether boxes may be moved by rows: of all channels, an odd number of eights or one by which no more than
/// two of eight neighbours meet in a bank. Of more than 128 blocks wait for themselves (docs/performance.md).
bool may_move_rows(const Problem& p, const Shape& s) {
  constexpr std::int64_t kMostChannels = 128;
  const std::int64_t eights = s.channels / 8;
  return s.channels % 8 == 0 && s.channels <= kMostChannels && (eights % 2 == 1 || eights % 4 == 2) &&
         !p.input_gaps && !p.output_gaps && s.kernel.stride_w == 1 && s.kernel.repeat == 1;
}

/// Calls add(config) for what may be worth a thought.
template <class Add>
void each_box(const Problem& p, const Shape& s, const Add& add) {
  const KernelSizes& k = s.kernel;
  const bool weight = !s.forward && p.pass != Pass::Input;
  const auto in_units = [&](const Axis& axis, int stride) {
    return s.forward ? ceiling(axis.output, axis.output_step)
                     : ceiling(axis.input, std::int64_t{axis.output_step} * stride);
  };
  const std::int64_t rows = in_units(s.h, k.stride_h), columns = in_units(s.w, k.stride_w);
  std::vector<std::pair<int, bool>> channels_of_block;  // and whether by rows
  for (const int channels : {16, 32, 64, 24, 40, 72, 120}) {
    if (channels > round_up(s.channels, 16) || (channels == 16 && s.channels >= 64)) continue;
    // An odd number of eights is for those that others do not fit.
    const bool is_odd = channels / 8 % 2 == 1;
    if (k.repeat > 1 && (is_odd || channels > 32)) continue;  // a box has no more of g's
    if (is_odd && (s.channels < channels || s.channels % 64 == 0)) continue;
    if (wasteful(s.channels, channels, is_odd ? 0.95 : 0.73) && channels > 16) continue;
    channels_of_block.emplace_back(channels, false);
  }
  if (may_move_rows(p, s) && k.stride_w == 1)
    channels_of_block.emplace_back(static_cast<int>(s.channels), true);
  // Larger blocks wait for themselves; by rows there are none with fewer channels.
  constexpr int kMostWarps = 16, kMostByRows = 20;
  BoxConfig c;
  // Several images of a small map to an item; blocks share them out.
  const auto each_of = [&](int images, int width) {
    for (const int blocks : {1, 2, 3, 4, 5, 7}) {
      if (images > 1 && images % blocks != 0) continue;
      const int units = images > 1 ? width : width * blocks;
      if (wasteful(columns, units, columns < 8 ? 0.4 : 0.8) || (width == 8 && columns % 16 == 0)) continue;
      for (const auto& [channels, by_rows] : channels_of_block) {
        for (const int rows_of_step : {1, 2, 3, 4, 7, 8, 14, 16}) {
          if (rows_of_step > 8 && images == 1) continue;  // strips do as well
          const int step = rows_of_step * 16 / width;
          if (images > 1 && (step < rows || step - 16 / width >= rows)) continue;
          if (wasteful(rows, step, rows < step ? 0.4 : 0.74)) continue;
          for (const int warp_channels : {8, 16}) {
            if (channels % warp_channels != 0) continue;
            for (const int tap_rows : {k.kernel_h, (k.kernel_h + 1) / 2, 2}) {
              const bool parted = tap_rows < k.kernel_h;
              // Parts of the taps are for those that no thread can hold.
              constexpr int kMostTaps = 49;
              if (parted && (taps_of(k) <= kMostTaps || s.forward || width == 8 || p.pass != Pass::Weight ||
                             tap_rows % k.stride_h != 0))
                continue;
              if (tap_rows > k.kernel_h) continue;
              const int groups = weight ? static_cast<int>(ceiling(k.kernel_h, tap_rows)) : 1;
              const int warps = blocks * channels / warp_channels * groups;
              if (warps < 2 || warps > (by_rows ? kMostByRows : kMostWarps)) continue;
              for (const int more : {1, 2, 3}) {
                const bool whole = step >= rows;
                const int read = s.forward ? (step - 1) * k.stride_h + k.kernel_h
                                           : step +
                                                 WindowSizes(k.kernel_h, k.stride_h,
                                                             std::max(0, phase_of(s.h, k.stride_h)))
                                                     .span -
                                                 1;
                const int page_rows = whole ? read : s.forward ? step * k.stride_h : step;
                c.tile = {width,
                          blocks,
                          rows_of_step,
                          channels,
                          warp_channels,
                          tap_rows,
                          static_cast<int>(ceiling(read, page_rows)) + more,
                          whole,
                          0,
                          images,
                          by_rows};
                for (const int strip : {14, 28, 56, 112}) {
                  if (strip > 14 && strip / 2 >= rows) break;
                  c.strip = whole ? step : strip;
                  for (const std::int64_t wanted : {264, 528, 1056, 2112, 4224, 8448}) {
                    if (weight ? wanted > 2112 : images == 1 && wanted < 528) continue;
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
  };
  for (const int width : {16, 8}) each_of(1, width);
  const int size = std::max(rows, columns), width = size <= 8 ? 8 : 16;
  if (size > 16) return;
  for (int images = 2; images <= 64 / width && images / 2 < s.images; images *= 2) each_of(images, width);
}

/// Whether the tensors can be moved in boxes and their numbers multiplied by the matrix units.
bool may_use_boxes(const Problem& p, const Shape& s) {
  constexpr int kBoxAlignment = 16, kLargestBoxStride = 3;
  return p.boxes && p.channels_last && s.number == 2 && s.kernel.repeat <= (s.forward ? 1 : 2) &&
         !p.accumulate && !p.exact_taps && p.input_alignment >= kBoxAlignment &&
         p.output_alignment >= kBoxAlignment && s.kernel.kernel_w > 1 &&
         std::max(s.kernel.stride_h, s.kernel.stride_w) <= kLargestBoxStride;
}

}  // namespace

void add_box_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_boxes(p, s)) return;
  // Of each kind the best: so what was measured of one stays among the plans, however the others do.
  std::vector<std::pair<double, BoxConfig>> of_one_image, of_several, of_odd_eights, by_rows;
  Plan plan;
  each_box(p, s, [&](const BoxConfig& c) {
    if (!plan_boxes(p, s, c, false, plan)) return;
    auto& kind = c.tile.by_rows                 ? by_rows
                 : c.tile.channels / 8 % 2 == 1 ? of_odd_eights
                 : c.tile.images > 1            ? of_several
                                                : of_one_image;
    kind.emplace_back(plan.cost, c);
  });
  for (auto* const configs : {&of_one_image, &of_several, &of_odd_eights, &by_rows})
    add_best(
        *configs, [&](const auto& config, Plan& best) { plan_boxes(p, s, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
