// Times whole training steps of a MobileNet (forward, cross-entropy, backward, SGD with momentum and weight
// decay), and on request PyTorch's steps of the same network on the same machine, in turns.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "lamella/lamella.h"
#include "lamella/models/mobilenet_v1.h"
#include "lamella/models/mobilenet_v2.h"
#include "lamella/models/mobilenet_v3.h"
#include "lamella/optim/sgd.h"
#include "peer.h"
#include "tensor/door.h"

namespace {

using Json = nlohmann::json;
using lamella::Device;
using lamella::MemoryFormat;
using lamella::Tensor;
using lamella::bench::Peer;

constexpr std::array<const char*, 4> kParts = {"forward", "backward", "optimizer", "step"};
using Step = std::array<double, kParts.size()>;  // milliseconds
#ifdef __clang__
constexpr const char* kCompiler = __VERSION__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif
using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

/// What is trained.
struct Config {
  std::string model;
  double width;
  std::int64_t size, batch, classes;
  bool small_stem;
};

std::unique_ptr<lamella::Module> build(const Config& c) {
  namespace models = lamella::models;
  if (c.model == "v1") {
    return std::make_unique<models::MobileNetV1>(
        models::MobileNetV1Options{.classes = c.classes, .width = c.width, .small_stem = c.small_stem});
  }
  if (c.model == "v2") {
    return std::make_unique<models::MobileNetV2>(
        models::MobileNetV2Options{.classes = c.classes, .width = c.width, .small_stem = c.small_stem});
  }
  return std::make_unique<models::MobileNetV3>(
      c.model == "v3-small" ? models::MobileNetV3Size::Small : models::MobileNetV3Size::Large,
      models::MobileNetV3Options{.classes = c.classes, .width = c.width, .small_stem = c.small_stem});
}

class Trainer {
 public:
  Trainer(const Config& c, MemoryFormat format, Device device, bool capture, bool bf16)
      : device_(fresh(device)),
        bf16_(bf16),
        net_(build(c)),
        images_(lamella::randn({c.batch, 3, c.size, c.size}).contiguous(format).to(device)),
        labels_(lamella::randint(0, c.classes, {c.batch}).to(device)) {
    net_->to(format);
    net_->to(device);
    sgd_.emplace(net_->parameters(),
                 lamella::optim::SGDOptions{.lr = 1e-3, .momentum = 0.9, .weight_decay = 4e-5});
    if (capture)
      captured_.emplace(
          *net_, *sgd_,
          lamella::train::StepOptions{.check_every = 0,
                                      .capture = true,
                                      .autocast = bf16 ? std::optional(lamella::bfloat16) : std::nullopt});
    for (int i = 0; i < (capture ? 4 : 2); ++i) step();
  }

  std::int64_t parameters() const { return net_->num_parameters(); }
  /// The most bytes that the allocator has held since the network was built.
  std::size_t peak_reserved() const { return lamella::memory_stats(device_).peak_reserved; }

  Step step() {
    Step times{};
    if (device_.is_cuda()) {  // a wait between the parts would change what is measured
      lamella::synchronize(device_);
      const Clock::time_point begin = Clock::now();
      if (captured_) {
        (*captured_)(images_, labels_);
      } else {
        Tensor loss;
        {
          std::optional<lamella::Autocast> mixed;
          if (bf16_) mixed.emplace(lamella::bfloat16);
          loss = lamella::cross_entropy((*net_)(images_), labels_);
        }
        loss.backward();
        sgd_->step();
        sgd_->zero_grad();
      }
      lamella::synchronize(device_);
      times.back() = milliseconds(begin, Clock::now());
      return times;
    }
    const Clock::time_point start = Clock::now();
    {
      const Tensor loss = lamella::cross_entropy((*net_)(images_), labels_);
      const Clock::time_point forward = Clock::now();
      loss.backward();
      const Clock::time_point backward = Clock::now();
      sgd_->step();
      sgd_->zero_grad();
      times = {milliseconds(start, forward), milliseconds(forward, backward),
               milliseconds(backward, Clock::now()), 0};
    }
    times.back() = milliseconds(start, Clock::now());
    return times;
  }

