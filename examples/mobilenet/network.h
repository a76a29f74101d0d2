#pragma once

#include <lamella/lamella.h>

#include <memory>

#include "dataset.h"
#include "recipe.h"

/// The network that `recipe` names, for images of `format`, in its memory format; its weights are drawn from
/// the process-wide random sequence.
std::unique_ptr<lamella::Module> make_network(const Recipe& recipe, const InputFormat& format);

/// Averages of such a network.
std::unique_ptr<lamella::optim::Ema> make_ema(const lamella::Module& network,
                                              const lamella::optim::EmaOptions& options);
