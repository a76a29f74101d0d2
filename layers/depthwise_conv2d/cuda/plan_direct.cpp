#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_direct.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Direct kernels: small problems with channels side by side.
namespace lamella::depthwise {
namespace {

struct DirectConfig {
  TileSizes tile{};
  int vectors = 1, threads = 64;
};

constexpr int kMostRegisters = 224, kLargestDirectKernel = 5;
constexpr std::int64_t kMostShared = 96 << 10;
/// Bytes moved: up to which estimates decide, and up to which anything is offered. What neighbours read twice
/// comes from caches, which larger problems ask too much of.
constexpr double kSmall = 8e6, kMedium = 16e6;
static_assert(kMedium < kLargeBytes, "what is put behind others there stays behind them");

double bytes_of(const Problem& p, const Shape& s) {
  const auto count = [&](const Axis& h, const Axis& w) {
    return static_cast<double>(h.input) * w.input + static_cast<double>(h.output) * w.output;
  };
  return static_cast<double>(s.images * s.channels) * count(s.h, s.w) * static_cast<double>(size_of(p.dtype));
}

/// Rows and columns that a thread reads, and that it writes.
struct Windows {
  int rows, columns, out_rows, out_columns;
  /// `correlates`: x is read for tiles of y; else y for tiles of x.
  Windows(const Shape& s, const TileSizes& tile, bool correlates) {
    const KernelSizes& k = s.kernel;
    if (correlates) {
      rows = (tile.rows - 1) * k.stride_h + k.kernel_h,
      columns = (tile.columns - 1) * k.stride_w + k.kernel_w;
      out_rows = tile.rows, out_columns = tile.columns;
    } else {
      rows = tile.rows + k.reach_h() - 1, columns = tile.columns + k.reach_w() - 1;
      out_rows = tile.rows * k.stride_h, out_columns = tile.columns * k.stride_w;
    }
  }
};

int registers(const Shape& s, const DirectConfig& c) {
  const Windows w(s, c.tile, s.forward);
  const int lanes = c.tile.lanes;
  // As they lie in memory, and a row of numbers in float.
  const int read =
      w.rows * w.columns * std::max(1, lanes * s.number / 4) + (s.number < 4 ? w.columns * lanes : 0);
  return 40 + taps_of(s.kernel) * lanes + read + w.out_rows * w.out_columns * lanes;
}

/// Of weigh_direct, whose threads have the sums of all taps.
int weigh_registers(const Problem& p, const Shape& s, const DirectConfig& c) {
  const Windows w(s, c.tile, true);
  const int lanes = c.tile.lanes, places = c.tile.rows * c.tile.columns;
  const int read = (w.rows * w.columns + places) * std::max(1, lanes * s.number / 4) +
                   (s.number < 4 ? (w.columns + places) * lanes : 0);
  return 44 + (taps_of(s.kernel) + 1) * lanes + read + (p.transforms ? (w.columns + 2) * lanes : 0);
}

/// Estimated milliseconds of weigh_direct, as unfitted as direct_cost(): a way to memory for each tile of a
/// thread, and the sum over threads.
double weigh_cost(const Problem& p, const Shape& s, const DirectConfig& c, const Plan& plan) {
  constexpr double kLaunch = 0.0013, kTrip = 0.0007, kMemory = 4.15e9, kClock = 1.7e6;
  const Windows w(s, c.tile, true);
  const int vector = c.tile.lanes * s.number, groups = c.threads / c.vectors;
  const double warps = c.threads / 32.0, trips = static_cast<double>(ceiling(plan.pixels.items, groups));
  const double of_pixel = std::min(c.vectors, 32), pixels = 32 / of_pixel;
  const double lines = pixels * std::max(1.0, of_pixel * vector / 128);
  const double loads = w.rows * w.columns + c.tile.rows * c.tile.columns;
  const double products =
      static_cast<double>(c.tile.rows) * c.tile.columns * c.tile.lanes * taps_of(s.kernel);
  const double instructions = 100 + products + loads * (4 + (s.number < 4 ? c.tile.lanes : 0));
  const double sums = (taps_of(s.kernel) + 1) * c.vectors * c.tile.lanes;
  const double adding = std::ceil(sums / c.threads) * groups * 6 + sums * groups / 32;
  const double blocks = std::ceil(static_cast<double>(plan.launch.blocks) / kMultiprocessors);
  const double work =
      trips * blocks * (std::max(warps * instructions / 4, instructions * 2) + warps * loads * lines);
  return kLaunch + trips * kTrip + (work + blocks * adding) / kClock + bytes_of(p, s) / kMemory;
}

/// Estimated milliseconds, not fitted to measurements: a launch, a way to memory and back, and what takes
/// longest of memory, the second cache, and a multiprocessor's own work.
double direct_cost(const Problem& p, const Shape& s, const DirectConfig& c, const Launch& launch) {
  constexpr double kLaunch = 0.0013, kTrip = 0.0008, kMemory = 4.15e9, kCache = 5.5e9, kClock = 1.7e6;
  const Windows w(s, c.tile, s.forward);
  const int vector = c.tile.lanes * s.number, tap_bytes = p.exact_taps ? 4 : s.number;
  const double taps = taps_of(s.kernel), warps = c.threads / 32.0, tiles = c.threads / c.vectors;
  const double bytes = bytes_of(p, s);

  // What a block reads once: its tiles are neighbours in a row.
  const double step = s.forward ? c.tile.columns * s.kernel.stride_w : c.tile.columns;
  const double footprint = w.rows * ((tiles - 1) * step + w.columns) * c.vectors * vector +
                           taps * c.vectors * c.tile.lanes * tap_bytes;
  const double written = tiles * w.out_rows * w.out_columns * c.vectors * vector;
  const double cache = static_cast<double>(launch.blocks) * (footprint + written) / kCache;

  // Lines that an instruction of a warp touches, of tensors and of taps.
  const double of_pixel = std::min(c.vectors, 32), pixels = 32 / of_pixel;
  const double lines = pixels * std::max(1.0, of_pixel * vector / 128);
  const double tap_span = of_pixel * taps * c.tile.lanes * tap_bytes / 128;
  const double tap_lines = std::max(1.0, std::min(of_pixel / 2, tap_span));
  const double tap_loads = std::max(1.0, taps * c.tile.lanes * tap_bytes / 16);
  const double accesses = (w.rows * w.columns + w.out_rows * w.out_columns) * lines + tap_loads * tap_lines;
  const double places = w.out_rows * w.out_columns * c.tile.lanes;
  const double products = s.forward ? places * taps : places * taps / s.kernel.stride_h / s.kernel.stride_w;
  const double instructions = 120 + products + (w.rows * w.columns + tap_loads) * 4 +
                              (s.number < 4 ? w.rows * w.columns * c.tile.lanes : 0);
  const double of_multiprocessor = std::ceil(static_cast<double>(launch.blocks) / kMultiprocessors) * warps;
  // Of all warps together, or of one of few, which waits for its own instructions.
  constexpr double kOwnClocks = 2;
  const double work = (std::max(of_multiprocessor * instructions / 4, instructions * kOwnClocks) +
                       of_multiprocessor * accesses) /
                      kClock;

  const double resident = std::min(std::floor(static_cast<double>(kRegisters) / c.threads / registers(s, c)),
                                   static_cast<double>(kResidentThreads / c.threads));
  const double waves = static_cast<double>(launch.blocks) / (kMultiprocessors * std::max(1.0, resident));
  return kLaunch + kTrip + kTrip / 2 * std::max(0.0, waves - 1) + std::max({bytes / kMemory, cache, work});
}

/// The plan of a configuration, with the names only if wanted; false: it does not fit.
bool plan_direct(const Problem& p, const Shape& s, const DirectConfig& c, bool named, Plan& plan) {
  const KernelSizes& k = s.kernel;
  plan = {};
  plan.family = Plan::Family::Direct;
  plan.pixels.h = s.h;
  plan.pixels.w = s.w;
  const bool weight = weighs(p);
  if (weight)
    plan.launch =
        cut_weigh_direct(plan.pixels, s.images, s.channels, k, c.tile, c.vectors, p.bias, c.threads);
  else
    plan.launch =
        s.forward ? cut_forward_direct(plan.pixels, s.images, s.channels, c.tile, c.vectors, c.threads)
                  : cut_backward_direct(plan.pixels, s.images, s.channels, k, c.tile, c.vectors, c.threads);
  if (!can_launch(p, plan.launch) || plan.launch.shared_bytes > kMostShared) return false;
  plan.cost = weight ? weigh_cost(p, s, c, plan) : direct_cost(p, s, c, plan.launch);
  if (!named) return true;
  const char* const exact = word(p.exact_taps || p.dtype == DType::Float32);
  std::array<char, 192> text{};
  std::snprintf(text.data(), text.size(), "%s<%s, Kernel<%d, %d, %d, %d, 1>, Tile<%d, %d, %d>, %d, ",
                weight      ? "weigh_direct"
                : s.forward ? "forward_direct"
                            : "backward_direct",
                type_name(p.dtype), k.kernel_h, k.kernel_w, k.stride_h, k.stride_w, c.tile.rows,
                c.tile.columns, c.tile.lanes, c.vectors);
  const std::string transforms = activation_word(p, loads_transformed(p));
  plan.kernel = text.data();
  plan.kernel += std::string(weight ? word(p.bias) : exact) + ", ";
  if (weight) plan.kernel += transforms + ", ";
  if (s.forward) plan.kernel += std::string(word(s.turned)) + ", " + transforms + ", ";
  plan.kernel += std::to_string(c.threads) + ">";
  plan.what = "direct " + std::to_string(c.tile.rows) + "x" + std::to_string(c.tile.columns) + "x" +
              std::to_string(c.tile.lanes) + ", " + std::to_string(c.vectors * c.tile.lanes) + " channels, " +
              std::to_string(c.threads) + " threads";
  return true;
}

bool may_be_direct(const Problem& p, const Shape& s) {
  return p.channels_last && p.hook == Hook::None && p.pass != Pass::Both && s.kernel.repeat == 1 &&
         std::max(s.kernel.kernel_h, s.kernel.kernel_w) <= kLargestDirectKernel && s.images > 0 &&
         bytes_of(p, s) <= kMedium;
}

}  // namespace

void add_direct_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  if (!may_be_direct(p, s)) return;
  constexpr std::array<TileSizes, 6> kTiles{
      {{1, 1, 0}, {1, 2, 0}, {2, 1, 0}, {2, 2, 0}, {1, 4, 0}, {2, 4, 0}}};
  const bool weight = weighs(p);
  // A block that has all tiles of its channels wants more threads.
  const std::vector<int> sizes = weight ? std::vector<int>{128, 256, 512} : std::vector<int>{64, 128};
  const int alignment = std::min(p.input_alignment, p.output_alignment);
  using Estimated = std::pair<double, DirectConfig>;
  const auto is_cheaper = [](const Estimated& a, const Estimated& b) { return a.first < b.first; };
  std::vector<Estimated> configs;
  Plan plan;
  for (const TileSizes& tile : kTiles)
    for (const int lanes : {1, 2, 4, 8}) {
      DirectConfig c;
      c.tile = {tile.rows, tile.columns, lanes};
      const int wanted = weight ? weigh_registers(p, s, c) : registers(s, c);
      if (lanes * s.number > alignment || wanted > kMostRegisters) continue;
      std::vector<Estimated> some;
      for (const int vectors : {1, 2, 4, 8, 16, 32}) {
        if (vectors > 1 && std::int64_t{vectors} / 2 * lanes >= s.channels) continue;
        for (const int threads : sizes) {
          c.vectors = vectors, c.threads = threads;
          if (weight && wanted * threads > kRegisters) continue;
          if (plan_direct(p, s, c, false, plan)) some.emplace_back(plan.cost, c);
        }
      }
      // Tiles differ by more than blocks do, and it is a guess which are the best.
      constexpr std::size_t kOfTile = 2;
      const auto last = some.begin() + static_cast<std::ptrdiff_t>(std::min(some.size(), kOfTile));
      std::partial_sort(some.begin(), last, some.end(), is_cheaper);
      configs.insert(configs.end(), some.begin(), last);
    }
  if (configs.empty()) return;
  // Estimates were not fitted: of larger problems they may be tried, but are not taken by estimate. Nor where
  // sixteen-bit inputs pass through a transform, which the compiler puts between one load and the next.
  double behind = 0;
  const bool waits = loads_transformed(p) && s.number < 4;
  if (!plans.empty() && (waits || bytes_of(p, s) > kSmall)) {
    constexpr double kBehind = 1e-5;
    const auto cheaper = [](const auto& a, const auto& b) { return a.cost < b.cost; };
    const double least = std::min_element(configs.begin(), configs.end(), is_cheaper)->first;
    behind = std::max(0.0, std::min_element(plans.begin(), plans.end(), cheaper)->cost - least) + kBehind;
  }
  add_best(
      configs,
      [&](const auto& config, Plan& best) {
        plan_direct(p, s, config, true, best);
        best.cost += behind;
      },
      plans);
}

}  // namespace lamella::depthwise
