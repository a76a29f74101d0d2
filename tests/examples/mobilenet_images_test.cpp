#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>

#include "lamella/data/dataset.h"
#include "lamella/data/idx.h"
#include "lamella/io/safetensors.h"
#include "program.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

// Images of all sizes, of no use, and in places that may only be read.
namespace lamella::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class MobileNetImagesTest : public ::testing::Test {
 protected:
  Outcome train(const std::string& data, std::vector<std::string> more = {},
                const RunConditions& conditions = {}) const {
    std::vector<std::string> all = {"train", "--data",   data,  "--checkpoint", net_,   "--width",
                                    "0.1",   "--epochs", "1",   "--lr",         "0.01", "--batch",
                                    "8",     "--device", "cpu", "--csv",        csv_};
    all.insert(all.end(), more.begin(), more.end());
    return mobilenet(all, conditions);
  }
  Outcome train_well(const std::string& data, std::vector<std::string> more = {}) const {
    const Outcome outcome = train(data, std::move(more));
    EXPECT_EQ(outcome.status, 0) << outcome;
    return outcome;
  }
  Outcome eval(std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"eval", "--checkpoint", net_});
    return mobilenet(more);
  }
  std::string format() const { return io::load_safetensors_file(net_).metadata.at("format"); }
  /// The last line: "accuracy … loss …".
  static std::string result(const Outcome& outcome) {
    const std::size_t at = outcome.out.rfind("accuracy ");
    return at == std::string::npos ? "none" : outcome.out.substr(at);
  }
  /// Adds an image to a class of both parts, under a name that makes it the first or the last.
  void add(const std::string& name, const data::Image& image) const {
    for (const char* part : {"train", "test"}) put_file(images_ / part / "bars" / name, encode_png(image));
  }

  TempFolder temp_;
  const fs::path images_ = temp_ / "images", net_ = temp_ / "net.safetensors", csv_ = temp_ / "curve.csv";
};

TEST_F(MobileNetImagesTest, each_is_brought_to_size_by_its_own) {
  // The network's size, larger, smaller, and long ones; whichever is first.
  for (const char* size : {"8", "72", "0"})
    for (const auto& [first, last] : {std::pair{pattern(8, 8), pattern(20, 9)},
                                      {pattern(20, 9), pattern(8, 8)},
                                      {pattern(72, 72), pattern(5, 90)},
                                      {pattern(1, 1), pattern(100, 100)}}) {
      fs::remove_all(images_);
      make_small_dataset(images_);
      add("a.png", first);
      add("z.png", last);
      const Outcome trained = train_well(images_, {"--image-size", size});
      const std::string wanted = *size == '0' ? "8" : size;
      EXPECT_THAT(format(), HasSubstr("\"size\":" + wanted + ","));
      const Outcome tested = eval();
      ASSERT_EQ(tested.status, 0) << tested;
      EXPECT_THAT(trained.out, HasSubstr(result(tested)));
    }
}

TEST_F(MobileNetImagesTest, others_do_not_change_what_an_image_becomes) {
  make_small_dataset(images_);
  train_well(images_, {"--image-size", "72", "--epochs", "8"});
  // What is of the network's size stays as it is; it did not where the first image had another.
  fs::remove_all(images_);
  for (const char* part : {"train", "test"})
    for (const char* name : {"bars", "dark", "light"})
      put_file(images_ / part / name / "one.png", encode_png(pattern(72, 72, name[0])));
  const std::string alone = result(eval());
  for (const char* name : {"bars", "dark", "light"})  // before the others, and in training only
    put_file(images_ / "train" / name / "a.png", encode_png(pattern(80, 99)));
  EXPECT_EQ(result(eval()), alone);
}

