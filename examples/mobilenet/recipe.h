#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace CLI {
class App;
}

/// Everything that decides what training computes, and nothing else: the same recipe on the same images gives
/// the same network, bit for bit. It can be read from a JSON file with these names, and is kept in
/// checkpoints.
struct Recipe {
  // Network.
  std::string model = "v2";   ///< v1, v2, v3-small or v3-large
  double width = 1;           ///< multiplies all channel counts
  std::string stem = "auto";  ///< small (for 32 pixels or so), imagenet, or auto: small up to 64 pixels
  double dropout = 0.2;       ///< before the classifier
  double drop_path = 0;       ///< stochastic depth of the last block

  // Images.
  int image_size = 0;  ///< in pixels; 0: as in the dataset up to 64, else 224
  /// Random crops of images padded by so many pixels; larger images are cropped at random scales.
  int crop_padding = 4;
  bool flip = true;  ///< mirror at random
  int cutout = 0;    ///< covers a square of so many pixels with the mean colour; 0: none
  double mixup = 0;  ///< alpha; 0: none

  // Optimization.
  int epochs = 10;
  int batch = 128;
  int accumulate =
      1;  ///< batches whose mean gradient makes one step; those of an epoch that make none are left
  std::string optimizer = "sgd";  ///< sgd (Nesterov), adam, adamw or rmsprop
  double lr = 0.1;
  double momentum = 0.9;            ///< of sgd and rmsprop
  double weight_decay = 5e-4;       ///< not applied to norms and biases
  std::string schedule = "cosine";  ///< cosine, one-cycle or constant
  double warmup_epochs = 0;         ///< the learning rate rises linearly at first
  double label_smoothing = 0;
  double clip_grad_norm = 0;  ///< 0: none
  double ema = 0;             ///< decay of the averaged weights that are tested; 0: none
  /// float32, tf32 (matrix products of a GPU round their operands), bfloat16 or float16 (mixed: see
  /// lamella::Autocast; float16 with a scaled loss). Tests are in float32.
  std::string precision = "float32";
  std::string memory_format = "channels_last";  ///< channels_last or contiguous, of images and weights
  /// Shell patterns on names of parameters, which then stay as they start: see lamella::freeze().
  std::vector<std::string> freeze = {};
  std::uint64_t seed = 1;
};

void to_json(nlohmann::json& json, const Recipe& recipe);
/// Names that are left out keep what `recipe` has. Throws lamella::Error for a name that is not one of a
/// recipe's or a value of the wrong kind.
void from_json(const nlohmann::json& json, Recipe& recipe);

/// Throws lamella::Error naming the first setting that is out of range.
void check(const Recipe& recipe);

/// Reads a file over `recipe`. Throws lamella::IoError naming the path.
void read_recipe(const std::filesystem::path& path, Recipe& recipe);

/// The group of the options below.
inline constexpr char kRecipeOptions[] = "Recipe";
/// Adds an option for each setting, and --recipe for a file of them, which options override.
void add_recipe_options(CLI::App& app, Recipe& recipe);
