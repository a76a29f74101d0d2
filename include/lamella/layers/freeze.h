#pragma once

#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/layers/module.h"

/// @file
/// Training a part of a network:
///
///     freeze(net, {"features.*"});           // only the classifier learns
///     …
///     net.train();
///     hold_frozen_norms(net);                // and nothing else moves
namespace lamella {

/// Switches requires_grad() off for the parameters of floating type whose dotted names match one of
/// `patterns`, which are those of a shell: * any characters, dots too, ? one, [0-9a] one of these, \ takes
/// the next as it is. A whole name must match. Their gradients are dropped: an optimizer leaves parameters
/// without one alone, also those it was given before. Returns the names frozen, in the order of
/// named_parameters(). Throws Error for a pattern that matches no parameter, with nothing changed.
LAMELLA_API std::vector<std::string> freeze(Module& module, const std::vector<std::string>& patterns);

/// Switches each BatchNorm2d that has parameters, all of them frozen, to eval mode, so that its running
/// statistics stay and are what it uses. Without this a frozen network changes while it trains:
/// requires_grad() says nothing about statistics, as in PyTorch (where timm's freeze() does what this does).
/// To be called after each Module::train(), which switches all modules.
LAMELLA_API void hold_frozen_norms(Module& module);

}  // namespace lamella
