#include "lamella/data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lamella/core/error.h"
#include "lamella/tensor/create.h"
#include "tests/support/temp_folder.h"

namespace lamella::data {
namespace {

DatasetPtr numbered(int count) {
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> labels;
  for (int i = 0; i < count; ++i) {
    pixels.push_back(static_cast<std::uint8_t>(i));
    labels.push_back(i % 3);
  }
  return memory_dataset(std::move(pixels), 1, 1, 1, std::move(labels), {"a", "b", "c"});
}

std::vector<int> members(const Dataset& set) {
  std::vector<int> result;
  for (std::int64_t i = 0; i < set.size(); ++i) result.push_back(set.get(i).image.pixels[0]);
  return result;
}

TEST(MemoryDatasetTest, cuts_bytes_into_images) {
  std::vector<std::uint8_t> pixels(2 * 2 * 3 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i);
  const DatasetPtr set = memory_dataset(pixels, 2, 3, 3, {4, 0});
  EXPECT_EQ(set->size(), 2);
  EXPECT_EQ(set->classes(), (std::vector<std::string>{"0", "1", "2", "3", "4"}));
  EXPECT_EQ(set->label(0), 4);
  EXPECT_EQ(set->describe(1), "example 1");
  const Image image = set->get(1).image;
  EXPECT_EQ(image.pixels, std::vector<std::uint8_t>(pixels.begin() + 18, pixels.end()));
  EXPECT_THROW_WITH(set->get(2), ShapeError, "example 2 of 2");
  EXPECT_THROW(set->get(-1), ShapeError);
}

TEST(MemoryDatasetTest, refuses_what_does_not_fit) {
  EXPECT_THROW_WITH(memory_dataset({1, 2, 3}, 1, 1, 1, {0, 0}), ShapeError, "3 bytes are not 2 images");
  EXPECT_THROW(memory_dataset({1, 2, 3}, 1, 2, 1, {0}), ShapeError);
  EXPECT_THROW_WITH(memory_dataset({1, 2}, 1, 1, 1, {0, 2}, {"a", "b"}), ShapeError,
                    "label 2 of example 1 is out of range");
  EXPECT_THROW_WITH(memory_dataset({1, 2}, 1, 1, 1, {0, -1}), ShapeError, "label -1 of example 1");
  EXPECT_THROW(memory_dataset({1}, 1, 1, 1, {std::int64_t{1} << 40}), ShapeError);
  EXPECT_THROW(memory_dataset({1, 2}, 0, 1, 1, {0, 1}), ShapeError);
}

TEST(MemoryDatasetTest, takes_tensors_of_any_layout) {
  const Tensor images = arange(0, 2 * 3 * 4 * 5).to(uint8).reshape({2, 3, 4, 5});
  const Tensor labels = tensor({1, 0}).to(int64);
  const DatasetPtr plain = memory_dataset(images, labels);
  const DatasetPtr last = memory_dataset(images.contiguous(MemoryFormat::ChannelsLast), labels.to(uint8));
  for (int i = 0; i < 2; ++i) {
    const Image image = plain->get(i).image;
    EXPECT_EQ(image.height, 4);
    EXPECT_EQ(image.width, 5);
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 5; ++x)
        for (int c = 0; c < 3; ++c) EXPECT_EQ(image.row(y)[x * 3 + c], ((i * 3 + c) * 4 + y) * 5 + x);
    EXPECT_EQ(last->get(i).image, image);
    EXPECT_EQ(plain->label(i), 1 - i);
  }
  EXPECT_EQ(memory_dataset(images.select(1, 0), labels)->get(0).image.channels, 1);
  EXPECT_THROW(memory_dataset(images.to(float32), labels), DTypeError);
  EXPECT_THROW(memory_dataset(images, labels.to(float32)), DTypeError);
  EXPECT_THROW(memory_dataset(images, tensor({1, 0, 1}).to(int64)), ShapeError);
  EXPECT_THROW(memory_dataset(images.slice(1, {0, 2}), labels), ShapeError);
  EXPECT_THROW(memory_dataset(Tensor(), labels), Error);
}

TEST(SubsetTest, picks_in_order) {
  const DatasetPtr set = subset(numbered(10), {7, 0, 7});
  EXPECT_EQ(members(*set), (std::vector<int>{7, 0, 7}));
  EXPECT_EQ(set->label(0), 1);
  EXPECT_EQ(set->describe(0), "example 7");
  EXPECT_EQ(set->classes().size(), 3u);
  EXPECT_THROW(set->get(3), ShapeError);
  EXPECT_THROW_WITH(subset(numbered(10), {3, 10}), ShapeError, "example 10 of 10");
  EXPECT_THROW(subset(nullptr, {}), Error);
}

TEST(SplitTest, cuts_the_same_way_for_the_same_seed) {
  const auto [first, second] = split(numbered(100), 0.2, 5);
  EXPECT_EQ(first->size(), 20);
  EXPECT_EQ(second->size(), 80);
  const auto a = members(*first), b = members(*second);
  EXPECT_TRUE(std::is_sorted(a.begin(), a.end()));
  EXPECT_TRUE(std::is_sorted(b.begin(), b.end()));
  std::set<int> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(all.size(), 100u);
  EXPECT_EQ(members(*split(numbered(100), 0.2, 5).first), a);
  EXPECT_NE(members(*split(numbered(100), 0.2, 6).first), a);
  EXPECT_EQ(split(numbered(10), 0.0, 5).first->size(), 0);
  EXPECT_EQ(split(numbered(10), 1.0, 5).second->size(), 0);
  EXPECT_EQ(split(numbered(3), 0.5, 5).first->size(), 2);
  EXPECT_THROW(split(numbered(3), 1.5, 5), Error);
  EXPECT_THROW(split(numbered(3), -0.1, 5), Error);
}

}  // namespace
}  // namespace lamella::data
