#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

#include "core/cuda/compiler.h"
#include "lamella/core/error.h"
#include "lamella/core/version.h"

/// The folder of compiled kernels: a file for each, named by what it was made of.
namespace lamella::detail::cuda {

namespace {

namespace fs = std::filesystem;

/// FNV-1a (G. Fowler, L. C. Noll, K.-P. Vo), 64 bits.
std::uint64_t hash_of(std::string_view bytes, std::uint64_t hash = 0xcbf29ce484222325u) {
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  return hash;
}

/// Empty: none.
fs::path cache_folder() {
  if (const char* const folder = std::getenv("LAMELLA_KERNEL_CACHE")) return folder;
  if (const char* const folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder != '\0')
    return fs::path(folder) / "lamella";
  if (const char* const home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return fs::path(home) / ".cache" / "lamella";
  return {};
}

/// All that the result depends on.
std::string key_of(const Sources& sources, const std::string& expression, int architecture) {
  std::ostringstream key;
  key << LAMELLA_VERSION << '\n' << compiler_version() << '\n' << architecture << '\n' << expression << '\n';
  for (const SourceFile& file : sources.files) key << file.name << '\n' << file.text << '\n';
  return key.str();
}

constexpr std::string_view kMagic = "lamella kernel 1\n";

/// magic, key's length and hash, symbol's and cubin's lengths, hash of what follows; symbol, cubin.
struct Header {
  std::uint64_t key_size, key_hash, symbol_size, cubin_size, hash;
};

bool read(const fs::path& path, const std::string& key, CompiledKernel& kernel) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  std::ostringstream all;
  all << file.rdbuf();
  const std::string bytes = all.str();
  Header header{};
  const std::size_t begin = kMagic.size() + sizeof header;
  if (bytes.size() < begin || std::string_view(bytes).substr(0, kMagic.size()) != kMagic) return false;
  std::memcpy(&header, bytes.data() + kMagic.size(), sizeof header);
  const std::size_t rest = bytes.size() - begin;
  if (header.key_size != key.size() || header.key_hash != hash_of(key) || header.symbol_size > rest ||
      header.cubin_size != rest - header.symbol_size)
    return false;
  if (header.hash != hash_of(std::string_view(bytes).substr(begin))) return false;
  kernel.symbol = bytes.substr(begin, header.symbol_size);
  kernel.cubin = bytes.substr(begin + header.symbol_size);
  return true;
}

/// Written beside and renamed, so that a reader never finds half of it.
void write(const fs::path& path, const std::string& key, const CompiledKernel& kernel) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::string beside = path.string() + ".XXXXXX";
  const int file = mkstemp(beside.data());
  if (file < 0) return;
  const std::string payload = kernel.symbol + kernel.cubin;
  const Header header{key.size(), hash_of(key), kernel.symbol.size(), kernel.cubin.size(), hash_of(payload)};
  std::string bytes(kMagic);
  bytes.append(reinterpret_cast<const char*>(&header), sizeof header);
  bytes += payload;
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::write(file, bytes.data() + done, bytes.size() - done);
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  const bool whole = ::close(file) == 0 && done == bytes.size();
  if (whole) fs::rename(beside, path, error);
  if (!whole || error) fs::remove(beside, error);
}

}  // namespace

CompiledKernel compile_or_load(const Sources& sources, const std::string& expression, int architecture) {
  const fs::path folder = cache_folder();
  if (folder.empty()) return compile(sources, expression, architecture);
  const std::string key = key_of(sources, expression, architecture);
  std::ostringstream name;
  name << std::hex << hash_of(key) << hash_of(key, hash_of("lamella")) << ".kernel";
  const fs::path path = folder / name.str();
  CompiledKernel kernel;
  if (read(path, key, kernel)) return kernel;
  kernel = compile(sources, expression, architecture);
  write(path, key, kernel);
  return kernel;
}

}  // namespace lamella::detail::cuda
