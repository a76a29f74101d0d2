#include "options_file.h"

#include <lamella/lamella.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "replace_file.h"

namespace lm = lamella;

namespace {

/// How what options_text() makes begins.
constexpr char kBegin[] = "# lamella-mobilenet ";

/// Where a training writes: what --resume takes up again.
constexpr std::array<std::string_view, 6> kOutputs = {"csv",  "events",   "report", "checkpoint-every",
                                                      "keep", "keep-best"};

// CLI11's reader takes a # for a comment and a " for an end wherever they stand, and keeps backslashes.
// Inside of quotes these stand for them until it is through.
constexpr char kHash = '\1', kQuote = '\2', kBackslash = '\3';

/// What may stand before and behind a value in quotes.
bool is_beside_quote(char c) { return std::string_view(" \t\r\n=,[]#").find(c) != std::string_view::npos; }

/// The text with every #, \" and \\ inside of quotes replaced, and without comments.
std::string hidden(std::istream& input) {
  std::string text;
  char quote = 0;
  for (char c = 0; input.get(c);) {
    if (quote != 0 && c == '\n') throw CLI::ConfigError("a quote is not closed");
    if (quote != 0 && c == quote) {
      quote = 0;
      if (input.peek() != std::istream::traits_type::eof() &&
          !is_beside_quote(static_cast<char>(input.peek())))
        throw CLI::ConfigError("a quote ends within a value");
    } else if (quote == 0) {
      if (c == '"' || c == '\'') {
        if (!text.empty() && !is_beside_quote(text.back()))
          throw CLI::ConfigError("a quote begins within a value");
        quote = c;
      }
      if (c == '#') {
        // What follows is a comment: a quote in it opens nothing.
        std::string comment;
        std::getline(input, comment);
        c = '\n';
      }
    } else if (c == '#') {
      c = kHash;
    } else if (quote == '"' && c == '\\' && (input.peek() == '"' || input.peek() == '\\')) {
      c = input.get() == '"' ? kQuote : kBackslash;
    }
    text += c;
  }
  if (quote != 0) throw CLI::ConfigError("a quote is not closed");
  return text;
}

std::string quoted(const std::string& value) {
  if (value.find_first_of("\n\r\1\2\3") != std::string::npos)
    throw lm::Error("an option's value has a line break or control character: " + value);
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

/// Numbers, true and false as they are; other text in quotes.
std::string shown(const std::string& value) {
  double number = 0;
  const bool plain = value == "true" || value == "false" || CLI::detail::lexical_cast(value, number);
  return plain ? value : quoted(value);
}

std::string shown(const nlohmann::json& value) {
  if (value.is_string()) return quoted(value.get<std::string>());
  if (!value.is_array()) return value.dump();  // numbers with all the digits they need
  std::string list;
  for (const auto& entry : value) list += (list.empty() ? "" : ", ") + shown(entry);
  return '[' + list + ']';
}

/// What a file of options says.
std::vector<CLI::ConfigItem> read_items(std::istream& input) {
  std::istringstream text(hidden(input));
  std::vector<CLI::ConfigItem> items = CLI::ConfigTOML().from_config(text);
  for (CLI::ConfigItem& item : items)
    for (std::string& value : item.inputs) {
      std::replace(value.begin(), value.end(), kHash, '#');
      std::replace(value.begin(), value.end(), kQuote, '"');
      std::replace(value.begin(), value.end(), kBackslash, '\\');
    }
  return items;
}

/// Reads a file for the subcommand that is run.
class OptionsFile : public CLI::ConfigTOML {
 public:
  explicit OptionsFile(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items;
    const auto commands = app_.get_subcommands();
    if (commands.empty()) return items;  // --help, or an error that is told later
    if ((input >> std::ws).peek() == '{')
      throw CLI::FileError(app_.get_config_ptr()->as<std::string>() +
                           ": is JSON; the file of a recipe goes with --recipe");
    CLI::App& command = *commands.front();
    for (CLI::ConfigItem& item : read_items(input)) {
      if (item.parents.empty()) item.parents = {command.get_name()};
      if (!is_command(item.parents.front())) throw CLI::ConfigError::Extras('[' + item.parents.front() + ']');
      if (item.name == "++" || item.name == "--") continue;  // a section begins or ends
      if (item.parents.front() != command.get_name() || is_in_checkpoint(command, item.name)) continue;
      check_value(command, item);
      items.push_back(std::move(item));
    }
    // The file of a recipe is read when its turn comes: the settings beside it are to override it.
    std::stable_partition(items.begin(), items.end(), [](const auto& item) { return item.name == "recipe"; });
    return items;
  }

 private:
  bool is_command(const std::string& name) const {
    const auto commands =
        app_.get_subcommands([&](const CLI::App* command) { return command->get_name() == name; });
    return !commands.empty();
  }
  /// CLI11 reads the first value of an option that takes one, whether or not there is one.
  static void check_value(const CLI::App& command, const CLI::ConfigItem& item) {
    const CLI::Option* const option = command.get_option_no_throw("--" + item.name);
    if (option != nullptr && item.inputs.empty() && option->get_expected_max() <= 1)
      throw CLI::ConfigError(item.name + " has no value");
  }
  /// With --resume, the recipe and the weights are those of the checkpoint.
  static bool is_in_checkpoint(const CLI::App& command, const std::string& name) {
    const CLI::Option* resume = command.get_option_no_throw("--resume");
    const CLI::Option* option = command.get_option_no_throw("--" + name);
    if (resume == nullptr || resume->count() == 0 || option == nullptr) return false;
    return option->get_group() == kRecipeOptions ||
           option->get_excludes().count(const_cast<CLI::Option*>(resume)) > 0;
  }

  const CLI::App& app_;
};

}  // namespace

void add_options_file(CLI::App& app) {
  app.set_config("--config", "",
                 "a TOML file of the subcommand's options, as train leaves beside its checkpoint");
  app.config_formatter(std::make_shared<OptionsFile>(app));
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.footer(
      "--config FILE reads options from a TOML or INI file, under their long names; given ones count more.");
  app.fallthrough();  // inherited: --config may stand behind the subcommand
}

std::string options_text(const CLI::App& train, const Recipe& recipe, lm::Device device) {
  std::string text = std::string(kBegin) + LAMELLA_VERSION " on " + device.to_string() +
                     "; to do the same again: train --config THIS_FILE\n[train]\n";
  for (const CLI::Option* option : train.get_options()) {
    if (option->count() == 0 || !option->get_configurable() || option->get_group() == kRecipeOptions)
      continue;
    std::string list;
    for (const std::string& value : option->reduced_results())
      list += (list.empty() ? "" : ", ") + shown(value);
    text += option->get_single_name() + " = " +
            (option->reduced_results().size() > 1 ? '[' + list + ']' : list) + '\n';
  }
  const nlohmann::json settings = recipe;
  for (const auto& [name, value] : settings.items()) {
    if (value.is_array() && value.empty()) continue;
    std::string option = name;
    std::replace(option.begin(), option.end(), '_', '-');
    text += option + " = " + shown(value) + '\n';
  }
  return text;
}

std::string take_up_outputs(CLI::App& train, const std::filesystem::path& checkpoint) {
  const std::filesystem::path path = options_path(checkpoint);
  std::ifstream file(path);
  std::string taken;
  if (!file) return taken;
  try {
    for (const CLI::ConfigItem& item : read_items(file)) {
      const bool mine = item.parents == std::vector<std::string>{train.get_name()};
      if (!mine || std::find(kOutputs.begin(), kOutputs.end(), item.name) == kOutputs.end()) continue;
      CLI::Option* option = train.get_option("--" + item.name);
      if (option->count() > 0) continue;
      option->add_result(item.inputs);
      option->run_callback();
      taken += " --" + item.name;
      for (const std::string& value : item.inputs)
        if (value != "true") taken += ' ' + value;
    }
  } catch (const CLI::Error& error) {
    throw lm::IoError(path.string() + ": " + error.what() + "; mend it, or move it away to go on without");
  }
  return taken;
}

std::filesystem::path options_path(const std::filesystem::path& checkpoint) {
  std::filesystem::path path = checkpoint;
  return path += ".toml";
}

bool is_options_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) && line.starts_with(kBegin);
}

void save_options(const std::filesystem::path& checkpoint, const std::string& text) {
  replace_file(options_path(checkpoint), text);
}
