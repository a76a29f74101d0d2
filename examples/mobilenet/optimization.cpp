#include "optimization.h"

#include <algorithm>
#include <utility>

namespace lm = lamella;

std::unique_ptr<lm::optim::Optimizer> make_optimizer(const Recipe& recipe, const lm::Module& network) {
  auto parameters = network.named_parameters();
  std::erase_if(parameters, [](const auto& named) { return !named.second.requires_grad(); });
  if (parameters.empty()) throw lm::Error("freeze: leaves no parameter to train");
  const auto groups = lm::optim::no_decay_groups(parameters, recipe.weight_decay);
  if (recipe.optimizer == "adam")
    return std::make_unique<lm::optim::Adam>(groups, lm::optim::AdamOptions{.lr = recipe.lr});
  if (recipe.optimizer == "adamw")
    return std::make_unique<lm::optim::AdamW>(groups, lm::optim::AdamWOptions{.lr = recipe.lr});
  if (recipe.optimizer == "rmsprop")  // as in the MobileNet papers
    return std::make_unique<lm::optim::RMSprop>(groups, lm::optim::RMSpropOptions{.lr = recipe.lr,
                                                                                  .alpha = 0.9,
                                                                                  .eps = 1e-3,
                                                                                  .momentum = recipe.momentum,
                                                                                  .eps_inside_sqrt = true});
  return std::make_unique<lm::optim::SGD>(
      groups,
      lm::optim::SGDOptions{.lr = recipe.lr, .momentum = recipe.momentum, .nesterov = recipe.momentum > 0});
}

lm::optim::Schedule make_schedule(const Recipe& recipe, std::int64_t steps_per_epoch) {
  const std::int64_t steps = recipe.epochs * steps_per_epoch;
  const auto warmup = static_cast<std::int64_t>(recipe.warmup_epochs * static_cast<double>(steps_per_epoch));
  if (recipe.schedule == "one-cycle") return lm::optim::OneCycle({.total_steps = steps});
  lm::optim::Schedule main = lm::optim::Constant();
  if (recipe.schedule == "cosine")
    main = lm::optim::Cosine({.T_max = std::max<std::int64_t>(1, steps - warmup)});
  if (warmup == 0) return main;
  const lm::optim::LinearWarmup rise(
      {.start_factor = 1.0 / static_cast<double>(warmup), .total_iters = warmup});
  return lm::optim::Sequential({.schedules = {rise, main}, .milestones = {warmup}});
}
