#pragma once

#include <lamella/lamella.h>

#include <filesystem>
#include <functional>

/// What --profile says.
struct ProfileRun {
  std::filesystem::path folder = {};  ///< for the tables and the trace; empty: no profile
  int steps = 10;                     ///< that are profiled
};

/// Throws lamella::Error for options out of range, lamella::IoError where no folder can be made.
void check(const ProfileRun& run);

/// Runs `step` on batches of `loader`, the first few to warm up, the others under `profile`; prints what it
/// saw and writes operators.txt, memory.txt and trace.json. Returns false, with nothing written, when
/// interrupted().
bool profile_steps(
    lamella::train::Profile& profile, const lamella::Module& network, lamella::data::DataLoader& loader,
    const std::function<void(const lamella::Tensor& images, const lamella::Tensor& labels)>& step,
    const ProfileRun& run);