TEST_F(MobileNetImagesTest, eval_knows_how_bright_other_images_are) {
  ASSERT_EQ(train("digits", {"--flip", "0", "--batch", "64", "--epochs", "3", "--lr", "0.05"}).status, 0);
  // The digits that are tested have 17 shades; the same with 256, as IDX files have them.
  const fs::path digits = LAMELLA_SOURCE_DIR "/examples/data";
  const data::DatasetPtr all =
      data::idx_dataset(digits / "digits-images-idx3-ubyte.gz", digits / "digits-labels-idx1-ubyte.gz");
  const data::DatasetPtr tested = data::split(all, 0.2, 0).first;
  std::vector<std::uint8_t> images = {0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8},
                            labels = {0, 0, 8, 1, 0, 0, 0, 0};
  for (auto* file : {&images, &labels}) {
    (*file)[6] = static_cast<std::uint8_t>(tested->size() >> 8);
    (*file)[7] = static_cast<std::uint8_t>(tested->size() & 255);
  }
  for (std::int64_t i = 0; i < tested->size(); ++i) {
    for (const std::uint8_t shade : tested->get(i).image.pixels)
      images.push_back(static_cast<std::uint8_t>(std::lround(shade * 255 / 16.0)));
    labels.push_back(static_cast<std::uint8_t>(tested->label(i)));
  }
  for (const char* part : {"train", "t10k"}) {
    put_file(images_ / (std::string(part) + "-images-idx3-ubyte"), images);
    put_file(images_ / (std::string(part) + "-labels-idx1-ubyte"), labels);
  }
  const auto loss = [&](const std::vector<std::string>& more) {
    const std::string text = result(eval(more));
    EXPECT_THAT(text, HasSubstr(" of " + std::to_string(tested->size()) + "), loss "));
    return std::atof(text.c_str() + text.find("loss ") + 5);
  };
  EXPECT_NEAR(loss({"--data", images_}), loss({}), 0.01);
}

TEST_F(MobileNetImagesTest, eval_wants_test_images_alone) {
  make_small_dataset(images_);
  train_well(images_);
  const std::string tested = eval().out;
  const fs::path other = temp_ / "other";
  fs::create_directories(other);
  fs::copy(images_ / "test", other / "test", fs::copy_options::recursive);
  EXPECT_EQ(eval({"--data", other}).out, tested);
  // The folder of the classes itself.
  EXPECT_EQ(eval({"--data", other / "test"}).out, tested);
  // Whatever else there is to train on.
  put_file(other / "train/zebra/image.png", encode_png(pattern(8, 8)));
  EXPECT_EQ(eval({"--data", other}).out, tested);
  // Classes have the network's numbers, though fewer are there.
  fs::remove_all(other / "test/bars");
  const Outcome fewer = eval({"--data", other});
  EXPECT_EQ(fewer.status, 0) << fewer;
  EXPECT_THAT(fewer.out, HasSubstr(" of 6), loss "));
  const auto line = [](const std::string& table, const std::string& name) {
    const std::size_t at = table.find('\n' + name) + 1;
    return table.substr(at, table.find('%', at) - at);  // images and recall
  };
  for (const char* name : {"dark", "light"}) EXPECT_EQ(line(fewer.out, name), line(tested, name));
}

TEST_F(MobileNetImagesTest, too_few_steps_for_the_norms_are_told) {
  make_small_dataset(images_);
  const std::string warning =
      "hardly better than guessing in the test, after 48 steps: the running statistics";
  // Its norms follow by a hundredth each step: they are still what they began with.
  const Outcome young = train_well(images_, {"--model", "v3-small", "--epochs", "16"});
  EXPECT_THAT(young.error, HasSubstr(warning));
  EXPECT_THAT(train_well(images_, {"--model", "v3-small"}).error, Not(HasSubstr("warning")))
      << "nothing was learned";
}

