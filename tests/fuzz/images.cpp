#include <zlib.h>

#include <algorithm>
#include <vector>

#include "lamella/core/error.h"
#include "lamella/data/image.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/targets.h"

namespace lamella::fuzz {
namespace {

template <class Run>
bool decode(Bytes bytes, Run&& run) {
  try {
    const data::Image image = run(bytes);
    LAMELLA_FUZZ_EXPECT(image.height >= 1 && image.width >= 1);
    LAMELLA_FUZZ_EXPECT(image.pixels.size() == static_cast<std::size_t>(image.height) * image.row_bytes());
    return true;
  } catch (const IoError&) {
    return false;
  }
}

/// The same file with right checksums: a change hardly ever makes them right, and none behind a wrong one is
/// seen.
std::vector<std::uint8_t> with_checksums(Bytes bytes) {
  std::vector<std::uint8_t> file(bytes.begin(), bytes.end());
  constexpr std::size_t kSignature = 8, kAround = 12;  // length, type and checksum of a chunk
  for (std::size_t at = kSignature; at + kAround <= file.size();) {
    const std::size_t length = std::size_t{file[at]} << 24 | std::size_t{file[at + 1]} << 16 |
                               std::size_t{file[at + 2]} << 8 | file[at + 3];
    if (length > file.size() - at - kAround) break;
    const auto sum = crc32(0, &file[at + 4], static_cast<uInt>(length + 4));
    for (std::size_t i = 0; i < 4; ++i)
      file[at + 8 + length + i] = static_cast<std::uint8_t>(sum >> (24 - 8 * i));
    at += length + kAround;
  }
  return file;
}

}  // namespace

bool jpeg(Bytes bytes) {
  return decode(bytes, [](Bytes file) { return data::decode_jpeg(file); });
}

bool png(Bytes bytes) {
  decode(bytes, [](Bytes file) { return data::decode_image(file); });
  return decode(with_checksums(bytes), [](Bytes file) { return data::decode_png(file); });
}

}  // namespace lamella::fuzz
