#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

namespace lamella::bench {
namespace {

using nlohmann::json;

struct Group {
  const char* name;
  double wanted[3];  // forward, input gradient, weight gradient
};
enum {
  SourceShapes,
  Large3x3,
  Small3x3,
  HalfPlanes,
  Kernel5x5,
  Kernel7x7,
  Dilated,
  Multiplied,
  RandomShapes,
  GroupCount
};
// Random ones are judged by a percentile; of the others each cell has a number to reach.
const Group kTable[GroupCount] = {
    {"source and KernelBench shapes, float32 NCHW", {0.90, 0.90, 0.90}},
    {"MobileNet 3x3 of 100 MB and more, bfloat16 and float32 NHWC", {0.88, 0.85, 0.88}},
    {"smaller MobileNet 3x3, bfloat16 and float32 NHWC", {0.75, 0.70, 0.75}},
    {"source and MobileNet shapes, bfloat16 and float16 NCHW", {0.80, 0.75, 0.80}},
    {"5x5, bfloat16 NHWC and float32 NCHW", {0.75, 0.70, 0.70}},
    {"7x7, float32 and bfloat16", {0.65, 0.65, 0.60}},
    {"dilation 2, float32 and bfloat16", {0.85, 0.85, 0.85}},
    {"multiplier 2", {0.70, 0.70, 0.70}},
    {"random, 5th percentile", {0.50, 0.50, 0.50}},
};

bool is_source(const Case& what) { return what.is_in("source") || what.is_in("kernelbench"); }

/// The first group that a cell belongs to; kernels' sizes come before networks. GroupCount: none.
int group_of(const Cell& cell) {
  const Case& what = *cell.what;
  const Conv2dGeometry& g = what.geometry;
  const bool single = cell.dtype == DType::Float32, brain = cell.dtype == DType::BFloat16;
  const bool planes = cell.format == MemoryFormat::Contiguous;
  if (what.is_in("random")) return RandomShapes;
  if (what.is_in("batch1")) return GroupCount;
  if (g.multiplier() > 1) return Multiplied;
  if (is_source(what)) return !planes ? GroupCount : single ? SourceShapes : HalfPlanes;
  if (g.kernel == Size2(7)) return single || brain ? Kernel7x7 : GroupCount;
  if (g.kernel == Size2(5) && (planes ? single : brain)) return Kernel5x5;
  if (g.dilation == Size2(2)) return single || brain ? Dilated : GroupCount;
  if (!what.is_in("mobilenet")) return GroupCount;
  if (planes) return single ? GroupCount : HalfPlanes;
  if (g.kernel != Size2(3) || !(single || brain)) return GroupCount;
  return cell.bytes() >= 100e6 ? Large3x3 : Small3x3;
}

double geometric_mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += std::log(value);
  return values.empty() ? 0 : std::exp(sum / static_cast<double>(values.size()));
}

/// By the nearest rank.
double percentile(std::vector<double> values, double percent) {
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(percent / 100 * static_cast<double>(values.size())));
  return values[std::max<std::size_t>(rank, 1) - 1];
}

int percent_of(std::size_t part, std::size_t all) {
  return static_cast<int>(std::floor(100.0 * static_cast<double>(part) / static_cast<double>(all)));
}

void print_shares(const std::vector<Result>& results, json& report) {
  std::printf("\n%-60s %-8s %5s %7s %8s %6s  %s\n", "share of the roofline", "pass", "cells", "wanted",
              "reach it", "mean", "least");
  for (int group = 0; group < GroupCount; ++group)
    for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight}) {
      std::vector<double> shares;
      const Result* least = nullptr;
      const double wanted = kTable[group].wanted[static_cast<int>(pass)];
      for (const Result& result : results) {
        if (result.cell.pass != pass || group_of(result.cell) != group) continue;
        shares.push_back(result.share());
        if (least == nullptr || result.share() < least->share()) least = &result;
      }
      if (shares.empty()) continue;
      const auto reach = static_cast<std::size_t>(
          std::count_if(shares.begin(), shares.end(), [&](double share) { return share >= wanted; }));
      json entry{{"group", kTable[group].name}, {"pass", name(pass)},
                 {"cells", shares.size()},      {"wanted", wanted},
                 {"reached_by", reach},         {"mean_share", geometric_mean(shares)},
                 {"least", least->share()},     {"least_of", least->cell.what->name}};
      std::printf("%-60s %-8s %5zu %6.0f%% %7d%% %5.0f%%  %.0f%% %s %s %s", kTable[group].name, name(pass),
                  shares.size(), 100 * wanted, percent_of(reach, shares.size()), 100 * geometric_mean(shares),
                  100 * least->share(), least->cell.what->name.c_str(), lamella::name(least->cell.dtype),
                  letters(least->cell.format));
      if (group == RandomShapes) {
        entry["percentile_5"] = percentile(shares, 5);
        std::printf("; 5th percentile %.0f%%", 100 * percentile(shares, 5));
      }
      std::printf("\n");
      report.push_back(entry);
    }
}

