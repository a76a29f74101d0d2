// Times whole training steps of a MobileNet (forward, cross-entropy, backward, SGD with momentum and weight
// decay), by parts, and on request PyTorch's steps of the same network on the same machine, in turns.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cells.h"
#include "input.h"
#include "lamella/lamella.h"
#include "machine.h"
#include "measure.h"
#include "report.h"
#include "tensor/door.h"

namespace {

using Json = nlohmann::json;
using lamella::Device;
using lamella::MemoryFormat;
using lamella::bench::Cell;

struct Options {
  std::string device, cell, model = "v2", format, stem = "auto", json, peer;
  std::vector<std::string> peer_modes;
  double width = 1, seconds = 1.5, peer_limit = 240;
  int threads = lamella::num_threads(), rounds = 5;
  int workers = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 2u, 17u)) - 1;
  std::int64_t size = 0, batch = 0;
  bool capture = false, tf32 = false, bf16 = false, apart = false, quick = false, list = false;
};

Device device_of(const Options& o) {
  if (!o.device.empty()) return Device(o.device);
  return o.cell.empty() ? Device::cpu() : Device::cuda();
}

/// The named cell, or what the options make: both sizes that the project is measured by, both formats.
std::vector<Cell> cells(const Options& o, Device device) {
  if (!o.cell.empty()) {
    Cell cell = lamella::bench::cell_of(o.cell);
    if (device.is_cpu()) cell.type = "float32", cell.capture = false;  // --quick only
    if (o.quick) cell.size = 32, cell.batch = 4;
    if (!o.format.empty())
      cell.format = o.format == "contiguous" ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
    return {cell};
  }
  std::vector<Cell> list;
  for (const std::int64_t size : o.size == 0 ? std::vector<std::int64_t>{32, 224} : std::vector{o.size}) {
    const bool small = size <= 64;
    if (o.quick && !small && o.size == 0) continue;
    const std::int64_t usual = o.quick ? 4 : device.is_cuda() ? (small ? 128 : 256) : small ? 64 : 16;
    for (const MemoryFormat format : {MemoryFormat::ChannelsLast, MemoryFormat::Contiguous}) {
      if (!o.format.empty() && o.format != name(format)) continue;
      list.push_back({.model = o.model,
                      .width = o.width,
                      .size = size,
                      .batch = o.batch != 0 ? o.batch : usual,
                      .classes = small ? 10 : 1000,
                      .small_stem = o.stem == "auto" ? small : o.stem == "small",
                      .type = o.bf16   ? "bfloat16"
                              : o.tf32 ? "tf32"
                                       : "float32",
                      .format = format,
                      .capture = o.capture});
    }
  }
  return list;
}

void check(const Options& o, Device device) {
  if (device.is_cpu()) {
    for (const auto& [given, name] :
         {std::pair{o.capture, "--capture"}, {o.tf32, "--tf32"}, {o.bf16, "--bf16"}})
      if (given) throw std::runtime_error(std::string(name) + " is for GPUs, and --device is cpu");
    if (!o.cell.empty() && !o.quick)
      throw std::runtime_error(
          "--cell " + o.cell +
          " is measured on a GPU, and --device is cpu; --quick tries it there in float32");
  }
  if (device.is_cuda()) lamella::current_stream(device);  // throws where there is none, before all else
  if (!o.peer.empty() && !o.cell.empty() && lamella::bench::cell_of(o.cell).input)
    throw std::runtime_error("--cell " + o.cell + " has no peer; leave --peer out");
}

