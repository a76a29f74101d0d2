#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lamella::detail {

/// True if `bytes` begin as a gzip file does.
bool is_gzip(std::span<const std::uint8_t> bytes);

/// Unpacks a gzip file held in memory piece by piece, so that the caller can check a header before it takes
/// memory for the rest. Takes several members in a row, as gzip does. `bytes` must outlive it.
class GzipReader {
 public:
  /// `source` names the file in errors.
  GzipReader(std::span<const std::uint8_t> bytes, std::string source);
  ~GzipReader();
  GzipReader(const GzipReader&) = delete;
  GzipReader& operator=(const GzipReader&) = delete;

  /// Fills `out` as far as there is data; returns how many bytes. Less than asked for means the end, and only
  /// then is the checksum verified. Throws IoError: corrupt, or cut in the middle.
  std::size_t read(std::uint8_t* out, std::size_t bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Deflate cannot pack better than this, so a larger claim is a lie.
inline constexpr std::uint64_t kMaxDeflateRatio = 1032;

/// One gzip member without name or time, so that equal input gives equal output.
std::vector<std::uint8_t> gzip(std::span<const std::uint8_t> bytes);

}  // namespace lamella::detail
