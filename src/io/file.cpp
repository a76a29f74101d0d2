#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "core/check.h"

namespace lamella::detail {
namespace {

// read() and write() move at most 2 GiB - 4 KiB a call on Linux.
constexpr std::size_t kMaxTransfer = std::size_t{1} << 30;

std::string error_text(int error) { return std::system_category().message(error); }

struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

InputFile::InputFile(const std::filesystem::path& path, Access access) : path_(path.string()) {
  // O_NONBLOCK: opening a named pipe nobody writes to must fail below, not wait.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  LAMELLA_CHECK(IoError, file.value >= 0, "cannot open ", path_, ": ", error_text(errno));
  // Of what was opened: the path may name something else by now.
  struct stat status {};
  LAMELLA_CHECK(IoError, ::fstat(file.value, &status) == 0, "cannot read ", path_, ": ", error_text(errno));
  LAMELLA_CHECK(IoError, S_ISREG(status.st_mode), "cannot read ", path_, ": it is ",
                S_ISDIR(status.st_mode) ? "a folder" : "not a regular file");
  bytes_ = static_cast<std::uint64_t>(status.st_size);
  file_ = std::exchange(file.value, -1);
  if (access == Access::Copied || bytes_ == 0) return;
  void* const mapped = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file_, 0);
  if (mapped == MAP_FAILED) return;
  ::madvise(mapped, bytes_, MADV_SEQUENTIAL);
  mapped_ = static_cast<const char*>(mapped);
}

InputFile::~InputFile() {
  if (mapped_ != nullptr) ::munmap(const_cast<char*>(mapped_), bytes_);
  if (file_ >= 0) ::close(file_);
}

void InputFile::read(std::uint64_t offset, void* to, std::uint64_t bytes) const {
  auto* out = static_cast<char*>(to);
  struct stat status {};
  if (mapped_ != nullptr && ::fstat(file_, &status) == 0 &&
      offset + bytes <= static_cast<std::uint64_t>(status.st_size) && offset + bytes <= bytes_) {
    std::memcpy(out, mapped_ + offset, bytes);
    return;
  }
  while (bytes > 0) {
    const ssize_t got =
        ::pread(file_, out, static_cast<std::size_t>(std::min<std::uint64_t>(bytes, kMaxTransfer)),
                static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    LAMELLA_CHECK(IoError, got >= 0, "cannot read ", path_, ": ", error_text(errno));
    LAMELLA_CHECK(IoError, got > 0, "cannot read ", path_, ": it became shorter than ", bytes_,
                  " bytes while it was read");
    out += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::uint64_t>(got);
  }
}

std::vector<std::uint8_t> read_file(const std::filesystem::path& path, std::uint64_t limit) {
  const InputFile file(path);
  LAMELLA_CHECK(IoError, file.bytes() <= limit, "cannot read ", path.string(), ": it has ", file.bytes(),
                " bytes, more than the ", limit, " allowed for such a file");
  std::vector<std::uint8_t> content(file.bytes());
  file.read(0, content.data(), content.size());
  return content;
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  // Renaming onto a symbolic link would replace the link instead of the file it points to.
  std::error_code error;
  if (std::filesystem::is_symlink(path_, error)) {
    const auto target = std::filesystem::weakly_canonical(path_, error);
    if (!error) path_ = target;
  }
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100 && file_ < 0; ++attempt) {
    temporary_ = concat(path_.string(), ".tmp-", ::getpid(), "-", counter.fetch_add(1));
    file_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0 && errno != EEXIST) break;
  }
  if (file_ < 0) {
    temporary_.clear();
    fail("create", errno);
  }
}

AtomicFile::~AtomicFile() { remove_temporary(); }

void AtomicFile::remove_temporary() noexcept {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::fail(const char* what, int error) const {
  throw IoError(concat("cannot ", what, " ", path_.string(), ": ", error_text(error)));
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::write(file_, from, std::min(bytes, kMaxTransfer));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail("write", put < 0 ? errno : ENOSPC);
    from += put;
    bytes -= static_cast<std::size_t>(put);
  }
}

void AtomicFile::rewrite(std::uint64_t offset, const void* data, std::size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::pwrite(file_, from, std::min(bytes, kMaxTransfer), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail("write", put < 0 ? errno : ENOSPC);
    from += put;
    offset += static_cast<std::uint64_t>(put);
    bytes -= static_cast<std::size_t>(put);
  }
}

void AtomicFile::commit() {
  if (::fsync(file_) != 0) fail("write", errno);
  const int closed = ::close(file_);
  file_ = -1;
  if (closed != 0) fail("write", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("replace", errno);
  temporary_.clear();
  // The rename itself survives a crash only once the folder is on disk; some file systems refuse to sync a
  // folder.
  const auto folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  const Descriptor parent{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (parent.value >= 0) ::fsync(parent.value);
}

}  // namespace lamella::detail
