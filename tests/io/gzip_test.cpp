#include "io/gzip.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "lamella/core/error.h"
#include "tests/support/temp_folder.h"

namespace lamella::detail {
namespace {

using Bytes = std::vector<std::uint8_t>;

// Everything, read `piece` bytes at a time.
Bytes unpack(const Bytes& packed, std::size_t piece = 1000) {
  GzipReader reader(packed, "source");
  Bytes result;
  for (;;) {
    Bytes part(piece);
    const std::size_t got = reader.read(part.data(), piece);
    result.insert(result.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(got));
    if (got < piece) return result;
  }
}

RC_GTEST_PROP(GzipTest, unpacks_what_it_packed, (const Bytes& bytes)) {
  RC_ASSERT(unpack(gzip(bytes), *rc::gen::inRange(1, 50)) == bytes);
}

TEST(GzipTest, is_the_same_each_time_and_packs) {
  const Bytes zeros(100000);
  EXPECT_EQ(gzip(zeros), gzip(zeros));
  EXPECT_LT(gzip(zeros).size(), 300u);
  EXPECT_GE(gzip(zeros).size() * kMaxDeflateRatio, zeros.size());
  EXPECT_TRUE(is_gzip(gzip(zeros)));
  EXPECT_FALSE(is_gzip(zeros));
  EXPECT_FALSE(is_gzip(Bytes{0x1f}));
}

TEST(GzipTest, takes_several_members) {
  Bytes packed = gzip(Bytes{1, 2});
  for (const Bytes& more : {gzip(Bytes{}), gzip(Bytes{3}), gzip(Bytes{})})
    packed.insert(packed.end(), more.begin(), more.end());
  EXPECT_EQ(unpack(packed, 1), (Bytes{1, 2, 3}));
  EXPECT_EQ(unpack(packed), (Bytes{1, 2, 3}));
}

TEST(GzipTest, refuses_truncation_and_damage) {
  Bytes bytes;
  for (int i = 0; i < 300; ++i) bytes.push_back(static_cast<std::uint8_t>(i * i));
  const Bytes packed = gzip(bytes);
  test::for_each_truncation(packed,
                            [](const Bytes& part) { EXPECT_THROW_WITH(unpack(part), IoError, "source: "); });
  test::for_each_damage(packed, [&](const Bytes& damaged, std::size_t position) {
    try {
      EXPECT_EQ(unpack(damaged), bytes) << "byte " << position;
      // Only the header, and the bits that fill up the last byte of the packed data, have no meaning.
      EXPECT_TRUE(position < 10 || position == packed.size() - 9) << "byte " << position;
    } catch (const IoError&) {
    }
  });
  Bytes more = packed;
  more.push_back(0);
  EXPECT_THROW_WITH(unpack(more), IoError, "1 bytes that are no gzip follow");
}

}  // namespace
}  // namespace lamella::detail
