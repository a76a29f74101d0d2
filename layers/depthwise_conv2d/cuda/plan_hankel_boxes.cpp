#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_hankel_boxes.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Hankel boxes: the weight's gradient of sixteen-bit pixels, moved as boxes are, by products whose results
// are taps.
namespace lamella::depthwise {
namespace {

struct HankelConfig {
  HankelTileSizes tile{};
  std::int64_t strip = 0, wanted_blocks = 0;
};

/// What a warp does for an image, or two, of a page.
struct WarpWork {
  double loads = 0, joins = 0, products = 0;
};
WarpWork work_of(const KernelSizes& k, const HankelTileSizes& t) {
  const int low = t.low(), sums = t.sums(k.kernel_h), before = t.blocks_before(k.kernel_h);
  int pairs = 0;  // of blocks of x and of g that meet
  for (int b = 0; b < t.x_blocks; ++b)
    for (int d = 0; d < sums; ++d) {
      const int j = t.per_x() * b - (d + low);
      if (j >= -before && j < t.g_blocks) ++pairs;
    }
  const int g_loads = t.keeps ? t.g_blocks : pairs;
  WarpWork work;
  work.loads = 6 * t.x_blocks + 4 * g_loads;
  work.joins = 32 * (t.keeps ? t.x_blocks : pairs) + 16 * g_loads;
  work.products = 8 * pairs;
  return work;
}

/// Registers of a thread, to within some tens.
int registers(const Problem& p, const Shape& s, const HankelTileSizes& t) {
  const int sums = t.sums(s.kernel.kernel_h), pixels = 24;
  const int g =
      t.keeps ? 16 * std::min(sums + t.per_x() - 1, t.g_blocks + t.blocks_before(s.kernel.kernel_h)) : 24;
  return 40 + 32 * sums + g + pixels + (p.bias ? 10 : 0);
}

/// Estimated milliseconds, as of boxes: four limits, of which the largest counts most. Counted, not fitted,
/// and what memory takes is as of boxes; the best of a shape takes 0.96 of it, as the median of those
/// measured.
double cost(const Problem& p, const Shape& s, const HankelConfig& c, const Plan& plan, double resident,
            int spilled) {
  constexpr double kClocks = kMultiprocessors * 1.8e6;  // of all multiprocessors, a millisecond
  const HankelTileSizes& t = c.tile;
  const PixelCut& cut = plan.pixels.cut;
  const WarpWork work = work_of(s.kernel, t);
  const double x = static_cast<double>(s.images * s.channels) * s.h.input * s.w.input,
               y = static_cast<double>(s.images * s.channels) * s.h.output * s.w.output;
  const double bytes = (x + y) * s.number;
  const double page = static_cast<double>(box_bytes(plan.x_box) + box_bytes(plan.y_box)), pages = t.pages - 1;
  const double items = static_cast<double>(plan.pixels.items) * cut.channel_blocks;
  const double item_steps = static_cast<double>(ceiling(cut.strip_rows, t.x_rows()));
  const double before = t.blocks_before(s.kernel.kernel_h) > 0 ? 1 : 0;  // pages without x
  const double steps = items * item_steps, warps = t.blocks * t.channels / 8;
  // An image or two at a time.
  const double turns =
      t.images == 1 ? 1 : static_cast<double>(t.images) / t.blocks / (t.columns == 8 ? 2 : 1);
  const double of_turn =
      work.loads + work.joins + work.products + 2 * spilled + 12 + (p.bias ? 16 * t.g_blocks : 0);
  constexpr double kChain = 32;
  const double flushes = 420 * turns * t.x_blocks / kChain;
  const double issue =
      (steps * warps * (turns * of_turn + flushes + 60) + items * warps * 260) * 1.4 / 4 / kClocks;
  const double shared =
      (steps * (warps * (turns * (4 * work.loads + 2 * spilled) + 128 * turns * t.x_blocks / kChain) +
                page / 128) +
       items * before * static_cast<double>(box_bytes(plan.y_box)) / 128) *
      1.4 / kClocks;
  const double matrix = steps * warps * turns * work.products * 1.7 / kClocks;
  const double latency =
      (steps / resident * (500 + turns * (150 + of_turn * 1.7)) + items / resident * (1200 + 300 * before)) /
      kClocks;
  const double drift = s.channels > t.channels
                           ? 0.0485 * std::pow(bytes / static_cast<double>(plan.launch.blocks) / 1e6, 0.183) *
                                 std::pow(32.0 / t.channels, 1.56)
                           : 0;
  const double in_flight = resident * page * pages / 1e3;
  const double memory =
      bytes / 4.15e9 * (0.988 + 19.2 / in_flight + 2 * (sectors_of(s.channels, t.channels) - 1) + drift);
  constexpr double kPower = 5;
  double sum = 0;
  for (const double limit : {memory, issue, shared, matrix, latency}) sum += std::pow(limit, kPower);
  const double waves = static_cast<double>(plan.launch.blocks) / (kMultiprocessors * resident);
  const double parts = static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) *
                       (taps_of(s.kernel) + 1) * 8 / 3e9;
  const double unsure = t.late ? 1.15 : 1.1;  // those have not been measured
  return unsure * (std::pow(sum, 1 / kPower) * (1 + 0.4 * (std::ceil(waves) / waves - 1)) + parts + 0.003);
}

/// The plan of a configuration; false: it does not fit.
bool plan_hankel(const Problem& p, const Shape& s, const HankelConfig& c, bool named, Plan& plan) {
  const HankelTileSizes& t = c.tile;
  plan = {};
  plan.family = Plan::Family::HankelBoxes;
  plan.pixels.h = s.h, plan.pixels.w = s.w;
  const BoxPlan boxes =
      cut_hankel_boxes(plan.pixels, s.images, s.channels, s.kernel, t, c.strip, p.bias, c.wanted_blocks);
  plan.launch = boxes.launch, plan.x_box = boxes.x, plan.y_box = boxes.y;
  if (!can_launch(p, plan.launch)) return false;
  constexpr int kSpilled = 24;  // a few numbers that do not find a register
  const int wanted = registers(p, s, t);
  std::int64_t resident = std::min(blocks_by_shared(p, plan.launch), kResidentThreads / plan.launch.threads);
  const auto lacks = [&] { return wanted - registers_of(plan.launch.threads, static_cast<int>(resident)); };
  while (resident > 0 && lacks() > kSpilled) --resident;
  if (resident < 1) return false;
  if (!t.keeps) {  // that is for want of registers alone
    HankelTileSizes keeping = t;
    keeping.keeps = true;
    if (registers(p, s, keeping) + lacks() - wanted <= kSpilled) return false;
  }
  plan.cost = cost(p, s, c, plan, static_cast<double>(resident), std::max(0, lacks()));
  plan.resident = static_cast<int>(resident), plan.registers = wanted - kSpilled, plan.item_images = t.images;
  if (t.late) plan.most_items = t.most_items();
  if (!named) return true;
  std::array<char, 320> text{};
  std::snprintf(text.data(), text.size(),
                "backward_hankel_boxes<%s, Kernel<%d, %d, 1, 1>, HankelTile<%d, %d, %d, %d, %d, %d, %d, %d, "
                "%s, %s, %d%s>, "
                "%s, %d>",
                type_name(p.dtype), s.kernel.kernel_h, s.kernel.kernel_w, t.columns, t.blocks, t.shift_rows,
                t.x_blocks, t.g_blocks, t.lead, t.channels, t.pages, word(t.whole), word(t.keeps), t.images,
                t.late ? ", true" : "", word(p.bias), static_cast<int>(resident));
  plan.kernel = text.data();
  plan.what = "Hankel boxes of " + std::to_string(t.blocks) + " x " + std::to_string(t.columns) +
              " columns, " + std::to_string(t.x_blocks) + " x " + std::to_string(t.shift_rows) + " rows, " +
              std::to_string(t.channels) + " channels, strips of " +
              std::to_string(plan.pixels.cut.strip_rows) + ", " + std::to_string(t.pages) + " pages";
  if (t.images > 1) plan.what += " of " + std::to_string(t.images) + " images";
  if (!t.keeps) plan.what += ", g loaded again";
  if (t.late) plan.what += ", sums in place of pages";
  return true;
}

/// Of pages of whole maps: the rows of g before x that make the fewest sums and then the fewest blocks, and
/// the other way round. Calls add() for both.
template <class Add>
void each_lead(const Problem& p, const Shape& s, HankelTileSizes t, const Add& add) {
  constexpr int kMostLead = 7, kMostBlocks = 8;
  HankelTileSizes best[2];
  bool found = false;
  const auto rank = [&](const HankelTileSizes& of, bool by_blocks) {
    const int sums = of.sums(s.kernel.kernel_h);
    return by_blocks ? of.g_blocks * 16 + sums : sums * 16 + of.g_blocks;
  };
  for (t.lead = 0; t.lead <= kMostLead; ++t.lead)
    for (t.g_blocks = 1; t.g_blocks <= kMostBlocks; ++t.g_blocks) {
      if (!has_all_rows(s.h, s.kernel, t, p.bias)) continue;
      for (const bool by_blocks : {false, true})
        if (!found || rank(t, by_blocks) < rank(best[by_blocks], by_blocks)) best[by_blocks] = t;
      found = true;
      break;
    }
  if (!found) return;
  add(best[0]);
  if (best[0].lead != best[1].lead) add(best[1]);
}

/// Calls add(config) for what may be worth a thought, and end() behind what differs in little.
template <class Add, class End>
void each_hankel(const Problem& p, const Shape& s, const Add& add, const End& end) {
  constexpr std::int64_t kWholeRows = 16;
  constexpr int kMostConsumers = 12;  // of which each keeps its sums, unless late
  const std::int64_t rows = product_rows(s.h, p.bias).count,
                     columns = product_columns(s.w, s.kernel, p.bias).count;
  HankelConfig c;
  const auto add_all = [&](const HankelTileSizes& t) {
    c.tile = t;
    for (const auto& [keeps, late] : {std::pair{true, false}, {false, false}, {true, true}}) {
      // Only for want of registers, and of shared memory.
      if ((!keeps && t.sums(s.kernel.kernel_h) < 3) || (late && !t.whole)) continue;
      c.tile.keeps = keeps, c.tile.late = late;
      for (const std::int64_t strip : {14, 28, 56, 112}) {
        if (strip > 14 && strip / 2 >= rows) break;
        c.strip = strip;
        for (const int pages : {2, 3, 4, 6, 8})
          for (const std::int64_t wanted : {132, 264, 396, 528, 1056}) {
            c.tile.pages = pages, c.wanted_blocks = wanted;
            add(c);
          }
        if (t.whole) break;
      }
      end();
    }
  };
  const auto each_of = [&](HankelTileSizes t, int blocks, int images, int width) {
    t.blocks = blocks, t.images = images, t.columns = width;
    const int units = images > 1 ? width : blocks * width;
    if (wasteful(columns, units, columns < 8 ? 0.4 : columns < 16 ? 0.5 : 0.7)) return;
    for (const int channels : {16, 32, 64}) {
      if (channels > round_up(s.channels, 16) || (wasteful(s.channels, channels, 0.73) && channels > 16))
        continue;
      if (blocks * channels / 8 > kMostConsumers || blocks * channels / 8 < 2) continue;
      t.channels = channels;
      if (rows <= kWholeRows) {
        t.whole = true;
        t.x_blocks = static_cast<int>(ceiling(rows, t.shift_rows));
        each_lead(p, s, t, add_all);
      }
      if (images > 1 || width == 8) continue;
      t.whole = false, t.lead = 0;
      for (t.x_blocks = 1; t.x_blocks * t.shift_rows <= std::min(rows, kWholeRows); ++t.x_blocks) {
        t.g_blocks = t.x_blocks * t.per_x();
        if (!wasteful(rows, t.x_rows(), 0.7)) add_all(t);
      }
    }
  };
  for (const int shift_rows : {4, 8}) {
    if (s.kernel.kernel_w > 32 / shift_rows) continue;
    HankelTileSizes t{};
    t.shift_rows = shift_rows;
    for (const int blocks : {1, 2, 3, 4}) each_of(t, blocks, 1, 16);
    for (const int images : {2, 4, 8, 16}) {
      if (images / 2 >= s.images || rows > kWholeRows) break;
      for (const int blocks : {1, 2, 4}) {
        if (images % blocks == 0 && images <= 4) each_of(t, blocks, images, 16);
        if (images % (2 * blocks) == 0 && columns <= 8) each_of(t, blocks, images, 8);
      }
    }
  }
}

bool may_use_hankel(const Problem& p, const Shape& s) {
  constexpr int kBoxAlignment = 16, kWidest = 8;
  return p.boxes && p.channels_last && p.pass == Pass::Weight && !p.transforms && s.number == 2 &&
         s.kernel.repeat == 1 && s.kernel.stride_h == 1 && s.kernel.stride_w == 1 &&
         p.input_alignment >= kBoxAlignment && p.output_alignment >= kBoxAlignment && s.kernel.kernel_w > 1 &&
         s.kernel.kernel_w <= kWidest;
}

}  // namespace

void add_hankel_box_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_use_hankel(p, s)) return;
  // Of those that differ in little the best two: else they would be all that is measured.
  constexpr std::size_t kMostAlike = 2;
  std::vector<std::pair<double, HankelConfig>> configs, alike;
  Plan plan;
  each_hankel(
      p, s,
      [&](const HankelConfig& c) {
        if (plan_hankel(p, s, c, false, plan)) alike.emplace_back(plan.cost, c);
      },
      [&] {
        std::stable_sort(alike.begin(), alike.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
        const std::size_t before = configs.size();
        for (const auto& some : alike) {
          const auto differs = [&] {
            const HankelConfig &a = configs.back().second, &b = some.second;
            return a.strip != b.strip || a.tile.pages != b.tile.pages;
          };
          if ((configs.size() == before || differs()) && configs.size() < before + kMostAlike)
            configs.push_back(some);
        }
        alike.clear();
      });
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_hankel(p, s, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
