#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>

#include "lamella/core/device.h"
#include "lamella/core/version.h"
#include "program.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// The program must say `message` in one line on standard error, and end with `status`.
void expect_error(const std::vector<std::string>& arguments, const std::string& message, int status = 1,
                  const RunConditions& conditions = {}) {
  const Outcome outcome = mobilenet(arguments, conditions);
  EXPECT_EQ(outcome.status, status) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr(message));
  if (status == 1) {
    const std::size_t line = outcome.error.rfind("error: ");
    ASSERT_NE(line, std::string::npos) << outcome;
    EXPECT_EQ(outcome.error.find('\n', line), outcome.error.size() - 1) << outcome;
  }
}

void put_text(const std::filesystem::path& path, const std::string& text) {
  put_file(path, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

std::vector<std::string> train(const std::filesystem::path& data, const std::filesystem::path& checkpoint,
                               std::vector<std::string> more = {}) {
  std::vector<std::string> all = {"train", "--data",   data, "--checkpoint", checkpoint, "--width",
                                  "0.1",   "--epochs", "1",  "--batch",      "8",        "--device",
                                  "cpu"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

TEST(MobileNetErrorsTest, command_line) {
  expect_error({}, "A subcommand is required", 2);
  expect_error({"fly"}, "there is no command fly; there are demo, train, eval, predict, summary, info\n", 2);
  expect_error({"fly", "--data", "digits"}, "there is no command fly; ", 2);
  expect_error({"--data", "digits"}, "A subcommand is required", 2);
  expect_error({"train"}, "--data is required", 2);
  expect_error({"eval"}, "--checkpoint is required", 2);
  expect_error({"predict", "--checkpoint", "x"}, "images", 2);
  expect_error({"train", "--data", "digits", "--epochs", "many"}, "--epochs", 2);
  for (const char* top : {"0", "-1", "1000001"})
    expect_error({"predict", "--checkpoint", "x", "--top", top, "y"},
                 "--top: Value " + std::string(top) + " not in range 1 to 1000000", 2);
  expect_error({"train", "--data", ""}, "--data is empty");
  expect_error({"train", "--resume", "--lr", "1"}, "--lr excludes --resume", 2);
  EXPECT_EQ(mobilenet({"--help"}).status, 0);
  const Outcome version = mobilenet({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_EQ(version.out, "lamella-mobilenet " LAMELLA_VERSION "\n");
  EXPECT_THAT(mobilenet({"train", "--help"}).out, HasSubstr("--weight-decay"));
}

TEST(MobileNetErrorsTest, settings_out_of_range) {
  const TempFolder temp;
  const auto expect = [&](const std::string& option, const std::string& value, const std::string& message) {
    expect_error({"train", "--data", "digits", "--checkpoint", temp / "net", option, value}, message);
  };
  expect("--width", "0", "width is 0, must be between 0.01 and 16");
  expect("--width", "-1", "width is -1");
  expect("--width", "nan", "width is nan");
  expect("--epochs", "0", "epochs is 0");
  expect("--batch", "-3", "batch is -3");
  expect("--model", "v9", "model is 'v9', must be one of v1, v2, v3-small, v3-large");
  expect("--optimizer", "none", "optimizer is 'none'");
  expect("--schedule", "never", "schedule is 'never'");
  expect("--stem", "wide", "stem is 'wide'");
  expect("--lr", "-0.1", "lr is -0.1");
  expect("--dropout", "1.5", "dropout is 1.5");
  expect("--image-size", "-8", "image_size is -8");
  expect("--precision", "half", "precision is 'half', must be one of float32, tf32, bfloat16, float16");
  expect("--memory-format", "NHWC", "memory_format is 'NHWC', must be one of channels_last, contiguous");
  expect("--workers", "-1", "workers");
  expect("--threads", "-1", "threads is -1, must be 1 or more");
  expect("--threads", "0", "threads is 0, must be 1 or more");
  expect("--device", "tpu", "tpu");
  EXPECT_EQ(count_entries(temp.path()), 0u);
}

TEST(MobileNetErrorsTest, recipe_files) {
  const TempFolder temp;
  const auto recipe = temp / "recipe.json";
  const auto expect = [&](const std::string& text, const std::string& message) {
    put_text(recipe, text);
    expect_error({"train", "--data", "digits", "--checkpoint", temp / "net", "--recipe", recipe}, message);
  };
  expect("", "recipe.json: ");
  expect("[1]", "a recipe must be a JSON object");
  expect(R"({"epochs": 2, "learning_rate": 1})", "there is no setting 'learning_rate'");
  expect(R"({"epochs": 2.5})", "epochs cannot be 2.5");
  expect(R"({"epochs": 1e300})", "epochs cannot be");
  expect(R"({"seed": -1})", "seed cannot be -1");
  expect(R"({"model": 2})", "model cannot be 2");
  expect_error({"train", "--data", "digits", "--recipe", temp / "none.json"}, "none.json: cannot be opened");
  put_text(temp / "net.toml", "[train]\nlr = 1\n");
  expect_error({"train", "--data", "digits", "--recipe", temp / "net.toml"},
               "net.toml: is no JSON; a file of options goes with --config");
  put_text(recipe, " {}");
  expect_error({"train", "--data", "digits", "--config", recipe},
               "recipe.json: is JSON; the file of a recipe goes with --recipe", 2);
}

TEST(MobileNetErrorsTest, images) {
  const TempFolder temp;
  const auto net = temp / "net";
  expect_error(train(temp / "nowhere", net), "nowhere: there is no such folder");
  std::filesystem::create_directories(temp / "empty");
  expect_error(train(temp / "empty", net), "empty: holds neither");
  std::filesystem::create_directories(temp / "hollow" / "train" / "cat");
  expect_error(train(temp / "hollow", net), "hollow: holds no folder test/");
  std::filesystem::create_directories(temp / "hollow/test");
  expect_error(train(temp / "hollow", net), "hollow/train");

  make_small_dataset(temp / "bad");
  auto jpeg = encode_jpeg(pattern(8, 8));
  jpeg.resize(jpeg.size() / 2);
  put_file(temp / "bad" / "train" / "dark" / "cut.jpg", jpeg);
  expect_error(train(temp / "bad", net), "cut.jpg");
  put_file(temp / "bad" / "train" / "dark" / "cut.jpg", {});
  expect_error(train(temp / "bad", net), "cut.jpg");

  make_small_dataset(temp / "other");
  std::filesystem::rename(temp / "other" / "test" / "dark", temp / "other" / "test" / "grey");
  expect_error(train(temp / "other", net),
               "train/ and test/ hold different classes: test/ lacks dark; train/ lacks grey");
  std::filesystem::rename(temp / "other/test/grey", temp / "grey");
  expect_error(train(temp / "other", net), "hold different classes: test/ lacks dark\n");
  put_text(temp / "cifar" / "data_batch_1.bin", "not a record");
  expect_error(train(temp / "cifar", net), "data_batch_1.bin");
  put_text(temp / "mnist" / "train-images-idx3-ubyte", "idx?");
  expect_error(train(temp / "mnist", net), "train-images-idx3-ubyte");
  EXPECT_FALSE(std::filesystem::exists(net));
}

TEST(MobileNetErrorsTest, nan_loss_keeps_the_last_good_checkpoint) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto net = temp / "net";
  ASSERT_EQ(mobilenet(train(temp / "images", net)).status, 0);
  const auto old = get_file(net);
  const Outcome outcome =
      mobilenet(train(temp / "images", net,
                      {"--lr", "1e6", "--schedule", "constant", "--epochs", "200", "--momentum", "0.99"}));
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("error: train: "));
  EXPECT_THAT(outcome.error, HasSubstr(" step "));
  EXPECT_THAT(outcome.error, HasSubstr("finite"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("epoch 200/200")));
  // The old one, or that of the last epoch that ended well.
  if (outcome.out.empty()) {
    EXPECT_EQ(get_file(net), old);
  }
  const Outcome tested = mobilenet({"eval", "--checkpoint", net});
  EXPECT_EQ(tested.status, 0) << tested;
  EXPECT_THAT(tested.out, Not(HasSubstr("nan")));
}

TEST(MobileNetErrorsTest, a_place_for_the_checkpoint_is_looked_for_first) {
  const TempFolder temp;
  for (const auto& [place, message] :
       {std::pair(temp / "none/net", "there is no folder"), std::pair(temp / "", "name a file")}) {
    const Outcome outcome = mobilenet({"train", "--data", "digits", "--checkpoint", place});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.error, HasSubstr(message));
    EXPECT_THAT(outcome.out, Not(HasSubstr("epoch")));
  }
}

TEST(MobileNetErrorsTest, a_place_for_the_curve_is_looked_for_first) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  expect_error(train(temp / "images", temp / "net", {"--csv", temp / "none/curve.csv"}),
               "there is no folder");
  expect_error(train(temp / "images", temp / "net", {"--csv", temp / "images"}), "name a file");
  EXPECT_FALSE(std::filesystem::exists(temp / "net"));
}

TEST(MobileNetErrorsTest, outputs_need_files_of_their_own) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto net = temp / "net.safetensors";
  const auto expect = [&](const std::vector<std::string>& more, const std::string& message) {
    expect_error(train(temp / "images", net, more), message);
    EXPECT_EQ(count_entries(temp.path()), 1u) << message;
  };
  expect({"--csv", net}, "--csv and --checkpoint are one file");
  expect({"--report", temp / "images/../net.safetensors"}, "--report and --checkpoint are one file");
  expect({"--report", temp / "a", "--csv", temp / "a"}, "--report and --csv are one file");
  expect({"--csv", net.string() + ".toml"}, "--csv and the options beside --checkpoint are one file");
  expect({"--keep-best", "--csv", temp / "net.best.safetensors"},
         "--csv and that of --keep-best are one file");
  expect({"--keep", "3", "--report", temp / "net.2.safetensors"}, "--report and one of --keep are one file");
  // A file would take the place of a device.
  const auto pipe = temp / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_error(train(temp / "images", pipe), "pipe: it is not a regular file");
  expect_error(train(temp / "images", net, {"--report", pipe}), "pipe: it is not a regular file");
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

TEST(MobileNetErrorsTest, nothing_is_replaced_but_what_a_training_left) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto net = temp / "net", report = temp / "report.html";
  const auto expect = [&](const std::filesystem::path& path, const std::vector<std::string>& more,
                          const std::string& message) {
    const std::string length("\x0f\0\0\0\0\0\0\0", 8);  // of a safetensors header
    for (const std::string& text :
         {std::string("a note"), std::string("{}"), length + R"({"a":"lamella"})"}) {
      put_text(path, text);
      const auto before = get_file(path);
      const std::size_t files = count_entries(temp.path());
      expect_error(train(temp / "images", net, more), path.string() + " is there and " + message);
      EXPECT_EQ(get_file(path), before);
      EXPECT_EQ(count_entries(temp.path()), files);
    }
    std::filesystem::remove(path);
  };
  expect(net, {}, "no checkpoint of this program; name another file");
  expect(net.string() + ".toml", {}, "no options of a training");
  expect(temp / "net.best", {"--keep-best"}, "no checkpoint");
  expect(temp / "net.1", {"--keep", "2"}, "no checkpoint");
  expect(report, {"--report", report}, "no report of a training; name another file");
  expect(temp / "images/train/dark/image0.png", {"--report", temp / "images/train/dark/image0.png"},
         "no report");
  // What a training left is, and what is empty, as a file that was made to have a name.
  for (const auto& path : {net, report}) put_text(path, "");
  for (int i = 0; i < 2; ++i) {
    const Outcome outcome =
        mobilenet(train(temp / "images", net,
                        {"--report", report, "--keep", "3", "--keep-best", "--seed", std::to_string(i)}));
    EXPECT_EQ(outcome.status, 0) << outcome;
  }
}

TEST(MobileNetErrorsTest, only_a_gpu_captures) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  expect_error(train(temp / "images", temp / "net", {"--capture"}),
               "--capture records a GPU's launches, and this is cpu");
  EXPECT_FALSE(std::filesystem::exists(temp / "net"));
}

