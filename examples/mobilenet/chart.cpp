#include "chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "html.h"

namespace {

// In units of the picture, which is scaled to the page.
constexpr double kWidth = 440, kHeight = 230, kLeft = 50, kRight = 428, kTop = 10, kBottom = 196;
constexpr std::size_t kMaxSpots = 500;  // more would only make the page heavy

/// Round numbers from just below `low` to just above `high`.
std::vector<double> ticks(double low, double high, int count) {
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough * 0.999) step = factor * power;
  const double first = std::floor(low / step + 1e-9);
  const double last = std::max(first + 1, std::ceil(high / step - 1e-9));
  std::vector<double> result;
  for (double k = first; k <= last; ++k) result.push_back(step * k);
  return result;
}

std::string place(double value) { return number(value, "%.1f"); }

class Panel {
 public:
  explicit Panel(const Chart& chart) : chart_(chart) {
    double low = chart.from_zero ? 0 : std::numeric_limits<double>::infinity();
    double high = chart.from_zero ? 0 : -low;
    for (const Series& series : chart.series)
      for (const double value : series.values)
        if (std::isfinite(value)) {
          low = std::min(low, value);
          high = std::max(high, value);
        }
    if (low > high) low = high = 0;
    if (high - low < 1e-3 * std::max(std::abs(low), std::abs(high))) {  // room around a level line
      const double room = std::max(0.1 * std::abs(high), 1e-3);
      if (!chart.from_zero || low < 0) low -= room;
      high += room;
    }
    ticks_ = ticks(low, high, 5);
    first_ = static_cast<double>(chart.epochs.front());
    last_ = static_cast<double>(chart.epochs.back());
  }

  std::string draw() const {
    const double step = ticks_[1] - ticks_[0];
    const auto digits = static_cast<int>(std::max(0.0, -std::floor(std::log10(step) + 1e-9)));
    const std::string format =
        digits > 5 || ticks_.back() >= 1e6 ? std::string("%.3g") : "%." + std::to_string(digits) + 'f';
    std::string out;
    for (const double value : ticks_)
      out += "<path class=\"grid\" d=\"M" + place(kLeft) + ' ' + place(y(value)) + 'H' + place(kRight) +
             "\"/>" +
             text(kLeft - 7, y(value) + 4, "end",
                  number(std::abs(value) < step / 2 ? 0 : value, format.c_str()));
    for (const double epoch : ticks(first_, std::max(last_, first_ + 1), 6))
      if (epoch >= first_ && epoch <= last_ && epoch == std::floor(epoch))
        out += "<path class=\"axis\" d=\"M" + place(x(epoch)) + ' ' + place(kBottom) + "v4\"/>" +
               text(x(epoch), kBottom + 17, "middle", number(epoch, "%.0f"));
    out += "<path class=\"axis\" d=\"M" + place(kLeft) + ' ' + place(kBottom) + 'H' + place(kRight) + "\"/>" +
           text((kLeft + kRight) / 2, kHeight - 3, "middle", "epoch");
    const char* const classes[] = {"one", "two"};
    for (std::size_t i = chart_.series.size(); i-- > 0;)  // the first on top
      out += line(chart_.series[i], classes[i % 2]);
    return out;
  }

 private:
  double x(double epoch) const {
    if (first_ == last_) return (kLeft + kRight) / 2;
    return kLeft + 8 + (kRight - kLeft - 16) * (epoch - first_) / (last_ - first_);
  }
  double y(double value) const {
    return kBottom - (kBottom - kTop) * (value - ticks_.front()) / (ticks_.back() - ticks_.front());
  }

  static std::string text(double x, double y, const char* anchor, const std::string& content) {
    return "<text class=\"tick\" x=\"" + place(x) + "\" y=\"" + place(y) + "\" text-anchor=\"" + anchor +
           "\">" + content + "</text>";
  }

  std::string line(const Series& series, const std::string& name) const {
    std::string path, spots;
    bool drawing = false;
    const bool few = chart_.epochs.size() <= 40;
    for (std::size_t i = 0; i < chart_.epochs.size(); ++i) {
      const double value = series.values[i];
      if (!std::isfinite(value)) {
        drawing = false;
        continue;
      }
      const std::string at_x = place(x(static_cast<double>(chart_.epochs[i]))), at_y = place(y(value));
      path += (drawing ? 'L' : 'M') + at_x + ' ' + at_y;
      drawing = true;
      if (chart_.epochs.size() <= kMaxSpots)
        spots += "<circle class=\"spot " + name + (few ? "" : " hidden") + "\" cx=\"" + at_x + "\" cy=\"" +
                 at_y + "\" r=\"" + (few ? "2.6" : "5") + "\"><title>epoch " +
                 std::to_string(chart_.epochs[i]) + ", " + escape(series.name) + ": " +
                 number(value, chart_.format) + "</title></circle>";
    }
    if (path.empty()) return "";
    return "<path class=\"line " + name + "\" d=\"" + path + "\"/>" + spots;
  }

  const Chart& chart_;
  std::vector<double> ticks_;
  double first_ = 0, last_ = 0;
};

}  // namespace

std::string draw(const Chart& chart) {
  std::string out = "<figure class=\"card chart\"><figcaption><b>" + escape(chart.title) + "</b>";
  const char* const keys[] = {"one", "two"};
  if (chart.series.size() > 1)
    for (std::size_t i = 0; i < chart.series.size(); ++i)
      out +=
          " <span class=\"key " + std::string(keys[i % 2]) + "\">" + escape(chart.series[i].name) + "</span>";
  return out + "</figcaption><svg viewBox=\"0 0 " + number(kWidth, "%.0f") + ' ' + number(kHeight, "%.0f") +
         "\" role=\"img\" aria-label=\"" + escape(chart.title) + " over the epochs\">" + Panel(chart).draw() +
         "</svg></figure>\n";
}
