#include "layers/conv/cuda/pointwise/plan.h"

#include <cmath>

namespace lamella::pointwise {

std::int64_t Plan::workspace_bytes(const Problem& p) const {
  const std::int64_t parts = launch.parts;
  return p.pass == Pass::Weight ? parts * p.out_channels * (p.in_channels + 1) * std::int64_t{sizeof(float)}
                                : 0;
}

bool can_plan(const Problem& p) {
  // Sixteen bytes are the least that the copy engine takes, and the most channels are for sixteen-bit
  // counters of what a tile is made of.
  constexpr int kEight = 8, kMostChannels = 1 << 15;
  constexpr std::int64_t kMostPixels = (std::int64_t{1} << 31) - 1024;
  return size_of(p.dtype) == 2 && p.in_channels > 0 && p.out_channels > 0 && p.in_channels % kEight == 0 &&
         p.out_channels % kEight == 0 && std::max(p.in_channels, p.out_channels) <= kMostChannels &&
         p.pixels > 0 && p.pixels <= kMostPixels;
}

std::vector<Plan> plans_for(const Problem& p) {
  std::vector<Plan> plans;
  if (!can_plan(p)) return plans;
  p.pass == Pass::Weight ? add_weigh_plans(p, plans) : add_multiply_plans(p, plans);
  return plans;
}

int blocks_of_sm(const Problem& p, const PointLaunch& launch, int registers) {
  int blocks = std::min(p.shared_bytes / (launch.shared_bytes + 1024), kMostThreads / launch.threads);
  while (blocks > 0 && registers_of(launch.threads, blocks) < registers) --blocks;
  return blocks;
}

double estimate(const Limits& l) {
  // What is read ahead hides the memory's delay; 5.5 KB of it are as long as the delay (boxes.cuh's fit).
  const double memory = l.memory * (1 + 5500 / l.in_flight);
  constexpr double kPower = 4.6, kBegin = 0.004;
  double sum = 0;
  for (const double limit : {memory, l.cache, l.shared, l.products, l.issue, l.latency})
    sum += std::pow(limit, kPower);
  return std::pow(sum, 1 / kPower) * (1 + 0.6 * (l.imbalance - 1)) + kBegin;
}

const char* load_name(Load load) {
  return load == Load::Plain ? "Load::Plain" : load == Load::Clamp ? "Load::Clamp" : "Load::HardSwish";
}
const char* hook_name(Hook hook) {
  switch (hook) {
    case Hook::Moments:
      return "Hook::Moments";
    case Hook::ClampSums:
      return "Hook::ClampSums";
    case Hook::HardSwishSums:
      return "Hook::HardSwishSums";
    case Hook::None:
      break;
  }
  return "Hook::None";
}

std::vector<int> box_channels(int channels) {
  // The widest moves the fewest and longest rows; what lies behind the channels costs shared memory alone.
  std::vector<int> widths;
  for (const int width : {64, 32, 16}) {
    const int reached = ceiling(channels, width) * width;
    if (width == 16 ? widths.empty() || channels <= 48 : reached <= channels + channels / 3)
      widths.push_back(width);
  }
  return widths;
}

}  // namespace lamella::pointwise
