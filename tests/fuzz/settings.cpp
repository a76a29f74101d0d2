#include <lamella/lamella.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "examples/mobilenet/options_file.h"
#include "examples/mobilenet/recipe.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace lamella::fuzz {
namespace {

/// Some options of the program, of every kind that it has.
struct Options {
  std::string data;
  std::string initial;
  std::vector<std::string> images;
  int keep = 1;
  bool resume = false;
  Recipe recipe;
};

/// `train` with the options of a file: what they are, and the text that train would leave.
std::string parse(const std::filesystem::path& file, Options& options) {
  CLI::App app;
  app.require_subcommand(1);
  app.option_defaults()->take_last();
  add_options_file(app);
  CLI::App& train = *app.add_subcommand("train");
  train.add_option("--data", options.data);
  CLI::Option* resume = train.add_flag("--resume", options.resume);
  train.add_option("--init", options.initial)->excludes(resume);
  train.add_option("--keep", options.keep);
  // --recipe reads what file the fuzzer names, so it is left out.
  add_recipe_options(train, options.recipe);
  train.remove_option(train.get_option("--recipe"));
  CLI::App& predict = *app.add_subcommand("predict");
  predict.add_option("images", options.images)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.parse(std::vector<std::string>{file, "--config", "train"});  // from the last to the first
  return options_text(train, options.recipe, lamella::Device::cpu());
}

}  // namespace

bool recipe(Bytes bytes) {
  const MemoryFile file(bytes);
  Recipe read;
  try {
    read_recipe(file.path(), read);
    check(read);
  } catch (const Error&) {
    return false;
  }
  // What a checkpoint keeps of it is the same recipe.
  const nlohmann::json kept = read;
  nlohmann::json again = kept.get<Recipe>();
  LAMELLA_FUZZ_EXPECT(again == kept);
  return true;
}

bool options_file(Bytes bytes) {
  Options first;
  std::string text;
  try {
    text = parse(MemoryFile(bytes).path(), first);
  } catch (const CLI::Error&) {
    return false;
  } catch (const Error&) {
    return false;
  }
  // What train leaves beside its checkpoint does the same again.
  Options second;
  const std::span<const char> chars(text);
  const std::string same =
      parse(MemoryFile({reinterpret_cast<const std::uint8_t*>(chars.data()), chars.size()}).path(), second);
  LAMELLA_FUZZ_EXPECT(same == text);
  LAMELLA_FUZZ_EXPECT(second.data == first.data && second.keep == first.keep &&
                      second.resume == first.resume);
  return true;
}

}  // namespace lamella::fuzz
