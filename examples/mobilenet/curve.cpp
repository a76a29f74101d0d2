#include "curve.h"

#include <lamella/lamella.h>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

#include "replace_file.h"

namespace {

constexpr char kHeader[] = "epoch,train_loss,test_accuracy,seconds,test_loss,learning_rate,images\n";
constexpr std::ptrdiff_t kColumns = 7;

/// The columns of `line` behind the first.
Curve::Line parse(const std::string& line, std::int64_t epoch) {
  Curve::Line result{.epoch = epoch};
  std::istringstream text(line);
  std::string field;
  std::getline(text, field, ',');
  for (double* number : {&result.train_loss, &result.test_accuracy, &result.seconds, &result.test_loss,
                         &result.learning_rate, &result.images}) {
    field.clear();
    std::getline(text, field, ',');
    char* end = nullptr;
    *number = std::strtod(field.c_str(), &end);
    if (end == field.c_str()) *number = std::nan("");
  }
  return result;
}

}  // namespace

Curve::Curve(const std::filesystem::path& path, std::int64_t epochs) : path_(path) {
  if (path_.empty()) return;
  std::error_code error;
  const bool plain = !std::filesystem::exists(path_, error) || std::filesystem::is_regular_file(path_, error);
  std::string kept = kHeader, line;
  if (std::ifstream old; plain && (old.open(path_), old) && std::getline(old, line)) {
    if (!line.starts_with("epoch,"))
      throw lamella::IoError(path_.string() + " is there and no curve of a training; name another file");
    while (epochs > 0 && std::getline(old, line)) {
      const long long epoch = std::atoll(line.c_str());
      if (epoch < 1 || epoch > epochs) continue;
      if (!lines_.empty() && epoch <= lines_.back().epoch) continue;
      lines_.push_back(parse(line, epoch));
      // Earlier versions had fewer columns.
      const auto missing = kColumns - 1 - std::count(line.begin(), line.end(), ',');
      kept += line + std::string(static_cast<std::size_t>(std::max<std::ptrdiff_t>(0, missing)), ',') + '\n';
    }
  }
  // At once: a kill must not leave the epochs before without their lines.
  if (plain) replace_file(path_, kept);
  file_.open(path_, plain ? std::ios::app : std::ios::out);
  write(plain ? "" : kept);
}

void Curve::add(const Line& line) {
  lines_.push_back(line);
  if (path_.empty()) return;
  char text[256];
  std::snprintf(text, sizeof text, "%" PRId64 ",%.6f,%.6f,%.3f,%.6f,%.6g,%.0f\n", line.epoch, line.train_loss,
                line.test_accuracy, line.seconds, line.test_loss, line.learning_rate, line.images);
  write(text);
}

void Curve::write(const std::string& text) {
  file_ << text << std::flush;
  if (!file_) throw lamella::IoError(path_.string() + ": cannot be written");
}
