#include "measure.h"

#include <nlohmann/json.hpp>

#include "parts.h"
#include "report.h"

namespace lamella::bench {

using Json = nlohmann::json;

namespace {

/// The fastest of those that worked, or null.
const PeerResult* fastest(const std::vector<PeerResult>& results) {
  const PeerResult* best = nullptr;
  for (const PeerResult& result : results)
    if (result.ok() &&
        (best == nullptr || Summary(result.samples).median.back() < Summary(best->samples).median.back()))
      best = &result;
  return best;
}

/// The ratios, printed and as JSON.
void compare(std::FILE* out, Json& row, const Trainer& ours, const Samples& samples, std::size_t reserved,
             const std::vector<PeerResult>& results) {
  const std::int64_t batch = ours.cell().batch;
  row["peers"] = Json::array();
  for (const PeerResult& result : results) row["peers"].push_back(result.json(batch));
  const PeerResult* const best = fastest(results);
  row["no_peer"] = best == nullptr;
  if (best == nullptr) {
    std::fprintf(out, "  no mode of PyTorch worked\n");
    return;
  }
  const Summary mine(samples), theirs(best->samples);
  row["peer"] = best->json(batch);
  row["best_peer"] = best->mode.name;
  row["ratio"] = theirs.median.back() / mine.median.back();
  row["best_ratio"] = theirs.best.back() / mine.best.back();
  std::fprintf(out, "  Lamella's speed is %.2f of PyTorch's (best steps: %.2f), whose fastest mode is %s\n",
               row["ratio"].get<double>(), row["best_ratio"].get<double>(), best->mode.name.c_str());
  for (const PeerResult& result : results) {
    if (!result.ok() || reserved == 0 || result.peak_reserved == 0) continue;
    if (&result != best && result.mode.name != "compile") continue;
    const double ratio = static_cast<double>(reserved) / static_cast<double>(result.peak_reserved);
    row["memory_ratio"][result.mode.name] = ratio;
    std::fprintf(out, "  Lamella's peak of reserved memory is %.2f of that of %s\n", ratio,
                 result.mode.name.c_str());
  }
}

}  // namespace

Json measure(std::FILE* out, const Cell& cell, const MeasureOptions& options) {
  const Device device = options.device;
  std::fprintf(out, "\n%s%s%s, %s\n", cell.name.c_str(), cell.name.empty() ? "" : ": ",
               describe(cell).c_str(), name(cell.format));
  Trainer ours(cell, device);
  print_head(out, device);
  Samples samples;
  std::vector<PeerResult> results;
  if (options.peer) {
    // Of a named cell PyTorch's format is the faster one, whatever ours is.
    const MemoryFormat format = cell.name.empty() ? cell.format : MemoryFormat::ChannelsLast;
    for (const PeerMode& mode : peer_modes(options.peer_modes, cell, device, format)) {
      results.push_back(run_peer(ours, samples, mode, options.turns));
      print_peer(out, device, results.back(), cell.batch);
    }
  }
  // Also where no mode came to its turns.
  for (int round = 0; round < options.turns.rounds && (results.empty() || samples.times.empty()); ++round)
    ours.train(options.turns.seconds, samples);
  const MemoryStats memory = device.is_cuda() ? ours.memory() : MemoryStats();
  const std::size_t reserved = memory.peak_reserved;
  print_row(out, device, "Lamella", samples, cell.batch, reserved);

  const Summary mine(samples);
  Json row{{"model", cell.model},
           {"width", cell.width},
           {"size", cell.size},
           {"batch", cell.batch},
           {"classes", cell.classes},
           {"small_stem", cell.small_stem},
           {"type", cell.type},
           {"capture", cell.capture},
           {"format", name(cell.format)},
           {"parameters", ours.parameters()},
           {"lamella", mine.json(cell.batch, samples)}};
  if (!cell.name.empty()) row["cell"] = cell.name;
  row["lamella"]["loss"] = ours.loss();
  if (reserved != 0) {
    row["lamella"]["peak_reserved_bytes"] = reserved;
    row["lamella"]["steady_reserved_bytes"] = memory.reserved;
    row["lamella"]["peak_in_use_bytes"] = memory.peak_in_use;
  }
  if (options.peer) compare(out, row, ours, samples, reserved, results);
  const Parts parts = measure_parts(ours, options.profiled_steps);
  print_parts(out, parts, mine.median.back());
  row["by_part"] = parts.json(mine.median.back());
  std::fflush(out);
  return row;
}

}  // namespace lamella::bench
