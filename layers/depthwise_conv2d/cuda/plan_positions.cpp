#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_positions.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Positions: small dense planes of sixteen-bit numbers, moved by the copy engine, and multiplied by the
// matrix units, sixteen images at once.
namespace lamella::depthwise {
namespace {

struct PositionConfig {
  PositionSizes sizes;
  PositionLayout layout;
  PositionTileSizes tile{};
  std::int64_t wanted_blocks = 0;
};

/// Of a thread, to within some.
int registers(const Problem& p, const PositionConfig& c) {
  const int products = c.layout.products, units = c.tile.units;
  if (weighs(p))
    return 38 + (c.sizes.periodic ? 8 : 0) + 4 * products + (p.bias ? 8 : 4) * units +
           (loads_transformed(p) ? 2 * c.layout.steps + 6 : 0);
  return 54 + 2 * products + 6 * units;
}

/// Estimated milliseconds: the largest of some limits counts most. Weights are those of other
/// families, instructions are counted, and kSober makes it the median of some 800 measurements on an H200.
double cost(const Problem& p, const Shape& s, const PositionConfig& c, const Plan& plan, double resident) {
  constexpr double kClocks = kMultiprocessors * 1.8e6;  // of all multiprocessors, a millisecond
  const PositionSizes& z = c.sizes;
  const PositionTileSizes& t = c.tile;
  const bool weigh = weighs(p);
  const double read = weigh ? z.inputs() + z.outputs() : z.sources(), written = weigh ? 0 : z.results();
  const double bytes = static_cast<double>(s.images * s.channels) * (read + written) * s.number;
  // Sectors at the ends of each image's run have less than 32 bytes of it.
  const double run = z.planes * (read + written) * s.number / 2, sectors = 1 + 16 / run;
  const double page = t.images() * z.planes * read * s.number;
  const double blocks = static_cast<double>(plan.launch.blocks);
  const double items = plan.planes.items * static_cast<double>(ceiling(s.channels, z.planes));
  const double products = c.layout.products, units = t.units, warps = c.layout.warps;
  const double loads = weigh ? units + std::ceil(c.layout.steps / 2.0) : c.layout.steps;
  const double taps = taps_of(s.kernel);
  const double turns = t.image_steps * c.layout.periods;
  double of_step, of_item, of_block;  // instructions of a warp
  if (weigh) {
    of_step = products + loads + 14 + ((p.bias ? 1 : 0) + (z.periodic ? 7 : 0)) * units +
              (loads_transformed(p) ? 2 * c.layout.steps * (p.hardswish ? 11 : 7) : 0);
    of_item = 50;
    of_block = 500 + 8 * products + z.planes * (taps + 1) * z.outputs() * 14 / 32 / warps;
  } else {
    of_step = products + loads + 7.5 * units + 14;
    of_item = 120 + (z.planes * z.results() % 8 != 0 ? 120 : 0);
    of_block = 400 + 18 * products + 35 * units + 4 * c.layout.steps;
  }
  const double wavefronts =
      turns * warps * (4 * loads + (weigh ? 0 : 2 * units)) + (page + t.images() * written) / 128;
  const double in_flight = resident * page * (t.pages - 1) / 1e3;
  // While the first pages are read nothing is written, and the other way at the end.
  const double ends = resident * kMultiprocessors * (page + t.images() * z.planes * written * s.number);
  const double memory = 0.99 * (bytes * sectors * (1 + 2.3 / in_flight) + ends / 2) / 4.15e9;
  const double issue = (items * (turns * of_step + of_item) + blocks * of_block) * warps * 1.3 / 4 / kClocks;
  const double matrix = items * turns * products * warps * 2 / kClocks;
  const double shared = items * wavefronts * 1.3 / kClocks;
  constexpr double kCopyClocks = 70, kStoreClocks = 16;
  const auto copies_of = [&](int pitch) {
    return PositionLayout::moves_at_once(z.periodic, pitch) ? 1.0 : t.images();
  };
  const double loads_asked =
      copies_of(c.layout.source_pitch) + (weigh ? copies_of(c.layout.result_pitch) : 0);
  const double copies =
      items * std::max(loads_asked * kCopyClocks / resident, weigh ? 0 : t.images() * kStoreClocks) / kClocks;
  const double chain = weigh ? 1 : products / units;  // of products that wait for each other
  const double latency =
      (items * (1500 + turns * (150 + 35 * chain)) + blocks * (3000 + 2 * of_block)) / resident / kClocks;
  constexpr double kPower = 4.07, kSober = 1.15;
  double sum = 0;
  for (const double limit : {memory, issue, matrix, shared, copies, latency}) sum += std::pow(limit, kPower);
  const double waves = blocks / (kMultiprocessors * resident);
  const double parts =
      weigh ? static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) * (taps + 1) * 8 / 3e9
            : 0;
  return kSober * std::pow(sum, 1 / kPower) * (1 + 0.11 * (std::ceil(waves) / waves - 1)) + parts + 0.0087;
}

/// The plan of a configuration; false: it does not fit.
bool plan_positions(const Problem& p, const Shape& s, const PositionConfig& c, bool named, Plan& plan) {
  const PositionSizes& z = c.sizes;
  const PositionTileSizes& t = c.tile;
  plan = {};
  plan.family = Plan::Family::Positions;
  plan.planes.h = s.h, plan.planes.w = s.w;
  plan.launch =
      weighs(p)
          ? cut_weigh_positions(plan.planes, s.images, s.channels, z, c.layout, t, p.bias, c.wanted_blocks)
          : cut_correlate_positions(plan.planes, s.images, s.channels, z, c.layout, t, c.wanted_blocks);
  if (!can_launch(p, plan.launch)) return false;
  const int threads = plan.launch.threads, wanted = registers(p, c);
  std::int64_t resident =
      std::min<std::int64_t>(kResidentThreads / threads, blocks_by_shared(p, plan.launch));
  while (resident > 0 && registers_of(threads, static_cast<int>(resident)) < wanted) --resident;
  if (resident < 1) return false;
  plan.cost = cost(p, s, c, plan, static_cast<double>(resident));
  plan.resident = static_cast<int>(resident), plan.registers = wanted, plan.item_images = t.images();
  (z.transposed ? plan.y_images : plan.x_images) = image_runs(z, t, c.layout.source_pitch);
  if (weighs(p)) plan.y_images = image_runs(z, t, c.layout.result_pitch);
  if (!named) return true;
  std::array<char, 320> text{};
  int length = std::snprintf(
      text.data(), text.size(),
      "%s_positions<%s, Kernel<%d, %d, %d, %d, 1>, PositionMap<%d, %d, %d, %d, %d, %d, %d, %d>, "
      "PositionTile<%d, %d, %d, %d%s>",
      weighs(p)      ? "weigh"
      : z.transposed ? "backward"
                     : "forward",
      type_name(p.dtype), z.h.kernel, z.w.kernel, z.h.stride, z.w.stride, z.h.input, z.w.input, z.h.output,
      z.w.output, z.h.padding, z.w.padding, z.h.dilation, z.w.dilation, z.planes, t.units, t.image_steps,
      t.pages, z.periodic ? ", true" : "");
  const auto rest = [&] { return text.size() - static_cast<std::size_t>(length); };
  if (weighs(p))
    length += std::snprintf(text.data() + length, rest(), ", %s, %s", word(p.bias),
                            activation_word(p, loads_transformed(p)));
  std::snprintf(text.data() + length, rest(), ", %d, %d>", threads, static_cast<int>(resident));
  plan.kernel = text.data();
  plan.what = "positions of " + std::to_string(z.planes) + " planes, " + std::to_string(t.units) +
              " units to " + std::to_string(c.layout.warps) + " warps, " + std::to_string(t.images()) +
              " images, " + std::to_string(t.pages) + " pages";
  return true;
}

PositionSizes sizes_of(const Problem& p, const Shape& s) {
  const auto along = [](const Axis& axis, std::int64_t kernel) {
    return Along{axis.input,  axis.output,     static_cast<int>(kernel),
                 axis.stride, axis.input_step, axis.padding};
  };
  PositionSizes sizes;
  sizes.h = along(s.h, s.kernel.kernel_h), sizes.w = along(s.w, s.kernel.kernel_w);
  sizes.transposed = p.pass == Pass::Input && !s.forward;
  return sizes;
}

/// Whether the kernels can do it, and it may be worth a thought.
bool may_use_positions(const Problem& p, const Shape& s, const PositionSizes& sizes) {
  constexpr int kAligned = 16, kMostInputs = 1024, kMostReach = 32;
  constexpr std::int64_t kLeastImages = 8, kChunk = 8;
  // Places in an image are 32-bit numbers.
  constexpr std::int64_t kMostNumbers = std::int64_t{1} << 30;
  const auto is_whole = [&](int plane) {
    return s.channels * plane % kChunk == 0 && s.channels * plane < kMostNumbers;
  };
  return p.boxes && !p.channels_last && s.number == 2 && s.kernel.repeat == 1 && p.pass != Pass::Both &&
         !p.accumulate && p.hook == Hook::None && (weighs(p) || (!p.exact_taps && !loads_transformed(p))) &&
         p.input_alignment >= kAligned && p.output_alignment >= kAligned && s.images >= kLeastImages &&
         s.h.padding >= 0 && s.w.padding >= 0 && sizes.inputs() <= kMostInputs &&
         sizes.outputs() <= kMostInputs && (sizes.h.kernel - 1) * sizes.h.dilation <= kMostReach &&
         (sizes.w.kernel - 1) * sizes.w.dilation <= kMostReach && is_whole(sizes.inputs()) &&
         is_whole(sizes.outputs());
}

using Configs = std::vector<std::pair<double, PositionConfig>>;

/// Adds the best few of these sizes for each number of images: else others that differ in more would not be
/// measured.
void add_alike(const Problem& p, const Shape& s, const PositionSizes& sizes, Configs& configs) {
  constexpr int kMostWarps = 15, kMostRegisters = 240;
  constexpr std::size_t kMostAlike = 4;
  const int unit_numbers = weighs(p) ? 16 : 8;
  const std::int64_t units =
      ceiling(sizes.periodic ? std::int64_t{sizes.period_rows(unit_numbers)} * sizes.result_columns()
                             : std::int64_t{sizes.planes} * sizes.results(),
              unit_numbers);
  Configs alike[2];
  PositionConfig c;
  Plan plan;
  c.sizes = sizes;
  std::int64_t warps_before = 0;
  for (const int of_warp : {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16}) {
    // Of as many warps the fewest units.
    const std::int64_t warps = ceiling(units, of_warp);
    if (warps > kMostWarps || warps == warps_before) continue;
    warps_before = warps;
    c.tile.units = of_warp;
    c.layout = layout_of(sizes, unit_numbers, of_warp, weighs(p) ? 1 : 2);
    if (c.layout.warps > kMostWarps || c.layout.products == 0 || registers(p, c) > kMostRegisters) continue;
    for (const int image_steps : {1, 2}) {
      double least = 0;
      PositionConfig best;
      if (image_steps > 1 && s.images <= 16) continue;
      for (const int pages : {2, 3, 4})
        for (const std::int64_t wanted : {132, 264, 396, 528, 1056}) {
          c.tile.image_steps = image_steps, c.tile.pages = pages, c.wanted_blocks = wanted;
          if (!plan_positions(p, s, c, false, plan) || (least > 0 && plan.cost >= least)) continue;
          least = plan.cost, best = c;
        }
      if (least > 0) alike[image_steps - 1].emplace_back(least, best);
    }
  }
  for (auto& some : alike) {
    std::stable_sort(some.begin(), some.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    some.resize(std::min(some.size(), kMostAlike));
    configs.insert(configs.end(), some.begin(), some.end());
  }
}

}  // namespace

void add_position_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  constexpr int kMostNumbers = 3200, kChunk = 8;
  PositionSizes sizes = sizes_of(p, s);
  if (!may_use_positions(p, s, sizes)) return;
  Configs configs;
  if (weighs(p) && !loads_transformed(p) && sizes.inputs() % kChunk == 0) {
    sizes.periodic = true;
    add_alike(p, s, sizes, configs);
    sizes.periodic = false;
  }
  for (const int planes : {1, 2, 4, 8, 16, 32, 64}) {
    sizes.planes = planes;
    if (planes > s.channels || (planes > 1 && planes * sizes.inputs() > kMostNumbers)) break;
    add_alike(p, s, sizes, configs);
  }
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_positions(p, s, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
