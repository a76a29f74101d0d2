#include "lamella/data/image.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "lamella/core/error.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::data {
namespace {

using test::encode_jpeg;
using test::encode_png;
using test::pattern;

const std::filesystem::path kGolden = std::filesystem::path(LAMELLA_SOURCE_DIR) / "tests/data/golden";

int largest_difference(const Image& a, const Image& b) {
  if (a.height != b.height || a.width != b.width || a.channels != b.channels ||
      a.pixels.size() != b.pixels.size())
    return 1000;
  int largest = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i)
    largest = std::max(largest, std::abs(int{a.pixels[i]} - int{b.pixels[i]}));
  return largest;
}

// What decoding may do with damaged bytes: throw IoError, or give an image whose size holds together.
bool decodes(const std::vector<std::uint8_t>& bytes) {
  try {
    const Image image = decode_image(bytes, "damaged");
    EXPECT_EQ(image.channels, 3);
    EXPECT_EQ(image.pixels.size(), static_cast<std::size_t>(image.height) * image.row_bytes());
    EXPECT_LE(std::int64_t{image.height} * image.width, kMaxPixels);
    return true;
  } catch (const IoError& error) {
    EXPECT_EQ(std::string(error.what()).rfind("damaged: ", 0), 0u) << error.what();
    return false;
  }
}

TEST(ImageTest, refuses_impossible_sizes) {
  EXPECT_THROW(Image(0, 3, 3), ShapeError);
  EXPECT_THROW(Image(3, -1, 3), ShapeError);
  EXPECT_THROW(Image(3, 3, 4), ShapeError);
  EXPECT_EQ(Image(2, 3, 1, 7).pixels, std::vector<std::uint8_t>(6, 7));
}

TEST(JpegTest, gives_what_another_decoder_gives) {
  // Builds of libjpeg-turbo differ by a rounding; CMYK is converted by each program itself.
  EXPECT_LE(largest_difference(read_image(kGolden / "photo.jpg"), read_image(kGolden / "photo_jpg.png")), 2);
  EXPECT_LE(largest_difference(read_image(kGolden / "progressive.jpg"),
                               read_image(kGolden / "progressive_jpg.png")),
            2);
  EXPECT_LE(largest_difference(read_image(kGolden / "cmyk.jpg"), read_image(kGolden / "cmyk_jpg.png")), 3);
}

TEST(JpegTest, decodes_every_kind_to_rgb) {
  const Image image = pattern(33, 17);
  EXPECT_LE(largest_difference(decode_jpeg(encode_jpeg(image, {.quality = 100})), image),
            60);  // half as many colours
  const Image grey = decode_jpeg(encode_jpeg(image, {.quality = 100, .grey_file = true}));
  ASSERT_EQ(grey.channels, 3);
  for (int y = 0; y < 33; ++y)
    for (int x = 0; x < 17; ++x)
      for (int c = 0; c < 3; ++c) EXPECT_NEAR(grey.row(y)[3 * x + c], image.row(y)[3 * x], 4);
  EXPECT_LE(largest_difference(decode_jpeg(encode_jpeg(image, {.quality = 100, .cmyk_file = true})), image),
            6);
  EXPECT_EQ(decode_jpeg(encode_jpeg(image, {.progressive = true})), decode_jpeg(encode_jpeg(image)));
  EXPECT_EQ(decode_jpeg(encode_jpeg(image, {.restart_interval = 2})), decode_jpeg(encode_jpeg(image)));
}

TEST(JpegTest, refuses_every_truncation) {
  for (const bool progressive : {false, true}) {
    const auto bytes = encode_jpeg(pattern(20, 24), {.quality = 60, .progressive = progressive});
    ASSERT_TRUE(decodes(bytes));
    test::for_each_truncation(
        bytes, [](const auto& part) { EXPECT_FALSE(decodes(part)) << part.size() << " bytes"; });
  }
}

TEST(JpegTest, survives_every_damaged_byte) {
  for (const bool progressive : {false, true}) {
    const auto bytes =
        encode_jpeg(pattern(20, 24), {.quality = 60, .progressive = progressive, .restart_interval = 1});
    int refused = 0;
    test::for_each_damage(bytes,
                          [&](const auto& damaged, std::size_t) { refused += decodes(damaged) ? 0 : 1; });
    EXPECT_GT(refused, 100);
  }
}

TEST(JpegTest, refuses_sizes_before_memory_is_taken) {
  auto bytes = encode_jpeg(pattern(8, 8));
  const std::vector<std::uint8_t> frame{0xff, 0xc0};
  const auto at = std::search(bytes.begin(), bytes.end(), frame.begin(), frame.end()) + 5;
  std::fill(at, at + 4, 0xff);  // 65535 x 65535
  EXPECT_THROW_WITH(decode_jpeg(bytes, "huge.jpg"), IoError, "huge.jpg: ");
  at[0] = at[2] = 0x10;  // 4351 x 4351, allowed, but not in a few hundred bytes
  EXPECT_THROW_WITH(decode_jpeg(bytes, "huge.jpg"), IoError, "cannot hold");
}

