#include "lamella/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>

#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/data/image_folder.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::data {
namespace {

using test::pattern;

static_assert(std::input_iterator<DataLoader::Iterator>);
static_assert(std::sentinel_for<std::default_sentinel_t, DataLoader::Iterator>);

// Example i is pattern(12, 10, i), label i % 4.
DatasetPtr patterns(int count) {
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> labels;
  for (int i = 0; i < count; ++i) {
    const Image image = pattern(12, 10, i);
    pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
    labels.push_back(i % 4);
  }
  return memory_dataset(std::move(pixels), 12, 10, 3, std::move(labels), {"a", "b", "c", "d"});
}

// A dataset made of a function.
class Made final : public Dataset {
 public:
  Made(std::int64_t size, std::function<Example(std::int64_t)> make) : size_(size), make_(std::move(make)) {}
  std::int64_t size() const override { return size_; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Example get(std::int64_t index) const override { return make_(index); }
  std::string describe(std::int64_t index) const override { return "made/" + std::to_string(index); }

 private:
  std::int64_t size_;
  std::function<Example(std::int64_t)> make_;
  std::vector<std::string> classes_{"only"};
};

struct Numbers {
  Shape shape;
  std::vector<float> images;
  std::vector<float> labels;
  friend bool operator==(const Numbers&, const Numbers&) = default;
};

std::vector<Numbers> one_epoch(DataLoader& loader) {
  std::vector<Numbers> result;
  for (const auto& [images, labels] : loader)
    result.push_back({images.shape(), images.to_vector<float>(), labels.to_vector<float>()});
  return result;
}

LoaderOptions augmented(int workers) {
  return {.batch = 7,
          .shuffle = true,
          .workers = workers,
          .seed = 42,
          .transform = {RandomResizedCrop(9), RandomCrop(8, 2), RandomHorizontalFlip()},
          .normalize = {.mean = {0.4f, 0.5f, 0.6f}, .std = {0.2f}},
          .batch_transform = Mixup(0.3, 4)};
}

TEST(DataLoaderTest, gives_all_examples_in_order) {
  DataLoader loader(patterns(10), {.batch = 4});
  EXPECT_EQ(loader.size(), 3);
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::int64_t next = 0;
    for (const auto& [images, labels] : loader) {
      EXPECT_EQ(images.shape(), (Shape{next < 8 ? 4 : 2, 3, 12, 10}));
      EXPECT_EQ(images.dtype(), float32);
      EXPECT_TRUE(images.is_contiguous());
      EXPECT_EQ(labels.shape(), (Shape{images.size(0)}));
      EXPECT_EQ(labels.dtype(), int64);
      const auto pixels = images.to_vector<float>();
      const auto classes = labels.to_vector<std::int64_t>();
      for (std::int64_t i = 0; i < images.size(0); ++i, ++next) {
        EXPECT_EQ(classes[static_cast<std::size_t>(i)], next % 4);
        const Image image = pattern(12, 10, static_cast<int>(next));
        for (std::size_t k = 0; k < 360; ++k)
          ASSERT_EQ(pixels[static_cast<std::size_t>(i) * 360 + k],
                    static_cast<float>(image.pixels[k % 120 * 3 + k / 120]) / 255.0f);
      }
    }
    EXPECT_EQ(next, 10);
    EXPECT_EQ(loader.epoch(), epoch);
  }
}

TEST(DataLoaderTest, leaves_out_the_short_batch_if_asked) {
  DataLoader keeps(patterns(10), {.batch = 4}), drops(patterns(10), {.batch = 4, .drop_last = true});
  EXPECT_EQ(one_epoch(keeps).size(), 3u);
  const auto batches = one_epoch(drops);
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[1].shape[0], 4);
  DataLoader large(patterns(10), {.batch = 100, .workers = 3});
  EXPECT_EQ(one_epoch(large).at(0).shape[0], 10);
}

