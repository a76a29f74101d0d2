#include "curve.h"

#include <lamella/lamella.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string>

Curve::Curve(const std::filesystem::path& path, std::int64_t epochs) : path_(path) {
  if (path_.empty()) return;
  std::string kept = "epoch,train_loss,test_accuracy,seconds\n", line;
  if (std::ifstream old(path_); epochs > 0 && old)
    while (std::getline(old, line)) {
      const long long epoch = std::atoll(line.c_str());  // 0 for the header
      if (epoch >= 1 && epoch <= epochs) kept += line + '\n';
    }
  file_.open(path_, std::ios::trunc);
  write(kept);
}

void Curve::add(const Line& line) {
  if (path_.empty()) return;
  char text[128];
  std::snprintf(text, sizeof text, "%" PRId64 ",%.6f,%.6f,%.3f\n", line.epoch, line.train_loss,
                line.test_accuracy, line.seconds);
  write(text);
}

void Curve::write(const std::string& text) {
  file_ << text << std::flush;
  if (!file_) throw lamella::IoError(path_.string() + ": cannot be written");
}
