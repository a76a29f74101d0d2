#include "report_parts.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "chart.h"
#include "html.h"

namespace lm = lamella;

namespace {

constexpr std::size_t kWorstImages = 24;
constexpr int kLargestSide = 160;  // pixels of an image in the page

std::string entry(const std::string& name, const std::string& value) {
  return "<dt>" + escape(name) + "</dt><dd>" + value + "</dd>\n";
}

/// Of an image whose longer side is to be kLargestSide; a column of pixels may be millions long.
int scaled(int length, int side) {
  return static_cast<int>(std::max<std::int64_t>(1, std::int64_t{length} * kLargestSide / side));
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (const std::size_t colon = line.find(": "); colon != std::string::npos)
        return line.substr(colon + 2);
  return "unknown";
}

}  // namespace

std::string curves_html(const std::vector<Curve::Line>& lines) {
  std::vector<std::int64_t> epochs;
  Series train{.name = "training", .values = {}}, test{.name = "test", .values = {}},
      accuracy{.name = "accuracy, %", .values = {}}, rate{.name = "learning rate", .values = {}},
      speed{.name = "images/s", .values = {}};
  std::string rows;
  for (const Curve::Line& line : lines) {
    epochs.push_back(line.epoch);
    train.values.push_back(line.train_loss);
    test.values.push_back(line.test_loss);
    accuracy.values.push_back(100 * line.test_accuracy);
    rate.values.push_back(line.learning_rate);
    speed.values.push_back(line.images / line.seconds);
    rows += "<tr><td>" + std::to_string(line.epoch) + "</td><td>" + number(line.train_loss, "%.4f") +
            "</td><td>" + number(line.test_loss, "%.4f") + "</td><td>" +
            number(accuracy.values.back(), "%.2f %%") + "</td><td>" + number(line.learning_rate, "%.4g") +
            "</td><td>" + number(speed.values.back(), "%.0f") + "</td><td>" + number(line.seconds, "%.2f") +
            "</td></tr>\n";
  }
  return "<div class=\"charts\">\n" +
         draw({.title = "Loss", .epochs = epochs, .series = {train, test}, .from_zero = true}) +
         draw({.title = "Test accuracy, %", .epochs = epochs, .series = {accuracy}, .format = "%.2f"}) +
         draw({.title = "Learning rate", .epochs = epochs, .series = {rate}, .from_zero = true}) +
         draw({.title = "Training speed, images/s",
               .epochs = epochs,
               .series = {speed},
               .from_zero = true,
               .format = "%.0f"}) +
         "</div>\n<details><summary>The same as numbers</summary><div class=\"wide\"><table class=\"plain\">"
         "<thead><tr><th>epoch</th><th>training loss</th><th>test loss</th><th>test accuracy</th>"
         "<th>learning rate</th><th>images/s</th><th>seconds</th></tr></thead>\n<tbody>\n" +
         rows + "</tbody></table></div></details>\n";
}

std::string worst_images_html(const Evaluation& test, const ImageData& data) {
  std::vector<std::size_t> order(test.losses.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // A loss that is not a number is worse than any.
  const auto rank = [&](std::size_t i) { return std::isnan(test.losses[i]) ? INFINITY : test.losses[i]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return rank(a) > rank(b); });
  order.resize(std::min(order.size(), kWorstImages));
  const double brightest = data.format.normalize.scale;
  std::string out = "<div class=\"images\">\n";
  for (const std::size_t i : order) {
    const auto index = static_cast<std::int64_t>(i);
    lm::data::Image image = data.test->get(index).image;
    if (const int side = std::max(image.height, image.width); side > kLargestSide)
      image = lm::data::resize(image, scaled(image.height, side), scaled(image.width, side));
    const bool small = std::max(image.height, image.width) <= kLargestSide / 2;
    const std::int64_t actual = data.test->label(index), predicted = test.predictions[i];
    const auto name = [&](std::int64_t c) {
      return escape(data.format.classes[static_cast<std::size_t>(c)]);
    };
    const auto line = [](const std::string& text, double probability) {
      return "<div>" + text + " <span>" + number(100 * probability, "%.1f") + "\u202f%</span></div>";
    };
    out += "<div class=\"card image\" title=\"" + escape(data.test->describe(index)) + "\"><img" +
           (small ? " class=\"small\"" : "") + " alt=\"" + name(actual) + "\" src=\"" +
           data_uri(image, brightest) + "\"/>" +
           line("is <b>" + name(actual) + "</b>", std::exp(-test.losses[i])) +
           (actual == predicted
                ? "<div class=\"right\">recognised</div>"
                : line("<b class=\"wrong\">taken for " + name(predicted) + "</b>", test.probabilities[i])) +
           "</div>\n";
  }
  return "<p class=\"quiet\">Worst first; each with the probability that the network gave to what it is, and "
         "to "
         "what it was taken for.</p>\n" +
         out + "</div>\n";
}

std::string recipe_html(const Recipe& recipe) {
  const nlohmann::json settings = recipe, defaults = Recipe();
  std::string out = "<p class=\"quiet\">Bold: not the default.</p>\n<dl>\n";
  for (const auto& [name, value] : settings.items()) {
    const std::string text = escape(value.is_string() ? value.get<std::string>() : value.dump());
    out += entry(name, value == defaults.at(name) ? text : "<b>" + text + "</b>");
  }
  return out + "</dl>\n";
}

std::string run_html(const TrainOptions& options) {
  const lm::Device device(options.run.device);
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  std::string out = "<dl>\n" + entry("images", escape(options.data)) +
                    entry("checkpoint", escape(options.checkpoint.string()));
  if (!options.csv.empty()) out += entry("curve", escape(options.csv.string()));
  if (!options.events.empty()) out += entry("events", escape(options.events.string()));
  out += entry("resumed", options.resume ? "yes" : "no") + entry("device", escape(device.to_string()));
  if (device.is_cuda())
    out += entry("steps", options.capture ? "recorded and replayed" : "launched one by one") +
           entry("GPUs here", std::to_string(lm::cuda_device_count()));
  out += entry("processor", escape(processor())) +
         entry("cores", std::to_string(std::thread::hardware_concurrency())) +
         entry("memory", number(memory / (1 << 30), "%.1f GiB")) +
         entry("threads", std::to_string(lm::num_threads()) + " that compute, " +
                              std::to_string(options.run.workers) + " that load images") +
         entry("Lamella", escape(lm::build_info()));
  return out + "</dl>\n";
}
