#include "data/image_cache.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <system_error>

#include "core/check.h"
#include "core/parallel.h"
#include "io/file.h"
#include "lamella/core/log.h"

namespace lamella::data::detail {
namespace {

static_assert(std::endian::native == std::endian::little, "the cache file is little-endian");

constexpr char kMagic[8] = {'L', 'M', 'L', 'C', 'A', 'C', 'H', 'E'};
constexpr std::uint32_t kVersion = 1;

std::uint32_t crc(std::uint32_t start, const void* data, std::size_t bytes) {
  return static_cast<std::uint32_t>(crc32_z(start, static_cast<const Bytef*>(data), bytes));
}

std::uint32_t header_crc(std::uint32_t body, CacheHeader header) {
  header.checksum = 0;
  return crc(body, &header, sizeof header);
}

std::string joined_names(const FolderScan& scan) {
  std::string names;
  for (const std::string& name : scan.classes) names.append(name).push_back('\0');
  return names;
}

CacheEntry entry_at(std::span<const std::uint8_t> bytes, std::uint64_t table_offset, std::size_t index) {
  CacheEntry entry;
  std::memcpy(&entry, bytes.data() + table_offset + index * sizeof entry, sizeof entry);
  return entry;
}

// Why the file cannot be used, or null. Nothing in it is trusted.
const char* fault(std::span<const std::uint8_t> bytes, const FolderScan& scan, std::uint64_t expected) {
  CacheHeader header;
  if (bytes.size() < sizeof header) return "it is truncated";
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.version != kVersion) return "it is of another version";
  if (header.file_bytes != bytes.size()) return "it is truncated";
  const std::uint32_t body = crc(0, bytes.data() + sizeof header, bytes.size() - sizeof header);
  if (header_crc(body, header) != header.checksum) return "it is corrupt";
  if (header.fingerprint != expected || header.images != scan.files.size()) return "the images have changed";
  const std::string names = joined_names(scan);
  const std::uint64_t tail = header.images * sizeof(CacheEntry) + names.size();
  if (header.names_bytes != names.size() || header.classes != scan.classes.size() ||
      tail > bytes.size() - sizeof header || header.table_offset != bytes.size() - tail ||
      std::memcmp(bytes.data() + bytes.size() - names.size(), names.data(), names.size()) != 0)
    return "it is corrupt";
  for (std::size_t i = 0; i < scan.files.size(); ++i) {
    const CacheEntry entry = entry_at(bytes, header.table_offset, i);
    const std::uint64_t pixels = std::uint64_t{entry.height} * entry.width;
    if (entry.label != scan.files[i].label || pixels == 0 ||
        pixels > static_cast<std::uint64_t>(kMaxPixels) || entry.offset < sizeof header ||
        entry.offset > header.table_offset || pixels * 3 > header.table_offset - entry.offset)
      return "it is corrupt";
  }
  return nullptr;
}

// Runs what reads or writes the cache's own file.
template <class Run>
void on_cache(Run&& run) {
  try {
    run();
  } catch (const IoError& error) {
    throw CacheError(error.what());
  }
}

void build(const std::filesystem::path& path, const FolderScan& scan, std::uint64_t fingerprint) {
  std::optional<lamella::detail::AtomicFile> file;
  on_cache([&] { file.emplace(path); });
  std::uint64_t offset = sizeof(CacheHeader);
  std::uint32_t checksum = 0;
  const auto append = [&](const void* data, std::size_t bytes) {
    on_cache([&] { file->write(data, bytes); });
    checksum = crc(checksum, data, bytes);
    offset += bytes;
  };
  CacheHeader header{};
  on_cache([&] { file->write(&header, sizeof header); });

  // Decoded by all threads, a group at a time so that memory stays small.
  constexpr std::size_t kGroup = 256;
  std::vector<CacheEntry> entries;
  entries.reserve(scan.files.size());
  std::vector<Image> images(kGroup);
  for (std::size_t begin = 0; begin < scan.files.size(); begin += kGroup) {
    const std::size_t count = std::min(kGroup, scan.files.size() - begin);
    lamella::detail::parallel_for(
        static_cast<std::int64_t>(count), 8, [&](std::int64_t first, std::int64_t last) {
          for (std::int64_t i = first; i < last; ++i)
            images[static_cast<std::size_t>(i)] = read_image(scan.path(static_cast<std::int64_t>(begin) + i));
        });
    for (std::size_t i = 0; i < count; ++i) {
      entries.push_back({offset, static_cast<std::uint32_t>(images[i].height),
                         static_cast<std::uint32_t>(images[i].width), scan.files[begin + i].label, 0});
      append(images[i].pixels.data(), images[i].pixels.size());
    }
  }
  constexpr char kZeros[8] = {};
  append(kZeros, (8 - offset % 8) % 8);

  const std::string names = joined_names(scan);
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.fingerprint = fingerprint;
  header.images = scan.files.size();
  header.classes = scan.classes.size();
  header.table_offset = offset;
  header.names_bytes = names.size();
  append(entries.data(), entries.size() * sizeof(CacheEntry));
  append(names.data(), names.size());
  header.file_bytes = offset;
  header.checksum = header_crc(checksum, header);
  on_cache([&] {
    file->rewrite(0, &header, sizeof header);
    file->commit();
  });
}

}  // namespace

ImageCache ImageCache::open_or_build(const std::filesystem::path& path, const FolderScan& scan) {
  // Taken before the images are read: what changes meanwhile makes the cache stale, never wrong.
  const std::uint64_t expected = fingerprint(scan);
  ImageCache cache;
  std::error_code error;
  const char* why = "there is none yet";
  if (std::filesystem::exists(path, error)) {
    // One that cannot be read is not replaced: it may be some other file.
    on_cache([&] { cache.file_ = lamella::detail::MappedFile(path); });
    const auto bytes = cache.file_.bytes();
    LAMELLA_CHECK(
        IoError,
        bytes.empty() || (bytes.size() >= sizeof kMagic && std::memcmp(bytes.data(), kMagic, 8) == 0),
        "image_folder: ", path.string(), " is not a cache of images; remove it, or choose another name");
    why = fault(bytes, scan, expected);
  }
  if (why != nullptr) {
    log_message(LogLevel::Info, lamella::detail::concat("decoding ", scan.files.size(), " images into ",
                                                        path.string(), ": ", why));
    build(path, scan, expected);
    on_cache([&] { cache.file_ = lamella::detail::MappedFile(path); });
    const char* still = fault(cache.file_.bytes(), scan, expected);
    LAMELLA_CHECK(IoError, still == nullptr, "image_folder: ", path.string(), " was written, but ", still);
  }
  CacheHeader header;
  std::memcpy(&header, cache.file_.bytes().data(), sizeof header);
  cache.table_offset_ = header.table_offset;
  return cache;
}

Image ImageCache::image(std::int64_t index) const {
  const CacheEntry entry = entry_at(file_.bytes(), table_offset_, static_cast<std::size_t>(index));
  Image image;
  image.height = static_cast<int>(entry.height);
  image.width = static_cast<int>(entry.width);
  const std::uint8_t* begin = file_.bytes().data() + entry.offset;
  image.pixels.assign(begin, begin + std::size_t{3} * entry.height * entry.width);
  return image;
}

}  // namespace lamella::data::detail
