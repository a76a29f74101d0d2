#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "layers/depthwise_conv2d/cuda/plan.h"

/// The measured choice: which plan was fastest, kept in a file by device and version.
namespace lamella::depthwise {

/// A problem in a line; those of different problems differ, unless by gaps alone.
std::string text_of(const Problem& problem);

/// A plan's kernel and launch in a line.
std::string text_of(const Plan& plan);

/// In a plan's place, of both gradients: one pass after the other was faster.
inline constexpr const char* kTwoPasses = "two passes";

/// By a problem's text, the fastest plan's.
using Tuning = std::map<std::string, std::string>;

/// The choices that come with Lamella (measured/), for GPUs of this name; empty for others.
Tuning shipped_tuning(const std::string& device);

/// Adds to choices of bfloat16 the same for float16, unless there is a choice already.
Tuning extend(Tuning tuning);
/// The plans measured for a problem's text and for the same with other batches, up to so many times larger or
/// smaller, the nearest batch first.
std::vector<std::string> measured_for(const std::string& problem, const Tuning& tuning,
                                      double most_times = std::numeric_limits<double>::infinity());

/// Throws Error, with why, for a file that cannot be read, is damaged, or of another device or version.
Tuning read_tuning(const std::string& path, const std::string& device);

/// Written beside and renamed, so that a reader never finds half of it. Throws Error where that fails.
void write_tuning(const std::string& path, const std::string& device, const Tuning& tuning);

/// The file that $LAMELLA_TUNING names. Empty where the variable is, and with a warning where the file cannot
/// be used.
Tuning tuning_from_environment(const std::string& device);

/// plans_for() with the measured one first: that of the problem or else of the nearest batch, whose kernel is
/// launched with a number of blocks close to the measured one. What was measured for a large batch says
/// nothing of problems so small that the first is a direct plan. Empty too where both gradients take less
/// time in two passes, as measured or else as estimated. What `tuning` names and plans_for() does not know is
/// left out.
std::vector<Plan> plans_to_try(const Problem& problem, const Tuning& tuning);

}  // namespace lamella::depthwise
