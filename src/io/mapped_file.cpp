#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "core/check.h"

namespace lamella::detail {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  LAMELLA_CHECK(IoError, file >= 0, "cannot open ", path.string(), ": ",
                std::system_category().message(errno));
  struct stat status {};
  const bool regular = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  void* start = nullptr;
  int error = 0;
  const auto size = static_cast<std::size_t>(regular ? status.st_size : 0);
  if (size > 0) {
    start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    error = start == MAP_FAILED ? errno : 0;
  }
  ::close(file);
  LAMELLA_CHECK(IoError, regular, "cannot read ", path.string(), ": it is not a regular file");
  LAMELLA_CHECK(IoError, error == 0, "cannot map ", path.string(), ": ",
                std::system_category().message(error));
  bytes_ = {static_cast<const std::uint8_t*>(start), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace lamella::detail