TEST(JpegTest, stops_at_a_file_of_too_many_scans) {
  // Each scan costs time for the whole image, however few bytes it has.
  EXPECT_THROW_WITH(decode_jpeg(encode_jpeg(pattern(16, 16), {.many_scans = true}), "slow.jpg"), IoError,
                    "slow.jpg: corrupt JPEG: too many scans");
}

TEST(PngTest, decodes_rgb_exactly) {
  for (const bool interlaced : {false, true})
    for (const auto& [height, width] : {std::pair{1, 1}, {1, 9}, {9, 1}, {5, 3}, {33, 17}}) {
      const Image image = pattern(height, width);
      EXPECT_EQ(decode_png(encode_png(image, interlaced)), image) << height << "x" << width;
    }
}

TEST(PngTest, decodes_every_colour_type_and_depth) {
  struct Kind {
    int color_type, bit_depth, channels;
  };
  for (const Kind kind : {Kind{0, 1, 1},
                          {0, 2, 1},
                          {0, 4, 1},
                          {0, 8, 1},
                          {0, 16, 1},
                          {2, 8, 3},
                          {2, 16, 3},
                          {3, 1, 1},
                          {3, 2, 1},
                          {3, 4, 1},
                          {3, 8, 1},
                          {4, 8, 2},
                          {4, 16, 2},
                          {6, 8, 4},
                          {6, 16, 4}})
    for (const bool interlaced : {false, true}) {
      SCOPED_TRACE(testing::Message() << "colour type " << kind.color_type << ", depth " << kind.bit_depth);
      test::RawPng raw;
      raw.height = 5;
      raw.width = 13;
      raw.color_type = kind.color_type;
      raw.bit_depth = kind.bit_depth;
      raw.interlaced = interlaced;
      const int levels = 1 << std::min(kind.bit_depth, 8);
      if (kind.color_type == 3) {
        for (int i = 0; i < levels; ++i)
          for (const int factor : {3, 5, 7})
            raw.palette.push_back(static_cast<std::uint8_t>(i * factor + 11));
        raw.palette_alpha = {0, 128};
      }
      const std::size_t row_bytes =
          static_cast<std::size_t>((raw.width * kind.channels * kind.bit_depth + 7) / 8);
      raw.rows.assign(row_bytes * 5, 0);
      Image expected(raw.height, raw.width, 3);
      for (int y = 0; y < raw.height; ++y)
        for (int x = 0; x < raw.width; ++x) {
          std::uint8_t sample[4] = {};
          for (int c = 0; c < kind.channels; ++c) {
            const int value = (y * 29 + x * 31 + c * 37) % levels;
            const std::size_t bit = static_cast<std::size_t>((x * kind.channels + c) * kind.bit_depth);
            std::uint8_t* byte = raw.rows.data() + static_cast<std::size_t>(y) * row_bytes + bit / 8;
            if (kind.bit_depth == 16) {
              byte[0] = byte[1] = static_cast<std::uint8_t>(value);  // value * 257: exactly value of 255
            } else {
              *byte = static_cast<std::uint8_t>(*byte |
                                                value << (8 - kind.bit_depth - static_cast<int>(bit % 8)));
            }
            sample[c] = static_cast<std::uint8_t>(kind.color_type == 3 ? value : value * 255 / (levels - 1));
          }
          for (int c = 0; c < 3; ++c)
            expected.row(y)[3 * x + c] = kind.color_type == 3
                                             ? raw.palette[static_cast<std::size_t>(3 * sample[0] + c)]
                                             : sample[(kind.color_type & 2) != 0 ? c : 0];
        }
      EXPECT_EQ(decode_png(encode_png(raw)), expected);
    }
}

TEST(PngTest, rounds_sixteen_bits) {
  test::RawPng raw;
  raw.height = raw.width = 1;
  raw.bit_depth = 16;
  raw.rows = {0x00, 0x80, 0x00,
              0x81, 0xff, 0xfe};  // 128 / 257 = 0.498, 129 / 257 = 0.502, 65534 / 257 = 254.996
  EXPECT_EQ(decode_png(encode_png(raw)).pixels, (std::vector<std::uint8_t>{0, 1, 255}));
}

TEST(PngTest, refuses_every_truncation) {
  const auto bytes = encode_png(pattern(12, 10), true);
  ASSERT_TRUE(decodes(bytes));
  test::for_each_truncation(bytes,
                            [](const auto& part) { EXPECT_FALSE(decodes(part)) << part.size() << " bytes"; });
}

