#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// A line of a chart: a value for each epoch; those that are not finite leave a gap.
struct Series {
  std::string name;
  std::vector<double> values;
};

/// Lines over the same epochs.
struct Chart {
  std::string title;
  std::vector<std::int64_t> epochs;  ///< rising, at least one
  std::vector<Series> series;        ///< one or two
  bool from_zero = false;            ///< the axis begins at 0
  const char* format = "%.4g";       ///< of a value that is pointed at
};

/// A <figure> of HTML with the chart as SVG. Colours come from the page's style: classes one and two for the
/// lines, and grid, axis, tick.
std::string draw(const Chart& chart);