TEST(MobileNetErrorsTest, a_gpu_that_is_not_there) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const std::string gpu = cuda_device_count() == 0 ? "cuda" : "cuda:99";
  for (const std::string command : {"train", "eval", "predict", "demo"}) {
    std::vector<std::string> arguments = {command, "--device", gpu};
    if (command == "train") arguments = train(temp / "images", temp / "net", {"--device", gpu});
    if (command == "eval" || command == "predict")
      arguments.insert(arguments.end(), {"--checkpoint", temp / "net"});
    if (command == "predict") arguments.push_back(temp / "a.png");
    const Outcome outcome = mobilenet(arguments);
    EXPECT_EQ(outcome.status, 1) << outcome;
    EXPECT_THAT(outcome.error, ::testing::StartsWith("error: --device " + gpu + ": "));
    EXPECT_THAT(outcome.error, Not(HasSubstr("training on")));
  }
}

TEST(MobileNetErrorsTest, tf32_on_the_cpu_is_float32_and_says_so) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const Outcome outcome = mobilenet(train(temp / "images", temp / "net", {"--precision", "tf32"}));
  EXPECT_EQ(outcome.status, 0) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("threads), float32\nwarning: only GPUs have tf32"));
  const Outcome plain = mobilenet(train(temp / "images", temp / "net"));
  EXPECT_EQ(plain.out, outcome.out);
  EXPECT_THAT(plain.error, Not(HasSubstr("warning")));
}

