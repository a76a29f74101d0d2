#include <string>

#include "io/safetensors_header.h"
#include "lamella/core/error.h"
#include "lamella/data/cifar.h"
#include "lamella/data/idx.h"
#include "lamella/io/npy.h"
#include "lamella/io/safetensors.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace lamella::fuzz {
namespace {

std::uint64_t bytes_of(const Tensor& tensor) {
  return static_cast<std::uint64_t>(tensor.numel()) * size_of(tensor.dtype());
}

/// What is written is read back as the same.
void expect_round_trip(const io::SafetensorsFile& file, Bytes bytes) {
  io::detail::SafetensorsHeader header;
  header.metadata = file.metadata;
  std::uint64_t at = 0;
  for (const auto& [name, tensor] : file.tensors) {
    const std::uint64_t end = at + bytes_of(tensor);
    header.entries.push_back(
        {.name = name, .dtype = tensor.dtype(), .shape = tensor.shape(), .begin = at, .end = end});
    at = end;
  }
  LAMELLA_FUZZ_EXPECT(at <= bytes.size());
  const std::string text = io::detail::format_safetensors_header(header);
  const auto again = io::detail::parse_safetensors_header(text, at, "fuzz");
  LAMELLA_FUZZ_EXPECT(again.metadata == header.metadata && again.entries.size() == header.entries.size());
  for (std::size_t i = 0; i < again.entries.size(); ++i)
    LAMELLA_FUZZ_EXPECT(again.entries[i].name == header.entries[i].name &&
                        again.entries[i].shape == header.entries[i].shape);
}

}  // namespace

bool safetensors(Bytes bytes) {
  const MemoryFile file(bytes);
  try {
    expect_round_trip(io::load_safetensors_file(file.path()), bytes);
    return true;
  } catch (const IoError&) {
    return false;
  }
}

bool npy(Bytes bytes) {
  const MemoryFile file(bytes);
  try {
    LAMELLA_FUZZ_EXPECT(bytes_of(io::load_npy(file.path())) <= bytes.size());
    return true;
  } catch (const IoError&) {
    return false;
  } catch (const DTypeError&) {
    return false;
  }
}

bool idx(Bytes bytes) {
  const MemoryFile file(bytes);
  bool taken = false;
  try {
    const Tensor tensor = data::read_idx(file.path());
    LAMELLA_FUZZ_EXPECT(tensor.dim() >= 1);
    taken = true;
    // One file as images and as labels: hardly ever right, and never more than an error.
    data::idx_dataset(file.path(), file.path());
  } catch (const IoError&) {
  }
  return taken;
}

bool cifar(Bytes bytes) {
  const MemoryFile file(bytes);
  try {
    const data::DatasetPtr images = data::cifar10({file.path()});
    for (std::int64_t i = 0; i < images->size(); ++i) {
      const data::Example example = images->get(i);
      LAMELLA_FUZZ_EXPECT(example.image.pixels.size() == 32 * 32 * 3 && example.label >= 0 &&
                          example.label < 10);
    }
    return true;
  } catch (const IoError&) {
    return false;
  }
}

}  // namespace lamella::fuzz
