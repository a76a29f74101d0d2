#pragma once

#include <lamella/lamella.h>

#include <cstdint>
#include <memory>

#include "recipe.h"

/// The recipe's optimizer for the parameters that are not frozen. Throws lamella::Error if all of them are.
std::unique_ptr<lamella::optim::Optimizer> make_optimizer(const Recipe& recipe,
                                                          const lamella::Module& network);

/// The recipe's course of the learning rate; a step is an update of the weights.
lamella::optim::Schedule make_schedule(const Recipe& recipe, std::int64_t steps_per_epoch);
