#include <gmock/gmock.h>

#include "lamella/core/device.h"
#include "lamella/io/safetensors.h"
#include "program.h"
#include "tests/support/temp_folder.h"

// Options from a file: --config, and what train leaves beside its checkpoint.
namespace lamella::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class MobileNetOptionsTest : public ::testing::Test {
 protected:
  void SetUp() override { make_small_dataset(images_); }

  std::string write(const std::string& text, const std::string& name = "options.toml") {
    put_file(temp_ / name, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    return temp_ / name;
  }
  std::string recipe_of(const std::string& net) {
    return io::load_safetensors_file(temp_ / net).metadata.at("recipe");
  }
  /// The start of a file that trains a tiny network.
  std::string tiny(const std::string& net) {
    std::string images;
    for (const char c : images_.string()) images += (c == '"' || c == '\\' ? "\\" : "") + std::string(1, c);
    return "data = \"" + images + "\"\ncheckpoint = '" + (temp_ / net).string() +
           "'\nwidth = 0.1\nbatch = 8\nepochs = 1\n";
  }
  void expect_error(const std::string& text, const std::string& message, int status = 2,
                    const std::string& command = "train") {
    const Outcome outcome = mobilenet({command, "--config", write(text)});
    EXPECT_EQ(outcome.status, status) << outcome;
    EXPECT_THAT(outcome.error, HasSubstr(message));
  }

  TempFolder temp_;
  // What a reader of such files may stumble over.
  const std::filesystem::path images_ = temp_ / "my, \"best\" #1 = [images] \\\\ x";
};

TEST_F(MobileNetOptionsTest, saved_options_give_the_same_run) {
  const std::string net = temp_ / "net";
  const std::string recipe = write(R"({"lr": 0.012345678901234567, "model": "v3-small"})", "recipe.json");
  ASSERT_EQ(mobilenet({"train",
                       "--data",
                       images_,
                       "--checkpoint",
                       net,
                       "--recipe",
                       recipe,
                       "--width",
                       "0.1",
                       "--batch",
                       "8",
                       "--epochs",
                       "2",
                       "--flip",
                       "0",
                       "--ema",
                       "0.9",
                       "--freeze",
                       "features.[0-2].*",
                       "--freeze",
                       "features.3.*",
                       "--csv",
                       temp_ / "curve.csv"})
                .status,
            0);
  const auto first = get_file(net);
  const auto options = get_file(net + ".toml");
  const std::string text(options.begin(), options.end());
  EXPECT_THAT(text, HasSubstr(" on " + default_device().to_string() + "; to do the same again"));
  EXPECT_THAT(text, HasSubstr("\n[train]\n"));
  EXPECT_THAT(text, Not(HasSubstr("\ndevice = ")));  // as it was not given: the file serves anywhere
  EXPECT_THAT(text, HasSubstr("\nlr = 0.012345678901234567\n"));
  EXPECT_THAT(text, HasSubstr("\nfreeze = [\"features.[0-2].*\", \"features.3.*\"]\n"));
  EXPECT_THAT(text, HasSubstr("\nlabel-smoothing = 0.0\n"));  // defaults, too: they may change
  EXPECT_THAT(text, Not(HasSubstr("recipe")));

  std::filesystem::rename(net, temp_ / "kept");
  std::filesystem::remove(temp_ / "curve.csv");
  const Outcome again = mobilenet({"train", "--config", net + ".toml"});
  ASSERT_EQ(again.status, 0) << again;
  EXPECT_EQ(get_file(net), first);
  EXPECT_EQ(get_file(net + ".toml"), options);
  EXPECT_TRUE(std::filesystem::exists(temp_ / "curve.csv"));

  // A device that was given is an option as any other.
  ASSERT_EQ(mobilenet({"train", "--config", net + ".toml", "--device", "cpu", "--checkpoint", temp_ / "cpu"})
                .status,
            0);
  const auto on_cpu = get_file(temp_ / "cpu.toml");
  EXPECT_THAT(std::string(on_cpu.begin(), on_cpu.end()),
              AllOf(HasSubstr(" on cpu; "), HasSubstr("\ndevice = \"cpu\"\n")));

  // What is given counts more than the file, lists as a whole; --config may stand anywhere.
  const Outcome other = mobilenet({"--config", net + ".toml", "train", "--epochs", "1", "--freeze",
                                   "features.0.*", "--checkpoint", temp_ / "other"});
  ASSERT_EQ(other.status, 0) << other;
  EXPECT_THAT(recipe_of("other"), HasSubstr("\"epochs\":1,\"flip\":false,\"freeze\":[\"features.0.*\"]"));

  // With --resume the recipe is the checkpoint's, and the file is good for the rest.
  const Outcome resumed = mobilenet({"train", "--config", net + ".toml", "--resume"});
  ASSERT_EQ(resumed.status, 0) << resumed;
  EXPECT_EQ(get_file(net), first);
  EXPECT_EQ(resumed.out, "nothing is left to train: all 2 epochs of " + net + " are done\n");
}

TEST_F(MobileNetOptionsTest, one_file_serves_all_commands) {
  const std::string net = temp_ / "net";
  const std::string file =
      write("# a comment with a \" in it\n; and an old one\nthreads = 1\ndevice = cpu  # here\n[train]\n" +
            tiny("net") + "flip = false\n[eval]\ncheckpoint = " + net +
            "\nconfusion = true\n[predict]\ncheckpoint = " + net + "\ntop = 1\nimages = [\"" +
            (temp_ / "a.png").string() + "\", \"" + (temp_ / "b.png").string() + "\"]\n");
  const Outcome trained = mobilenet({"train", "--config", file});
  ASSERT_EQ(trained.status, 0) << trained;
  EXPECT_THAT(recipe_of("net"), HasSubstr("\"flip\":false"));
  const Outcome tested = mobilenet({"eval", "--config", file});
  ASSERT_EQ(tested.status, 0) << tested;
  EXPECT_THAT(tested.out, HasSubstr("actual"));
  for (const char* name : {"a.png", "b.png"})
    for (const auto& entry : std::filesystem::recursive_directory_iterator(images_ / "test"))
      if (entry.is_regular_file() && entry.path().extension() == ".png")
        std::filesystem::copy_file(entry.path(), temp_ / name,
                                   std::filesystem::copy_options::overwrite_existing);
  const Outcome predicted = mobilenet({"predict", "--config", file});
  ASSERT_EQ(predicted.status, 0) << predicted;
  EXPECT_THAT(predicted.out, HasSubstr("a.png: "));
  EXPECT_THAT(predicted.out, HasSubstr("b.png: "));
  EXPECT_THAT(predicted.out, Not(HasSubstr(",")));
  const Outcome chosen = mobilenet({"predict", temp_ / "b.png", "--config", file});
  EXPECT_THAT(chosen.out, Not(HasSubstr("a.png: ")));
}

TEST_F(MobileNetOptionsTest, settings_override_the_recipe_beside_them) {
  const std::string recipe = write(R"({"lr": 0.5, "momentum": 0.5, "seed": 5})", "recipe.json");
  const std::string file = write(tiny("net") + "lr = 0.25\nrecipe = \"" + recipe + "\"\n");
  ASSERT_EQ(mobilenet({"train", "--config", file, "--seed", "7"}).status, 0);
  EXPECT_THAT(recipe_of("net"), HasSubstr("\"lr\":0.25"));
  EXPECT_THAT(recipe_of("net"), HasSubstr("\"momentum\":0.5"));
  EXPECT_THAT(recipe_of("net"), HasSubstr("\"seed\":7"));
}

TEST_F(MobileNetOptionsTest, errors) {
  expect_error("learning-rate = 1\n", "train.learning-rate");
  expect_error("[trian]\nlr = 1\n", "[trian]");
  expect_error("trian.lr = 1\n", "[trian]");
  expect_error("[train.more]\nlr = 1\n", "more");
  expect_error("lr = much\n", "lr");
  expect_error("epochs = 2\n", "--data is required");
  expect_error("epochs = 2\n", "eval.epochs", 2, "eval");
  expect_error(tiny("net") + "dropout = -1\n", "dropout", 1);
  const Outcome missing = mobilenet({"train", "--config", temp_ / "none.toml"});
  EXPECT_EQ(missing.status, 2) << missing;
  EXPECT_THAT(missing.error, HasSubstr("none.toml"));
  EXPECT_FALSE(std::filesystem::exists(temp_ / "net.toml"));
  EXPECT_THAT(mobilenet({"train", "--help"}).out, HasSubstr("--config FILE"));
}

TEST_F(MobileNetOptionsTest, a_place_for_the_options_is_needed) {
  std::filesystem::create_directories(temp_ / "net.toml");
  const Outcome outcome =
      mobilenet({"train", "--data", images_, "--checkpoint", temp_ / "net", "--width", "0.1"});
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("net.toml: cannot be written"));
}

}  // namespace
}  // namespace lamella::test
