#include "lamella/core/dtype.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamella/core/error.h"

namespace lamella {
namespace {

constexpr DType kAll[] = {float32, float64, bfloat16, float16, int64, int32, uint8, boolean};

TEST(DTypeTest, knows_sizes_of_elements) {
  EXPECT_EQ(size_of(float32), sizeof(float));
  EXPECT_EQ(size_of(float64), sizeof(double));
  EXPECT_EQ(size_of(bfloat16), sizeof(BFloat16));
  EXPECT_EQ(size_of(float16), sizeof(Float16));
  EXPECT_EQ(size_of(int64), sizeof(std::int64_t));
  EXPECT_EQ(size_of(int32), sizeof(std::int32_t));
  EXPECT_EQ(size_of(uint8), sizeof(std::uint8_t));
  EXPECT_EQ(size_of(boolean), sizeof(bool));
}

TEST(DTypeTest, maps_c_types) {
  EXPECT_EQ(dtype_of<float>, float32);
  EXPECT_EQ(dtype_of<double>, float64);
  EXPECT_EQ(dtype_of<BFloat16>, bfloat16);
  EXPECT_EQ(dtype_of<Float16>, float16);
  EXPECT_EQ(dtype_of<std::int64_t>, int64);
  EXPECT_EQ(dtype_of<std::int32_t>, int32);
  EXPECT_EQ(dtype_of<std::uint8_t>, uint8);
  EXPECT_EQ(dtype_of<bool>, boolean);
}

TEST(DTypeTest, parses_the_names_it_prints) {
  EXPECT_STREQ(name(float32), "float32");
  EXPECT_STREQ(name(boolean), "bool");
  for (const DType dtype : kAll) EXPECT_EQ(parse_dtype(name(dtype)), dtype);
}

TEST(DTypeTest, refuses_unknown_names) {
  for (const char* text : {"", "float", "Float32", "float32 ", "complex64"}) {
    try {
      parse_dtype(text);
      ADD_FAILURE() << "accepted " << text;
    } catch (const DTypeError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("bfloat16"));
      EXPECT_THAT(error.what(), testing::HasSubstr("\"" + std::string(text) + "\""));
    }
  }
}

TEST(DTypeTest, refuses_numbers_that_are_no_type) {
  EXPECT_THROW(size_of(static_cast<DType>(99)), DTypeError);
}

TEST(DTypeTest, tells_floating_types) {
  for (const DType dtype : kAll)
    EXPECT_EQ(is_floating(dtype),
              dtype == float32 || dtype == float64 || dtype == bfloat16 || dtype == float16);
}

TEST(DTypeTest, promotes_to_the_higher_rank) {
  const DType ascending[] = {boolean, uint8, int32, int64, float16, float32, float64};
  for (std::size_t a = 0; a < std::size(ascending); ++a)
    for (std::size_t b = 0; b < std::size(ascending); ++b)
      EXPECT_EQ(promote(ascending[a], ascending[b]), ascending[std::max(a, b)]);
  EXPECT_EQ(promote(bfloat16, int64), bfloat16);
  EXPECT_EQ(promote(bfloat16, float32), float32);
  EXPECT_EQ(promote(bfloat16, bfloat16), bfloat16);
  EXPECT_EQ(promote(bfloat16, float16), float32);
  EXPECT_EQ(promote(float16, bfloat16), float32);
}

}  // namespace
}  // namespace lamella
