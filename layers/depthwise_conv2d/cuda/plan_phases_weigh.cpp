#include <cmath>
#include <cstdio>

#include "layers/depthwise_conv2d/cuda/cut_phases_weigh.h"
#include "layers/depthwise_conv2d/cuda/plan_phases.h"

// Phases: the weight's gradient.
namespace lamella::depthwise {
namespace {

struct PhaseWeighConfig {
  PhaseWeighSizes sizes;
  bool keeps = false;  ///< rows of the gradient in registers
  int resident = 1;
};

/// Of a thread, to within some.
int weigh_registers(const PhaseShape& s, const PhaseWeighConfig& c) {
  const PhaseWeighSizes& z = c.sizes;
  const int taps = z.tap_rows * s.work.w.most_taps(), window = phase_window(z.columns, s.work.w.most_taps());
  return c.keeps ? 36 + taps + z.tap_rows * z.columns + window : 46 + taps + z.columns + window;
}

/// What a block spends on an item beside moving it.
PhaseEffort effort_of(const PhaseShape& s, const PhaseWeighConfig& c, const PhaseCut& cut) {
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const PhaseWeighSizes& z = c.sizes;
  const double strips =
      static_cast<double>(z.images) * h.classes() * w.classes() * cut.tiles * cut.row_groups;
  const double turns = std::ceil(strips / cut.splits) * z.threads / 32;  // of warps
  // Rows of x that a strip meets, and products of its rows with them.
  const double met = std::min(1.0, (s.rows_met + z.tap_rows - 1) / h.kernel);
  const double rows = (cut.strip_rows + z.tap_rows - 1) * met;
  const double products = static_cast<double>(cut.strip_rows) * met * z.tap_rows * w.most_taps() * z.columns;
  const double of_g = c.keeps ? z.columns : z.columns * z.tap_rows,
               window = phase_window(z.columns, s.work.w.most_taps());
  constexpr double kConflicts = 1.6;  // of banks
  // Loops that no cache of instructions near the multiprocessor holds.
  constexpr double kMostCode = 24 << 10, kInstruction = 16;
  const double code = (c.keeps ? z.tap_rows : 1.0) * z.tap_rows * w.most_taps() * z.columns * kInstruction;
  const double fetch = code > kMostCode ? 1.15 : 1;
  const double vector = phase_vector(z.columns);
  return {turns * fetch * (products + rows * ((window + of_g) / vector + 14) + 90),
          turns * rows * (window + of_g) * kConflicts, 0};
}

/// The plan of a configuration; false: it does not fit.
bool plan_weigh_phases(const Problem& p, const PhaseShape& s, const PhaseWeighConfig& c, bool named,
                       Plan& plan) {
  const PhaseWeighSizes& z = c.sizes;
  plan = {};
  plan.family = Plan::Family::Phases;
  plan.phases = s.work;
  plan.launch =
      cut_weigh_phases(plan.phases, s.images, s.channels, p.channels_last, s.repeat, p.bias, z, s.number,
                       std::int64_t{c.resident} * static_cast<std::int64_t>(kMultiprocessors));
  if (!can_launch(p, plan.launch, c.resident)) return false;
  if (registers_of(z.threads, c.resident) < weigh_registers(s, c)) return false;
  const PhaseAxis &h = s.work.h, &w = s.work.w;
  const double sums = static_cast<double>(z.tap_rows) * w.most_taps(),
               taps = static_cast<double>(h.kernel) * w.kernel + 1;
  constexpr double kMeasured = 1.45;
  const double of_block =
      2000 + sums * 8 + z.channels * s.repeat * taps * (40 + 6 * plan.phases.cut.splits) / z.threads;
  plan.cost =
      phase_cost(s, z, plan, c.resident, effort_of(s, c, plan.phases.cut), of_block, false, kMeasured) +
      static_cast<double>(plan.launch.parts) * static_cast<double>(s.channels) * s.repeat * taps * 8 / 3e9;
  if (!named) return true;
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(),
                "weigh_phases<%s, PhaseTapTile<%d, %d, %d, %s, %s>, %d, %s, %s, %d, %s, %d, %s, %d, %d>",
                type_name(p.dtype), w.most_taps(), z.columns, z.tap_rows, word(c.keeps), word(w.is_ragged()),
                s.repeat, word(p.bias), word(p.channels_last), z.source_word,
                word(z.source_alignment >= z.source_word), z.target_word,
                word(z.target_alignment >= z.target_word), z.threads, c.resident);
  plan.kernel = text.data();
  plan.what = "phases of " + std::to_string(z.images) + " x " + std::to_string(z.channels) + " planes in " +
              std::to_string(plan.phases.cut.bands) + " bands, strips of " +
              std::to_string(plan.phases.cut.strip_rows) + "x" + std::to_string(z.columns) + ", " +
              std::to_string(z.tap_rows) + " rows of taps" + (c.keeps ? " kept" : "");
  return true;
}

}  // namespace

void add_weigh_phase_plans(const Problem& p, const PhaseShape& shape, std::vector<Plan>& plans) {
  std::vector<std::pair<double, PhaseWeighConfig>> configs;
  const PhaseAxis &h = shape.work.h, &w = shape.work.w;
  const int columns = w.targets_of(0);
  const auto cut = [&](const PhaseWeighSizes& sizes) {
    PhaseWork work = shape.work;
    return cut_weigh_phases(work, shape.images, shape.channels, p.channels_last, shape.repeat, p.bias, sizes,
                            shape.number, 1);
  };
  // Of each tile the best share of a block.
  const auto try_tile = [&](int of_columns, int tap_rows, bool keeps) {
    PhaseWeighConfig c, best;
    c.sizes.columns = of_columns, c.sizes.tap_rows = tap_rows, c.keeps = keeps;
    double least = 0;
    Plan plan;
    for (const int threads : {128, 256, 512})
      for (const int resident : {1, 2, 3, 4}) {
        c.sizes.threads = threads, c.resident = resident;
        if (registers_of(threads, resident) < weigh_registers(shape, c)) continue;
        each_phase_share(shape, p.channels_last, c.sizes, shared_bytes_of(p, resident), cut,
                         [&](const PhaseWeighSizes& sizes) {
                           PhaseWeighConfig of = c;
                           of.sizes = sizes;
                           if (!plan_weigh_phases(p, shape, of, false, plan)) return;
                           if (least > 0 && plan.cost >= least) return;
                           least = plan.cost, best = of;
                         });
      }
    if (least > 0) configs.emplace_back(least, best);
  };
  for (const int of_columns : {4, 6, 8, 12, 14, 16}) {
    if (of_columns > 4 && of_columns >= 2 * columns) continue;
    for (const int tap_rows : {1, 2, 3, 4}) {
      if (tap_rows > h.most_taps()) continue;
      for (const bool keeps : {false, true}) try_tile(of_columns, tap_rows, keeps);
    }
  }
  add_best(
      configs, [&](const auto& config, Plan& best) { plan_weigh_phases(p, shape, config, true, best); },
      plans);
}

}  // namespace lamella::depthwise
