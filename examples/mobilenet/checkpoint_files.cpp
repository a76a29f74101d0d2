#include "checkpoint_files.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "replace_file.h"

namespace lm = lamella;
namespace fs = std::filesystem;

namespace {

/// What save_safetensors() and spare_name() put behind a file's name, before a number and a dash.
constexpr char kTemporary[] = ".tmp-";

/// A second name for the file, or a copy where the file system has no such thing.
void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::remove(to, error);  // of a killed process that had our number, perhaps a name of the same file
  fs::create_hard_link(from, to, error);
  if (error) fs::copy_file(from, to, fs::copy_options::overwrite_existing);
}

void rename_if_there(const fs::path& from, const fs::path& to) {
  if (fs::exists(from)) fs::rename(from, to);
}

}  // namespace

CheckpointFiles::CheckpointFiles(fs::path path, int keep) : path_(std::move(path)), keep_(keep) {
  // Through a link, the file behind it is written: the others belong beside that.
  if (std::error_code error; fs::is_symlink(path_, error)) path_ = fs::weakly_canonical(path_);
  if (keep_ < 1) throw lm::Error("keep is " + std::to_string(keep_) + ", must be at least 1");
  lock_.emplace(path_);
  remove_leftovers();
}

fs::path CheckpointFiles::beside(const fs::path& path, const std::string& what) {
  fs::path other = path;
  return other.replace_filename(path.stem().string() + '.' + what + path.extension().string());
}

fs::path CheckpointFiles::spare_name() const {
  fs::path spare = path_;
  return spare += kTemporary + std::to_string(::getpid()) + "-spare";
}

void CheckpointFiles::save(const Checkpoint& checkpoint) const {
  const fs::path spare = spare_name();
  try {
    // The files before it move only when the new one is there: a full disk costs none of them.
    const bool keeps = keep_ > 1 && fs::exists(path_);
    if (keeps) link_or_copy(path_, spare);
    save_checkpoint(path_, checkpoint);
    if (!keeps) return;
    // Up to the first gap: what lies behind it need not move, and `keep` may be any number.
    int last = 1;
    while (last < keep_ - 1 && fs::exists(beside(path_, std::to_string(last)))) ++last;
    for (int i = last; i > 1; --i)
      rename_if_there(beside(path_, std::to_string(i - 1)), beside(path_, std::to_string(i)));
    fs::rename(spare, beside(path_, "1"));
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove(spare, ignored);
    if (dynamic_cast<const fs::filesystem_error*>(&error) == nullptr) throw;
    throw lm::IoError(path_.string() + ": the checkpoint before it cannot be kept: " + error.what());
  }
}

void CheckpointFiles::mark_best() const {
  const fs::path spare = spare_name(), best = beside(path_, "best");
  try {
    link_or_copy(path_, spare);
    fs::rename(spare, best);
    // Two names of one file: the first then stays, and the best is what it should be.
    fs::remove(spare);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove(spare, ignored);
    throw lm::IoError(best.string() + ": cannot be written: " + error.what());
  }
}

void CheckpointFiles::remove_leftovers() const {
  const fs::path folder = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  const std::string begin = path_.filename().string() + kTemporary;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(begin)) continue;
    char* end = nullptr;
    const long process = std::strtol(name.c_str() + begin.size(), &end, 10);
    if (process <= 0 || *end != '-') continue;
    // With the lock, all who wrote such files are dead, whoever has their number now: in a container the next
    // process has that of the last. Without, only a number that nobody has says so.
    const bool dead = lock_->held() || (::kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH);
    std::error_code ignored;
    if (dead) fs::remove(entry.path(), ignored);
  }
  fs::path options = path_;
  options += std::string(".toml") + kReplacing;
  fs::remove(options, error);
}
