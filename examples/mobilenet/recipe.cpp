#include "recipe.h"

#include <lamella/lamella.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

namespace lm = lamella;

namespace {

/// Calls visit(name, member) for each setting: the one list of names.
template <class R, class Visit>
void for_each_setting(R& recipe, Visit&& visit) {
  visit("model", recipe.model);
  visit("width", recipe.width);
  visit("stem", recipe.stem);
  visit("dropout", recipe.dropout);
  visit("drop_path", recipe.drop_path);
  visit("image_size", recipe.image_size);
  visit("crop_padding", recipe.crop_padding);
  visit("flip", recipe.flip);
  visit("mixup", recipe.mixup);
  visit("epochs", recipe.epochs);
  visit("batch", recipe.batch);
  visit("optimizer", recipe.optimizer);
  visit("lr", recipe.lr);
  visit("momentum", recipe.momentum);
  visit("weight_decay", recipe.weight_decay);
  visit("schedule", recipe.schedule);
  visit("warmup_epochs", recipe.warmup_epochs);
  visit("label_smoothing", recipe.label_smoothing);
  visit("clip_grad_norm", recipe.clip_grad_norm);
  visit("ema", recipe.ema);
  visit("seed", recipe.seed);
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
  for_each_setting(recipe, [&](const char* name, const auto& value) { json[name] = value; });
}

void from_json(const nlohmann::json& json, Recipe& recipe) {
  if (!json.is_object()) throw lm::Error("a recipe must be a JSON object");
  std::size_t known = 0;
  for_each_setting(recipe, [&](const char* name, auto& value) {
    const auto found = json.find(name);
    if (found == json.end()) return;
    ++known;
    using Value = std::decay_t<decltype(value)>;
    bool fits = false;
    if constexpr (std::is_same_v<Value, std::string>)
      fits = found->is_string();
    else if constexpr (std::is_same_v<Value, bool>)
      fits = found->is_boolean();
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
  in_range("mixup", recipe.mixup, 0, 100);
  in_range("epochs", recipe.epochs, 1, 1e6);
  in_range("batch", recipe.batch, 1, 1e6);
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
}

void read_recipe(const std::filesystem::path& path, Recipe& recipe) {
  std::ifstream file(path);
  if (!file) throw lm::IoError(path.string() + ": cannot be opened");
  try {
    from_json(nlohmann::json::parse(file), recipe);
  } catch (const std::exception& error) {
    throw lm::IoError(path.string() + ": " + error.what());
  }
}
