#pragma once

#include <cstdint>
#include <span>

/// What is fuzzed: each takes the bytes of a file from outside and reads them. An error that the reader
/// documents is an answer; anything else that is thrown, and what sanitizers find, is a finding. True where
/// the file was taken.
namespace lamella::fuzz {

using Bytes = std::span<const std::uint8_t>;

bool safetensors(Bytes bytes);
bool npy(Bytes bytes);
bool idx(Bytes bytes);
bool cifar(Bytes bytes);
bool jpeg(Bytes bytes);
bool png(Bytes bytes);
bool recipe(Bytes bytes);
bool options_file(Bytes bytes);

}  // namespace lamella::fuzz