TEST(MobileNetErrorsTest, full_disk_keeps_the_old_checkpoint) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto net = temp / "net";
  ASSERT_EQ(mobilenet(train(temp / "images", net)).status, 0);
  const auto old = get_file(net);
  const std::size_t files = count_entries(temp.path());
  expect_error(train(temp / "images", net, {"--seed", "7"}), net.string(), 1, {.largest_file = 50000});
  EXPECT_EQ(get_file(net), old);
  EXPECT_EQ(count_entries(temp.path()), files);
}

TEST(MobileNetErrorsTest, checkpoints) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto net = temp / "net", bad = temp / "bad";
  ASSERT_EQ(mobilenet(train(temp / "images", net)).status, 0);
  const auto good = get_file(net);

  expect_error({"eval", "--checkpoint", temp / "none"}, "none");
  put_file(bad, {good.data(), good.size() - 100});
  expect_error({"eval", "--checkpoint", bad}, "bad");
  expect_error({"predict", "--checkpoint", bad, temp / "images/test/dark/image0.png"}, "bad");
  expect_error({"train", "--resume", "--checkpoint", bad}, "bad");
  auto changed = good;
  const std::string name = "\\\"width\\\":0.1";
  const auto found = std::search(changed.begin(), changed.end(), name.begin(), name.end());
  ASSERT_NE(found, changed.end());
  *(found + static_cast<std::ptrdiff_t>(name.size()) - 1) = '9';  // another network than the tensors are of
  put_file(bad, changed);
  expect_error({"eval", "--checkpoint", bad}, "bad: ");

  put_file(temp / "photo.jpg", encode_jpeg(pattern(8, 8)));
  expect_error({"predict", "--checkpoint", temp / "photo.jpg", temp / "no.jpg"},
               "photo.jpg: it is no safetensors file");

  put_text(temp / "no.jpg", "no image");
  const Outcome outcome = mobilenet({"predict", "--checkpoint", net, temp / "no.jpg",
                                     temp / "images/test/dark/image0.png", temp / "gone.png"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.error, HasSubstr("no.jpg"));
  EXPECT_THAT(outcome.error, HasSubstr("gone.png"));
  EXPECT_THAT(outcome.out, HasSubstr("image0.png: "));
  make_small_dataset(temp / "more");
  put_file(temp / "more/train/zebra/image.png", encode_png(pattern(8, 8)));
  put_file(temp / "more/test/zebra/image.png", encode_png(pattern(8, 8)));
  expect_error({"eval", "--checkpoint", net, "--data", temp / "more"},
               "more has classes that the network was not trained on: zebra; it knows bars, dark, light");
  expect_error({"eval", "--checkpoint", net, "--data", "digits"}, "was not trained on: 0, 1");
  std::filesystem::rename(temp / "images", temp / "moved");
  for (const char* command : {"eval", "train"}) {
    std::vector<std::string> arguments = {command, "--checkpoint", net};
    if (*command == 't') arguments.emplace_back("--resume");
    expect_error(arguments, "images: there is no such folder; it is what " + net.string() +
                                " was trained on: name another with --data");
  }
}

}  // namespace
}  // namespace lamella::test
