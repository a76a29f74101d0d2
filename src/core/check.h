#pragma once

#include <sstream>
#include <string>

#include "lamella/core/error.h"

namespace lamella::detail {

/// Parts of a message, streamed one after the other.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace lamella::detail

/// Throws ErrorType with the streamed parts unless `condition` holds; the parts are evaluated only then.
#define LAMELLA_CHECK(ErrorType, condition, ...)                          \
  do {                                                                    \
    if (!(condition)) [[unlikely]]                                        \
      throw ::lamella::ErrorType(::lamella::detail::concat(__VA_ARGS__)); \
  } while (false)
