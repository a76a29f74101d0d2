#include "trainer.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lamella/lamella.h"

namespace lamella::bench {

using Clock = std::chrono::steady_clock;

namespace {

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

double milliseconds_since(Clock::time_point then) { return milliseconds(then, Clock::now()); }

std::int64_t steps_of_block(double milliseconds) {
  return std::clamp<std::int64_t>(std::llround(50 / std::max(milliseconds, 1e-3)), 1, 100);
}

Summary::Summary(const Samples& samples) {
  for (std::size_t phase = 0; phase < kPhases.size(); ++phase) {
    std::vector<double> values;
    for (const Phases& times : samples.times) values.push_back(times[phase]);
    std::sort(values.begin(), values.end());
    median[phase] = values[values.size() / 2];
    best[phase] = values.front();
  }
}

nlohmann::json Summary::json(std::int64_t batch, const Samples& samples) const {
  nlohmann::json json{{"steps", samples.steps},
                      {"samples", samples.times.size()},
                      {"images_per_second", images_per_second(batch)},
                      {"best_images_per_second", static_cast<double>(batch) / best.back() * 1e3}};
  for (std::size_t phase = 0; phase < kPhases.size(); ++phase) {
    if (median[phase] == 0) continue;
    json[std::string(kPhases[phase]) + "_ms"] = median[phase];
    json["best_" + std::string(kPhases[phase]) + "_ms"] = best[phase];
  }
  return json;
}

Trainer::Trainer(const Cell& cell, Device device) : cell_(cell), device_(device) {
  empty_cache(device);
  reset_peak_memory(device);
  set_allow_tf32(cell.type == "tf32");
  network_ = build(cell);
  images_ = randn({cell.batch, 3, cell.size, cell.size}).contiguous(cell.format).to(device);
  labels_ = randint(0, cell.classes, {cell.batch}).to(device);
  network_->to(cell.format);
  network_->to(device);
  sgd_.emplace(network_->parameters(), optim::SGDOptions{.lr = 1e-3, .momentum = 0.9, .weight_decay = 4e-5});
  step_.emplace(*network_, *sgd_,
                train::StepOptions{.check_every = 0, .capture = cell.capture, .autocast = cell.autocast()});
  for (int i = 0; i < (cell.capture ? 4 : 2); ++i) queue_step();
  synchronize(device_);
}

void Trainer::queue_step() { loss_ = (*step_)(images_, labels_).loss; }

Phases Trainer::step_on_cpu() {
  const Clock::time_point start = Clock::now();
  const Tensor loss = cross_entropy((*network_)(images_), labels_);
  const Clock::time_point forward = Clock::now();
  loss.backward();
  const Clock::time_point backward = Clock::now();
  sgd_->step();
  sgd_->zero_grad();
  const Clock::time_point end = Clock::now();
  loss_ = loss.detach();
  return {milliseconds(start, forward), milliseconds(forward, backward), milliseconds(backward, end),
          milliseconds(start, end)};
}

void Trainer::train(double seconds, Samples& samples) {
  const auto until = [&](Clock::time_point begin) {
    return begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  };
  if (device_.is_cpu()) {
    step_on_cpu();
    const Clock::time_point end = until(Clock::now());
    for (int i = 0; i < 2 || Clock::now() < end; ++i, ++samples.steps) samples.times.push_back(step_on_cpu());
  } else {
    queue_step();
    synchronize(device_);
    Clock::time_point begin = Clock::now();
    queue_step();
    synchronize(device_);
    const std::int64_t steps = steps_of_block(milliseconds_since(begin));
    const Clock::time_point end = until(Clock::now());
    for (int i = 0; i < 2 || Clock::now() < end; ++i, samples.steps += steps) {
      begin = Clock::now();
      for (std::int64_t s = 0; s < steps; ++s) queue_step();
      synchronize(device_);
      samples.times.push_back({0, 0, 0, milliseconds_since(begin) / static_cast<double>(steps)});
    }
  }
  if (!std::isfinite(loss())) throw std::runtime_error("Lamella's loss is " + std::to_string(loss()));
}

}  // namespace lamella::bench
