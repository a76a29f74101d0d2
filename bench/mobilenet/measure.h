#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cells.h"
#include "lamella/core/device.h"
#include "peers.h"

/// A cell's figures.
namespace lamella::bench {

/// How cells are measured.
struct MeasureOptions {
  Device device;
  bool peer = false;
  std::vector<std::string> peer_modes = {};  ///< none: see peer_modes()
  PeerOptions turns = {};                    ///< Lamella's, too
  int profiled_steps = 5;
};

/// Prints the tables and returns the same as JSON. What goes wrong in a peer's mode is in its row; a cell
/// none of whose modes worked has "no_peer": true.
nlohmann::json measure(std::FILE* out, const Cell& cell, const MeasureOptions& options);

}  // namespace lamella::bench
