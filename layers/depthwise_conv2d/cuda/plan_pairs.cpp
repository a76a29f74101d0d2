#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "layers/depthwise_conv2d/cuda/cut_pairs.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

// Pairs: both gradients in one launch, the input's by matrices and the weight's by diagonals.
namespace lamella::depthwise {
namespace {

/// The kernels of either gradient alone that do best by estimate.
std::vector<Plan> best_of(Problem p, Pass pass,
                          void (*add)(const Problem&, const Shape&, std::vector<Plan>&)) {
  constexpr std::size_t kMost = 12;
  std::vector<Plan> plans;
  Shape shape{};
  p.pass = pass;
  if (pass == Pass::Input) p.bias = false;
  if (!describe_shape(p, shape)) return plans;
  add(p, shape, plans);
  std::stable_sort(plans.begin(), plans.end(), [](const Plan& a, const Plan& b) { return a.cost < b.cost; });
  if (plans.size() > kMost) plans.resize(kMost);
  return plans;
}

/// What a kernel is called, without its threads and blocks: with the name of what it does in a block.
std::string in_block(const std::string& kernel, std::string_view global, std::string_view device) {
  const std::size_t without_blocks = kernel.rfind(", ");
  return std::string(device) + kernel.substr(global.size(), without_blocks - global.size()) + ">";
}

struct PairConfig {
  const Plan *input, *weight;
  int waves;
};

/// The plan of a pair; false: it does not fit.
bool plan_pair(const Problem& p, const PairConfig& c, Plan& plan) {
  const Launch &input = c.input->launch, &weight = c.weight->launch;
  plan = {};
  plan.family = Plan::Family::Pairs;
  plan.pair.input = c.input->planes, plan.pair.weight = c.weight->planes;
  const std::int64_t shared = std::max(input.shared_bytes, weight.shared_bytes) + 1024;
  plan.resident = static_cast<int>(
      std::min<std::int64_t>(std::min(c.input->resident, c.weight->resident), kSharedBytes / shared));
  if (plan.resident < 2) return false;  // one of either kind
  plan.launch = cut_pairs(plan.pair, p.geometry.batch, p.geometry.in_channels, input, weight,
                          static_cast<std::int64_t>(kMultiprocessors) * plan.resident * c.waves);
  if (plan.launch.blocks == 0 || plan.launch.blocks > kMostBlocks) return false;
  // Of four tensors' bytes it moves three, and either kind of block has work while the other waits.
  constexpr double kOfBoth = 0.85;
  plan.cost = kOfBoth * (c.input->cost + c.weight->cost);
  plan.kernel = "backward_pairs<" + in_block(c.input->kernel, "forward_matrices", "multiply_matrices") +
                ", " + in_block(c.weight->kernel, "backward_diagonals", "weigh_diagonals") + ", " +
                std::to_string(plan.launch.threads) + ", " + std::to_string(plan.resident) + ">";
  plan.what = c.input->what + "; " + c.weight->what;
  return true;
}

}  // namespace

void add_pair_plans(const Problem& p, std::vector<Plan>& plans) {
  if (p.pass != Pass::Both || p.hook != Hook::None || p.channels_last || !p.boxes) return;
  const std::vector<Plan> inputs = best_of(p, Pass::Input, add_matrix_plans);
  if (inputs.empty()) return;
  const std::vector<Plan> weights = best_of(p, Pass::Weight, add_diagonal_plans);
  std::vector<std::pair<double, PairConfig>> configs;
  Plan plan;
  for (const Plan& input : inputs)
    for (const Plan& weight : weights)
      for (const int waves : {1, 2})
        if (const PairConfig c{&input, &weight, waves}; plan_pair(p, c, plan))
          configs.emplace_back(plan.cost, c);
  add_best(
      configs, [&](const PairConfig& c, Plan& best) { plan_pair(p, c, best); }, plans);
}

}  // namespace lamella::depthwise