TEST(DataLoaderTest, gives_the_same_numbers_in_both_formats) {
  DataLoader plain(patterns(5), {.batch = 3}),
      last(patterns(5), {.batch = 3, .memory_format = MemoryFormat::ChannelsLast});
  EXPECT_EQ(one_epoch(plain), one_epoch(last));
  EXPECT_TRUE((*last.begin()).images.is_contiguous(MemoryFormat::ChannelsLast));
}

TEST(DataLoaderTest, gives_the_same_bits_for_any_number_of_workers) {
  const DatasetPtr set = patterns(50);
  DataLoader reference(set, augmented(0));
  std::vector<std::vector<Numbers>> expected;
  for (int epoch = 0; epoch < 3; ++epoch) expected.push_back(one_epoch(reference));
  EXPECT_NE(expected[0], expected[1]);
  for (const int workers : {1, 2, 5, 16})
    for (const int prefetch : {1, 3}) {
      LoaderOptions options = augmented(workers);
      options.prefetch = prefetch;
      DataLoader loader(set, options);
      for (int epoch = 0; epoch < 3; ++epoch)
        EXPECT_TRUE(one_epoch(loader) == expected[static_cast<std::size_t>(epoch)])
            << workers << " workers, epoch " << epoch;
    }
  LoaderOptions other = augmented(2);
  other.seed = 43;
  DataLoader differs(set, other);
  EXPECT_FALSE(one_epoch(differs) == expected[0]);
}

TEST(DataLoaderTest, augments_an_example_the_same_way_wherever_it_stands) {
  LoaderOptions options{.batch = 1, .seed = 9, .transform = {RandomCrop(6, 3), RandomHorizontalFlip()}};
  DataLoader ordered(patterns(20), options);
  options.shuffle = true;
  options.batch = 3;
  DataLoader shuffled(patterns(20), options);
  std::multiset<std::vector<float>> a, b;
  for (const auto& batch : one_epoch(ordered)) a.insert(batch.images);
  for (const auto& batch : one_epoch(shuffled))
    for (auto it = batch.images.begin(); it != batch.images.end(); it += 108)
      b.insert(std::vector<float>(it, it + 108));
  EXPECT_EQ(a, b);
}

TEST(DataLoaderTest, augments_anew_each_epoch) {
  DataLoader loader(patterns(6), {.batch = 6, .seed = 9, .transform = {RandomCrop(6, 3)}});
  const auto first = one_epoch(loader), second = one_epoch(loader);
  EXPECT_NE(first[0].images, second[0].images);
  loader.set_epoch(0);
  EXPECT_TRUE(one_epoch(loader) == first);
}

TEST(DataLoaderTest, shuffles_anew_each_epoch) {
  DataLoader loader(patterns(40), {.batch = 40, .shuffle = true, .seed = 1});
  const auto first = one_epoch(loader), second = one_epoch(loader);
  EXPECT_NE(first[0].images, second[0].images);
  auto a = first[0].images, b = second[0].images;
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  EXPECT_EQ(a, b);
}

TEST(DataLoaderTest, takes_its_seed_from_manual_seed) {
  const auto run = [](std::uint64_t seed) {
    manual_seed(seed);
    DataLoader loader(patterns(20), {.batch = 20, .shuffle = true});
    return one_epoch(loader);
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

TEST(DataLoaderTest, resumes_where_it_was) {
  const DatasetPtr set = patterns(40);
  DataLoader whole(set, augmented(2));
  one_epoch(whole);
  const auto second = one_epoch(whole), third = one_epoch(whole);

  DataLoader stopped(set, augmented(2));
  one_epoch(stopped);
  std::int64_t epoch = -1, position = -1;
  for (const auto& batch : stopped) {
    static_cast<void>(batch);
    if (stopped.position() == 3) {
      epoch = stopped.epoch(), position = stopped.position();
      break;
    }
  }
  EXPECT_EQ(epoch, 1);
  for (const int workers : {0, 3}) {
    DataLoader resumed(set, augmented(workers));
    resumed.set_epoch(epoch);
    resumed.set_position(position);
    const auto rest = one_epoch(resumed);
    ASSERT_EQ(rest.size(), 3u);
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(), second.begin() + 3));
    EXPECT_EQ(resumed.position(), 6);
    EXPECT_TRUE(one_epoch(resumed) == third) << "the next epoch is whole";
    resumed.set_epoch(1);
    resumed.set_position(6);
    EXPECT_TRUE(one_epoch(resumed).empty());
  }
  EXPECT_THROW(stopped.set_position(7), Error);
  EXPECT_THROW(stopped.set_position(-1), Error);
  EXPECT_THROW(stopped.set_epoch(-1), Error);
}

