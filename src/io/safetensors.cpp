#include "lamella/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/profiling_bytes.h"
#include "io/crc32c.h"
#include "io/file.h"
#include "io/safetensors_header.h"
#include "lamella/tensor/create.h"
#include "tensor/door.h"

namespace lamella::io {

using detail::SafetensorsEntry;
using detail::SafetensorsHeader;

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian, and bytes are copied as they are");

namespace {

std::uint64_t bytes_of(const Tensor& tensor) {
  return static_cast<std::uint64_t>(tensor.numel()) * size_of(tensor.dtype());
}

/// The header of `tensors`, their data ordered by falling size of element, so that every tensor is aligned.
SafetensorsHeader lay_out(const StateDict& tensors, const Metadata& metadata,
                          std::vector<std::size_t>& order) {
  SafetensorsHeader header;
  header.metadata = metadata;
  for (const auto& [name, tensor] : tensors) {
    LAMELLA_CHECK(Error, tensor.defined(), "save_safetensors: \"", name, "\" is an undefined tensor");
    LAMELLA_CHECK(Error, name != "__metadata__", "save_safetensors: no tensor may be named __metadata__");
    header.entries.push_back({.name = name, .dtype = tensor.dtype(), .shape = tensor.shape()});
    order.push_back(order.size());
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(header.entries[a].dtype) > size_of(header.entries[b].dtype);
  });
  std::uint64_t at = 0;
  for (const std::size_t i : order) {
    header.entries[i].begin = at;
    at += bytes_of(tensors[i].second);
    header.entries[i].end = at;
  }
  return header;
}

constexpr const char* kChecksum = "lamella.crc32c";
/// What its digits are while it is computed.
constexpr std::string_view kNoDigits = "00000000";

/// Where in a header the checksum's digits begin; npos: it has none. Quotes inside of names and texts are
/// escaped, so this is no part of one.
std::size_t find_digits(std::string_view header) {
  const std::string before = lamella::detail::concat('"', kChecksum, "\":\"");
  const std::size_t found = header.find(before);
  if (found == std::string_view::npos) return found;
  const std::size_t digits = found + before.size();
  return header.substr(digits).find('"') == kNoDigits.size() ? digits : std::string_view::npos;
}

std::string hexadecimal(std::uint32_t number) {
  std::string digits(kNoDigits.size(), '0');
  for (std::size_t i = digits.size(); i-- > 0; number >>= 4) digits[i] = "0123456789abcdef"[number & 15];
  return digits;
}

std::string_view text_of(const void* data, std::uint64_t bytes) {
  return {static_cast<const char*>(data), bytes};
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : where_("cannot load " + path.string()),
        file_(path, lamella::detail::InputFile::Access::Mapped),
        bytes_(file_.bytes()) {}

  SafetensorsHeader read_header() {
    std::array<unsigned char, 8> prefix{};
    LAMELLA_CHECK(IoError, bytes_ >= prefix.size(), where_, ": it has only ", bytes_, " bytes");
    file_.read(0, prefix.data(), prefix.size());
    const auto length = std::bit_cast<std::uint64_t>(prefix);
    // Eight bytes of any other file make a number like that, too.
    LAMELLA_CHECK(IoError, length <= detail::kMaxHeader, where_,
                  ": it is no safetensors file: its header would have ", length,
                  " bytes, and one has at most ", detail::kMaxHeader);
    LAMELLA_CHECK(IoError, length <= bytes_ - prefix.size(), where_, ": its header has ", length,
                  " bytes, but the file ", bytes_);
    std::string text(length, '\0');
    file_.read(prefix.size(), text.data(), text.size());
    data_begin_ = prefix.size() + length;
    SafetensorsHeader header = detail::parse_safetensors_header(text, bytes_ - data_begin_, where_);
    if (const auto found = header.metadata.find(kChecksum); found != header.metadata.end()) {
      check(text_of(prefix.data(), prefix.size()), std::move(text), found->second);
      header.metadata.erase(found);
      checked_ = true;
    }
    return header;
  }

  bool checked() const { return checked_; }

  Tensor read_tensor(const SafetensorsEntry& entry) {
    const Tensor tensor = empty(entry.shape, {.dtype = entry.dtype});
    const lamella::detail::profiling::BytesApart no_kernel_writes_it;
    auto* const data = static_cast<unsigned char*>(lamella::detail::write(tensor, "load_safetensors").data);
    const std::uint64_t bytes = entry.end - entry.begin;
    if (bytes == 0) return tensor;
    file_.read(data_begin_ + entry.begin, data, bytes);
    // Any other byte in a bool would be undefined behaviour.
    if (entry.dtype == DType::Bool)
      for (std::uint64_t i = 0; i < bytes; ++i) data[i] = data[i] != 0;
    return tensor;
  }

 private:
  void check(std::string_view prefix, std::string header, const std::string& expected) {
    if (const std::size_t digits = find_digits(header); digits != std::string::npos)
      header.replace(digits, kNoDigits.size(), kNoDigits);
    std::uint32_t sum = lamella::detail::crc32c(header, lamella::detail::crc32c(prefix));
    std::vector<char> part(std::min<std::uint64_t>(bytes_ - data_begin_, 1 << 20));
    for (std::uint64_t at = data_begin_; at < bytes_; at += part.size()) {
      part.resize(std::min<std::uint64_t>(part.size(), bytes_ - at));
      file_.read(at, part.data(), part.size());
      sum = lamella::detail::crc32c({part.data(), part.size()}, sum);
    }
    LAMELLA_CHECK(IoError, hexadecimal(sum) == expected, where_, ": its checksum is ", hexadecimal(sum),
                  ", but it says ", expected, ": the file is damaged, or was changed and kept its ",
                  kChecksum);
  }

  std::string where_;
  lamella::detail::InputFile file_;
  std::uint64_t bytes_;
  std::uint64_t data_begin_ = 0;
  bool checked_ = false;
};

}  // namespace

