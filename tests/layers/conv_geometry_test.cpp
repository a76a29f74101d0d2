#include "lamella/layers/conv_geometry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <limits>

#include "lamella/core/error.h"

namespace lamella {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

template <class Call>
std::string shape_error(Call call) {
  try {
    call();
  } catch (const ShapeError& error) {
    return error.what();
  }
  return "no error";
}

// Positions of the kernel, counted one by one: its last tap must lie in the padded input.
std::int64_t count_positions(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                             std::int64_t dilation) {
  std::int64_t count = 0;
  for (std::int64_t first = -padding; first + dilation * (kernel - 1) < in + padding; first += stride)
    ++count;
  return count;
}

TEST(ConvOutputSizeTest, counts_the_positions_of_the_kernel) {
  EXPECT_TRUE(rc::check([] {
    const auto in = *rc::gen::inRange<std::int64_t>(1, 40);
    const auto kernel = *rc::gen::inRange<std::int64_t>(1, 9);
    const auto stride = *rc::gen::inRange<std::int64_t>(1, 6);
    const auto padding = *rc::gen::inRange<std::int64_t>(0, 10);
    const auto dilation = *rc::gen::inRange<std::int64_t>(1, 6);
    const std::int64_t expected = count_positions(in, kernel, stride, padding, dilation);
    if (expected == 0) {
      RC_ASSERT_THROWS_AS(conv_output_size("op", in, kernel, stride, padding, dilation), ShapeError);
    } else {
      RC_ASSERT(conv_output_size("op", in, kernel, stride, padding, dilation) == expected);
    }
  }));
}

TEST(ConvOutputSizeTest, gives_known_sizes) {
  EXPECT_EQ(conv_output_size("op", 224, 3, 2, 1, 1), 112);
  EXPECT_EQ(conv_output_size("op", 512, 3, 1, 0, 1), 510);
  EXPECT_EQ(conv_output_size("op", 5, 3, 1, 0, 2), 1);
  EXPECT_EQ(conv_output_size("op", 1, 1, 7, 0, 100), 1);
}

TEST(ConvOutputSizeTest, refuses_sizes_that_make_no_sense) {
  EXPECT_THAT(shape_error([] { conv_output_size("my_op", 0, 1, 1, 0, 1); }),
              AllOf(StartsWith("my_op: "), HasSubstr("input size 0")));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 4, 0, 1, 0, 1); }), HasSubstr("kernel size 0"));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 4, 3, 0, 0, 1); }), HasSubstr("stride 0"));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 4, 3, -2, 0, 1); }), HasSubstr("stride -2"));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 4, 3, 1, -1, 1); }), HasSubstr("padding -1"));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 4, 3, 1, 0, 0); }), HasSubstr("dilation 0"));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 4, 3, 1, 0, 2); }),
              AllOf(HasSubstr("covers 5"), HasSubstr("only 4")));
}

TEST(ConvOutputSizeTest, does_not_overflow) {
  EXPECT_EQ(conv_output_size("op", kMost, 1, 1, 0, 1), kMost);
  constexpr std::int64_t kBound = (std::int64_t{1} << 31) - 1;
  EXPECT_EQ(conv_output_size("op", kBound, kBound, 1, 0, 1), 1);
  EXPECT_EQ(conv_output_size("op", 5, 3, kBound, 0, 1), 1);
  EXPECT_THAT(shape_error([] { conv_output_size("my_op", kMost, kBound + 1, 1, 0, 1); }),
              AllOf(StartsWith("my_op: "), HasSubstr("kernel size 2147483648 must be at most 2147483647")));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 5, 3, kBound + 1, 0, 1); }),
              HasSubstr("stride 2147483648 must"));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 5, 3, 1, kBound + 1, 1); }),
              HasSubstr("padding 2147483648 must"));
  EXPECT_THAT(shape_error([] { conv_output_size("op", 5, 1, 1, 0, kBound + 1); }),
              HasSubstr("dilation 2147483648 must"));
  EXPECT_THROW(conv_output_size("op", 4, kMost, 1, 0, 2), ShapeError);
  EXPECT_THROW(conv_output_size("op", 4, 3, 1, 0, kMost), ShapeError);
  EXPECT_THROW(conv_output_size("op", 4, 2, 1, 0, kMost), ShapeError);
  EXPECT_THROW(conv_output_size("op", 4, 3, 1, kMost / 2, 1), ShapeError);
  EXPECT_THROW(conv_output_size("op", 4, 3, 1, kMost, 1), ShapeError);
}