TEST(DataLoaderTest, throws_in_the_loop_what_a_worker_threw) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a", "b"}, 10, 8, 8);
  auto bytes = test::get_file(folder / "set/b/1003.png");
  bytes.resize(bytes.size() / 2);
  test::put_file(folder / "set/b/1003.png", bytes);
  for (const int workers : {0, 1, 4}) {
    DataLoader loader(image_folder(folder / "set"), {.batch = 2, .workers = workers});
    int batches = 0;
    EXPECT_THROW_WITH(for (const auto& batch
                           : loader) batches += batch.images.size(0) == 2 ? 1 : 0,
                      IoError, (folder / "set/b/1003.png").string() + ": corrupt PNG");
    EXPECT_EQ(batches, 6) << "the batches before it arrive, with any number of workers";
  }
}

TEST(DataLoaderTest, keeps_the_type_of_an_error_and_adds_the_example) {
  const auto thrown_by = [](auto make) {
    return std::make_shared<Made>(8, [make](std::int64_t index) {
      if (index == 5) make();
      return Example{Image(2, 2, 1), 0};
    });
  };
  for (const int workers : {0, 2}) {
    const auto run = [&](DatasetPtr set, std::vector<Transform> transform = {}) {
      DataLoader loader(std::move(set), {.batch = 4, .workers = workers, .transform = std::move(transform)});
      one_epoch(loader);
    };
    EXPECT_THROW_WITH(run(thrown_by([] { throw ShapeError("too wide"); })), ShapeError,
                      "too wide (while loading made/5)");
    EXPECT_THROW_WITH(run(thrown_by([] { throw DTypeError("odd"); })), DTypeError,
                      "odd (while loading made/5)");
    EXPECT_THROW_WITH(run(thrown_by([] { throw IoError("cannot read made/5"); })), IoError,
                      "cannot read made/5");
    EXPECT_THROW_WITH(run(thrown_by([] { throw std::runtime_error("mine"); })), Error,
                      "mine (while loading made/5)");
    EXPECT_THROW(run(thrown_by([] { throw std::bad_alloc(); })), std::bad_alloc);
    EXPECT_THROW(run(thrown_by([] { throw 3; })), int);
    EXPECT_THROW_WITH(run(thrown_by([] {}), {RandomCrop(5)}), ShapeError, "(while loading made/0)");
  }
}

TEST(DataLoaderTest, checks_what_datasets_and_transforms_give) {
  for (const int workers : {0, 2}) {
    const auto run = [&](std::function<Example(std::int64_t)> make, std::vector<Transform> transform = {}) {
      DataLoader loader(std::make_shared<Made>(4, std::move(make)),
                        {.batch = 4, .workers = workers, .transform = std::move(transform)});
      one_epoch(loader);
    };
    EXPECT_THROW_WITH(run([](std::int64_t i) {
                        return Example{Image(2, 2, 3), i == 2 ? 1 : 0};
                      }),
                      ShapeError, "label 1 is out of range; there are 1 classes (while loading made/2)");
    EXPECT_THROW_WITH(run([](std::int64_t) { return Example{Image(2, 2, 3), -1}; }), ShapeError, "label -1");
    EXPECT_THROW_WITH(run([](std::int64_t i) {
                        return Example{Image(2, i == 3 ? 5 : 2, 3), 0};
                      }),
                      ShapeError, "made/3 is 2x5x3, the first of its batch 2x2x3");
    EXPECT_THROW_WITH(run([](std::int64_t i) {
                        return Example{Image(2, 2, i == 1 ? 1 : 3), 0};
                      }),
                      ShapeError, "made/1");
    EXPECT_THROW(run([](std::int64_t) { return Example{}; }), ShapeError);
    EXPECT_THROW(run(
                     [](std::int64_t) {
                       return Example{Image(2, 2, 3), 0};
                     },
                     {[](Image image, Random&) {
                       image.height = 100;
                       return image;
                     }}),
                 ShapeError);
  }
}

