#pragma once

#include <lamella/lamella.h>

#include <filesystem>

/// Starts `network` with the weights of a safetensors file: of PyTorch (torchvision's and timm's names), of
/// lamella::io::save_safetensors(), or a checkpoint of this program, of which the averaged weights are taken
/// if there are any. What the file does not have in the right shape, as a classifier for other classes,
/// keeps its numbers; a report of it goes to standard error. Throws lamella::IoError naming the path where
/// nothing but a classifier fits.
void load_initial(lamella::Module& network, const std::filesystem::path& path);
