#include "run_lock.h"

#include <fcntl.h>
#include <lamella/lamella.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "text.h"

namespace lm = lamella;

namespace {

constexpr char kProcess[] = "process ";

std::string content(int file) {
  char text[256];
  const ssize_t length = ::pread(file, text, sizeof text, 0);
  return {text, length > 0 ? static_cast<std::size_t>(length) : 0};
}

std::string myself() {
  char host[128] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  return kProcess + std::to_string(::getpid()) + (host[0] != '\0' ? " on " + std::string(host) : "");
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& of) : path_(of) {
  path_ += ".lock";
  for (;;) {
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file_ < 0)
      throw lm::IoError("train: cannot lock " + of.string() + ": " + path_.string() + ": " +
                        std::system_category().message(errno));
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
      const bool other = errno == EWOULDBLOCK;
      const std::string who = visible(content(file_));
      ::close(file_);
      file_ = -1;
      if (other)
        throw lm::IoError("train: " + (who.empty() ? "another process" : who) + " is training to " +
                          of.string() + " (and has locked " + path_.string() +
                          "); wait for it, or name another file");
      ::unlink(path_.c_str());
      return;
    }
    // Between the two calls the one before may have removed the file that is locked now.
    struct stat mine {
    }, named{};
    if (::fstat(file_, &mine) == 0 && ::stat(path_.c_str(), &named) == 0 && mine.st_ino == named.st_ino &&
        mine.st_dev == named.st_dev)
      break;
    ::close(file_);
  }
  if (const std::string old = content(file_); !old.empty() && !old.starts_with(kProcess)) {
    ::close(file_);
    throw lm::IoError("train: cannot lock " + of.string() + ": " + path_.string() +
                      " is there and no lock; name another file, or move that");
  }
  const std::string text = myself();  // of use to a reader only: a full disk does not matter
  if (::ftruncate(file_, 0) == 0 && ::pwrite(file_, text.data(), text.size(), 0) < 0) return;
}

RunLock::~RunLock() {
  if (file_ < 0) return;
  ::unlink(path_.c_str());  // while it is locked: whoever has it open then begins anew
  ::close(file_);
}
