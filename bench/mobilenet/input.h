#pragma once

#include <cstdint>
#include <cstdio>
#include <nlohmann/json_fwd.hpp>

#include "cells.h"
#include "lamella/core/device.h"

/// Training from a loader beside training on data that lies on the device.
namespace lamella::bench {

/// How it is measured.
struct InputOptions {
  Device device;
  int workers = 1;              ///< of the loader
  int rounds = 5;               ///< turns of both
  double seconds = 1.5;         ///< of a turn; of the loader's, whole epochs at least so long
  std::int64_t images = 50000;  ///< of the set, in CIFAR-10's five files
};

/// Writes random images in CIFAR-10's format to a temporary folder, reads them once, and trains from memory
/// as lamella-mobilenet does: shuffled, cropped, mirrored, cut out, normalised, loss and accuracy kept on the
/// device. Prints the figures and returns the same as JSON.
nlohmann::json measure_input(std::FILE* out, const Cell& cell, const InputOptions& options);

}  // namespace lamella::bench