void save_safetensors(const std::filesystem::path& path, const StateDict& tensors, const Metadata& metadata,
                      const SafetensorsOptions& options) {
  LAMELLA_CHECK(Error, !metadata.contains(kChecksum), "save_safetensors: the metadata \"", kChecksum,
                "\" is the checksum's, which the option `checksum` writes");
  std::vector<std::size_t> order;
  SafetensorsHeader header = lay_out(tensors, metadata, order);
  if (options.checksum) header.metadata[kChecksum] = kNoDigits;
  std::string text = detail::format_safetensors_header(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  LAMELLA_CHECK(Error, text.size() <= detail::kMaxHeader,
                "save_safetensors: names and metadata make a header of ", text.size(),
                " bytes; one of more than ", detail::kMaxHeader, " would not be read");
  const auto prefix = std::bit_cast<std::array<unsigned char, 8>>(static_cast<std::uint64_t>(text.size()));
  lamella::detail::AtomicFile file(path);
  std::uint32_t sum = 0;
  const auto write = [&](const void* data, std::uint64_t bytes) {
    if (options.checksum) sum = lamella::detail::crc32c(text_of(data, bytes), sum);
    file.write(data, bytes);
  };
  write(prefix.data(), prefix.size());
  write(text.data(), text.size());
  for (const std::size_t i : order) {
    const Tensor plain = tensors[i].second.detach().to(Device::cpu()).contiguous();
    const lamella::detail::profiling::BytesApart no_kernel_reads_it;
    write(lamella::detail::read(plain).data, bytes_of(plain));
  }
  if (options.checksum)
    file.rewrite(prefix.size() + find_digits(text), hexadecimal(sum).data(), kNoDigits.size());
  file.commit();
}

SafetensorsFile load_safetensors_file(const std::filesystem::path& path) {
  Reader reader(path);
  SafetensorsHeader header = reader.read_header();
  SafetensorsFile result;
  result.checked = reader.checked();
  for (const SafetensorsEntry& entry : header.entries)
    result.tensors.set(entry.name, reader.read_tensor(entry));
  result.metadata = std::move(header.metadata);
  return result;
}

StateDict load_safetensors(const std::filesystem::path& path) { return load_safetensors_file(path).tensors; }

}  // namespace lamella::io
