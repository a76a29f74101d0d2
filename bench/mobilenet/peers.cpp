#include "peers.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

namespace lamella::bench {

using Json = nlohmann::json;

namespace {

constexpr std::array<const char*, 5> kModes = {"eager", "graph", "compile", "compile-reduce-overhead",
                                               "compile-max-autotune"};
const std::string kRowMajor = "-nchw";

/// The script answered that something went wrong.
class PeerError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

Json ask(Peer& peer, const Json& request) {
  const std::string line = peer.ask(request.dump());
  Json answer = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) throw PeerError("answered " + line.substr(0, 80));
  if (answer.contains("error")) throw PeerError(answer["error"].get<std::string>());
  return answer;
}

}  // namespace

std::vector<std::string> peer_mode_names() {
  std::vector<std::string> names(kModes.begin(), kModes.end());
  for (const char* mode : kModes) names.push_back(mode + kRowMajor);
  return names;
}

std::vector<PeerMode> peer_modes(const std::vector<std::string>& names, const Cell& cell, Device device,
                                 MemoryFormat format) {
  std::vector<std::string> chosen = names;
  if (chosen.empty() && device.is_cpu()) chosen = {"eager"};
  if (chosen.empty()) {
    chosen = peer_mode_names();
    if (cell.type != "float32" || format != MemoryFormat::ChannelsLast) chosen.resize(kModes.size());
  }
  std::vector<PeerMode> modes;
  for (const std::string& name : chosen) {
    if (std::any_of(modes.begin(), modes.end(), [&](const PeerMode& mode) { return mode.name == name; }))
      continue;
    const bool row_major = name.ends_with(kRowMajor);
    modes.push_back({name, row_major ? name.substr(0, name.size() - kRowMajor.size()) : name,
                     row_major ? MemoryFormat::Contiguous : format});
  }
  return modes;
}

Json PeerResult::json(std::int64_t batch) const {
  Json json{{"mode", mode.name}, {"format", lamella::name(mode.format)}};
  if (!ok()) {
    json["error"] = error;
    return json;
  }
  json.update(Summary(samples).json(batch, samples));
  json["network"] = network;
  json["loss"] = loss;
  json["warm_up_seconds"] = warm_up_seconds;
  if (peak_reserved != 0) {
    json["peak_reserved_bytes"] = peak_reserved;
    json["steady_reserved_bytes"] = steady_reserved;
  }
  return json;
}

std::unique_ptr<Peer> start_peer(const PeerOptions& options) {
  return std::make_unique<Peer>(LAMELLA_BENCH_DIR "/torch_mobilenet.py",
                                std::vector{std::to_string(options.threads)}, "torch", options.limit);
}

PeerResult run_peer(Trainer& ours, Samples& samples, const PeerMode& mode, const PeerOptions& options) {
  PeerResult result{.mode = mode};
  const Cell& c = ours.cell();
  // Its samples are shown only if all turns were taken.
  try {
    const std::unique_ptr<Peer> peer = start_peer(options);
    const Json built = ask(*peer, {{"model", c.model},
                                   {"width", c.width},
                                   {"classes", c.classes},
                                   {"batch", c.batch},
                                   {"size", c.size},
                                   {"small_stem", c.small_stem},
                                   {"format", name(mode.format)},
                                   {"device", ours.device().to_string()},
                                   {"mode", mode.run},
                                   {"type", c.type}});
    if (built.at("parameters") != ours.parameters()) {
      throw std::runtime_error("the networks differ: " + std::to_string(ours.parameters()) +
                               " parameters here, " + built["parameters"].dump() + " in " + peer->version());
    }
    result.network = built.at("network");
    result.warm_up_seconds = built.at("warm_up_seconds");
    for (int round = 0; round < options.rounds; ++round) {
      ours.train(options.seconds, samples);
      const Json answer = ask(*peer, {{"seconds", options.seconds}});
      for (const Json& times : answer.at("times")) result.samples.times.push_back(times.get<Phases>());
      result.samples.steps += answer.at("steps").get<std::int64_t>();
      result.loss = answer.at("loss");
      result.peak_reserved = answer.at("peak_reserved");
      result.steady_reserved = answer.at("steady_reserved");
      // The peer's threads keep their cores busy for up to 0.2 s after their last work.
      if (ours.device().is_cpu()) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    }
    if (result.samples.times.empty()) throw PeerError("it trained no steps");
  } catch (const PeerError& error) {
    result.error = error.what();
  } catch (const PeerTimeout& error) {
    result.error = error.what();
  } catch (const PeerEnded& error) {
    result.error = error.what();
  } catch (const Json::exception& error) {
    result.error = std::string("answered without a figure: ") + error.what();
  }
  return result;
}

}  // namespace lamella::bench
