#include "recipe.h"

#include <lamella/lamella.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

namespace lm = lamella;

namespace {

/// Calls visit(name, member, help) for each setting: the one list of names.
template <class R, class Visit>
void for_each_setting(R& recipe, Visit&& visit) {
  visit("model", recipe.model, "v1, v2, v3-small or v3-large");
  visit("width", recipe.width, "multiplies all channel counts");
  visit("stem", recipe.stem, "small (for images of 32 pixels or so), imagenet or auto");
  visit("dropout", recipe.dropout, "before the classifier");
  visit("drop_path", recipe.drop_path, "stochastic depth of the last block");
  visit("image_size", recipe.image_size, "pixels; 0: as they are up to 64, else 224");
  visit("crop_padding", recipe.crop_padding, "random crops of images padded by so much");
  visit("flip", recipe.flip, "mirror images at random");
  visit("cutout", recipe.cutout, "covers a random square of so many pixels with the mean colour; 0: none");
  visit("mixup", recipe.mixup, "alpha of mixup; 0: none");
  visit("epochs", recipe.epochs, "times that each image is used");
  visit("batch", recipe.batch, "images that go through the network at once");
  visit("accumulate", recipe.accumulate,
        "batches whose mean gradient makes one step, as of a batch so many times larger");
  visit("optimizer", recipe.optimizer, "sgd, adam, adamw or rmsprop");
  visit("lr", recipe.lr, "learning rate");
  visit("momentum", recipe.momentum, "of sgd and rmsprop");
  visit("weight_decay", recipe.weight_decay, "not for norms and biases");
  visit("schedule", recipe.schedule, "of the learning rate: cosine, one-cycle or constant");
  visit("warmup_epochs", recipe.warmup_epochs, "the learning rate rises linearly at first");
  visit("label_smoothing", recipe.label_smoothing, "share spread over all classes");
  visit("clip_grad_norm", recipe.clip_grad_norm, "largest norm of all gradients; 0: any");
  visit("ema", recipe.ema, "decay of averaged weights, which are then tested; 0: none");
  visit("precision", recipe.precision, "of training: float32, tf32 (GPU only), bfloat16 or float16");
  visit("memory_format", recipe.memory_format, "of images and weights: channels_last or contiguous");
  visit("freeze", recipe.freeze,
        "parameters that stay as they start, and the statistics of their batch norms: a shell pattern on "
        "names, as 'features.*'; may be given several times");
  visit("seed", recipe.seed, "of everything random");
}

template <class T>
std::string shown(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

void one_of(const char* name, const std::string& value, const std::vector<std::string>& choices) {
  std::string list;
  for (const std::string& choice : choices) {
    if (value == choice) return;
    list += (list.empty() ? "" : ", ") + choice;
  }
  throw lm::Error(std::string(name) + " is '" + value + "', must be one of " + list);
}

template <class T>
void in_range(const char* name, T value, double low, double high) {
  const auto number = static_cast<double>(value);
  if (number >= low && number <= high) return;  // false for NaN
  throw lm::Error(std::string(name) + " is " + shown(value) + ", must be between " + shown(low) + " and " +
                  shown(high));
}

}  // namespace

void to_json(nlohmann::json& json, const Recipe& recipe) {
  json = nlohmann::json::object();
  for_each_setting(recipe, [&](const char* name, const auto& value, const char*) { json[name] = value; });
}

void from_json(const nlohmann::json& json, Recipe& recipe) {
  if (!json.is_object()) throw lm::Error("a recipe must be a JSON object");
  std::size_t known = 0;
  for_each_setting(recipe, [&](const char* name, auto& value, const char*) {
    const auto found = json.find(name);
    if (found == json.end()) return;
    ++known;
    using Value = std::decay_t<decltype(value)>;
    bool fits = false;
    if constexpr (std::is_same_v<Value, std::string>)
      fits = found->is_string();
    else if constexpr (std::is_same_v<Value, bool>)
      fits = found->is_boolean();
    else if constexpr (std::is_same_v<Value, std::vector<std::string>>)
      fits = found->is_array() &&
             std::all_of(found->begin(), found->end(), [](const auto& entry) { return entry.is_string(); });
    else if constexpr (std::is_same_v<Value, double>)
      fits = found->is_number();
    else if constexpr (std::is_same_v<Value, std::uint64_t>)
      fits = found->is_number_unsigned();
    else
      fits = found->is_number_integer() && std::abs(found->template get<double>()) < 1e9;
    if (!fits) throw lm::Error("recipe: " + std::string(name) + " cannot be " + found->dump());
    value = found->template get<Value>();
  });
  if (known == json.size()) return;
  nlohmann::json names;
  to_json(names, Recipe());
  for (const auto& [name, value] : json.items())
    if (!names.contains(name)) throw lm::Error("recipe: there is no setting '" + name + "'");
}

void check(const Recipe& recipe) {
  one_of("model", recipe.model, {"v1", "v2", "v3-small", "v3-large"});
  in_range("width", recipe.width, 0.01, 16);
  one_of("stem", recipe.stem, {"auto", "small", "imagenet"});
  in_range("dropout", recipe.dropout, 0, 1);
  in_range("drop_path", recipe.drop_path, 0, 1);
  if (recipe.model == "v1" && recipe.drop_path > 0)
    throw lm::Error("drop_path: v1 has no residual blocks to drop");
  if (recipe.image_size != 0) in_range("image_size", recipe.image_size, 1, 4096);
  in_range("crop_padding", recipe.crop_padding, 0, 1024);
  in_range("cutout", recipe.cutout, 0, 4096);
  in_range("mixup", recipe.mixup, 0, 100);
  in_range("epochs", recipe.epochs, 1, 1e6);
  in_range("batch", recipe.batch, 1, 1e6);
  in_range("accumulate", recipe.accumulate, 1, 1e6);
  one_of("optimizer", recipe.optimizer, {"sgd", "adam", "adamw", "rmsprop"});
  in_range("lr", recipe.lr, 0, 1e6);
  in_range("momentum", recipe.momentum, 0, 1);
  in_range("weight_decay", recipe.weight_decay, 0, 1e6);
  one_of("schedule", recipe.schedule, {"cosine", "one-cycle", "constant"});
  in_range("warmup_epochs", recipe.warmup_epochs, 0, recipe.epochs);
  if (recipe.schedule == "one-cycle" && recipe.warmup_epochs > 0)
    throw lm::Error("warmup_epochs: the one-cycle schedule warms up by itself");
  in_range("label_smoothing", recipe.label_smoothing, 0, 1);
  in_range("clip_grad_norm", recipe.clip_grad_norm, 0, 1e9);
  in_range("ema", recipe.ema, 0, 1);
  one_of("precision", recipe.precision, {"float32", "tf32", "bfloat16", "float16"});
  one_of("memory_format", recipe.memory_format, {"channels_last", "contiguous"});
}

void add_recipe_options(CLI::App& app, Recipe& recipe) {
  // Read as soon as it is seen, so that options override it wherever they stand.
  app.add_option_function<std::string>(
         "--recipe", [&recipe](const std::string& path) { read_recipe(path, recipe); },
         "JSON file with the settings below, under these names with _ for -")
      ->trigger_on_parse()
      ->group(kRecipeOptions);
  for_each_setting(recipe, [&](std::string name, auto& value, const char* help) {
    std::replace(name.begin(), name.end(), '_', '-');
    CLI::Option* option = app.add_option("--" + name, value, help)->group(kRecipeOptions);
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::vector<std::string>>)
      option->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    else
      option->capture_default_str();
  });
}

void read_recipe(const std::filesystem::path& path, Recipe& recipe) {
  std::ifstream file(path);
  if (!file) throw lm::IoError(path.string() + ": cannot be opened");
  try {
    from_json(nlohmann::json::parse(file), recipe);
  } catch (const nlohmann::json::parse_error& error) {
    const bool options = path.extension() == ".toml" || path.extension() == ".ini";
    throw lm::IoError(path.string() + ": " +
                      (options ? "is no JSON; a file of options goes with --config" : error.what()));
  } catch (const std::exception& error) {
    throw lm::IoError(path.string() + ": " + error.what());
  }
}