TEST(PngTest, damage_is_refused_or_harmless) {
  test::RawPng raw;
  raw.height = 6;
  raw.width = 7;
  raw.color_type = 3;
  for (int i = 0; i < 256; ++i) raw.palette.insert(raw.palette.end(), 3, static_cast<std::uint8_t>(i));
  raw.palette_alpha = {1, 2, 3};
  for (int i = 0; i < 42; ++i) raw.rows.push_back(static_cast<std::uint8_t>(i * 6));
  for (const auto& bytes : {encode_png(pattern(6, 7)), encode_png(pattern(6, 7), true), encode_png(raw)}) {
    const Image right = decode_png(bytes);
    int refused = 0, count = 0;
    test::for_each_damage(bytes, [&](const auto& damaged, std::size_t position) {
      ++count;
      try {
        EXPECT_EQ(decode_png(damaged), right) << "byte " << position;
      } catch (const IoError&) {
        ++refused;
      }
    });
    EXPECT_GT(refused, count * 9 / 10);
  }
}

TEST(PngTest, refuses_sizes_before_memory_is_taken) {
  test::RawPng raw;
  raw.height = 1;
  raw.width = 100000;
  raw.rows.assign(300000, 0);
  ASSERT_EQ(decode_png(encode_png(raw)).width, 100000);  // packed a hundredfold: fine
  auto bytes = encode_png(pattern(8, 8));
  // Width and height in the IHDR chunk, whose checksum is then made right again.
  const auto set_size = [&](std::uint32_t width, std::uint32_t height) {
    for (int i = 0; i < 8; ++i)
      bytes[static_cast<std::size_t>(16 + i)] =
          static_cast<std::uint8_t>((i < 4 ? width : height) >> (24 - i % 4 * 8));
    std::uint32_t crc = 0xffffffffu;
    for (std::size_t i = 12; i < 29; ++i) {
      crc ^= bytes[i];
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
    }
    for (std::size_t i = 0; i < 4; ++i) bytes[29 + i] = static_cast<std::uint8_t>(~crc >> (24 - i * 8));
  };
  set_size(8, 8);
  EXPECT_EQ(decode_png(bytes), pattern(8, 8));
  set_size(60000, 60000);
  EXPECT_THROW_WITH(decode_png(bytes, "huge.png"), IoError, "60000x60000");
  set_size(8000, 8000);
  EXPECT_THROW_WITH(decode_png(bytes, "huge.png"), IoError, "cannot hold");
  // A row of which libpng would make two of eight bytes a pixel.
  set_size(1'000'001, 1);
  EXPECT_THROW_WITH(decode_png(bytes, "wide.png"), IoError,
                    "wide.png: a PNG of 1x1000001 pixels; rows of at most 1000000");
  // A chunk behind the header, of which nothing is there.
  set_size(8, 8);
  auto long_chunk = bytes;
  for (std::size_t i = 0; i < 4; ++i) long_chunk[33 + i] = 0x7f;
  EXPECT_THROW_WITH(decode_png(long_chunk, "long.png"), IoError,
                    "long.png: corrupt PNG: a chunk of 2139062143 bytes where " +
                        std::to_string(bytes.size() - 33 - 12) + " are left");
  set_size(0, 0);
  EXPECT_THROW(decode_png(bytes), IoError);
}

TEST(ReadImageTest, goes_by_content_and_names_the_path) {
  const test::TempFolder folder;
  test::put_file(folder / "really_a_png.jpg", encode_png(pattern(4, 5)));
  EXPECT_EQ(read_image(folder / "really_a_png.jpg"), pattern(4, 5));
  EXPECT_THROW_WITH(read_image(folder / "absent.png"), IoError, "absent.png");
  EXPECT_THROW_WITH(read_image(folder.path()), IoError, "it is a folder");
  test::put_file(folder / "empty.png", {});
  EXPECT_THROW_WITH(read_image(folder / "empty.png"), IoError, "empty.png: the file is empty");
  test::put_file(folder / "text.jpg", std::vector<std::uint8_t>{'h', 'e', 'l', 'l', 'o'});
  EXPECT_THROW_WITH(read_image(folder / "text.jpg"), IoError, "text.jpg: neither JPEG nor PNG");
  auto jpeg = encode_jpeg(pattern(16, 16));
  jpeg.resize(jpeg.size() / 2);
  test::put_file(folder / "cut.jpg", jpeg);
  EXPECT_THROW_WITH(read_image(folder / "cut.jpg"), IoError, "cut.jpg: corrupt JPEG");
}

RC_GTEST_PROP(ReadImageTest, survives_random_bytes_behind_a_right_start, (std::vector<std::uint8_t> tail)) {
  std::vector<std::uint8_t> jpeg{0xff, 0xd8, 0xff}, png{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  jpeg.insert(jpeg.end(), tail.begin(), tail.end());
  png.insert(png.end(), tail.begin(), tail.end());
  RC_ASSERT(!decodes(jpeg));
  RC_ASSERT(!decodes(png));
  RC_ASSERT_THROWS_AS(decode_image(tail), IoError);
}

}  // namespace
}  // namespace lamella::data