  /// About so long, after a step that is not counted: the peer's threads have just left the caches.
  void train(double seconds, std::vector<Step>& steps) {
    step();
    const Clock::time_point end =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    for (int i = 0; i < 2 || Clock::now() < end; ++i) steps.push_back(step());
  }

 private:
  static Device fresh(Device device) {
    lamella::empty_cache(device);
    lamella::reset_peak_memory(device);
    return device;
  }

  Device device_;
  bool bf16_;
  std::unique_ptr<lamella::Module> net_;
  Tensor images_, labels_;
  std::optional<lamella::optim::SGD> sgd_;
  std::optional<lamella::train::Step> captured_;
};

Json ask(Peer& peer, const Json& request) {
  Json answer = Json::parse(peer.ask(request.dump()));
  if (answer.contains("error"))
    throw std::runtime_error(peer.version() + ": " + answer["error"].get<std::string>());
  return answer;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

/// Medians and minima over the steps, in milliseconds.
struct Summary {
  Step median, best;

  explicit Summary(const std::vector<Step>& steps) {
    for (std::size_t part = 0; part < kParts.size(); ++part) {
      std::vector<double> values;
      for (const Step& step : steps) values.push_back(step[part]);
      std::sort(values.begin(), values.end());
      median[part] = values[values.size() / 2];
      best[part] = values.front();
    }
  }
  Json json(std::int64_t batch, std::size_t steps) const {
    Json json{{"steps", steps},
              {"images_per_second", static_cast<double>(batch) / median.back() * 1e3},
              {"best_images_per_second", static_cast<double>(batch) / best.back() * 1e3}};
    for (std::size_t part = 0; part < kParts.size(); ++part) {
      json[std::string(kParts[part]) + "_ms"] = median[part];
      json["best_" + std::string(kParts[part]) + "_ms"] = best[part];
    }
    return json;
  }
};

struct Options {
  std::string device = "cpu", model = "v2", format, json, peer;
  double width = 1, seconds = 1.5;
  int threads = lamella::num_threads(), rounds = 5;
  std::int64_t size = 0, batch = 0;
  bool capture = false, tf32 = false, bf16 = false, apart = false;
};

/// The two configurations that the project is measured by, or the one that was asked for.
std::vector<Config> configs(const Options& o) {
  std::vector<Config> list;
  for (const std::int64_t size : o.size == 0 ? std::vector<std::int64_t>{32, 224} : std::vector{o.size}) {
    const bool small = size <= 64;
    list.push_back({o.model, o.width, size,
                    o.batch != 0                 ? o.batch
                    : Device(o.device).is_cuda() ? (small ? 128 : 256)
                    : small                      ? 64
                                                 : 16,
                    small ? 10 : 1000, small});
  }
  return list;
}

void print_row(std::FILE* out, const char* who, const Summary& s, std::int64_t batch, std::size_t steps,
               std::size_t peak_reserved) {
  std::fprintf(out, "  %-14s %6zu %9.1f %9.1f %9.1f %9.1f %9.1f %9.0f %9.0f", who, steps, s.median[0],
               s.median[1], s.median[2], s.median[3], s.best[3],
               static_cast<double>(batch) / s.median[3] * 1e3, static_cast<double>(batch) / s.best[3] * 1e3);
  if (peak_reserved != 0) std::fprintf(out, " %9.2f", static_cast<double>(peak_reserved) / (1 << 30));
}

Json run_config(std::FILE* out, const Options& o, const Config& c, Peer* peer) {
  std::fprintf(out, "\nMobileNet %s %g, %lldx%lld pixels, batch %lld, %lld classes%s\n", c.model.c_str(),
               c.width, static_cast<long long>(c.size), static_cast<long long>(c.size),
               static_cast<long long>(c.batch), static_cast<long long>(c.classes),
               c.small_stem ? ", small stem" : "");
  std::fprintf(out, "  %-14s %6s %9s %9s %9s %9s %9s %9s %9s%s\n", "", "steps", "forward", "backward",
               "optimizer", "step", "best ms", "images/s", "best",
               Device(o.device).is_cuda() ? "  peak GiB" : "");
  Json rows = Json::array();
  for (const MemoryFormat format : {MemoryFormat::ChannelsLast, MemoryFormat::Contiguous}) {
    if (!o.format.empty() && o.format != name(format)) continue;
    Trainer ours(c, format, Device(o.device), o.capture, o.bf16);
    if (peer != nullptr) {
      const Json built = ask(*peer, {{"model", c.model},
                                     {"width", c.width},
                                     {"classes", c.classes},
                                     {"batch", c.batch},
                                     {"size", c.size},
                                     {"small_stem", c.small_stem},
                                     {"format", name(format)},
                                     {"device", o.device},
                                     {"capture", o.capture},
                                     {"tf32", o.tf32},
                                     {"bf16", o.bf16}});
      if (built["parameters"] != ours.parameters()) {
        throw std::runtime_error("the networks differ: " + std::to_string(ours.parameters()) +
                                 " parameters here, " + built["parameters"].dump() + " in " +
                                 peer->version());
      }
    }
    std::vector<Step> steps, peer_steps;
    std::size_t peer_reserved = 0;
    for (int round = 0; round < o.rounds; ++round) {
      ours.train(o.seconds, steps);
      if (peer == nullptr) continue;
      const Json answer = ask(*peer, {{"seconds", o.seconds}});
      for (const Json& step : answer["steps"]) peer_steps.push_back(step.get<Step>());
      peer_reserved = answer["peak_reserved"];
      // The peer's threads keep their cores busy for up to 0.2 s after their last work.
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
    }
    const Summary mine(steps);
    std::fprintf(out, "  %s\n", name(format));
    const std::size_t reserved = Device(o.device).is_cuda() ? ours.peak_reserved() : 0;
    print_row(out, "  Lamella", mine, c.batch, steps.size(), reserved);
    Json row{{"model", c.model},
             {"width", c.width},
             {"size", c.size},
             {"batch", c.batch},
             {"classes", c.classes},
             {"small_stem", c.small_stem},
             {"format", name(format)},
             {"parameters", ours.parameters()},
             {"lamella", mine.json(c.batch, steps.size())}};
    if (reserved != 0) row["lamella"]["peak_reserved_bytes"] = reserved;
    if (peer != nullptr) {
      const Summary theirs(peer_steps);
      const double ratio = theirs.median.back() / mine.median.back(),
                   best = theirs.best.back() / mine.best.back();
      std::fprintf(out, "\n");
      print_row(out, "  PyTorch", theirs, c.batch, peer_steps.size(), peer_reserved);
      std::fprintf(out, "\n  Lamella's speed is %.2f of PyTorch's (best steps: %.2f)", ratio, best);
      row["peer"] = theirs.json(c.batch, peer_steps.size());
      if (peer_reserved != 0) row["peer"]["peak_reserved_bytes"] = peer_reserved;
      row["ratio"] = ratio;
      row["best_ratio"] = best;
    }
    std::fprintf(out, "\n");
    std::fflush(out);
    rows.push_back(row);
  }
  return rows;
}

int run(const Options& o) {
  const lamella::detail::FusionGuard fusion(!o.apart);
  if ((o.capture || o.tf32 || o.bf16) && Device(o.device).is_cpu())
    throw std::runtime_error("--capture, --tf32 and --bf16 are for GPUs");
  lamella::set_allow_tf32(o.tf32);
  lamella::set_num_threads(o.threads);
  lamella::manual_seed(1);
  std::ofstream file;
  if (!o.json.empty() && o.json != "-") {
    file.open(o.json);
    if (!file) throw std::runtime_error("cannot write " + o.json);
  }
  std::unique_ptr<Peer> peer;
  if (!o.peer.empty()) {
    peer = std::make_unique<Peer>(LAMELLA_BENCH_DIR "/torch_mobilenet.py",
                                  std::vector{std::to_string(o.threads)}, "torch");
  }
  std::FILE* const out = o.json == "-" ? stderr : stdout;  // JSON alone goes to stdout then
  const std::string cpu = cpu_name();
  const unsigned cores = std::thread::hardware_concurrency();
  double load = 0;
  getloadavg(&load, 1);
  std::fprintf(out, "%s, %u cores (%.1f busy before), %d threads, %s%s%s, milliseconds (medians)\n%s%s%s\n",
               cpu.c_str(), cores, load, o.threads, o.device.c_str(),
               o.bf16   ? ", bfloat16"
               : o.tf32 ? ", TF32"
                        : ", float32",
               o.capture ? ", captured" : "", lamella::build_info().c_str(), peer ? "\n" : "",
               peer ? peer->version().c_str() : "");
  Json report{{"machine",
               {{"cpu", cpu},
                {"cores", cores},
                {"load_before", load},
                {"threads", o.threads},
                {"compiler", kCompiler},
                {"device", o.device}}},
              {"lamella", lamella::build_info()},
              {"version", lamella::version()},
              {"rows", Json::array()}};
  if (peer) report["peer"] = peer->version();
  for (const Config& config : configs(o))
    for (const Json& row : run_config(out, o, config, peer.get())) report["rows"].push_back(row);
  if (o.json == "-") {
    std::printf("%s\n", report.dump(2).c_str());
  } else if (!o.json.empty()) {
    file << report.dump(2) << '\n';
    if (!file.flush()) throw std::runtime_error("cannot write " + o.json);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Times training steps of a MobileNet: forward, cross-entropy, backward, SGD with momentum");
  app.add_option("--device", o.device, "where to train: cpu or cuda")->capture_default_str();
  app.add_flag("--capture", o.capture, "replay recorded steps (GPU)");
  app.add_flag("--bf16", o.bf16, "mixed precision with bfloat16 (GPU)");
  app.add_flag("--apart", o.apart, "each operator by itself: nothing is folded into another's kernel");
  app.add_flag("--tf32", o.tf32, "allow TF32 in matrix products (GPU)");
  app.add_option("--model", o.model, "v1, v2, v3-small, v3-large")
      ->capture_default_str()
      ->check(CLI::IsMember({"v1", "v2", "v3-small", "v3-large"}));
  app.add_option("--width", o.width, "multiplies the channels")
      ->capture_default_str()
      ->check(CLI::Range(0.05, 8.0));
  app.add_option("--size", o.size, "pixels; default: both 32 and 224")->check(CLI::Range(1, 4096));
  app.add_option("--batch", o.batch,
                 "images in a step; default: 64 up to 64 pixels, else 16; on a GPU 128 and 256")
      ->check(CLI::Range(1, 65536));
  app.add_option("--format", o.format, "channels_last or contiguous; default: both")
      ->check(CLI::IsMember({"channels_last", "contiguous"}));
  app.add_option("--threads", o.threads, "threads, for the peer too")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--rounds", o.rounds, "turns of ours and the peer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--seconds", o.seconds, "length of a turn, at least two steps")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  app.add_option("--json", o.json, "write the results there too; - for stdout");
  app.add_option("--peer", o.peer, "also time this: torch")->check(CLI::IsMember({"torch"}));
  CLI11_PARSE(app, argc, argv);
  try {
    return run(o);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_mobilenet: %s\n", error.what());
    return 1;
  }
}
