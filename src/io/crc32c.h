#pragma once

#include <cstdint>
#include <string_view>

namespace lamella::detail {

/// The checksum CRC-32C (Castagnoli; RFC 3720, appendix B.4), as iSCSI, ext4 and TFRecord files have it. With
/// the checksum of the bytes `before` these, that of both.
std::uint32_t crc32c(std::string_view bytes, std::uint32_t before = 0);

}  // namespace lamella::detail