void print_both(const std::vector<Result>& results, json& report) {
  constexpr double kWanted = 0.85;
  using Key = std::tuple<const Case*, DType, MemoryFormat>;
  std::map<Key, double> times[4];
  for (const Result& result : results)
    times[static_cast<int>(result.cell.pass)][{result.cell.what, result.cell.dtype, result.cell.format}] =
        result.ms;
  std::vector<double> ratios;
  std::size_t reach = 0;
  for (const auto& [key, both] : times[3]) {
    const auto input = times[1].find(key), weight = times[2].find(key);
    if (input == times[1].end() || weight == times[2].end()) continue;
    ratios.push_back(both / (input->second + weight->second));
    reach += ratios.back() <= kWanted;
  }
  if (ratios.empty()) return;
  std::printf(
      "\nboth gradients at once, against one after the other: %zu cells, mean %.2f, at most %.2f in %d%%\n",
      ratios.size(), geometric_mean(ratios), kWanted, percent_of(reach, ratios.size()));
  report.push_back({{"group", "both gradients at once, of the time of the two"},
                    {"cells", ratios.size()},
                    {"wanted", kWanted},
                    {"reached_by", reach},
                    {"mean_ratio", geometric_mean(ratios)}});
}

void print_peer(const std::vector<Result>& results, json& report) {
  constexpr double kSlack = 1.03;
  struct Row {
    const char* name;
    std::function<bool(const Cell&)> has;
    double wanted[4];  // 0: none
  };
  const Row rows[] = {
      {"source shapes, float32 NCHW",
       [](const Cell& cell) {
         return is_source(*cell.what) && cell.dtype == DType::Float32 &&
                cell.format == MemoryFormat::Contiguous;
       },
       {5, 7, 12, 0}},
      {"MobileNet, bfloat16 NHWC",
       [](const Cell& cell) {
         return cell.what->is_in("mobilenet") && cell.dtype == DType::BFloat16 &&
                cell.format == MemoryFormat::ChannelsLast;
       },
       {1.4, 3.0, 2.0, 0}},
      {"batch 1", [](const Cell& cell) { return cell.what->is_in("batch1"); }, {}},
      {"random", [](const Cell& cell) { return cell.what->is_in("random"); }, {}},
      {"all", [](const Cell&) { return true; }, {}},
  };
  bool head = false;
  for (const Row& row : rows)
    for (const Pass pass : kPasses) {
      std::vector<double> ratios;
      const Result* slowest = nullptr;
      std::size_t reach = 0;
      for (const Result& result : results) {
        if (!result.peer_ms || result.cell.pass != pass || !row.has(result.cell)) continue;
        ratios.push_back(*result.peer_ms / result.ms);
        reach += result.ms <= kSlack * *result.peer_ms;
        if (slowest == nullptr || ratios.back() < *slowest->peer_ms / slowest->ms) slowest = &result;
      }
      if (ratios.empty()) continue;
      if (!std::exchange(head, true))
        std::printf("\n%-32s %-8s %5s %8s %7s %12s  %s\n", "PyTorch's time over Lamella's", "pass", "cells",
                    "mean", "wanted", "within 1.03", "least");
      const double wanted = row.wanted[static_cast<int>(pass)];
      std::printf("%-32s %-8s %5zu %7.2fx ", row.name, name(pass), ratios.size(), geometric_mean(ratios));
      wanted > 0 ? std::printf("%6.1fx", wanted) : std::printf("%7s", "");
      std::printf(" %11d%%  %.2fx %s %s %s\n", percent_of(reach, ratios.size()),
                  *slowest->peer_ms / slowest->ms, slowest->cell.what->name.c_str(),
                  lamella::name(slowest->cell.dtype), letters(slowest->cell.format));
      json entry{{"group", std::string("PyTorch: ") + row.name},
                 {"pass", name(pass)},
                 {"cells", ratios.size()},
                 {"mean_ratio", geometric_mean(ratios)},
                 {"within_1.03", reach}};
      if (wanted > 0) entry["wanted"] = wanted;
      report.push_back(entry);
    }
}

}  // namespace

