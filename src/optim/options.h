#pragma once

#include <cmath>
#include <limits>

#include "core/check.h"

namespace lamella::optim {

inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();

/// Throws Error "<kind>: <option> is …" unless finite and low <= value < high.
inline void check_option(const char* kind, const char* option, double value, double low = 0,
                         double high = kNoLimit) {
  LAMELLA_CHECK(Error, std::isfinite(value) && value >= low && value < high, kind, ": ", option, " is ",
                value, "; it must be ",
                std::isfinite(high) ? detail::concat("in [", low, ", ", high, ')')
                                    : detail::concat("finite and at least ", low));
}

/// Throws Error unless low <= value <= high.
inline void check_option_closed(const char* kind, const char* option, double value, double low, double high) {
  LAMELLA_CHECK(Error, value >= low && value <= high, kind, ": ", option, " is ", value, "; it must be in [",
                low, ", ", high, ']');
}

}  // namespace lamella::optim
