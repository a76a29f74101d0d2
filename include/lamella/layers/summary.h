#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/shape.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// One layer of a network: see summarize().
struct LayerSummary {
  std::string path;             ///< dotted, as "features.0.0"; "" for the module that was summarized
  std::string kind;             ///< Module::type_name()
  std::string settings;         ///< Module::settings()
  std::int64_t calls = 0;       ///< times that it ran; 0: its parameters are used in some other way, or not
  Shape output = {};            ///< of the last call; meaningless if there was none
  std::int64_t parameters = 0;  ///< numbers in its own parameters, those of an earlier row not again
  std::int64_t multiply_adds = 0;     ///< of all calls together
  std::int64_t activation_bytes = 0;  ///< of the outputs of all calls together
};

/// What a network is made of and what one forward pass costs: see summarize().
struct Summary {
  std::vector<LayerSummary> rows;         ///< in the order of Module::apply()
  Shape input;                            ///< that it was run with
  std::int64_t parameters = 0;            ///< Module::num_parameters()
  std::int64_t trainable_parameters = 0;  ///< of these, those that require a gradient
  std::int64_t parameter_bytes = 0;       ///< what the parameters take
  std::int64_t multiply_adds = 0;         ///< sum of the rows
  std::int64_t activation_bytes = 0;      ///< sum of the rows

  /// A table with a row for each layer, and the totals below it. Ends with a line's end.
  std::string to_string() const;
};

/// Runs `module` once on `input`, in eval mode and without recording gradients, and reports its layers: the
/// modules without children that were called, and all that have parameters of their own. Modes, running
/// statistics and the random sequence stay as they were.
///
/// Multiply-adds are those of Conv2d, DepthwiseConv2d and Linear, padding included; bias, normalisation,
/// activations, pooling and sums count as nothing, as is customary. They and the activation memory grow with
/// the batch: give a batch of one for figures per image.
///
/// Activation memory is the size of the listed layers' outputs, each counted once, also where it is a view
/// of its input. It is about what training keeps for the backward pass: functions that a module calls
/// directly (a block's activation, if its normalisation does not do it in one go, or its sum) have no row. An
/// activation done together with a normalisation is in that row.
///
/// Seen is what is called as module(x) on this thread. Throws Error for an undefined `input`, and whatever
/// the forward pass throws.
LAMELLA_API Summary summarize(Module& module, const Tensor& input);

}  // namespace lamella
