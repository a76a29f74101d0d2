#pragma once

#include <cstdint>
#include <string_view>

namespace lamella::detail {

/// The checksum CRC-32C (Castagnoli; RFC 3720, appendix B.4), as iSCSI, ext4 and TFRecord files have it.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace lamella::detail
