#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <limits>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/tensor/combine.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::gradcheck;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

Tensor counting(const Shape& shape) { return arange(0, static_cast<double>(shape.product())).reshape(shape); }

TEST(ViewsTest, views_share_storage) {
  Tensor x = counting({2, 3});
  x.transpose(0, 1).fill_(7);
  EXPECT_EQ(x.to_vector<double>(), std::vector<double>(6, 7.0));
}

TEST(ViewsTest, reshape_of_a_dense_tensor_is_a_view_and_of_a_transposed_one_a_copy) {
  Tensor x = counting({2, 6});
  x.reshape({3, -1}).fill_(1);
  EXPECT_EQ(x({0, 0}).item(), 1);
  Tensor t = counting({2, 3}).transpose(0, 1);
  EXPECT_EQ(t.reshape({6}).to_vector<double>(), (std::vector<double>{0, 3, 1, 4, 2, 5}));
  t.reshape({6}).fill_(9);
  EXPECT_EQ(t({1, 0}).item(), 1);
}

TEST(ViewsTest, reshape_keeps_a_view_where_strides_allow) {
  Tensor x = counting({4, 3, 2}).slice(1, {0, 2});  // rows of 4 out of 6
  x.reshape({2, 2, 4}).fill_(5);
  EXPECT_EQ(x.to_vector<double>(), std::vector<double>(16, 5.0));
}

RC_GTEST_PROP(ViewsProperty, reshape_and_permute_keep_the_row_major_order, ()) {
  const auto sizes = *rc::gen::container<std::vector<std::int64_t>>(4, rc::gen::inRange<std::int64_t>(1, 5));
  const Shape shape(sizes);
  const Tensor x = counting(shape).permute({2, 0, 3, 1});
  const auto whole = x.to_vector<double>();
  RC_ASSERT(x.reshape({-1}).to_vector<double>() == whole);
  RC_ASSERT(x.reshape({sizes[2] * sizes[0], -1}).to_vector<double>() == whole);
  RC_ASSERT(x.reshape({x.size(0), -1, x.size(3)}).to_vector<double>() == whole);
  RC_ASSERT(x.permute({1, 3, 0, 2}).to_vector<double>() == counting(shape).to_vector<double>());
}

TEST(ViewsTest, reshape_refuses_what_does_not_fit) {
  const Tensor x = zeros({2, 3});
  EXPECT_THROW(x.reshape({4, 2}), ShapeError);
  EXPECT_THROW(x.reshape({-1, -1}), ShapeError);
  EXPECT_THROW(x.reshape({-1, 4}), ShapeError);
  EXPECT_THROW(x.reshape({-2, 3}), ShapeError);
  EXPECT_THROW(zeros({0, 3}).reshape({-1, 0}), ShapeError);
}

TEST(ViewsTest, slices_like_python) {
  const Tensor x = counting({10});
  EXPECT_EQ(x.slice(0, {2, 5}).to_vector<double>(), (std::vector<double>{2, 3, 4}));
  EXPECT_EQ(x.slice(0, {-3, {}}).to_vector<double>(), (std::vector<double>{7, 8, 9}));
  EXPECT_EQ(x.slice(0, {{}, -7}).to_vector<double>(), (std::vector<double>{0, 1, 2}));
  EXPECT_EQ(x.slice(0, {1, 100, 4}).to_vector<double>(), (std::vector<double>{1, 5, 9}));
  EXPECT_EQ(x.slice(0, {6, 2}).numel(), 0);
  EXPECT_THROW(x.slice(0, {0, 5, 0}), ShapeError);
  EXPECT_THROW(x.slice(1, {0, 5}), ShapeError);
  EXPECT_THROW(x.select(0, 10), ShapeError);
  EXPECT_EQ(x.select(0, -1).item(), 9);
}

TEST(ViewsTest, indexing_mixes_positions_and_slices) {
  const Tensor x = counting({2, 3, 4});
  EXPECT_EQ(x({1, Slice{0, 2}, 3}).to_vector<double>(), (std::vector<double>{15, 19}));
  EXPECT_EQ(x({Slice{}, -1}).shape(), (Shape{2, 4}));
  EXPECT_THROW(x({0, 0, 0, 0}), ShapeError);
}

