#include "lamella/data/cifar.h"

#include <gtest/gtest.h>

#include "lamella/core/error.h"
#include "tests/support/temp_folder.h"

namespace lamella::data {
namespace {

// Record r: label (r + first) % 10; pixel k of plane c is (r * 7 + c * 50 + k) modulo 256.
std::vector<std::uint8_t> records(int count, int first = 0) {
  std::vector<std::uint8_t> bytes;
  for (int r = 0; r < count; ++r) {
    bytes.push_back(static_cast<std::uint8_t>((r + first) % 10));
    for (int c = 0; c < 3; ++c)
      for (int k = 0; k < 1024; ++k) bytes.push_back(static_cast<std::uint8_t>(r * 7 + c * 50 + k));
  }
  return bytes;
}

TEST(CifarTest, reads_batches_in_order) {
  const test::TempFolder folder;
  for (int i = 1; i <= 5; ++i)
    test::put_file(folder / ("data_batch_" + std::to_string(i) + ".bin"), records(3, 2 * i));
  test::put_file(folder / "test_batch.bin", records(12));
  const DatasetPtr train = cifar10(folder.path(), true), test = cifar10(folder.path(), false);
  EXPECT_EQ(train->size(), 15);
  EXPECT_EQ(test->size(), 12);
  EXPECT_EQ(train->classes().size(), 10u);
  EXPECT_EQ(train->classes()[9], "truck");
  EXPECT_EQ(train->get(4).label, (1 + 4) % 10);
  const Image image = test->get(11).image;
  EXPECT_EQ(image.height, 32);
  EXPECT_EQ(image.width, 32);
  for (int y = 0; y < 32; ++y)
    for (int x = 0; x < 32; ++x)
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(image.row(y)[3 * x + c], static_cast<std::uint8_t>(11 * 7 + c * 50 + y * 32 + x));
}

TEST(CifarTest, refuses_bad_files) {
  const test::TempFolder folder;
  EXPECT_THROW_WITH(cifar10(folder.path(), true), IoError, "data_batch_1.bin");
  auto bytes = records(2);
  bytes.pop_back();
  test::put_file(folder / "test_batch.bin", bytes);
  EXPECT_THROW_WITH(cifar10(folder.path(), false), IoError, "test_batch.bin: 6145 bytes");
  test::put_file(folder / "test_batch.bin", {});
  EXPECT_THROW_WITH(cifar10(folder.path(), false), IoError, "test_batch.bin: 0 bytes");
  bytes = records(3);
  bytes[3073] = 10;
  test::put_file(folder / "test_batch.bin", bytes);
  EXPECT_THROW_WITH(cifar10(folder.path(), false), IoError, "label 10 in record 1 is out of range");
  EXPECT_THROW(cifar10(std::vector<std::filesystem::path>{}), IoError);
}

}  // namespace
}  // namespace lamella::data
