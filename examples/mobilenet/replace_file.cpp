#include "replace_file.h"

#include <fcntl.h>
#include <lamella/lamella.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace lm = lamella;
namespace fs = std::filesystem;

namespace {

/// The first errno, or 0.
int write_all(const fs::path& path, const std::string& content) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return errno;
  int error = 0;
  for (std::size_t done = 0; done < content.size() && error == 0;) {
    const ssize_t put = ::write(file, content.data() + done, content.size() - done);
    if (put >= 0)
      done += static_cast<std::size_t>(put);
    else if (errno != EINTR)
      error = errno;
  }
  // On the disk before the name is; what is no regular file cannot be synced.
  if (error == 0 && ::fsync(file) != 0 && errno != EINVAL && errno != EROFS) error = errno;
  if (::close(file) != 0 && error == 0) error = errno;
  return error;
}

}  // namespace

void replace_file(const fs::path& path, const std::string& content) {
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_regular_file(path, error)) {
    error.assign(write_all(path, content), std::system_category());
  } else {
    // Through a link, the file behind it is written.
    fs::path target = fs::is_symlink(path, error) ? fs::weakly_canonical(path, error) : path;
    if (target.empty()) target = path;
    fs::path temporary = target;
    temporary += kReplacing;
    error.assign(write_all(temporary, content), std::system_category());
    if (!error) fs::rename(temporary, target, error);
    std::error_code ignored;
    if (error) fs::remove(temporary, ignored);
  }
  if (error) throw lm::IoError(path.string() + ": cannot be written: " + error.message());
}