TEST(ViewsTest, expand_repeats_without_memory) {
  const Tensor x = counting({3, 1}).expand({2, -1, 2});
  EXPECT_EQ(x.to_vector<double>(), (std::vector<double>{0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(x.strides()[0], 0);
  EXPECT_THROW(counting({3}).expand({4}), ShapeError);
  EXPECT_THROW(counting({3, 1}).expand({3}), ShapeError);
}

TEST(ViewsTest, memory_formats_differ_in_strides_only) {
  const Tensor x = counting({2, 3, 4, 5});
  const Tensor y = x.contiguous(MemoryFormat::ChannelsLast);
  EXPECT_EQ(y.strides(), (Strides{60, 1, 15, 3}));
  EXPECT_EQ(y.memory_format(), MemoryFormat::ChannelsLast);
  EXPECT_EQ(x.memory_format(), MemoryFormat::Contiguous);
  EXPECT_EQ(y.to_vector<double>(), x.to_vector<double>());
  EXPECT_EQ(y.contiguous().to_vector<double>(), x.to_vector<double>());
  EXPECT_THROW(counting({2, 3}).contiguous(MemoryFormat::ChannelsLast), ShapeError);
  // One channel: both formats are the same memory, but not the same strides.
  EXPECT_EQ(counting({2, 1, 4, 5}).contiguous(MemoryFormat::ChannelsLast).memory_format(),
            MemoryFormat::ChannelsLast);
}

RC_GTEST_PROP(ViewsProperty, layout_conversion_keeps_every_element, ()) {
  const auto s = *rc::gen::container<std::vector<std::int64_t>>(4, rc::gen::inRange<std::int64_t>(0, 40));
  const Tensor x = random_tensor({s[0] % 4, s[1], s[2], s[3]}, 1, {.dtype = DType::Float32});
  const Tensor y = x.contiguous(MemoryFormat::ChannelsLast);
  RC_ASSERT(y.to_vector<float>() == x.to_vector<float>());
  RC_ASSERT(y.contiguous().to_vector<float>() == x.to_vector<float>());
}

TEST(ViewsTest, converts_between_all_types) {
  const std::vector<double> values{0, 1, 2, 100};
  for (const DType from : {float32, float64, bfloat16, float16, int64, int32, uint8})
    for (const DType to : {float32, float64, bfloat16, float16, int64, int32, uint8})
      EXPECT_EQ(from_vector(values, {4}).to(from).to(to).to_vector<double>(), values)
          << name(from) << " to " << name(to);
  EXPECT_EQ(from_vector(values, {4}).to(boolean).to_vector<double>(), (std::vector<double>{0, 1, 1, 1}));
  EXPECT_EQ(tensor({-1.9, 1.9}).to(int64).to_vector<double>(), (std::vector<double>{-1, 1}));
}

TEST(ViewsTest, gradients_flow_through_views) {
  const Tensor x = random_tensor({2, 3, 4}, 5, {.requires_grad = true});
  const auto check = [&](auto view) {
    EXPECT_TRUE(Passes(gradcheck([&](const Tensors& in) { return view(in[0]); }, {x}, {.step = 1})));
  };
  check([](const Tensor& t) { return t.reshape({4, 6}); });
  check([](const Tensor& t) { return t.permute({2, 0, 1}); });
  check([](const Tensor& t) { return t.permute({2, 0, 1}).reshape({-1}); });
  check([](const Tensor& t) { return t.slice(2, {1, {}, 2}); });
  check([](const Tensor& t) { return t.select(1, -1); });
  check([](const Tensor& t) { return t({Slice{}, 1, Slice{0, 3}}); });
  check([](const Tensor& t) { return t.unsqueeze(1).expand({2, 5, 3, 4}); });
  check([](const Tensor& t) { return t.flatten(1); });
  check([](const Tensor& t) { return t.transpose(0, 2).contiguous(); });
  check([](const Tensor& t) { return t.clone(); });
}

TEST(ViewsTest, gradients_take_the_type_of_their_tensor) {
  const Tensor x = tensor({1, 2}, {.requires_grad = true});
  sum(x.to(float64)).backward();
  EXPECT_EQ(x.grad().dtype(), float32);
  EXPECT_THAT(x.grad(), IsClose(tensor({1, 1})));
}

TEST(CombineTest, cat_and_stack_join_and_split_gradients) {
  const Tensor a = random_tensor({2, 3}, 1, {.requires_grad = true}),
               b = random_tensor({2, 2}, 2, {.requires_grad = true});
  EXPECT_EQ(cat({a, b}, 1).shape(), (Shape{2, 5}));
  EXPECT_EQ(cat({a, b}, -1)({1, 3}).item(), b({1, 0}).item());
  EXPECT_TRUE(Passes(gradcheck(
      [](const Tensors& in) {
        return cat({in[0], in[1], in[0]}, 1);
      },
      {a, b}, {.step = 1})));
  EXPECT_TRUE(Passes(gradcheck(
      [](const Tensors& in) {
        return stack({in[0], in[0]}, -1);
      },
      {a}, {.step = 1})));
  EXPECT_EQ(stack({a, a}, 1).shape(), (Shape{2, 2, 3}));
  EXPECT_THROW(cat({a, b}, 0), ShapeError);
  EXPECT_THROW(cat({}, 0), ShapeError);
  EXPECT_THROW(cat({a, b.to(float32)}, 1), DTypeError);
}

TEST(CombineTest, pad_surrounds_with_a_value) {
  const Tensor x = random_tensor({2, 2}, 1, {.requires_grad = true});
  const Tensor y = pad(x, {{1, 0}, {0, 2}}, 9);
  EXPECT_EQ(y.shape(), (Shape{3, 4}));
  EXPECT_EQ(y({0, 0}).item(), 9);
  EXPECT_EQ(y({1, 0}).item(), x({0, 0}).item());
  EXPECT_TRUE(Passes(gradcheck([](const Tensors& in) { return pad(in[0], {{1, 2}}); }, {x}, {.step = 1})));
  EXPECT_THROW(pad(x, {{-1, 0}}), ShapeError);
  EXPECT_THROW(pad(x, {{0, 0}, {0, 0}, {0, 0}}), ShapeError);
}

TEST(CombineTest, one_hot_marks_the_index) {
  EXPECT_EQ(one_hot(from_vector<std::int64_t>({2, 0}, {2}), 3).to_vector<double>(),
            (std::vector<double>{0, 0, 1, 1, 0, 0}));
  EXPECT_THROW(one_hot(from_vector<std::int64_t>({3}, {1}), 3), ShapeError);
  EXPECT_THROW(one_hot(from_vector<std::int64_t>({-1}, {1}), 3), ShapeError);
  EXPECT_THROW(one_hot(tensor({1}), 3), DTypeError);
  const Tensor two = from_vector<std::int64_t>({0, 1}, {2});
  EXPECT_THROW(one_hot(two, std::int64_t{1} << 60), ShapeError);
  EXPECT_THROW(one_hot(two, std::numeric_limits<std::int64_t>::max()), ShapeError);
  EXPECT_THROW(one_hot(two, std::int64_t{1} << 45), OutOfMemoryError);
}

TEST(CombineTest, sizes_beyond_64_bits_are_refused) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "no ShapeError";
  };
  const Tensor wide = zeros({1}).expand({most / 2 + 1});
  EXPECT_EQ(message([&] { cat({wide, wide}); }).rfind("cat: [4611686018427387904]", 0), 0u);
  const Tensor x = zeros({2, 2});
  EXPECT_EQ(message([&] { pad(x, {{most, 0}}); }).rfind("pad: width (9223372036854775807, 0)", 0), 0u);
  EXPECT_EQ(message([&] { pad(x, {{most / 2, most / 2}}); }).rfind("pad: width", 0), 0u);
}

TEST(ViewsTest, slices_with_a_step_beyond_the_axis_hold_one_position) {
  const Tensor x = arange(0, 5);
  const Tensor first = x.slice(0, {1, 5, std::numeric_limits<std::int64_t>::max()});
  ASSERT_EQ(first.shape(), Shape{1});
  EXPECT_EQ(first.item(), 1);
}

TEST(ViewsTest, repeated_elements_are_not_written) {
  Tensor x = zeros({1}).expand({3});
  EXPECT_THROW(x.copy_(arange(0, 3)), Error);
  EXPECT_THROW(x.fill_(1), Error);
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{0, 0, 0}));
  Tensor none = zeros({1, 0}).expand({3, 0});
  none.fill_(1);
}

TEST(MemoryFormatTest, one_channel_or_pixel_keeps_the_format_it_was_given) {
  for (const Shape& shape : {Shape{3, 1, 4, 5}, Shape{3, 6, 1, 1}})
    for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
      for (const MemoryFormat other : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
        const Tensor x = rand(shape, {.format = format});
        EXPECT_EQ(x.memory_format(), format);
        EXPECT_TRUE(x.is_contiguous(other));
        const Tensor y = x.contiguous(other);
        EXPECT_EQ(y.memory_format(), other);
        EXPECT_EQ(y.strides(), dense_strides(shape, other));
        EXPECT_EQ(y.data<float>(), x.data<float>());
        EXPECT_EQ(y.to_vector<float>(), x.to_vector<float>());
        EXPECT_EQ(empty_like(y).memory_format(), other);
      }
}

}  // namespace
}  // namespace lamella
