// 1x1 convolutions on a GPU: the time of each pass, bare and with what is folded into it, its share of the
// roofline that is measured in the same run, and beside it cuBLASLt's time for the bare pass. The roofline is
// the fastest copy of the same bytes; for weight gradients the fastest kernel that only reads them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <utility>

#include "../compile_kernels.h"
#include "core/cuda/compiler.h"
#include "lamella/core/version.h"
#include "measure.h"

namespace lamella::bench {
namespace {

using nlohmann::json;

struct Options {
  std::vector<std::string> only, types{"bfloat16"}, variants;
  int repetitions = 21, compile = 0;
  std::size_t plans = 1;
  std::string json;
  bool quick = false, list = false;
};

/// One cell's numbers; milliseconds.
struct Result {
  Cell cell;
  std::string plan, kernel;
  double ms = 0, library_ms = 0, memory_ms = 0, estimate_ms = 0;
  json tried = json::array();  ///< with --plans
  double share() const { return memory_ms / ms; }
};

bool is_chosen(const Options& options, const Layer& layer) {
  if (options.only.empty()) return true;
  return std::any_of(options.only.begin(), options.only.end(), [&](const std::string& word) {
    if (word == layer.name()) return true;
    const auto network = std::find(kNetworks.begin(), kNetworks.end(), word);
    return network != kNetworks.end() &&
           layer.times[static_cast<std::size_t>(network - kNetworks.begin())] > 0;
  });
}

std::vector<Cell> cells_of(const Options& options) {
  std::vector<Cell> cells;
  for (const std::string& type : options.types)
    for (const Layer& layer : all_layers()) {
      if (!is_chosen(options, layer)) continue;
      for (const Variant& variant : all_variants())
        if (std::find(options.variants.begin(), options.variants.end(), variant.name) !=
            options.variants.end())
          cells.push_back({&layer, &variant, parse_dtype(type)});
    }
  return cells;
}

/// Milliseconds of a cell by one plan.
double time_of(const Cell& cell, const Timer& timer, const Buffers& buffers, std::size_t calls) {
  return timer.of_graph(calls, [&](std::size_t i) {
    if (!buffers.run(i)) throw std::runtime_error(cell.layer->name() + ": these kernels cannot do it");
  });
}

/// The times of the first plans by estimate: for fitting the estimate, and for finding what it misses.
void try_plans(const Cell& cell, std::size_t count, const Timer& timer, const Buffers& buffers,
               std::size_t calls, Result& result) {
  const Device device = Device::cuda();
  const std::vector<pointwise::Plan> plans = pointwise::plans_for(cell.problem());
  for (std::size_t i = 0; i < std::min(count, plans.size()); ++i) {
    const void* const kernel =
        detail::cuda::kernel_for(cuda::pointwise::device_sources(), plans[i].kernel, device);
    if (kernel == nullptr) continue;
    const cuda::pointwise::Chosen chosen{plans[i], kernel};
    const cuda::pointwise::UsePlan use(chosen);
    const double ms = time_of(cell, timer, buffers, calls);
    result.tried.push_back(
        {{"kernel", plans[i].kernel}, {"plan", plans[i].what}, {"ms", ms}, {"estimate_ms", plans[i].cost}});
    if (ms < result.ms) result.ms = ms, result.plan = plans[i].what, result.kernel = plans[i].kernel;
  }
}

json json_of(const std::vector<Result>& results) {
  json rows = json::array();
  for (const Result& r : results) {
    const Layer& layer = *r.cell.layer;
    json row{{"layer", layer.name()},
             {"pixels", layer.pixels()},
             {"variant", r.cell.variant->name},
             {"dtype", lamella::name(r.cell.dtype)},
             {"ms", r.ms},
             {"library_ms", r.library_ms},
             {"memory_ms", r.memory_ms},
             {"estimate_ms", r.estimate_ms},
             {"bytes", r.cell.bytes()},
             {"multiply_adds", r.cell.multiply_adds()},
             {"share", r.share()},
             {"kernel", r.kernel},
             {"plan", r.plan}};
    for (std::size_t n = 0; n < kNetworks.size(); ++n) row["times"][kNetworks[n]] = layer.times[n];
    if (!r.tried.empty()) row["tried"] = r.tried;
    rows.push_back(std::move(row));
  }
  return rows;
}

/// Of each network: the time of all its 1x1 layers, variant by variant, and of the same by cuBLASLt.
void print_networks(const std::vector<Result>& results) {
  for (std::size_t n = 0; n < kNetworks.size(); ++n) {
    struct Sum {
      double ms = 0, library = 0, memory = 0;
      int layers = 0;
    };
    std::map<std::pair<std::string, std::string>, Sum> sums;
    for (const Result& r : results) {
      const int times = r.cell.layer->times[n];
      Sum& sum = sums[{lamella::name(r.cell.dtype), r.cell.variant->name}];
      sum.ms += times * r.ms, sum.library += times * r.library_ms, sum.memory += times * r.memory_ms;
      sum.layers += times;
    }
    for (const auto& [what, sum] : sums)
      if (sum.layers > 0)
        std::printf(
            "%s, %s, %s: %d layers in %.3f ms, %.1f%% of the roofline; cuBLASLt, bare: %.3f ms, %.2fx\n",
            kNetworks[n], what.first.c_str(), what.second.c_str(), sum.layers, sum.ms,
            100 * sum.memory / sum.ms, sum.library, sum.library / sum.ms);
  }
}

void measure(const Options& options, const std::vector<Cell>& cells, const Machine& machine,
             const Arena& arena) {
  const Timer timer(options.repetitions);
  Roofline roofline(timer, arena);
  json report{{"lamella", LAMELLA_VERSION},
              {"gpu", machine.gpu},
              {"driver", machine.driver},
              {"clocks_sm_mem_max", machine.clocks},
              {"repetitions", options.repetitions},
              {"copy_1gb_bytes_per_second", roofline.copy(1e9)},
              {"read_1gb_bytes_per_second", roofline.read(1e9)}};
  std::printf("a copy of 1 GB in all %.2f TB/s, a read %.2f TB/s\n", roofline.copy(1e9) * 1e-12,
              roofline.read(1e9) * 1e-12);
  std::printf("%-14s %-26s %-9s %9s %8s %6s %9s %7s  %s\n", "layer", "pass", "type", "ms", "GB", "share",
              "cuBLASLt", "ratio", "plan");
  std::vector<Result> results;
  std::map<std::tuple<const Layer*, Pass, DType>, double> library;
  for (const Cell& cell : cells) {
    Result r;
    r.cell = cell;
    const double bytes = cell.bytes();
    r.memory_ms =
        1e3 * bytes / (cell.variant->pass == Pass::Weight ? roofline.read(bytes) : roofline.copy(bytes));
    const cuda::pointwise::Chosen* const chosen = cuda::pointwise::choose(cell.problem(), Device::cuda());
    if (chosen == nullptr) throw std::runtime_error(cell.layer->name() + ": there is no plan");
    r.plan = chosen->plan.what, r.kernel = chosen->plan.kernel, r.estimate_ms = chosen->plan.cost;
    const Rotation rotation = rotation_for(bytes);
    {
      const Buffers buffers(cell, arena, rotation.buffers);
      r.ms = time_of(cell, timer, buffers, rotation.calls);
      if (options.plans > 1) try_plans(cell, options.plans, timer, buffers, rotation.calls, r);
      double& known = library[{cell.layer, cell.variant->pass, cell.dtype}];
      if (known == 0) known = timer.of_graph(rotation.calls, [&](std::size_t i) { buffers.run_library(i); });
      r.library_ms = known;
    }
    std::printf("%-14s %-26s %-9s %9.4f %8.4f %5.1f%% %9.4f %6.2fx  %s\n", cell.layer->name().c_str(),
                cell.variant->name, lamella::name(cell.dtype), r.ms, bytes * 1e-9, 100 * r.share(),
                r.library_ms, r.library_ms / r.ms, r.plan.c_str());
    std::fflush(stdout);
    results.push_back(std::move(r));
    // After each row, so that what ends early leaves what it has.
    if (options.json.empty()) continue;
    report["rows"] = json_of(results);
    std::ofstream file(options.json);
    file << report.dump(1) << '\n';
    if (!file.flush()) throw std::runtime_error("cannot write " + options.json);
  }
  print_networks(results);
}

int run(int argc, char** argv) {
  CLI::App app{"1x1 convolutions on a GPU, as shares of the roofline and beside cuBLASLt"};
  Options options;
  options.variants = {"forward",    "clamp+forward", "clamp+forward+moments", "input",
                      "input+sums", "weight",        "clamp+weight"};
  app.add_option("--only", options.only, "these layers, as 96-24@56, or networks: v1, v2, v3 (V3-Large)")
      ->delimiter(',');
  app.add_option("--types", options.types, "bfloat16, float16")
      ->delimiter(',')
      ->check(CLI::IsMember({"bfloat16", "float16"}))
      ->capture_default_str();
  std::vector<std::string> names;
  for (const Variant& variant : all_variants()) names.emplace_back(variant.name);
  app.add_option("--variants", options.variants, "passes with what is folded into them")
      ->delimiter(',')
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  app.add_option("--repetitions", options.repetitions, "replays of which the median is taken")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--plans", options.plans, "measure so many plans of each cell, and show the fastest")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  app.add_option("--json", options.json, "write all numbers there, too");
  app.add_flag("--quick", options.quick, "a few layers, medians of 5, to see whether it runs");
  app.add_flag("--list", options.list, "print the cells and their plans, and measure nothing");
  app.add_option(
      "--compile", options.compile,
      "only compile the kernels, for this architecture (90), into LAMELLA_KERNEL_CACHE; needs no GPU");
  std::vector<std::string> share;
  app.add_option("--compile-share", share)->expected(4)->group("");
  CLI11_PARSE(app, argc, argv);
  if (!share.empty()) return compile_share(cuda::pointwise::device_sources(), share);
  if (options.quick) {
    options.repetitions = 5;
    if (options.only.empty()) options.only = {"16-96@112", "144-24@56", "96-576@14", "512-512@14"};
  }
  const std::vector<Cell> cells = cells_of(options);
  if (cells.empty()) throw std::runtime_error("nothing is left to measure");

  std::set<std::string> kernels;
  for (const Cell& cell : cells) {
    const std::vector<pointwise::Plan> plans = pointwise::plans_for(cell.problem());
    if (options.list)
      std::printf("%-14s %-26s %-9s %8.4f GB %8.3f G  %.4f ms  %s\n", cell.layer->name().c_str(),
                  cell.variant->name, lamella::name(cell.dtype), cell.bytes() * 1e-9,
                  cell.multiply_adds() * 1e-9, plans.empty() ? 0 : plans.front().cost,
                  plans.empty() ? "none" : plans.front().what.c_str());
    for (std::size_t i = 0; i < std::min(plans.size(), options.plans); ++i) kernels.insert(plans[i].kernel);
  }
  if (options.list) return 0;
  const bool needs_gpu = options.compile == 0;
  if (needs_gpu && !default_device().is_cuda()) throw std::runtime_error(why_no_gpu());
  const Machine machine = needs_gpu ? this_machine() : Machine{};
  const Compiled compiled =
      compile_all({kernels.begin(), kernels.end()}, needs_gpu ? machine.architecture : options.compile);
  if (compiled == Compiled::Nowhere && !needs_gpu)
    throw std::runtime_error("--compile: LAMELLA_KERNEL_CACHE is empty, so there is nowhere to keep them");
  std::printf("%zu cells, %zu kernels%s compiled or found compiled\n", cells.size(), kernels.size(),
              compiled == Compiled::Some ? ", not all of them," : "");
  if (!needs_gpu) return compiled == Compiled::All ? 0 : 1;

  std::size_t most = 0;
  for (const Cell& cell : cells)
    most = std::max(most, Buffers::bytes(cell, rotation_for(cell.bytes()).buffers));
  constexpr std::size_t kLeastArena = std::size_t{5} << 28;  // for the copy of 1 GB
  const Arena arena(std::max(most, kLeastArena) + (std::size_t{64} << 20));
  std::printf("%s, %d multiprocessors, driver %s; clocks (now, most): %s\n", machine.gpu.c_str(),
              machine.multiprocessors, machine.driver.c_str(), machine.clocks.c_str());
  measure(options, cells, machine, arena);
  return 0;
}

}  // namespace
}  // namespace lamella::bench

int main(int argc, char** argv) {
  try {
    return lamella::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_pointwise: %s\n", error.what());
    return 1;
  }
}
