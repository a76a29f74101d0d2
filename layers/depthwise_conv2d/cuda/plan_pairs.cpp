#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "layers/depthwise_conv2d/cuda/cut_pairs.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Pairs: both gradients in one launch, by blocks of two kernels that have one each.
namespace lamella::depthwise {
namespace {

using AddPlans = void (*)(const Problem&, const Shape&, std::vector<Plan>&);

/// The kernels of either gradient alone that do best by estimate: of each family some that leave room for no
/// other block, for one or two more, and for several. Alone large blocks do well, of which a multiprocessor
/// would have but one kind at a time.
std::vector<Plan> best_of(Problem p, Pass pass, std::initializer_list<AddPlans> families) {
  constexpr std::size_t kMost = 6;
  std::vector<Plan> all;
  Shape shape{};
  p.pass = pass;
  if (pass == Pass::Input) p.bias = false;
  if (!describe_shape(p, shape)) return all;
  for (const AddPlans add : families) {
    std::vector<Plan> plans;
    add(p, shape, plans);
    std::stable_sort(plans.begin(), plans.end(),
                     [](const Plan& a, const Plan& b) { return a.cost < b.cost; });
    std::array<std::size_t, 3> of_size{};
    for (Plan& plan : plans) {
      std::size_t& count = of_size[plan.resident >= 4 ? 2 : plan.resident >= 2 ? 1 : 0];
      if (count == kMost) continue;
      ++count;
      plan.turned = shape.turned;
      all.push_back(std::move(plan));
    }
  }
  return all;
}

/// A kernel's name, that of what it does in a block, and the arguments that this has in place of the last
/// one.
struct BlockName {
  std::string_view kernel, block, last;
  bool is_of_boxes = false;  ///< then it is whether items are neighbours
};
constexpr std::array kBlockNames{
    BlockName{"forward_matrices<", "multiply_matrices<", ""},
    BlockName{"forward_positions<", "correlate_positions<", ", false"},
    BlockName{"backward_positions<", "correlate_positions<", ", true"},
    BlockName{"forward_toeplitz_boxes<", "multiply_toeplitz_boxes<", "", true},
    BlockName{"backward_diagonals<", "weigh_diagonals<", ""},
    BlockName{"weigh_positions<", "weigh_position_block<", ""},
    BlockName{"backward_hankel_boxes<", "weigh_hankel_boxes<", "", true},
    BlockName{"backward_boxes<", "walk_boxes<", "", true},
};
std::string in_block(const std::string& kernel, bool in_row) {
  for (const BlockName& name : kBlockNames)
    if (kernel.starts_with(name.kernel))
      return std::string(name.block) +
             kernel.substr(name.kernel.size(), kernel.rfind(", ") - name.kernel.size()) +
             std::string(name.last) + (name.is_of_boxes ? std::string(", ") + word(in_row) : "") + ">";
  return {};
}

PairKind kind_of(const Plan& plan) {
  // Sums that the matrix units may add up are those of a part.
  constexpr std::int64_t kMostWeighedImages = 512;
  PairKind kind{plan.launch, plan.channel_groups(), plan.has_pixels() ? plan.pixels.items : plan.planes.items,
                plan.item_images};
  if (plan.family == Plan::Family::Positions && plan.launch.parts > 0)
    kind.most_items = kMostWeighedImages / plan.item_images;
  if (plan.most_items > 0) kind.most_items = plan.most_items;
  return kind;
}

constexpr std::array kWaves{1, 2, 3, 4, 6, 8, 12, 16, 24};  // of blocks

struct PairConfig {
  const Plan *input, *weight;
  std::size_t input_number, weight_number, waves;    ///< among all; kWaves.size(): in step
  std::int64_t input_blocks = 0, weight_blocks = 0;  ///< in step: of a round
  const char* pace = "";                             ///< in step: in words
  bool in_step() const { return waves == kWaves.size(); }
};

/// Estimated milliseconds. Of four tensors' bytes it moves three, and either kind of block has work while the
/// other waits: 0.83 to 0.86 of the time of both alone, measured where the cache held all that was under way.
double pair_cost(const Problem& p, const PairConfig& c, const Plan& plan, const PairKind& input,
                 const PairKind& weight) {
  constexpr double kCache = 60e6, kBlock = 1.2e-3;  // kBlock: to begin and end one
  const double saved = plan.resident == 1 ? 0.06 : plan.resident == 2 ? 0.12 : 0.15;
  const Conv2dGeometry& g = p.geometry;
  const double bytes = static_cast<double>(g.batch * g.in_channels) *
                       static_cast<double>(2 * g.in.h * g.in.w + g.out.h * g.out.w) *
                       static_cast<double>(size_of(p.dtype));
  const double places = kMultiprocessors * plan.resident, blocks = static_cast<double>(plan.launch.blocks),
               waves = std::max(1.0, blocks / places);
  // In step, as far as times that are a quarter off let the kinds be apart.
  const double found = std::min(1.0, kCache / (c.in_step() ? bytes / 4 : bytes / waves));
  // Where fewer blocks share a multiprocessor than of a kind alone, less is under way.
  const auto alone = [&](const Plan& kind) {
    return kind.cost * (1 + 0.3 * (std::max(1.0, static_cast<double>(kind.resident) / plan.resident) - 1));
  };
  const double of_input = alone(*c.input), of_weight = alone(*c.weight), both = of_input + of_weight;
  // Blocks of a part that take longer than the others: in the end they are left alone.
  const auto input_blocks = static_cast<double>(c.in_step() ? c.input_blocks : input.groups),
             weight_blocks = static_cast<double>(c.in_step() ? c.weight_blocks : weight.groups);
  const double longest =
      std::max(of_input / input_blocks, of_weight / weight_blocks) * (input_blocks + weight_blocks) / both;
  const double uneven = 0.5 * (longest - 1) / waves + 0.25 * (std::ceil(waves) / waves - 1) +
                        (c.in_step() ? 0.5 * (places / blocks - 1) : 0);
  const double more_blocks =
      std::max(0.0, blocks - static_cast<double>(c.input->launch.blocks + c.weight->launch.blocks));
  const double more_parts = static_cast<double>(plan.launch.parts - c.weight->launch.parts) *
                            static_cast<double>(g.in_channels * (g.kernel.h * g.kernel.w + 1)) * 8 / 3e9;
  return (1 - saved * found) * both * (1 + uneven) + more_blocks * kBlock / places + more_parts;
}

/// How many blocks of either kind a multiprocessor has.
std::int64_t resident_blocks(const Problem& p, const PairConfig& c) {
  const Launch &input = c.input->launch, &weight = c.weight->launch;
  const int threads = std::max(input.threads, weight.threads),
            wanted = std::max(c.input->registers, c.weight->registers);
  std::int64_t resident =
      std::min({kResidentThreads / threads, blocks_by_shared(p, input), blocks_by_shared(p, weight)});
  while (resident > 0 && registers_of(threads, static_cast<int>(resident)) < wanted) --resident;
  return resident;
}

/// The plan of a pair; false: it does not fit.
bool plan_pair(const Problem& p, const PairConfig& c, bool named, Plan& plan) {
  const PairKind input = kind_of(*c.input), weight = kind_of(*c.weight);
  plan = {};
  plan.family = Plan::Family::Pairs;
  const std::int64_t resident = resident_blocks(p, c);
  if (resident < 1) return false;
  plan.resident = static_cast<int>(resident);
  int input_items = 0, weight_items = 0;
  plan.launch = c.in_step()
                    ? cut_pairs_in_step(input, weight, resident, c.input_blocks, c.weight_blocks, input_items,
                                        weight_items)
                    : cut_pairs(input, weight, p.geometry.batch,
                                static_cast<std::int64_t>(kMultiprocessors) * resident * kWaves[c.waves],
                                input_items, weight_items);
  if (!can_launch(p, plan.launch)) return false;
  plan.cost = pair_cost(p, c, plan, input, weight);
  if (!named) return true;
  const std::string of_input = std::to_string(input.launch.threads),
                    of_weight = std::to_string(weight.launch.threads);
  plan.kernel = std::string("backward_pairs<") + (c.input->has_pixels() ? "BoxWork, " : "PlaneWork, ") +
                in_block(c.input->kernel, !c.in_step()) + ", " + of_input + ", " +
                in_block(c.weight->kernel, !c.in_step()) + ", " + of_weight + ", " +
                std::to_string(resident) + ">";
  plan.what = c.pace + c.input->what + "; " + c.weight->what;
  plan.kinds = {*c.input, *c.weight};
  for (const auto& [kind, items] : {std::pair{&plan.kinds[0], input_items}, {&plan.kinds[1], weight_items}})
    (kind->has_pixels() ? kind->pixels.items_per_part : kind->planes.items_per_part) = items;
  plan.kinds[0].launch.blocks = c.in_step() ? c.input_blocks : input.groups;
  plan.kinds[1].launch.blocks = c.in_step() ? c.weight_blocks : weight.groups;
  return true;
}

/// Shares out a round's blocks in about that ratio, as far as they come to whole groups and like parts.
bool share_round(const Problem& p, PairConfig& c, double ratio) {
  constexpr auto kAll = static_cast<std::int64_t>(kMultiprocessors);
  constexpr std::int64_t kMostIdle = 24;
  constexpr double kFarthest = 0.15;
  const std::int64_t rounds = resident_blocks(p, c);
  if (rounds < 1) return false;
  const PairKind of_input = kind_of(*c.input), of_weight = kind_of(*c.weight);
  double nearest = kFarthest;
  for (std::int64_t input = 1; input < kAll; ++input) {
    if (rounds * input % of_input.groups != 0) continue;
    for (std::int64_t weight = kAll - input; weight > std::max<std::int64_t>(0, kAll - input - kMostIdle);
         --weight) {
      if (rounds * weight % of_weight.groups != 0) continue;
      const double idle = static_cast<double>(kAll - input - weight) / static_cast<double>(kAll);
      const double apart =
          std::abs(std::log(static_cast<double>(input) / static_cast<double>(weight) / ratio)) + idle;
      int input_items = 0, weight_items = 0;
      if (apart >= nearest ||
          cut_pairs_in_step(of_input, of_weight, rounds, input, weight, input_items, weight_items).blocks ==
              0)
        continue;
      nearest = apart, c.input_blocks = input, c.weight_blocks = weight;
    }
  }
  return c.input_blocks > 0;
}

/// Adds the best of some pairs. What has been taken before counts for less: so those that are tried first
/// differ in both kinds, and in how much of the work is under way.
void add_different(const Problem& p, const std::vector<std::pair<double, PairConfig>>& configs,
                   std::size_t input_kinds, std::size_t weight_kinds, std::vector<Plan>& plans) {
  constexpr std::size_t kMost = 64;
  constexpr double kAgain = 0.05, kAgainAsMany = 0.02;
  // How often they have been taken.
  std::vector<int> inputs(input_kinds), weights(weight_kinds);
  std::array<int, kWaves.size() + 1> waves{};
  constexpr std::size_t kFamilies = 16;
  std::array<int, kFamilies * kFamilies> families{};
  const auto families_of = [](const PairConfig& c) {
    return static_cast<std::size_t>(c.input->family) * kFamilies + static_cast<std::size_t>(c.weight->family);
  };
  std::vector<bool> taken(configs.size());
  double least = 0;
  for (std::size_t added = 0; added < std::min(kMost, configs.size()); ++added) {
    std::size_t best = configs.size();
    double best_rank = 0;
    for (std::size_t i = 0; i < configs.size(); ++i) {
      const PairConfig& c = configs[i].second;
      if (taken[i]) continue;
      const double rank =
          configs[i].first * (1 + kAgain * (inputs[c.input_number] + weights[c.weight_number]) +
                              kAgainAsMany * (waves[c.waves] + families[families_of(c)]));
      if (best < configs.size() && rank >= best_rank) continue;
      best = i, best_rank = rank;
    }
    const PairConfig& c = configs[best].second;
    taken[best] = true;
    ++inputs[c.input_number], ++weights[c.weight_number], ++waves[c.waves];
    ++families[families_of(c)];
    Plan plan;
    plan_pair(p, c, true, plan);
    // In this order.
    least = plan.cost = std::max(least, plan.cost);
    plans.push_back(std::move(plan));
  }
}

}  // namespace

void add_pair_plans(const Problem& p, std::vector<Plan>& plans) {
  if (p.pass != Pass::Both || p.hook != Hook::None || !p.boxes) return;
  const std::vector<Plan> inputs = p.channels_last
                                       ? best_of(p, Pass::Input, {add_toeplitz_box_plans})
                                       : best_of(p, Pass::Input, {add_matrix_plans, add_position_plans});
  if (inputs.empty()) return;
  const std::vector<Plan> weights = p.channels_last
                                        ? best_of(p, Pass::Weight, {add_hankel_box_plans, add_box_plans})
                                        : best_of(p, Pass::Weight, {add_diagonal_plans, add_position_plans});
  std::vector<std::pair<double, PairConfig>> configs;
  Plan plan;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    for (std::size_t w = 0; w < weights.size(); ++w) {
      std::int64_t blocks = 0;
      for (std::size_t waves = 0; waves < kWaves.size(); ++waves) {
        const PairConfig c{&inputs[i], &weights[w], i, w, waves};
        if (!plan_pair(p, c, false, plan) || plan.launch.blocks == blocks) continue;
        blocks = plan.launch.blocks;
        configs.emplace_back(plan.cost, c);
      }
      if (!p.channels_last) continue;
      // Times may be off: numbers of blocks in other ratios, too.
      constexpr std::array<std::pair<double, const char*>, 3> kPaces{
          {{1, "in step: "},
           {0.75, "in step, fewer for the input: "},
           {1.33, "in step, more for the input: "}}};
      std::int64_t balanced = 0;
      for (const auto& [off, pace] : kPaces) {
        PairConfig c{&inputs[i], &weights[w], i, w, kWaves.size()};
        c.pace = pace;
        if (!share_round(p, c, inputs[i].cost / weights[w].cost * off) || c.input_blocks == balanced)
          continue;
        if (off == 1) balanced = c.input_blocks;
        if (plan_pair(p, c, false, plan)) configs.emplace_back(plan.cost, c);
      }
    }
  add_different(p, configs, inputs.size(), weights.size(), plans);
}

}  // namespace lamella::depthwise
