#include <algorithm>
#include <cmath>
#include <cstdio>

#include "html.h"
#include "report_parts.h"
#include "text.h"

namespace lm = lamella;

namespace {

constexpr std::int64_t kMaxClasses = 40;    // of a table that one can take in
constexpr std::size_t kMaxConfusions = 25;  // shown of more classes
constexpr std::size_t kLevelName = 4;       // longer names of columns stand upright

struct Confusion {
  std::int64_t actual, predicted, count;
};

/// Of 0 … 1, nothing being white; the root, so that few among many show.
std::string cell(const char* kind, double share, const std::string& title, std::int64_t count) {
  const double alpha = 0.12 + 0.83 * std::sqrt(share);
  return std::string("<td class=\"") + kind + (alpha > 0.55 ? " strong" : "") +
         "\" style=\"--a:" + number(alpha, "%.2f") + "\" title=\"" + title + "\">" + std::to_string(count) +
         "</td>";
}

std::string percent(double share) { return number(100 * share, "%.1f %%"); }

std::string table(const lm::train::ConfusionMatrix& matrix, const std::vector<std::string>& names) {
  const std::int64_t classes = matrix.classes();
  const auto name = [&](std::int64_t c) { return escape(names[static_cast<std::size_t>(c)]); };
  const bool upright = std::any_of(names.begin(), names.end(),
                                   [](const std::string& text) { return columns(text) > kLevelName; });
  std::string head = "<tr><th class=\"word\">is ↓<br/>taken for →</th>", body, foot;
  for (std::int64_t p = 0; p < classes; ++p)
    head += upright ? "<th title=\"" + name(p) + "\"><span class=\"up\">" + name(p) + "</span></th>"
                    : "<th>" + name(p) + "</th>";
  head += "<th class=\"word\">found</th></tr>\n";
  for (std::int64_t a = 0; a < classes; ++a) {
    std::int64_t total = 0;
    for (std::int64_t p = 0; p < classes; ++p) total += matrix.at(a, p);
    body += "<tr><th title=\"" + name(a) + "\">" + name(a) + "</th>";
    for (std::int64_t p = 0; p < classes; ++p) {
      const std::int64_t count = matrix.at(a, p);
      if (count == 0) {
        body += "<td class=\"none\">·</td>";
        continue;
      }
      const double share = static_cast<double>(count) / static_cast<double>(total);
      const std::string title = std::to_string(count) + " of " + std::to_string(total) + " of " + name(a) +
                                (a == p ? " found" : " taken for " + name(p));
      body += cell(a == p ? "hit" : "miss", share, title, count);
    }
    body += "<td class=\"share\">" + percent(matrix.recall(a)) + "</td></tr>\n";
  }
  return "<div class=\"wide\"><table class=\"matrix\">\n<thead>" + head + "</thead>\n<tbody>\n" + body +
         "</tbody></table></div>\n<p class=\"quiet\">The deeper a colour, the larger the share of the row; "
         "the last column is the share of each class that was found.</p>\n";
}

std::string confusions(const lm::train::ConfusionMatrix& matrix, const std::vector<std::string>& names) {
  std::vector<Confusion> all;
  for (std::int64_t a = 0; a < matrix.classes(); ++a)
    for (std::int64_t p = 0; p < matrix.classes(); ++p)
      if (a != p && matrix.at(a, p) > 0) all.push_back({a, p, matrix.at(a, p)});
  if (all.empty()) return "<p>No image was taken for another class.</p>\n";
  std::stable_sort(all.begin(), all.end(),
                   [](const Confusion& a, const Confusion& b) { return a.count > b.count; });
  all.resize(std::min(all.size(), kMaxConfusions));
  const auto name = [&](std::int64_t c) { return escape(names[static_cast<std::size_t>(c)]); };
  std::string rows;
  for (const Confusion& one : all)
    rows += "<tr><td>" + name(one.actual) + "</td><td class=\"word\">" + name(one.predicted) + "</td><td>" +
            std::to_string(one.count) + "</td><td>" + percent(matrix.recall(one.actual)) + "</td></tr>\n";
  return "<p class=\"quiet\">" + std::to_string(matrix.classes()) +
         " classes are too many for a table; these were mistaken for each other most often.</p>\n"
         "<div class=\"wide\"><table class=\"plain\"><thead><tr><th>is</th><th class=\"word\">taken for</th>"
         "<th>times</th><th>found</th></tr></thead>\n<tbody>\n" +
         rows + "</tbody></table></div>\n";
}

}  // namespace

std::string confusion_html(const Evaluation& test, const std::vector<std::string>& classes) {
  return test.confusion.classes() <= kMaxClasses ? table(test.confusion, classes)
                                                 : confusions(test.confusion, classes);
}
