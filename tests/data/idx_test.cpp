#include "lamella/data/idx.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "io/gzip.h"
#include "lamella/core/error.h"
#include "lamella/tensor/create.h"
#include "tests/support/temp_folder.h"

namespace lamella::data {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes small_idx() {
  Bytes bytes{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2};
  for (std::uint8_t i = 0; i < 12; ++i) bytes.push_back(i);
  return bytes;
}

class IdxTest : public testing::Test {
 protected:
  Tensor read(const Bytes& bytes) {
    test::put_file(folder / "file", bytes);
    return read_idx(folder / "file");
  }
  test::TempFolder folder;
};

TEST_F(IdxTest, reads_bytes_plain_and_gzipped) {
  for (const Bytes& bytes : {small_idx(), detail::gzip(small_idx())}) {
    const Tensor tensor = read(bytes);
    EXPECT_EQ(tensor.shape(), (Shape{2, 3, 2}));
    EXPECT_EQ(tensor.dtype(), uint8);
    const auto values = tensor.to_vector<std::int64_t>();
    for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(values[i], static_cast<std::int64_t>(i));
  }
}

TEST_F(IdxTest, reads_every_element_type) {
  const auto values = [&](std::uint8_t type, Bytes payload, std::uint8_t count) {
    Bytes bytes{0, 0, type, 1, 0, 0, 0, count};
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return read(bytes);
  };
  EXPECT_EQ(values(0x09, {0x80, 0x7f, 0xff}, 3).to_vector<std::int32_t>(),
            (std::vector<std::int32_t>{-128, 127, -1}));
  EXPECT_EQ(values(0x0b, {0x80, 0x00, 0x01, 0x02}, 2).to_vector<std::int32_t>(),
            (std::vector<std::int32_t>{-32768, 258}));
  EXPECT_EQ(values(0x0c, {0xff, 0xff, 0xff, 0xfe, 0, 1, 2, 3}, 2).to_vector<std::int32_t>(),
            (std::vector<std::int32_t>{-2, 0x010203}));
  EXPECT_EQ(values(0x0d, {0xc0, 0x20, 0, 0}, 1).to_vector<float>(), (std::vector<float>{-2.5f}));
  EXPECT_EQ(values(0x0e, {0x3f, 0xf8, 0, 0, 0, 0, 0, 0}, 1).to_vector<double>(), (std::vector<double>{1.5}));
  EXPECT_EQ(values(0x0d, {0xc0, 0x20, 0, 0}, 1).dtype(), float32);
  EXPECT_EQ(values(0x0e, Bytes(8), 1).dtype(), float64);
}

TEST_F(IdxTest, writes_what_it_reads) {
  for (const char* name : {"t.idx", "t.idx.gz"}) {
    for (const DType dtype : {uint8, int32, float32, float64}) {
      const Tensor tensor = arange(0, 24).to(dtype).reshape({2, 3, 4});
      write_idx(folder / name, tensor);
      const Tensor back = read_idx(folder / name);
      EXPECT_EQ(back.dtype(), dtype);
      EXPECT_EQ(back.shape(), tensor.shape());
      EXPECT_EQ(back.to_vector<double>(), tensor.to_vector<double>());
      write_idx(folder / name, tensor.permute({2, 0, 1}));
      EXPECT_EQ(read_idx(folder / name).to_vector<double>(), tensor.permute({2, 0, 1}).to_vector<double>());
    }
    write_idx(folder / name, empty({0, 5}, {.dtype = int32}));
    EXPECT_EQ(read_idx(folder / name).shape(), (Shape{0, 5}));
  }
  EXPECT_TRUE(detail::is_gzip(test::get_file(folder / "t.idx.gz")));
  EXPECT_FALSE(detail::is_gzip(test::get_file(folder / "t.idx")));
  EXPECT_THROW(write_idx(folder / "t", zeros({2}, {.dtype = int64})), DTypeError);
  EXPECT_THROW(write_idx(folder / "t", scalar(1)), ShapeError);
  EXPECT_THROW_WITH(write_idx(folder / "no/such/t", zeros({2})), IoError, "no/such/t");
}

TEST_F(IdxTest, refuses_every_truncation) {
  for (const Bytes& bytes : {small_idx(), detail::gzip(small_idx())})
    test::for_each_truncation(bytes, [&](const Bytes& part) {
      EXPECT_THROW_WITH(read(part), IoError, (folder / "file").string());
    });
}

TEST_F(IdxTest, refuses_data_behind_the_end) {
  Bytes bytes = small_idx();
  bytes.push_back(0);
  EXPECT_THROW_WITH(read(bytes), IoError, "data follow");
  EXPECT_THROW_WITH(read(detail::gzip(bytes)), IoError, "data follow");
  Bytes packed = detail::gzip(small_idx());
  packed.push_back(0);
  EXPECT_THROW_WITH(read(packed), IoError, "no gzip follow");
}

TEST_F(IdxTest, damage_gives_no_wrong_size) {
  test::for_each_damage(small_idx(), [&](const Bytes& damaged, std::size_t) {
    try {
      EXPECT_EQ(read(damaged).numel(), 12);  // one type of a byte's size taken for the other
    } catch (const IoError&) {
    }
  });
}

TEST_F(IdxTest, damage_to_a_gzipped_file_is_refused_or_harmless) {
  const Tensor right = read(small_idx());
  int refused = 0, count = 0;
  test::for_each_damage(detail::gzip(small_idx()), [&](const Bytes& damaged, std::size_t position) {
    ++count;
    try {
      EXPECT_EQ(read(damaged).to_vector<std::uint8_t>(), right.to_vector<std::uint8_t>())
          << "byte " << position;
    } catch (const IoError&) {
      ++refused;
    }
  });
  EXPECT_GT(refused, count * 3 / 4);  // time and system in gzip's header mean nothing
}

TEST_F(IdxTest, checks_declared_sizes_before_memory_is_taken) {
  const Bytes huge{0, 0, 8, 3, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, 0, 1, 0, 1, 2, 3};
  EXPECT_THROW_WITH(read(huge), IoError, "more than the file can hold");
  EXPECT_THROW_WITH(read(detail::gzip(huge)), IoError, "more than the file can hold");
  Bytes overflow{0, 0, 0x0e, 4};
  overflow.insert(overflow.end(), 16, 0xff);
  EXPECT_THROW_WITH(read(overflow), IoError, "impossible");
  // A size of zero must not hide the others.
  std::fill(overflow.begin() + 4, overflow.begin() + 8, std::uint8_t{0});
  EXPECT_THROW_WITH(read(overflow), IoError, "impossible");
}

TEST_F(IdxTest, refuses_other_files) {
  EXPECT_THROW_WITH(read({'P', 'K', 3, 4, 0, 0, 0, 0}), IoError, "not an IDX file");
  EXPECT_THROW_WITH(read({0, 0, 0x0a, 1, 0, 0, 0, 0}), IoError, "not an IDX file");
  EXPECT_THROW_WITH(read({0, 0, 8, 0}), IoError, "not an IDX file");
  EXPECT_THROW_WITH(read({0, 0, 8, 9, 0, 0, 0, 0}), IoError, "9 axes");
  EXPECT_THROW_WITH(read_idx(folder / "absent"), IoError, "absent");
}

TEST_F(IdxTest, makes_a_dataset) {
  write_idx(folder / "images", arange(0, 2 * 3 * 4).to(uint8).reshape({2, 3, 4}));
  write_idx(folder / "labels", tensor({1, 0}).to(uint8));
  const DatasetPtr digits = idx_dataset(folder / "images", folder / "labels");
  ASSERT_EQ(digits->size(), 2);
  EXPECT_EQ(digits->classes(), (std::vector<std::string>{"0", "1"}));
  const Example second = digits->get(1);
  EXPECT_EQ(second.label, 0);
  EXPECT_EQ(second.image.height, 3);
  EXPECT_EQ(second.image.width, 4);
  EXPECT_EQ(second.image.channels, 1);
  EXPECT_EQ(second.image.pixels[0], 12);
  EXPECT_THROW_WITH(idx_dataset(folder / "images", folder / "labels", {"only one"}), IoError,
                    "label 1 of example 0");
  write_idx(folder / "labels", tensor({1, 0, 1}).to(uint8));
  EXPECT_THROW_WITH(idx_dataset(folder / "images", folder / "labels"), IoError, "[2]");
  EXPECT_THROW_WITH(idx_dataset(folder / "labels", folder / "labels"), IoError, "images must be uint8");
  write_idx(folder / "colour", zeros({3, 2, 2, 3}, {.dtype = uint8}));
  EXPECT_EQ(idx_dataset(folder / "colour", folder / "labels")->get(2).image.channels, 3);
}

TEST(DigitsTest, ship_whole) {
  const auto folder = std::filesystem::path(LAMELLA_SOURCE_DIR) / "examples/data";
  const auto images = folder / "digits-images-idx3-ubyte.gz", labels = folder / "digits-labels-idx1-ubyte.gz";
  const Tensor pixels = read_idx(images);
  EXPECT_EQ(pixels.shape(), (Shape{1797, 8, 8}));
  const auto values = pixels.to_vector<std::int64_t>();
  EXPECT_EQ(*std::max_element(values.begin(), values.end()), 16);
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), std::int64_t{0}), 561718);
  const DatasetPtr digits = idx_dataset(images, labels);
  std::vector<int> counts(10);
  for (std::int64_t i = 0; i < digits->size(); ++i) ++counts[static_cast<std::size_t>(digits->label(i))];
  EXPECT_EQ(counts, (std::vector<int>{178, 182, 177, 183, 181, 182, 181, 179, 174, 180}));
}

}  // namespace
}  // namespace lamella::data
