#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/peer.h"
#include "trainer.h"

/// PyTorch's side: bench/mobilenet/torch_mobilenet.py, a process for each mode.
namespace lamella::bench {

/// A way to run PyTorch's steps.
struct PeerMode {
  std::string name;  ///< of peer_mode_names()
  std::string run;   ///< "eager", "graph", "compile", …
  MemoryFormat format = MemoryFormat::ChannelsLast;
};

/// "eager", "graph", "compile", "compile-reduce-overhead", "compile-max-autotune", and each of them with
/// "-nchw" behind it.
std::vector<std::string> peer_mode_names();
/// Those of `names`; without any, all that may be the fastest for the cell on that device: "eager" on the
/// CPU; on a GPU all five, in float32 row-major as well. What does not say "-nchw" has `format`.
std::vector<PeerMode> peer_modes(const std::vector<std::string>& names, const Cell& cell, Device device,
                                 MemoryFormat format);

/// What became of a mode.
struct PeerResult {
  PeerMode mode;
  std::string error = {};  ///< why there are no figures; else empty
  std::string network = {};
  Samples samples = {};
  double loss = 0, warm_up_seconds = 0;
  /// What PyTorch's allocator has held at most: in all, and once the first steps were over.
  std::size_t peak_reserved = 0, steady_reserved = 0;

  bool ok() const { return error.empty(); }
  nlohmann::json json(std::int64_t batch) const;
};

/// How peers are run.
struct PeerOptions {
  int threads = 1, rounds = 5;
  double seconds = 1.5;  ///< of a turn
  double limit = 240;    ///< seconds that a mode may make us wait in all
};

/// Starts the script.
std::unique_ptr<Peer> start_peer(const PeerOptions& options);

/// Trains by turns: ours into `samples`, and the peer's. What goes wrong on its side is the result's error,
/// but that it trains another network: std::runtime_error.
PeerResult run_peer(Trainer& ours, Samples& samples, const PeerMode& mode, const PeerOptions& options);

}  // namespace lamella::bench
