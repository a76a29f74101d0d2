#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lamella/core/dtype.h"
#include "lamella/tensor/shape.h"

namespace lamella::io::detail {

/// One tensor of a safetensors header.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::Float32;
  Shape shape;
  std::uint64_t begin = 0;  ///< bytes from the end of the header
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

/// Longest header taken, in bytes; the reference reader has the same limit.
inline constexpr std::uint64_t kMaxHeader = 100'000'000;

/// Reads and checks a header whose tensors must fill exactly `data_bytes`. Throws IoError: `where`, then what
/// is wrong.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                           const std::string& where);

/// The header as JSON, its entries in the given order.
std::string format_safetensors_header(const SafetensorsHeader& header);

}  // namespace lamella::io::detail