TEST(Conv2dGeometryTest, fills_every_field) {
  const Conv2dGeometry g =
      make_conv2d_geometry("conv2d", {8, 12, 30, 41}, {18, 4, 3, 7}, {1, 2}, {0, 3}, {4, 1}, 3);
  EXPECT_EQ(g.batch, 8);
  EXPECT_EQ(g.in_channels, 12);
  EXPECT_EQ(g.out_channels, 18);
  EXPECT_EQ(g.groups, 3);
  EXPECT_EQ(g.in, Size2(30, 41));
  EXPECT_EQ(g.kernel, Size2(3, 7));
  EXPECT_EQ(g.stride, Size2(1, 2));
  EXPECT_EQ(g.padding, Size2(0, 3));
  EXPECT_EQ(g.dilation, Size2(4, 1));
  EXPECT_EQ(g.out, Size2(22, 21));
  EXPECT_FALSE(g.is_depthwise());
  EXPECT_EQ(g.input_shape(), (Shape{8, 12, 30, 41}));
  EXPECT_EQ(g.output_shape(), (Shape{8, 18, 22, 21}));
  EXPECT_EQ(g.weight_shape(), (Shape{18, 4, 3, 7}));
}

TEST(Conv2dGeometryTest, bounds_what_working_memory_grows_with) {
  constexpr std::int64_t kBound = (std::int64_t{1} << 31) - 1, kMostPadding = std::int64_t{1} << 20;
  const Conv2dGeometry g =
      make_conv2d_geometry("op", {1, 2, 5, 6}, {2, 1, 3, 1}, kBound, {0, kMostPadding}, {1, kBound}, 2);
  EXPECT_EQ(g.out, Size2(1));
  EXPECT_EQ(g.stride, Size2(5, 6)) << "no second window: the stride means nothing";
  EXPECT_EQ(make_conv2d_geometry("op", {1, 2, 5, 6}, {2, 1, 3, 1}, {2, 9}, {0, 9}, 1, 2).stride, Size2(2, 9));
  EXPECT_THAT(shape_error([&] {
                make_conv2d_geometry("op", {1, 2, 5, 6}, {2, 1, 3, 1}, 1, {0, kMostPadding + 1}, 1, 2);
              }),
              AllOf(StartsWith("op: padding 0 x 1048577 must be at most 1048576"), HasSubstr("[1,2,5,6]")));
}

TEST(Conv2dGeometryTest, knows_depthwise_and_its_multiplier) {
  const Conv2dGeometry g = make_conv2d_geometry("conv2d", {1, 6, 9, 9}, {18, 1, 3, 3}, 1, 1, 1, 6);
  EXPECT_TRUE(g.is_depthwise());
  EXPECT_EQ(g.multiplier(), 3);
  EXPECT_EQ(g.out, Size2(9, 9));
}

TEST(Conv2dGeometryTest, serves_the_five_source_systems) {
  const auto output = [](const Shape& input, Size2 kernel) {
    return make_conv2d_geometry("op", input, {input[1], 1, kernel.h, kernel.w}, 1, 0, 1, input[1])
        .output_shape();
  };
  EXPECT_EQ(output({32, 128, 128, 256}, {3, 7}), (Shape{32, 128, 126, 250}));
  EXPECT_EQ(output({64, 8, 512, 512}, {3, 1}), (Shape{64, 8, 510, 512}));
  EXPECT_EQ(output({64, 128, 256, 512}, 3), (Shape{64, 128, 254, 510}));
}

