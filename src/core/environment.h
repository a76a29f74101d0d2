#pragma once

#include <cstdlib>
#include <string_view>

namespace lamella::detail {

/// Whether the environment variable `name` is set, and to `value`: for switches of one value.
inline bool environment_says(const char* name, std::string_view value) {
  const char* const found = std::getenv(name);
  return found != nullptr && found == value;
}

}  // namespace lamella::detail
