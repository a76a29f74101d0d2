#include "report.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>

#include "html.h"
#include "report_parts.h"
#include "report_style.h"

namespace lm = lamella;

namespace {

/// How every page begins: it says who made it.
constexpr char kBegin[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
    "<meta name=\"generator\" content=\"lamella-mobilenet\"/>\n";

std::string model_name(const Recipe& recipe) {
  const std::string name = recipe.model == "v1"         ? "MobileNetV1"
                           : recipe.model == "v2"       ? "MobileNetV2"
                           : recipe.model == "v3-small" ? "MobileNetV3-Small"
                           : recipe.model == "v3-large" ? "MobileNetV3-Large"
                                                        : recipe.model;
  return recipe.width == 1 ? name : name + " × " + number(recipe.width, "%g");
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M %Z", &local);
  return text;
}

std::string tile(const std::string& value, const std::string& name) {
  return "<div class=\"card tile\"><b>" + value + "</b><span class=\"quiet\">" + name + "</span></div>\n";
}

std::string duration(double seconds) {
  if (!(seconds >= 100)) return number(seconds, "%.1f s");
  if (seconds < 6000) return number(seconds / 60, "%.1f min");
  return number(seconds / 3600, "%.1f h");
}

std::string tiles_html(const Trained& trained) {
  const auto& lines = trained.history;
  std::string out = "<div class=\"tiles\">\n";
  out += tile(number(100 * trained.test.confusion.accuracy(), "%.2f %%"), "test accuracy");
  out += tile(number(trained.test.loss, "%.4f"), "test loss");
  if (!lines.empty()) {
    const auto best = std::max_element(lines.begin(), lines.end(), [](const auto& a, const auto& b) {
      return a.test_accuracy < b.test_accuracy;
    });
    double seconds = 0;
    std::vector<double> speeds;
    for (const Curve::Line& line : lines) {
      seconds += line.seconds;
      if (const double speed = line.images / line.seconds; std::isfinite(speed)) speeds.push_back(speed);
    }
    std::sort(speeds.begin(), speeds.end());
    const double median = speeds.empty() ? std::nan("") : speeds[speeds.size() / 2];
    out += tile(number(100 * best->test_accuracy, "%.2f %%"),
                "best accuracy, epoch " + std::to_string(best->epoch));
    out += tile(std::to_string(lines.size()), lines.size() == 1 ? "epoch shown" : "epochs shown");
    out += tile(duration(seconds), "training, without tests");
    out += tile(number(median, "%.0f"), "images/s, median");
  }
  return out + "</div>\n";
}

/// Why the curves are not those of the whole training; empty where they are.
std::string note_html(const Trained& trained) {
  const auto& lines = trained.history;
  const std::string note = "<p class=\"note\">";
  const std::string advice = " Trained with --csv, the curves of a resumed training are whole.</p>\n";
  if (lines.empty())
    return note + "The training was over when it was resumed, and nothing is at hand of its epochs." + advice;
  if (lines.front().epoch > 1)
    return note + "The training was resumed in epoch " + std::to_string(lines.front().epoch) +
           ", and nothing is at hand of the epochs before: the curves begin there." + advice;
  return "";
}

}  // namespace

std::string report_html(const ImageData& data, const TrainOptions& options, const Trained& trained) {
  const std::string title = escape(model_name(options.recipe) + " on " + options.data);
  std::string out =
      kBegin +
      std::string("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>") +
      title + "</title>\n<style>" + kReportStyle + "</style>\n</head>\n<body>\n<h1>" + title +
      "</h1>\n<p class=\"quiet\">" + std::to_string(data.train->size()) + " training images, " +
      std::to_string(data.test->size()) + " test images, " + std::to_string(data.format.classes.size()) +
      " classes · " + escape(today()) + "</p>\n";
  out += tiles_html(trained) + note_html(trained);
  if (!trained.history.empty()) out += "<h2>Curves</h2>\n" + curves_html(trained.history);
  out += "<h2>Confusion matrix of the test images</h2>\n" +
         confusion_html(trained.test, data.format.classes) +
         "<h2>Test images with the highest losses</h2>\n" + worst_images_html(trained.test, data) +
         "<div class=\"lists\">\n<section><h2>Recipe</h2>\n" + recipe_html(options.recipe) +
         "</section>\n<section><h2>Run</h2>\n" + run_html(options) + "</section>\n</div>\n";
  return out + "</body>\n</html>\n";
}

bool is_report(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string begin(sizeof kBegin - 1, '\0');
  return file.read(begin.data(), static_cast<std::streamsize>(begin.size())) && begin == kBegin;
}
