#pragma once

#include <lamella/lamella.h>

#include <filesystem>
#include <string>

#include "recipe.h"

/// Adds --config FILE, which may also stand behind the subcommand. The file (TOML or INI) has a line
/// `name = value` for each option, under its long name, and lists as [a, b]. Those at the top, and those
/// under [train], [eval] and so on are for that subcommand; those at the top are for whichever is run, and
/// must be options of it. What is given on the command line counts more than the file, and the file more than
/// the file of --recipe.
void add_options_file(CLI::App& app);

/// The options that `train` was parsed with, as such a file: those given and all of the recipe. A comment
/// names the device, which rounds in its own way; as an option it stands there only if it was given, so that
/// the file serves where there is another.
std::string options_text(const CLI::App& train, const Recipe& recipe, lamella::Device device);

/// The file that options_text() is kept in.
std::filesystem::path options_path(const std::filesystem::path& checkpoint);
/// Whether the file is one of options_text().
bool is_options_text(const std::filesystem::path& path);

/// For --resume: gives `train` what the file beside the checkpoint says of --csv, --events, --report,
/// --checkpoint-every, --keep and --keep-best, where they are not given; nothing where there is no such file.
/// Returns these options, for a message. Throws lamella::IoError naming a file that cannot be understood.
std::string take_up_outputs(CLI::App& train, const std::filesystem::path& checkpoint);

/// Writes `text` to `checkpoint` with .toml behind its name. Throws lamella::IoError naming the file.
void save_options(const std::filesystem::path& checkpoint, const std::string& text);
