#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_diagonals.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Diagonals: the weight's gradient of dense planes of sixteen-bit numbers, moved by the copy engine, by the
// matrix units.
namespace lamella::depthwise {
namespace {

struct DiagonalConfig {
  DiagonalTileSizes tile{};
  int threads = 0;
  std::int64_t bytes = 0, wanted_blocks = 0;
};

/// Words that a lane has of a row of g and of x for a product.
struct LaneWords {
  int g, x;
  LaneWords(const Shape& s, const DiagonalTileSizes& t) {
    const int columns = t.columns / 4, offset = t.vector > 1 ? s.w.padding % 2 : 0;
    g = columns / 2;
    x = (offset + (columns - 1) * s.kernel.stride_w + (s.kernel.kernel_w - 1) * s.w.input_step + 2) / 2;
  }
};

/// Of all phases.
int shifts_of(const Problem& p, const Shape& s) {
  return s.kernel.stride_h * s.kernel.kernel_w + (p.bias ? 1 : 0);
}
/// Rows of g for one row of x, at most, but one.
int reach_of(const Shape& s) {
  return DiagonalReach(s.kernel.kernel_h, s.kernel.stride_h, s.h.input_step, s.h.padding).reach;
}

/// Products side by side that a warp makes.
int tiles_of(const Shape& s, const DiagonalTileSizes& t) {
  return static_cast<int>(ceiling(ceiling(s.w.output, t.columns), t.groups));
}

int registers(const Problem& p, const Shape& s, const DiagonalTileSizes& t) {
  const LaneWords words(s, t);
  const int masks = (words.g + words.x) * (t.known ? std::min(tiles_of(s, t), 2) : 1);
  const int repeat = s.kernel.repeat;
  return 48 + 6 * shifts_of(p, s) * t.planes * repeat + masks + words.x + 2 * words.g * repeat +
         (t.known ? 0 : 12) + (loads_transformed(p) ? 2 * t.planes + 6 : 0);
}

/// Estimated milliseconds: four limits, of which the largest counts most. Weights are those of
/// runs, and instructions are counted; of 330 measurements on an H200 half took 0.73 of it and more, of
/// others at stride 2 and of two outputs 0.85 to 0.95.
double cost(const Problem& p, const Shape& s, const DiagonalConfig& c, const Plan& plan, double resident) {
  constexpr double kClocks = kMultiprocessors * 1.8e6;  // of all multiprocessors, a millisecond
  const DiagonalTileSizes& t = c.tile;
  const PlaneCut& cut = plan.planes.cut;
  const LaneWords words(s, t);
  const KernelSizes& k = s.kernel;
  const double shifts = shifts_of(p, s), reach = reach_of(s), phases = k.stride_h, repeat = k.repeat;
  const double in_plane = static_cast<double>(s.h.input) * s.w.input,
               out_plane = static_cast<double>(s.h.output) * s.w.output * repeat;
  const double bytes = static_cast<double>(s.images * s.channels) * (in_plane + out_plane) * s.number;
  const double page = (cut.bands == 1 ? (in_plane + out_plane) * cut.planes
                                      : static_cast<double>(cut.band_rows) * s.w.input +
                                            (cut.band_rows / phases + reach) * s.w.output) *
                      s.number;
  const double items =
      static_cast<double>(plan.planes.items) * static_cast<double>(ceiling(s.channels, cut.planes));
  // Of the warp that has most.
  const double tiles = tiles_of(s, t);
  const double blocks =
      static_cast<double>(ceiling(ceiling(cut.band_rows, std::int64_t{8} * k.stride_h), t.row_groups));
  const double warps = static_cast<double>(ceiling(cut.planes, t.planes)) * t.groups * t.row_groups;
  const auto reads_of = [](int vector, double words_of_row, double more) {
    return vector == 8   ? words_of_row / 4 + 2 * more
           : vector == 4 ? words_of_row / 2 + more
           : vector == 2 ? words_of_row
                         : words_of_row + 1;
  };
  const double g_reads = reads_of(t.vector_g, words.g, 0.0), x_reads = reads_of(t.vector, words.x, 1.0);
  const double odd_g = t.vector_g == 1 ? words.g : 0, odd_x = t.vector == 1 ? words.x : 0;
  const double picks = k.stride_w > 1 ? shifts * words.g : 0;
  const double of_block = repeat * (g_reads + 2 * words.g + odd_g) +
                          phases * (x_reads + 2 * words.x + odd_x) + picks + repeat * 2 * shifts + 3 +
                          (t.known ? 0 : 10) +
                          (loads_transformed(p) ? phases * words.x * (p.hardswish ? 11 : 7) : 0);
  const double of_item = 60 + t.planes * tiles * (blocks * of_block + (t.known ? 0 : 75));
  const auto wavefronts_of = [&](int vector, int width, double words_of_row, double reads) {
    return vector == 8   ? 1.4 * words_of_row
           : vector == 4 ? (width % 56 == 0 ? 1.4 : 2.0) * words_of_row
                         : (t.columns == 8 ? 1.3 : 2.0) * reads;
  };
  const double wavefronts = t.planes * tiles * blocks *
                            (repeat * wavefronts_of(t.vector_g, s.w.output, words.g, g_reads) +
                             phases * wavefronts_of(t.vector, s.w.input, words.x, x_reads) * k.stride_w);
  const double in_flight = resident * page * (t.pages - 1) / 1e3;
  const double memory = 0.99 * bytes / 4.15e9 * (1 + 2.3 / in_flight);
  const double issue = items * warps * of_item * 1.3 / 4 / kClocks;
  const double shared = items * (warps * wavefronts + page / 128) / kClocks;
  const double latency =
      items * (1500 + t.planes * tiles * blocks * phases * (t.known ? 40 : 110)) / resident / kClocks;
  constexpr double kPower = 4.07;
  double sum = 0;
  for (const double limit : {memory, issue, shared, latency}) sum += std::pow(limit, kPower);
  const double waves = static_cast<double>(plan.launch.blocks) / (kMultiprocessors * resident);
  const double parts = static_cast<double>(plan.launch.parts) * static_cast<double>(s.out_channels) *
                       (taps_of(s.kernel) + 1) * 8 / 3e9;
  return std::pow(sum, 1 / kPower) * (1 + 0.11 * (std::ceil(waves) / waves - 1)) + parts + 0.0087;
}

/// The plan of a configuration; false: it does not fit.
bool plan_diagonals(const Problem& p, const Shape& s, const DiagonalConfig& c, bool named, Plan& plan) {
  const DiagonalTileSizes& t = c.tile;
  plan = {};
  plan.family = Plan::Family::Diagonals;
  plan.planes.h = s.h, plan.planes.w = s.w;
  plan.launch = cut_diagonals(plan.planes, s.images, s.channels, s.kernel, s.h.input_step, s.w.input_step, t,
                              c.threads, c.bytes, p.bias, c.wanted_blocks);
  if (!can_launch(p, plan.launch)) return false;
  const PlaneCut& cut = plan.planes.cut;
  const std::int64_t consumers = c.threads / 32 - 1, warps_of_plane = t.groups * t.row_groups;
  const std::int64_t at_work = ceiling(cut.planes, t.planes) * warps_of_plane;
  if (2 * at_work <= consumers && s.channels > cut.planes) return false;
  if (cut.bands > 1 && t.planes > 1) return false;
  std::int64_t resident =
      std::min<std::int64_t>(kResidentThreads / c.threads, blocks_by_shared(p, plan.launch));
  const int wanted = registers(p, s, t);
  while (resident > 0 && registers_of(c.threads, static_cast<int>(resident)) < wanted) --resident;
  if (resident < 1) return false;
  plan.cost = cost(p, s, c, plan, static_cast<double>(resident));
  plan.resident = static_cast<int>(resident), plan.registers = wanted;
  if (!named) return true;
  std::array<char, 320> text{};
  const Axis none{}, &h = t.known ? s.h : none, &w = t.known ? s.w : none;
  const std::string of_g = t.vector_g == t.vector ? "" : ", " + std::to_string(t.vector_g);
  std::snprintf(
      text.data(), text.size(),
      "backward_diagonals<%s, Kernel<%d, %d, %d, %d, %d>, Spread<%d, %d>, PlaneSizes<%d, %d, %d, %d>, "
      "DiagonalTile<%d, %d, %d, %d, %d%s>, %d, %d, %s, %s, %d, %d>",
      type_name(p.dtype), s.kernel.kernel_h, s.kernel.kernel_w, s.kernel.stride_h, s.kernel.stride_w,
      s.kernel.repeat, s.h.input_step, s.w.input_step, h.input, w.input, h.output, w.output, t.columns,
      t.planes, t.groups, t.vector, t.pages, of_g.c_str(), s.h.padding, s.w.padding, word(p.bias),
      activation_word(p, loads_transformed(p)), c.threads, static_cast<int>(resident));
  plan.kernel = text.data();
  plan.what = "diagonals of " + std::to_string(cut.planes) + " planes in " + std::to_string(cut.bands) +
              " bands, " + std::to_string(t.planes) + " to " + std::to_string(t.row_groups) + "x" +
              std::to_string(t.groups) + " warps, " + std::to_string(t.pages) + " pages, " +
              std::to_string(c.threads) + " threads";
  return true;
}

/// Calls add(config) for what may be worth a thought, and end() behind what differs in little.
template <class Add, class End>
void each_diagonal(const Problem& p, const Shape& s, const Add& add, const End& end) {
  constexpr int kMostRegisters = 250;
  constexpr std::int64_t kRows = 8, kLongest = 300;  // products, the length of the code
  const std::int64_t row_blocks = ceiling(s.h.input, kRows * s.kernel.stride_h);
  DiagonalConfig c;
  DiagonalTileSizes& t = c.tile;
  const auto add_columns = [&](int columns) {
    t.columns = columns;
    const auto widest_vector = [&](int width, int alignment, int of_lanes) {
      int vector = 8;
      while (of_lanes / 4 % vector != 0 || width % vector != 0 || alignment < vector * s.number) vector /= 2;
      return vector;
    };
    t.vector = widest_vector(s.w.input, p.input_alignment, t.columns * s.kernel.stride_w);
    t.vector_g = widest_vector(s.w.output, p.output_alignment, t.columns);
    const std::int64_t tiles = ceiling(s.w.output, t.columns);
    const auto add_all = [&] {
      if (registers(p, s, t) > kMostRegisters) return;
      for (const int threads : {96, 160, 256, 288}) {
        const int consumers = threads / 32 - 1;
        if (consumers % (t.groups * t.row_groups) != 0 || (threads == 256 && t.groups != 7)) continue;
        for (const int kilobytes : {8, 16, 24, 32, 48, 64, 96})
          for (const int pages : {2, 3, 4})
            for (const std::int64_t wanted : {264, 528, 1056, 2112}) {
              t.pages = pages, c.threads = threads;
              c.bytes = std::int64_t{kilobytes} << 10, c.wanted_blocks = wanted;
              add(c);
            }
        end();
      }
    };
    for (const int groups : {1, 2, 4, 7, 8}) {
      if (groups > tiles) break;
      t.groups = groups;
      for (const int planes : {1, 2, 3, 4, 6, 8}) {
        t.planes = planes, t.row_groups = 1, t.known = true;
        if (planes * tiles_of(s, t) * row_blocks * shifts_of(p, s) * s.kernel.repeat <= kLongest) add_all();
        if (planes > 2) continue;
        t.known = false;
        for (const int rows : {1, 2, 4, 8}) {
          if (rows > row_blocks) break;
          t.row_groups = rows;
          add_all();
        }
      }
    }
  };
  constexpr int kWide = 64;  // two products of 32 columns
  add_columns(s.w.output <= 8 ? 8 : 16);
  if (s.w.output >= kWide) add_columns(32);
}

bool may_use_diagonals(const Problem& p, const Shape& s) {
  constexpr int kMostReach = 6, kMostShifts = 9, kMostOfPhases = 26, kMostWindow = 21;
  const KernelSizes& k = s.kernel;
  // Registers: of sums, and of what a lane has of a row of x for its four columns of g.
  return p.boxes && !p.channels_last && p.pass == Pass::Weight && s.number == 2 && s.h.padding >= 0 &&
         s.w.padding >= 0 && reach_of(s) <= kMostReach && k.kernel_w * k.repeat <= kMostShifts &&
         k.stride_h * k.kernel_w * k.repeat <= kMostOfPhases &&
         (k.kernel_w - 1) * s.w.input_step + 3 * k.stride_w <= kMostWindow;
}

}  // namespace

void add_diagonal_plans(const Problem& p, const Shape& shape, std::vector<Plan>& plans) {
  Shape s = shape;
  s.h.output_step = s.w.output_step = 1;  // strides and dilation as they are
  s.kernel.stride_h = static_cast<int>(p.geometry.stride.h);
  s.kernel.stride_w = static_cast<int>(p.geometry.stride.w);
  if (!may_use_diagonals(p, s)) return;
  // Of those that differ in little the best two: else they would be all that is measured.
  constexpr std::size_t kMostAlike = 2;
  std::vector<std::pair<double, DiagonalConfig>> configs, alike;
  Plan plan;
  each_diagonal(
      p, s,
      [&](const DiagonalConfig& c) {
        if (plan_diagonals(p, s, c, false, plan)) alike.emplace_back(plan.cost, c);
      },
      [&] {
        std::stable_sort(alike.begin(), alike.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
        const std::size_t before = configs.size();
        for (const auto& some : alike) {
          const bool differs = configs.size() == before || configs.back().second.bytes != some.second.bytes;
          if (differs && configs.size() < before + kMostAlike) configs.push_back(some);
        }
        alike.clear();
      });
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_diagonals(p, s, config, true, best); }, plans);
}

}  // namespace lamella::depthwise
