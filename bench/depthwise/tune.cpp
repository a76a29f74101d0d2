#include "tune.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/cuda/compiler.h"
#include "lamella/core/error.h"
#include "report.h"

namespace lamella::bench {

using depthwise::Plan;
using depthwise::Problem;
using depthwise::Tuning;

namespace {

std::string family_of(const Plan& plan) {
  const std::string name = plan.kernel.substr(0, plan.kernel.find('<'));
  return name.substr(name.find('_') + 1);
}

}  // namespace

std::vector<Plan> some_plans(const Problem& problem, std::size_t count,
                             const std::vector<std::string>& wanted, const Tuning& chosen) {
  std::vector<Plan> some;
  std::map<Plan::Family, std::vector<Plan>> families;
  std::vector<Plan::Family> order;
  std::set<std::string> seen;
  if (!wanted.empty()) {
    std::vector<Plan> now = depthwise::plans_to_try(problem, chosen);
    if (!now.empty()) seen.insert(text_of(now.front())), some.push_back(std::move(now.front()));
  }
  for (Plan& plan : depthwise::plans_for(problem)) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), family_of(plan)) == wanted.end()) continue;
    if (!seen.insert(text_of(plan)).second) continue;
    if (families.find(plan.family) == families.end()) order.push_back(plan.family);
    families[plan.family].push_back(std::move(plan));
  }
  for (std::size_t rank = 0; some.size() < std::min(count, seen.size()); ++rank)
    for (const Plan::Family family : order)
      if (rank < families[family].size() && some.size() < count) some.push_back(families[family][rank]);
  return some;
}

void tune(const std::vector<Cell>& cells, const std::string& file, const PlanChoice& plans,
          const Machine& machine, const Timer& timer, const Arena& arena,
          const std::function<void(const nlohmann::json&)>& keep) {
  nlohmann::json rows = nlohmann::json::array();
  Tuning tuning;
  if (std::filesystem::exists(file)) try {
      tuning = depthwise::read_tuning(file, machine.gpu);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s; it is written anew\n", error.what());
    }
  int width = 8;
  for (const Cell& cell : cells) width = std::max(width, static_cast<int>(cell.what->name.size()));
  std::printf("%-*s %-18s %-9s %-5s %9s %9s %5s  %s\n", width, "shape", "pass", "type", "", "first ms",
              "best ms", "of", "best plan");
  const Tuning& chosen_now = cuda::depthwise::tuning_of(Device::cuda());
  std::map<std::pair<Pass, With>, double> best;  // of this shape, type and format
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const Cell& cell = cells[i];
    if (i == 0 || cells[i - 1].what != cell.what || cells[i - 1].dtype != cell.dtype ||
        cells[i - 1].format != cell.format)
      best.clear();
    const Rotation rotation = rotation_for(cell.bytes());
    const Tensors tensors(cell, arena, rotation.buffers);
    Problem problem;
    if (!tensors.describe(problem)) continue;
    const std::string key = text_of(problem);
    double first = 0, fastest = 0;
    std::string what;
    std::size_t measured = 0;
    const auto consider = [&](double ms, const std::string& text, const std::string& words) {
      if (++measured == 1) first = ms;
      if (measured > 1 && ms >= fastest) return;
      fastest = ms;
      what = words;
      tuning[key] = text;
    };
    for (const Plan& plan : some_plans(problem, plans.count, plans.families, chosen_now)) {
      const void* const kernel =
          detail::cuda::kernel_for(cuda::depthwise::device_sources(), plan.kernel, Device::cuda());
      if (kernel == nullptr) continue;
      const cuda::depthwise::Chosen chosen{plan, kernel};
      if (!tensors.run(0, chosen)) continue;
      const double ms = timer.of_graph(rotation.calls, [&](std::size_t call) { tensors.run(call, chosen); });
      consider(ms, text_of(plan), plan.what);
      rows.push_back({{"shape", cell.what->name},
                      {"problem", key},
                      {"plan", text_of(plan)},
                      {"estimate_ms", plan.cost},
                      {"ms", ms}});
    }
    const auto input = best.find({Pass::Input, cell.with}),
               weight = best.find({Pass::Weight, cell.with == With::Sums ? With::Transform : cell.with});
    if (cell.pass == Pass::Both && input != best.end() && weight != best.end())
      consider(input->second + weight->second, depthwise::kTwoPasses, depthwise::kTwoPasses);
    if (measured == 0) continue;
    best[{cell.pass, cell.with}] = fastest;
    std::printf("%-*s %-18s %-9s %-5s %9.4f %9.4f %5zu  %s\n", width, cell.what->name.c_str(),
                cell.label().c_str(), lamella::name(cell.dtype), letters(cell.format), first, fastest,
                measured, what.c_str());
    std::fflush(stdout);
    if (i + 1 == cells.size() || cells[i + 1].what != cell.what) {
      depthwise::write_tuning(file, machine.gpu, tuning);
      keep(rows);
    }
  }
}

}  // namespace lamella::bench