const char* letters(MemoryFormat format) { return format == MemoryFormat::Contiguous ? "NCHW" : "NHWC"; }

void print_head(int name_width, bool peer) {
  std::printf("%-*s %-18s %-9s %-5s %9s %8s %6s", name_width, "shape", "pass", "type", "", "ms", "GB",
              "share");
  if (peer) std::printf(" %9s %9s %7s", "torch ms", "other ms", "ratio");
  std::printf("  plan\n");
}

void print_row(const Result& result, int name_width, bool peer) {
  const Cell& cell = result.cell;
  std::printf("%-*s %-18s %-9s %-5s %9.4f %8.4f %5.1f%%", name_width, cell.what->name.c_str(),
              cell.label().c_str(), lamella::name(cell.dtype), letters(cell.format), result.ms,
              cell.bytes() * 1e-9, 100 * result.share());
  const auto print_time = [](const std::optional<double>& ms) {
    ms ? std::printf(" %9.4f", *ms) : std::printf(" %9s", "-");
  };
  if (peer) {
    print_time(result.peer_ms);
    print_time(result.peer_other_ms);
    result.peer_ms ? std::printf(" %6.2fx", *result.peer_ms / result.ms) : std::printf(" %7s", "-");
  }
  std::printf("  %s%s\n", result.plan.c_str(),
              result.arithmetic_ms > result.memory_ms ? " (of the arithmetic)" : "");
  std::fflush(stdout);
}

json print_groups(const std::vector<Result>& all) {
  std::vector<Result> results = all;  // but those with something
  std::erase_if(results, [](const Result& result) { return result.cell.with != With::Nothing; });
  json report = json::array();
  print_shares(results, report);
  print_both(results, report);
  print_peer(results, report);
  return report;
}

json json_of(const std::vector<Result>& results) {
  json rows = json::array();
  for (const Result& result : results) {
    const Cell& cell = result.cell;
    const Conv2dGeometry& g = cell.what->geometry;
    const int group = group_of(cell);
    json row{{"shape", cell.what->name},
             {"input", {g.batch, g.in_channels, g.in.h, g.in.w}},
             {"output", {g.batch, g.out_channels, g.out.h, g.out.w}},
             {"kernel", {g.kernel.h, g.kernel.w}},
             {"stride", {g.stride.h, g.stride.w}},
             {"padding", {g.padding.h, g.padding.w}},
             {"dilation", {g.dilation.h, g.dilation.w}},
             {"pass", name(cell.pass)},
             {"with", name(cell.with)},
             {"dtype", lamella::name(cell.dtype)},
             {"format", letters(cell.format)},
             {"ms", result.ms},
             {"bytes", cell.bytes()},
             {"multiply_adds", cell.multiply_adds()},
             {"memory_ms", result.memory_ms},
             {"arithmetic_ms", result.arithmetic_ms},
             {"share", result.share()},
             {"plan", result.plan}};
    if (group < GroupCount) row["group"] = kTable[group].name;
    if (result.peer_ms) row["peer_ms"] = *result.peer_ms;
    if (result.peer_other_ms) row["peer_other_ms"] = *result.peer_other_ms;
    rows.push_back(std::move(row));
  }
  return rows;
}

json json_of(const Machine& machine) {
  return {{"gpu", machine.gpu},
          {"compute_capability", machine.architecture / 10.0},
          {"multiprocessors", machine.multiprocessors},
          {"l2_bytes", machine.cache_bytes},
          {"driver", machine.driver},
          {"cuda_driver", machine.cuda_driver},
          {"cuda_runtime", machine.cuda_runtime},
          {"clocks_sm_mem_max", machine.clocks}};
}

json json_of(const Roofline& roofline) {
  json both;
  for (const bool copies : {true, false}) {
    json list = json::array();
    for (const auto& [key, measured] : roofline.all(copies))
      list.push_back(
          {{"bytes", measured.bytes}, {"bytes_per_second", measured.best}, {"each", measured.each}});
    both[copies ? "copy" : "read"] = std::move(list);
  }
  return both;
}

}  // namespace lamella::bench
