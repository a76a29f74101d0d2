#include "lamella/tensor/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "lamella/core/error.h"

namespace lamella {
namespace {

using Sizes = std::vector<std::int64_t>;

template <class Call>
std::string shape_error(Call call) {
  try {
    call();
  } catch (const ShapeError& error) {
    return error.what();
  }
  return "no error";
}

TEST(DimsTest, holds_values) {
  const Dims dims{8, 32, 56, 56};
  EXPECT_EQ(dims.size(), 4);
  EXPECT_EQ(dims[1], 32);
  EXPECT_EQ(dims.back(), 56);
  EXPECT_EQ(dims.to_vector(), (Sizes{8, 32, 56, 56}));
  EXPECT_EQ(Dims(Sizes{8, 32, 56, 56}), dims);
  EXPECT_EQ(dims.to_string(), "[8,32,56,56]");
  EXPECT_EQ(Dims().to_string(), "[]");
  EXPECT_EQ(Dims{-1}.to_string(), "[-1]");
  EXPECT_TRUE(Dims().empty());
  EXPECT_EQ(Dims::filled(3, 7), (Dims{7, 7, 7}));
  EXPECT_EQ(Dims::filled(0, 7), Dims());
}

TEST(DimsTest, compares_length_and_values) {
  EXPECT_NE((Dims{2, 3}), (Dims{2, 3, 1}));
  EXPECT_NE((Dims{2, 3}), (Dims{3, 2}));
  Dims shortened{2, 3, 4};
  shortened.erase(2);
  EXPECT_EQ(shortened, (Dims{2, 3})) << "what lies behind the end does not count";
}

TEST(DimsTest, inserts_and_erases_like_a_vector) {
  EXPECT_TRUE(rc::check([] {
    Sizes expected = *rc::gen::resize(6, rc::gen::arbitrary<Sizes>());
    if (expected.size() > kMaxAxes) expected.resize(kMaxAxes);
    Dims dims(expected);
    for (int i = 0; i < 20; ++i) {
      const auto at = *rc::gen::inRange<int>(0, dims.size() + 1);
      if (*rc::gen::arbitrary<bool>() && dims.size() < kMaxAxes) {
        dims.insert(at, i);
        expected.insert(expected.begin() + at, i);
      } else if (at < dims.size()) {
        dims.erase(at);
        expected.erase(expected.begin() + at);
      }
      RC_ASSERT(dims.to_vector() == expected);
    }
  }));
}

TEST(DimsTest, refuses_too_many_axes_and_wrong_places) {
  EXPECT_THROW((Dims{1, 2, 3, 4, 5, 6, 7, 8, 9}), ShapeError);
  EXPECT_THROW(Dims(Sizes(9, 1)), ShapeError);
  EXPECT_THROW(Dims::filled(9, 1), ShapeError);
  EXPECT_THROW(Dims::filled(-1, 1), ShapeError);
  Dims full{1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_THROW(full.push_back(9), ShapeError);
  EXPECT_THROW(full.insert(0, 9), ShapeError);
  EXPECT_EQ(full.size(), 8);
  Dims two{1, 2};
  EXPECT_THROW(two.insert(3, 0), ShapeError);
  EXPECT_THROW(two.insert(-1, 0), ShapeError);
  EXPECT_THROW(two.erase(2), ShapeError);
  EXPECT_THROW(two.erase(-1), ShapeError);
  two.push_back(3);
  EXPECT_EQ(two, (Dims{1, 2, 3}));
}

TEST(DimsTest, product_counts_elements) {
  EXPECT_EQ(Dims().product(), 1);
  EXPECT_EQ((Dims{2, 3, 4}).product(), 24);
  EXPECT_EQ((Dims{2, 0, 4}).product(), 0);
  const std::int64_t big = std::int64_t{1} << 40;
  EXPECT_EQ((Dims{big, big, 0}).product(), 0);
  EXPECT_EQ((Dims{std::int64_t{1} << 31, std::int64_t{1} << 31}).product(), std::int64_t{1} << 62);
  EXPECT_THAT(shape_error([&] {
                (Dims{big, big}).product();
              }),
              testing::HasSubstr("[1099511627776,1099511627776]"));
  EXPECT_THROW((Dims{std::int64_t{1} << 32, std::int64_t{1} << 31}).product(), ShapeError);
}

TEST(MemoryFormatTest, has_names) {
  EXPECT_STREQ(name(MemoryFormat::Contiguous), "contiguous");
  EXPECT_STREQ(name(MemoryFormat::ChannelsLast), "channels_last");
}

TEST(DenseStridesTest, are_row_major) {
  EXPECT_EQ(dense_strides({}), Strides());
  EXPECT_EQ(dense_strides({5}), (Strides{1}));
  EXPECT_EQ(dense_strides({2, 3, 4, 5}), (Strides{60, 20, 5, 1}));
  EXPECT_EQ(dense_strides({2, 1, 1, 5}), (Strides{5, 5, 5, 1}));
}

TEST(DenseStridesTest, are_channels_last) {
  EXPECT_EQ(dense_strides({2, 3, 4, 5}, MemoryFormat::ChannelsLast), (Strides{60, 1, 15, 3}));
  EXPECT_EQ(dense_strides({2, 1, 4, 5}, MemoryFormat::ChannelsLast), (Strides{20, 1, 5, 1}));
  EXPECT_EQ(dense_strides({1, 3, 1, 1}, MemoryFormat::ChannelsLast), (Strides{3, 1, 3, 3}));
  EXPECT_EQ(dense_strides({0, 3, 4, 5}, MemoryFormat::ChannelsLast), (Strides{60, 1, 15, 3}));
}

TEST(DenseStridesTest, count_empty_axes_as_one) {
  EXPECT_EQ(dense_strides({0, 3, 4}), (Strides{12, 4, 1}));
  EXPECT_EQ(dense_strides({2, 0, 4}), (Strides{4, 4, 1}));
  EXPECT_EQ(dense_strides({2, 3, 0}), (Strides{3, 1, 1}));
}

TEST(DenseStridesTest, reach_every_place_once) {
  EXPECT_TRUE(rc::check([] {
    Shape shape;
    for (int i = 0; i < 4; ++i) shape.push_back(*rc::gen::inRange<std::int64_t>(1, 6));
    for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
      const Strides strides = dense_strides(shape, format);
      Sizes places;
      for (std::int64_t n = 0; n < shape[0]; ++n)
        for (std::int64_t c = 0; c < shape[1]; ++c)
          for (std::int64_t h = 0; h < shape[2]; ++h)
            for (std::int64_t w = 0; w < shape[3]; ++w)
              places.push_back(n * strides[0] + c * strides[1] + h * strides[2] + w * strides[3]);
      if (format == MemoryFormat::Contiguous) RC_ASSERT(std::is_sorted(places.begin(), places.end()));
      std::sort(places.begin(), places.end());
      Sizes expected(places.size());
      std::iota(expected.begin(), expected.end(), 0);
      RC_ASSERT(places == expected);
    }
  }));
}

TEST(DenseStridesTest, refuse_what_has_none) {
  EXPECT_THAT(shape_error([] {
                dense_strides({2, 3, 4}, MemoryFormat::ChannelsLast);
              }),
              testing::AllOf(testing::HasSubstr("4 axes"), testing::HasSubstr("[2,3,4]")));
  const std::int64_t big = std::int64_t{1} << 40;
  EXPECT_THROW(dense_strides({1, big, big}), ShapeError);
  EXPECT_THROW(dense_strides({2, big, big, 1}, MemoryFormat::ChannelsLast), ShapeError);
}

TEST(BroadcastShapesTest, aligns_at_the_right) {
  EXPECT_EQ(broadcast_shapes("add", {2, 3}, {2, 3}), (Shape{2, 3}));
  EXPECT_EQ(broadcast_shapes("add", {2, 3}, {3}), (Shape{2, 3}));
  EXPECT_EQ(broadcast_shapes("add", {3}, {2, 3}), (Shape{2, 3}));
  EXPECT_EQ(broadcast_shapes("add", {2, 1, 4}, {3, 1}), (Shape{2, 3, 4}));
  EXPECT_EQ(broadcast_shapes("add", {}, {2, 3}), (Shape{2, 3}));
  EXPECT_EQ(broadcast_shapes("add", {}, {}), Shape());
  EXPECT_EQ(broadcast_shapes("add", {0, 3}, {1, 3}), (Shape{0, 3}));
  EXPECT_EQ(broadcast_shapes("add", {1}, {0}), (Shape{0}));
}

TEST(BroadcastShapesTest, names_what_does_not_fit) {
  EXPECT_THAT(shape_error([] {
                broadcast_shapes("mul", {2, 3}, {2, 4});
              }),
              testing::AllOf(testing::StartsWith("mul: "), testing::HasSubstr("[2,3]"),
                             testing::HasSubstr("[2,4]"), testing::HasSubstr("sizes 3 and 4")));
  EXPECT_THROW(broadcast_shapes("mul", {0}, {2}), ShapeError);
  EXPECT_THROW(broadcast_shapes("mul", {2, 3}, {2}), ShapeError);
}

TEST(NormalizeAxisTest, counts_from_either_end) {
  for (int axis = 0; axis < 4; ++axis) {
    EXPECT_EQ(normalize_axis("sum", axis, 4), axis);
    EXPECT_EQ(normalize_axis("sum", axis - 4, 4), axis);
  }
  for (const int axis : {4, -5, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()})
    EXPECT_THAT(shape_error([&] { normalize_axis("sum", axis, 4); }),
                testing::AllOf(testing::StartsWith("sum: axis " + std::to_string(axis)),
                               testing::HasSubstr("-4 to 3")));
  EXPECT_THROW(normalize_axis("sum", 0, 0), ShapeError);
}

}  // namespace
}  // namespace lamella