TEST_F(MobileNetImagesTest, a_folder_that_may_only_be_read_stays_as_it_is) {
  make_small_dataset(images_);
  std::vector<fs::path> folders = {images_};
  for (const auto& entry : fs::recursive_directory_iterator(images_))
    if (entry.is_directory()) folders.push_back(entry.path());
  for (const fs::path& folder : folders)
    fs::permissions(folder, fs::perms::owner_read | fs::perms::owner_exec);
  const Outcome outcome = train(images_, {}, {.as_user = true});
  for (const fs::path& folder : folders) fs::permissions(folder, fs::perms::owner_all);
  if (outcome.status == 126) GTEST_SKIP() << "root, who may not give up the right to write everywhere";
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("images are decoded each time they are used: cannot create "));
  EXPECT_EQ(count_entries(images_), 2u);
  // Where there can be a cache, there is one, and it changes no bit.
  const auto without = get_file(net_);
  train_well(images_);
  EXPECT_EQ(count_entries(images_), 4u);
  EXPECT_EQ(get_file(net_), without);
}

TEST_F(MobileNetImagesTest, predict_names_each_image_it_cannot_use_and_goes_on) {
  make_small_dataset(images_);
  train_well(images_, {"--image-size", "72"});
  auto jpeg = encode_jpeg(pattern(40, 40));
  jpeg.resize(jpeg.size() / 2);
  put_file(temp_ / "cut.jpg", jpeg);
  put_file(temp_ / "empty.png", {});
  const std::string text = "no image";
  put_file(temp_ / "text.jpg", {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  put_file(temp_ / "strip.png", encode_png(data::Image(1, 60000, 3, 7)));  // 80 x 4,800,000 when enlarged
  ASSERT_EQ(::mkfifo((temp_ / "pipe.png").c_str(), 0600), 0);
  const std::string good = images_ / "test/dark/image0.png";
  const std::vector<std::string> bad = {temp_ / "cut.jpg",   temp_ / "empty.png", temp_ / "text.jpg",
                                        temp_ / "strip.png", temp_ / "pipe.png",  temp_ / "gone.png",
                                        images_.string()};
  std::vector<std::string> all = {"predict", "--checkpoint", net_};
  for (const std::string& path : bad) all.insert(all.end(), {path, good});
  const Outcome outcome = mobilenet(all);
  EXPECT_EQ(outcome.status, 1) << outcome;
  std::size_t lines = 0, at = 0;
  for (; (at = outcome.out.find(good + ": ", at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines, bad.size()) << outcome;
  for (const std::string& path : bad) {
    EXPECT_THAT(outcome.error, HasSubstr(path));
    EXPECT_THAT(outcome.out, Not(HasSubstr(path + ": ")));
  }
  EXPECT_EQ(static_cast<std::size_t>(std::count(outcome.error.begin(), outcome.error.end(), '\n')),
            bad.size());
  EXPECT_THAT(mobilenet({"predict", "--help"}).out, HasSubstr("exit status is then 1"));
}

TEST_F(MobileNetImagesTest, no_result_that_nobody_got_is_a_success) {
  make_small_dataset(images_);
  train_well(images_);
  const auto full = [] {
    const int device = ::open("/dev/full", O_WRONLY);
    if (device < 0 || ::dup2(device, STDOUT_FILENO) < 0) ::_exit(125);
  };
  const Outcome outcome =
      mobilenet({"predict", "--checkpoint", net_, images_ / "test/dark/image0.png"}, {.first = full});
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("error: standard output cannot be written"));
}

TEST_F(MobileNetImagesTest, sets_of_one_class_or_one_image) {
  for (const char* part : {"train", "test"})
    put_file(images_ / part / "only/one.png", encode_png(pattern(8, 8)));
  const Outcome outcome = train(images_);
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("batch_norm: expected more than 1 value per channel"));
  put_file(images_ / "train/only/two.png", encode_png(pattern(8, 8, 1)));
  train_well(images_);
  EXPECT_THAT(eval().out, HasSubstr("accuracy 100.00 % (1 of 1), loss 0.0000"));
}

}  // namespace
}  // namespace lamella::test