int run(Options o) {
  const Device device = device_of(o);
  check(o, device);
  if (o.quick) o.rounds = 1, o.seconds = 0;
  std::optional<lamella::detail::FusionGuard> apart;
  if (o.apart) apart.emplace(false);
  lamella::set_num_threads(o.threads);
  lamella::manual_seed(1);
  std::ofstream file;
  if (!o.json.empty() && o.json != "-") {
    file.open(o.json);
    if (!file) throw std::runtime_error("cannot write " + o.json);
  }
  const lamella::bench::PeerOptions turns{o.threads, o.rounds, o.seconds, o.peer_limit};
  // Whether there is one at all shows before anything is measured.
  const std::string peer = o.peer.empty() ? "" : lamella::bench::start_peer(turns)->version();

  std::FILE* const out = o.json == "-" ? stderr : stdout;  // JSON alone goes to stdout then
  Json report{{"machine", lamella::bench::describe_machine(device, o.threads)},
              {"lamella", lamella::build_info()},
              {"version", lamella::version()},
              {"libraries", lamella::library_versions()},
              {"quick", o.quick},
              {"apart", !lamella::detail::fusion_enabled()},
              {"rounds", o.rounds},
              {"seconds", o.seconds},
              {"rows", Json::array()}};
  lamella::bench::print_machine(out, report["machine"], peer);
  if (!peer.empty()) report["peer"] = peer;
  bool is_complete = true;
  for (const Cell& cell : cells(o, device)) {
    if (cell.input) {
      report["rows"].push_back(lamella::bench::measure_input(
          out, cell, {device, o.workers, o.rounds, o.seconds, o.quick ? 5 * 2 * cell.batch : 50000}));
      continue;
    }
    report["rows"].push_back(
        lamella::bench::measure(out, cell, {device, !o.peer.empty(), o.peer_modes, turns, o.quick ? 1 : 5}));
    if (report["rows"].back().value("no_peer", false)) is_complete = false;
  }
  if (o.json == "-") {
    std::printf("%s\n", report.dump(2).c_str());
  } else if (!o.json.empty()) {
    file << report.dump(2) << '\n';
    if (!file.flush()) throw std::runtime_error("cannot write " + o.json);
  }
  if (!is_complete) throw std::runtime_error("no mode of the peer worked");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Times training steps of a MobileNet: forward, cross-entropy, backward, SGD with momentum");
  CLI::Option* const cell =
      app.add_option("--cell", o.cell, "one that has a name, see --list; on a GPU, unless --device says more")
          ->check(CLI::IsMember(lamella::bench::cell_names()));
  app.add_flag("--list", o.list, "print the cells that have a name, and end");
  app.add_option("--device", o.device, "where to train: cpu or cuda; default: cpu, and cuda for a --cell");
  app.add_flag("--capture", o.capture, "replay recorded steps (GPU)")->excludes(cell);
  app.add_flag("--bf16", o.bf16, "mixed precision with bfloat16 (GPU)")->excludes(cell);
  app.add_flag("--apart", o.apart, "each operator by itself: nothing is folded into another's kernel");
  app.add_flag("--tf32", o.tf32, "allow TF32 in matrix products (GPU)")->excludes(cell);
  app.add_option("--model", o.model, "v1, v2, v3-small, v3-large")
      ->capture_default_str()
      ->check(CLI::IsMember({"v1", "v2", "v3-small", "v3-large"}))
      ->excludes(cell);
  app.add_option("--width", o.width, "multiplies the channels")
      ->capture_default_str()
      ->check(CLI::Range(0.05, 8.0))
      ->excludes(cell);
  app.add_option("--size", o.size, "pixels; default: both 32 and 224")
      ->check(CLI::Range(1, 4096))
      ->excludes(cell);
  app.add_option("--batch", o.batch,
                 "images in a step; default: 64 up to 64 pixels, else 16; on a GPU 128 and 256")
      ->check(CLI::Range(1, 65536))
      ->excludes(cell);
  app.add_option("--stem", o.stem, "small, imagenet, or auto: small up to 64 pixels")
      ->capture_default_str()
      ->check(CLI::IsMember({"small", "imagenet", "auto"}))
      ->excludes(cell);
  app.add_option("--format", o.format, "channels_last or contiguous; default: both, or the cell's")
      ->check(CLI::IsMember({"channels_last", "contiguous"}));
  app.add_option("--threads", o.threads, "threads, for the peer too")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--workers", o.workers, "threads that load images, of cifar10-input")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option("--rounds", o.rounds, "turns of ours and of each of the peer's modes")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--seconds", o.seconds, "length of a turn, at least two steps")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  app.add_flag("--quick", o.quick, "few and small steps, to see whether it runs");
  app.add_option("--json", o.json, "write the results there too; - for stdout");
  CLI::Option* const peer =
      app.add_option("--peer", o.peer, "also time this: torch")->check(CLI::IsMember({"torch"}));
  app.add_option("--peer-modes", o.peer_modes, "its modes, with commas; default: all that may be the fastest")
      ->delimiter(',')
      ->check(CLI::IsMember(lamella::bench::peer_mode_names()))
      ->needs(peer);
  app.add_option("--peer-limit", o.peer_limit, "seconds after which one of its modes is stopped")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 36000.0))
      ->needs(peer);
  CLI11_PARSE(app, argc, argv);
  if (o.list) {
    std::fputs(lamella::bench::list_of_cells().c_str(), stdout);
    return 0;
  }
  try {
    return run(o);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_mobilenet: %s\n", error.what());
    return 1;
  }
}