TEST(Conv2dGeometryTest, allows_an_empty_batch_alone) {
  EXPECT_EQ(make_conv2d_geometry("op", {0, 2, 5, 5}, {4, 2, 3, 3}, 1, 0, 1, 1).output_shape(),
            (Shape{0, 4, 3, 3}));
  EXPECT_THROW(make_conv2d_geometry("op", {-1, 2, 5, 5}, {4, 2, 3, 3}, 1, 0, 1, 1), ShapeError);
  EXPECT_THROW(make_conv2d_geometry("op", {1, 0, 5, 5}, {4, 0, 3, 3}, 1, 0, 1, 1), ShapeError);
  EXPECT_THROW(make_conv2d_geometry("op", {1, 2, 5, 5}, {0, 2, 3, 3}, 1, 0, 1, 1), ShapeError);
  EXPECT_THROW(make_conv2d_geometry("op", {1, 2, 0, 5}, {4, 2, 3, 3}, 1, 3, 1, 1), ShapeError);
  EXPECT_THROW(make_conv2d_geometry("op", {1, 2, 5, 0}, {4, 2, 3, 3}, 1, 3, 1, 1), ShapeError);
  EXPECT_THROW(make_conv2d_geometry("op", {1, 2, 5, 5}, {4, 2, 0, 3}, 1, 0, 1, 1), ShapeError);
}

TEST(Conv2dGeometryTest, says_what_does_not_fit) {
  const auto message = [](const Shape& input, const Shape& weight, std::int64_t groups) {
    return shape_error([&] { make_conv2d_geometry("depthwise_conv2d", input, weight, 1, 0, 1, groups); });
  };
  EXPECT_THAT(message({8, 32, 56}, {32, 1, 3, 3}, 32),
              AllOf(StartsWith("depthwise_conv2d: input must have 4 axes"), HasSubstr("[8,32,56]")));
  EXPECT_THAT(message({8, 32, 56, 56}, {32, 3, 3}, 32), HasSubstr("weight must have 4 axes"));
  EXPECT_THAT(message({8, 32, 56, 56}, {32, 1, 3, 3}, 0), HasSubstr("groups must be at least 1"));
  EXPECT_THAT(message({8, 32, 56, 56}, {33, 1, 3, 3}, 32), HasSubstr("33 output channels"));
  EXPECT_THAT(message({8, 33, 56, 56}, {32, 1, 3, 3}, 32), HasSubstr("33 input channels"));
  EXPECT_THAT(message({8, 32, 56, 56}, {32, 2, 3, 3}, 32),
              AllOf(HasSubstr("it must be 1"), HasSubstr("[8,32,56,56]"), HasSubstr("[32,2,3,3]")));
  EXPECT_THAT(message({8, 32, 2, 56}, {32, 1, 3, 3}, 32),
              AllOf(HasSubstr("along height"), HasSubstr("[8,32,2,56]")));
  EXPECT_THAT(message({8, 32, 56, 2}, {32, 1, 3, 3}, 32), HasSubstr("along width"));
}

TEST(Conv2dGeometryTest, refuses_more_elements_than_64_bits_count) {
  const std::int64_t big = std::int64_t{1} << 31;
  EXPECT_THAT(shape_error([&] {
                make_conv2d_geometry("op", {2, 2, big, big}, {2, 2, 1, 1}, 1, 0, 1, 1);
              }),
              HasSubstr("op: input [2,2,2147483648,2147483648]"));
  EXPECT_THAT(shape_error([&] {
                make_conv2d_geometry("op", {1, 1, big, big}, {4, 1, 1, 1}, 1, 0, 1, 1);
              }),
              HasSubstr("op: output [1,4,2147483648,2147483648]"));
  EXPECT_THAT(shape_error([&] {
                make_conv2d_geometry("op", {1, 1, big, big}, {4, 1, big - 1, big - 1}, 1, 0, 1, 1);
              }),
              HasSubstr("op: weight [4,1,2147483647,2147483647]"));
  EXPECT_THROW(make_conv2d_geometry("op", {0, 2, big, big * 2}, {2, 2, 1, 1}, 1, 0, 1, 1), ShapeError)
      << "an empty batch does not hide it";
  EXPECT_EQ(make_conv2d_geometry("op", {1, 1, big, big / 2}, {2, 1, 1, 1}, 1, 0, 1, 1).out,
            Size2(big, big / 2));
}

}  // namespace
}  // namespace lamella
