#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lamella/core/dtype.h"

namespace lamella::io::detail {

/// Longest dictionary taken, in bytes: far above what any array of few axes needs; NumPy itself stops at
/// 10,000.
inline constexpr std::uint64_t kMaxNpyHeader = 1 << 16;
/// Nothing that parse_npy_header() reads lies behind so many bytes.
inline constexpr std::uint64_t kMaxNpyBeginning = 12 + kMaxNpyHeader;

/// What stands before the numbers of a .npy file.
struct NpyHeader {
  DType dtype = DType::Float32;
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;  ///< the product, in bytes, fits 62 bits; sizes of 0 do not count for that
  std::size_t data_offset = 0;
};

/// Parses the begin of a file. `source` names it in errors. Throws IoError, DTypeError.
NpyHeader parse_npy_header(std::span<const std::uint8_t> bytes, const std::string& source);

/// The header for such an array, version 1.0.
std::string format_npy_header(const NpyHeader& header);

}  // namespace lamella::io::detail