TEST(DataLoaderTest, stops_its_workers_when_the_loop_ends_early) {
  std::atomic<int> loaded{0};
  const auto set = std::make_shared<Made>(100000, [&](std::int64_t) {
    loaded.fetch_add(1);
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    return Example{Image(2, 2, 1), 0};
  });
  {
    DataLoader loader(set, {.batch = 8, .workers = 4, .prefetch = 2});
    for (const auto& batch : loader) {
      static_cast<void>(batch);
      if (loader.position() == 3) break;
    }
    const int after = loaded.load();
    EXPECT_LE(after, (3 + 4 * 2) * 8) << "no more than prefetch allows";
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(loaded.load(), after) << "workers went on after the loop";
    EXPECT_THROW(
        for (const auto& batch
             : loader) {
          static_cast<void>(batch);
          throw std::runtime_error("by the body");
        },
        std::runtime_error);
    const int later = loaded.load();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(loaded.load(), later);
  }
  DataLoader never_run(set, {.batch = 8, .workers = 4});
  auto abandoned = never_run.begin();
}

TEST(DataLoaderTest, an_iterator_outlives_its_loader) {
  auto loader = std::make_unique<DataLoader>(patterns(10), LoaderOptions{.batch = 2, .workers = 2});
  auto it = loader->begin();
  loader.reset();
  int batches = 0;
  for (; it != std::default_sentinel; ++it) ++batches;
  EXPECT_EQ(batches, 5);
  EXPECT_THROW(++it, Error);
}

TEST(DataLoaderTest, two_loops_at_a_time_are_two_epochs) {
  DataLoader loader(patterns(12), augmented(2)), reference(patterns(12), augmented(0));
  const auto first = one_epoch(reference), second = one_epoch(reference);
  auto a = loader.begin(), b = loader.begin();
  EXPECT_EQ((*a).images.to_vector<float>(), first[0].images);
  EXPECT_EQ((*b).images.to_vector<float>(), second[0].images);
  EXPECT_EQ(loader.epoch(), 1);
  EXPECT_EQ(loader.position(), 1);
  ++a;
  EXPECT_EQ((*a).images.to_vector<float>(), first[1].images);
  EXPECT_EQ(loader.position(), 1) << "of the newest loop";
}

TEST(DataLoaderTest, refuses_bad_options_and_empty_sets) {
  EXPECT_THROW_WITH(DataLoader(nullptr), Error, "null");
  EXPECT_THROW_WITH(DataLoader(patterns(3), {.batch = 0}), Error, "batch 0");
  EXPECT_THROW_WITH(DataLoader(patterns(3), {.batch = -4}), Error, "batch -4");
  EXPECT_THROW_WITH(DataLoader(patterns(3), {.workers = -1}), Error, "-1 workers");
  EXPECT_THROW_WITH(DataLoader(patterns(3), {.prefetch = 0}), Error, "prefetch 0");
  EXPECT_THROW_WITH(DataLoader(patterns(3), {.transform = {Transform()}}), Error, "a transform is empty");
  EXPECT_THROW_WITH(DataLoader(patterns(3), {.normalize = {.std = {0.0f}}}), Error, "DataLoader: Normalize");
  EXPECT_THROW_WITH(DataLoader(subset(patterns(3), {})), Error, "the dataset is empty");
  EXPECT_THROW_WITH(DataLoader(patterns(3), {.batch = 4, .drop_last = true}), Error,
                    "3 examples make no full batch of 4");
}

}  // namespace
}  // namespace lamella::data
