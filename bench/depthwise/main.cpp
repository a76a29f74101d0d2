// Depthwise convolution on a GPU: each pass's time, its share of the roofline that is measured in the same
// run, and beside PyTorch's. The roofline is the fastest copy of the same bytes, for weight gradients the
// fastest kernel that only reads them, or the time of the useful multiply-adds where that is longer.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <tuple>

#include "../compile_kernels.h"
#include "../peer.h"
#include "cases.h"
#include "lamella/core/version.h"
#include "measure.h"
#include "report.h"
#include "tune.h"

namespace lamella::bench {
namespace {

struct Options {
  std::vector<std::string> only, passes{"forward", "input", "weight", "both"}, types{"float32", "bfloat16"},
      formats{"NCHW", "NHWC"}, with;
  int random = 0, repetitions = 21;
  std::uint64_t seed = 1;
  std::string peer, json, tune;
  PlanChoice plans;
  bool quick = false, list = false, hardswish = false;
  int compile = 0;
};

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Calls work(0) to work(count - 1), on all cores.
void on_all_cores(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  std::vector<std::future<void>> threads(std::max(1U, std::thread::hardware_concurrency()));
  for (std::future<void>& thread : threads)
    thread = std::async(std::launch::async, [&] {
      for (std::size_t i = next++; i < count; i = next++) work(i);
    });
  for (std::future<void>& thread : threads) thread.get();
}

std::vector<Case> cases_of(const Options& options, const std::vector<DType>& types,
                           const std::vector<MemoryFormat>& formats) {
  std::vector<Case> cases = fixed_cases();
  std::vector<Case> random = random_cases(options.random, options.seed, types, formats);
  std::move(random.begin(), random.end(), std::back_inserter(cases));
  std::vector<std::string> only = options.only;
  if (options.quick && only.empty()) only = {"kx1", "144@56", "960@7", "96@56k7", "random"};
  if (only.empty()) {
    // Too small for a share of the memory's speed to say much; they are there to be tuned.
    std::erase_if(cases, [](const Case& some) { return some.is_in("mobilenet32"); });
    return cases;
  }
  // The name of a random geometry goes on with its sizes.
  const auto means = [](const std::string& word, const Case& some) {
    return some.name == word || some.name.substr(0, some.name.find(':')) == word || some.is_in(word);
  };
  for (const std::string& word : only)
    if (word != "random" &&
        std::none_of(cases.begin(), cases.end(), [&](const Case& some) { return means(word, some); }))
      throw std::runtime_error("--only " + word + ": neither a shape nor a set of shapes");
  std::erase_if(cases, [&](const Case& some) {
    return std::none_of(only.begin(), only.end(), [&](const std::string& word) { return means(word, some); });
  });
  return cases;
}

bool has(const std::vector<std::string>& words, const char* word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Those of a shape, type and format one after the other.
std::vector<Cell> cells_of(const Options& options, const std::vector<Case>& cases,
                           const std::vector<DType>& types, const std::vector<MemoryFormat>& formats) {
  std::vector<Cell> cells;
  for (const Case& some : cases)
    for (const DType dtype : some.dtype ? std::vector<DType>{*some.dtype} : types)
      for (const MemoryFormat format : some.format ? std::vector<MemoryFormat>{*some.format} : formats)
        for (const Pass pass : kPasses) {
          if (!has(options.passes, name(pass))) continue;
          for (const With with : {With::Nothing, With::Transform, With::Statistics, With::Sums})
            if (const Cell cell{&some, dtype, format, pass, with, options.hardswish && with != With::Nothing};
                cell.exists() && (with == With::Nothing || has(options.with, name(with))))
              cells.push_back(cell);
        }
  return cells;
}

/// Of what is run or, to tune, of all that is tried.
std::vector<std::string> kernels_of(const Options& options, const std::vector<Cell>& cells, int architecture,
                                    const depthwise::Tuning& tuning) {
  std::vector<std::set<std::string>> found(cells.size());
  on_all_cores(cells.size(), [&](std::size_t i) {
    if (!options.tune.empty()) {
      depthwise::Problem problem;
      if (!Tensors(cells[i]).describe(problem)) return;
      suppose_architecture(architecture, problem);
      for (const depthwise::Plan& plan :
           some_plans(problem, options.plans.count, options.plans.families, tuning))
        found[i].insert(plan.kernel);
      return;
    }
    const auto add = [&](Pass pass) {
      Cell cell = cells[i];
      cell.pass = pass;
      const std::vector<depthwise::Plan> plans = plans_of(cell, tuning, architecture);
      if (!plans.empty()) found[i].insert(plans.front().kernel);
      return !plans.empty();
    };
    if (add(cells[i].pass) || cells[i].pass != Pass::Both) return;
    for (const Pass pass : {Pass::Input, Pass::Weight}) add(pass);
  });
  std::set<std::string> all;
  for (const std::set<std::string>& some : found) all.insert(some.begin(), some.end());
  return {all.begin(), all.end()};
}

/// PyTorch's times, each measured once.
class Rival {
 public:
  Rival(Peer& peer, const std::vector<std::string>& passes, int repetitions)
      : peer_(peer), passes_(passes), repetitions_(repetitions) {}
  std::optional<double> time(const Cell& cell) {
    if (cell.with != With::Nothing) return std::nullopt;
    const auto key = std::make_tuple(cell.what, cell.dtype, cell.format);
    auto found = times_.find(key);
    if (found == times_.end()) found = times_.emplace(key, ask(cell)).first;
    const auto& times = found->second;
    const auto time = times.find(name(cell.pass));
    if (time == times.end() || !time->is_number()) return std::nullopt;
    return time->get<double>();
  }

 private:
  nlohmann::json ask(const Cell& cell) {
    const Conv2dGeometry& g = cell.what->geometry;
    Cell forward = cell;
    forward.pass = Pass::Forward;
    const Rotation rotation = rotation_for(forward.bytes());
    const auto list = [](const Shape& shape) {
      return std::vector<std::int64_t>(shape.begin(), shape.end());
    };
    const nlohmann::json request{{"input", list(g.input_shape())},
                                 {"output", list(g.output_shape())},
                                 {"weight", list(g.weight_shape())},
                                 {"stride", {g.stride.h, g.stride.w}},
                                 {"padding", {g.padding.h, g.padding.w}},
                                 {"dilation", {g.dilation.h, g.dilation.w}},
                                 {"dtype", lamella::name(cell.dtype)},
                                 {"format", letters(cell.format)},
                                 {"passes", passes_},
                                 {"buffers", rotation.buffers},
                                 {"calls", rotation.calls},
                                 {"repetitions", repetitions_}};
    return nlohmann::json::parse(peer_.ask(request.dump()));
  }
  Peer& peer_;
  std::vector<std::string> passes_;
  int repetitions_;
  std::map<std::tuple<const Case*, DType, MemoryFormat>, nlohmann::json> times_;
};

void save(const std::string& path, const nlohmann::json& report) {
  std::ofstream file(path);
  file << report.dump(1) << '\n';
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void measure(const Options& options, const std::vector<Cell>& cells, const Machine& machine,
             const Arena& arena, Peer* peer) {
  const Timer timer(options.repetitions);
  Roofline roofline(timer, arena);
  std::unique_ptr<Rival> rival;
  if (peer != nullptr) rival = std::make_unique<Rival>(*peer, options.passes, options.repetitions);
  nlohmann::json report{
      {"lamella", LAMELLA_VERSION}, {"machine", json_of(machine)}, {"repetitions", options.repetitions}};
  if (peer != nullptr) report["peer"] = peer->version();
  if (options.random > 0) report["seed"] = options.seed;
  report["multiply_adds_per_second"] = roofline.multiply_adds();
  std::printf("%.1f T multiply-adds/s in float32; a copy of 1 GB in all %.2f TB/s, a read %.2f TB/s\n",
              roofline.multiply_adds() * 1e-12, roofline.copy(1e9) * 1e-12, roofline.read(1e9) * 1e-12);
  int width = 8;
  for (const Cell& cell : cells) width = std::max(width, static_cast<int>(cell.what->name.size()));
  print_head(width, peer != nullptr);
  std::vector<Result> results;
  // After each shape, so that what ends early leaves what it has.
  const auto keep = [&](std::size_t i) {
    if (options.json.empty() || (i + 1 < cells.size() && cells[i + 1].what == cells[i].what)) return;
    report["rows"] = json_of(results);
    save(options.json, report);
  };
  for (std::size_t i = 0; i < cells.size(); ++i) {
    Result result;
    result.cell = cells[i];
    const Cell& cell = result.cell;
    const double bytes = cell.bytes();
    result.memory_ms =
        1e3 * bytes / (cell.pass == Pass::Weight ? roofline.read(bytes) : roofline.copy(bytes));
    result.arithmetic_ms = 1e3 * cell.multiply_adds() / roofline.multiply_adds();
    result.plan = plan_of(cell);
    const Rotation rotation = rotation_for(bytes);
    {
      const Tensors tensors(cell, arena, rotation.buffers);
      result.ms = timer.of_graph(rotation.calls, [&](std::size_t call) { tensors.run(call); });
    }
    if (!rival) print_row(result, width, false);
    results.push_back(std::move(result));
    keep(i);
  }
  // Not in turns: large gradients took up to 15 % longer right behind PyTorch's.
  for (std::size_t i = 0; rival && i < cells.size(); ++i) {
    Result& result = results[i];
    result.peer_ms = rival->time(result.cell);
    Cell other = result.cell;
    other.format =
        other.format == MemoryFormat::Contiguous ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    result.peer_other_ms = rival->time(other);
    print_row(result, width, true);
    keep(i);
  }
  report["groups"] = print_groups(results);
  report["rooflines"] = json_of(roofline);
  report["clocks_at_end_sm_mem_max"] = this_machine().clocks;
  if (!options.json.empty()) save(options.json, report);
}

int run(int argc, char** argv) {
  CLI::App app{"Depthwise convolution on a GPU, as shares of the roofline"};
  Options options;
  app.add_option("--only", options.only,
                 "these shapes (of random ones r7, say), or sets of them: core, source, kernelbench, "
                 "mobilenet, mobilenet32, "
                 "multiplier, batch1, random")
      ->delimiter(',');
  CLI::Option* const given_types =
      app.add_option("--types", options.types,
                     "float32, bfloat16, float16; without this, random geometries draw from all three")
          ->delimiter(',')
          ->check(CLI::IsMember({"float32", "bfloat16", "float16"}))
          ->capture_default_str();
  app.add_option("--formats", options.formats, "NCHW, NHWC")
      ->delimiter(',')
      ->check(CLI::IsMember({"NCHW", "NHWC"}))
      ->capture_default_str();
  app.add_option("--passes", options.passes, "forward, input, weight, both: gradients, and both at once")
      ->delimiter(',')
      ->check(CLI::IsMember({"forward", "input", "weight", "both"}))
      ->capture_default_str();
  app.add_option("--with", options.with,
                 "transform, statistics, sums: passes once more with a batch norm and ReLU6 folded in")
      ->delimiter(',')
      ->check(CLI::IsMember({"transform", "statistics", "sums"}));
  app.add_flag("--hardswish", options.hardswish, "--with that activation in place of ReLU6");
  app.add_option("--random", options.random, "so many random geometries, too")->check(CLI::Range(0, 100000));
  app.add_option("--seed", options.seed, "of the random geometries")->capture_default_str();
  app.add_option("--repetitions", options.repetitions, "replays of which the median is taken")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--peer", options.peer, "also measure: torch")->check(CLI::IsMember({"torch"}));
  app.add_option("--json", options.json, "write all numbers there, too; to tune, those of every plan");
  app.add_option(
      "--tune", options.tune,
      "measure several plans of each cell and write the fastest to this file, for LAMELLA_TUNING; no table");
  app.add_option("--plans", options.plans.count, "so many, to tune")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--families", options.plans.families,
                 "to tune: only the plans of these (boxes, runs, ...), behind the one that is chosen now")
      ->delimiter(',');
  app.add_flag("--quick", options.quick, "a few shapes, medians of 5, to see whether it runs");
  app.add_flag("--list", options.list, "print the cells and how they would be planned, and measure nothing");
  app.add_option(
      "--compile", options.compile,
      "only compile the kernels, for this architecture (90), into LAMELLA_KERNEL_CACHE; needs no GPU");
  std::vector<std::string> share;
  app.add_option("--compile-share", share)->expected(4)->group("");
  CLI11_PARSE(app, argc, argv);
  if (!share.empty()) return compile_share(cuda::depthwise::device_sources(), share);
  if (options.quick) options.repetitions = 5;

  std::vector<DType> types;
  for (const std::string& type : options.types) types.push_back(parse_dtype(type));
  std::vector<MemoryFormat> formats;
  for (const std::string& format : options.formats)
    formats.push_back(format == "NCHW" ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast);
  const std::vector<DType> drawn =
      given_types->count() > 0 ? types : std::vector<DType>{DType::Float32, DType::BFloat16, DType::Float16};
  const std::vector<Case> cases = cases_of(options, drawn, formats);
  const std::vector<Cell> cells = cells_of(options, cases, types, formats);
  if (cells.empty()) throw std::runtime_error("nothing is left to measure");

  const bool needs_gpu = !options.list && options.compile == 0;
  if (needs_gpu && !default_device().is_cuda()) throw std::runtime_error(why_no_gpu());
  const Machine machine = needs_gpu ? this_machine() : Machine{};
  const int architecture = options.compile != 0 ? options.compile : needs_gpu ? machine.architecture : 90;
  if (options.list) {
    for (const Cell& cell : cells) {
      const std::vector<depthwise::Plan> plans = plans_of(cell, {}, architecture);
      std::printf("%-11s %-18s %-9s %-5s %8.4f GB %8.3f G  %s\n", cell.what->name.c_str(),
                  cell.label().c_str(), lamella::name(cell.dtype), letters(cell.format), cell.bytes() * 1e-9,
                  cell.multiply_adds() * 1e-9, plans.empty() ? "none" : plans.front().what.c_str());
    }
    return 0;
  }

  std::unique_ptr<Peer> peer;
  if (!options.peer.empty())
    peer = std::make_unique<Peer>(LAMELLA_BENCH_DIR "/torch_depthwise.py", std::vector<std::string>{},
                                  "torch and a GPU");
  const double begin = seconds();
  const std::vector<std::string> kernels =
      kernels_of(options, cells, architecture,
                 needs_gpu ? cuda::depthwise::tuning_of(Device::cuda())
                           : depthwise::extend(depthwise::shipped_tuning("NVIDIA H200")));
  const Compiled compiled = compile_all(kernels, architecture);
  if (compiled == Compiled::Nowhere && options.compile != 0)
    throw std::runtime_error("--compile: LAMELLA_KERNEL_CACHE is empty, so there is nowhere to keep them");
  if (needs_gpu && options.tune.empty())
    on_all_cores(cells.size(), [&](std::size_t i) { plan_of(cells[i]); });  // chosen, and loaded
  std::printf("%zu cells, %zu kernels%s compiled or found compiled in %.1f s\n", cells.size(), kernels.size(),
              compiled == Compiled::Some ? ", not all of them," : "", seconds() - begin);
  if (!needs_gpu) return compiled == Compiled::All ? 0 : 1;

  std::size_t most = 0;
  for (const Cell& cell : cells) {
    const std::size_t buffers = rotation_for(cell.bytes()).buffers;
    most = std::max(most, Tensors::bytes(cell, buffers));
  }
  constexpr std::size_t kLeastArena = std::size_t{5}
                                      << 28;  // for the copy of 1 GB, and rotation where cells are small
  const Arena arena(std::max(most, kLeastArena) + (std::size_t{64} << 20));
  std::printf("%s, %d multiprocessors, L2 %zu MB, driver %s, CUDA %d.%d; clocks (now, most): %s%s%s\n",
              machine.gpu.c_str(), machine.multiprocessors, machine.cache_bytes >> 20, machine.driver.c_str(),
              machine.cuda_runtime / 1000, machine.cuda_runtime % 1000 / 10,
              machine.clocks.empty() ? "not known" : machine.clocks.c_str(), peer ? "; beside " : "",
              peer ? peer->version().c_str() : "");
  if (!options.tune.empty())
    tune(
        cells, options.tune, options.plans, machine, Timer(options.repetitions), arena,
        [&](const nlohmann::json& rows) {
          if (!options.json.empty())
            save(options.json, {{"lamella", LAMELLA_VERSION}, {"machine", json_of(machine)}, {"rows", rows}});
        });
  else
    measure(options, cells, machine, arena, peer.get());
  std::printf("took %.1f s\n", seconds() - begin);
  return 0;
}

}  // namespace
}  // namespace lamella::bench

int main(int argc, char** argv) {
  try {
    return lamella::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_depthwise: %s\n", error.what());
    return 1;
  }
}
