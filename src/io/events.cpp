#include "lamella/io/events.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string_view>
#include <system_error>

#include "core/check.h"
#include "io/crc32c.h"
#include "lamella/core/log.h"

namespace lamella::io {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian, and numbers are copied as they are");

constexpr std::size_t kGathered = std::size_t{1} << 16;

// Protocol Buffers' wire format: a message is a row of fields, each its number and kind, then the value.
enum Kind : std::uint32_t { Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5 };

template <class Number>
void put_raw(std::string& out, Number number) {
  out.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void put_varint(std::string& out, std::uint64_t number) {
  for (; number >= 0x80; number >>= 7) out += static_cast<char>(number | 0x80);
  out += static_cast<char>(number);
}

void put_key(std::string& out, std::uint32_t field, Kind kind) { put_varint(out, field << 3 | kind); }

void put_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  put_key(out, field, Bytes);
  put_varint(out, bytes.size());
  out += bytes;
}

// TensorFlow's event.proto and summary.proto, as far as scalars go:
//   Event { double wall_time = 1; int64 step = 2;
//           one of: string file_version = 3; Summary summary = 5; SessionLog session_log = 7; }
//   Summary { repeated Value value = 1; }   Value { string tag = 1; float simple_value = 2; }
//   SessionLog { SessionStatus status = 1; }, where START is 1
std::string event(double wall_time, std::int64_t step, std::uint32_t field, std::string_view content) {
  std::string out;
  put_key(out, 1, Fixed64);
  put_raw(out, wall_time);
  if (step != 0) {
    put_key(out, 2, Varint);
    put_varint(out, static_cast<std::uint64_t>(step));
  }
  put_bytes(out, field, content);
  return out;
}

std::string scalar_summary(std::string_view tag, float number) {
  std::string value, summary;
  put_bytes(value, 1, tag);
  put_key(value, 2, Fixed32);
  put_raw(value, number);
  put_bytes(summary, 1, value);
  return summary;
}

std::string session_start() {
  std::string log;
  put_key(log, 1, Varint);
  put_varint(log, 1);
  return log;
}

// Checksums over data that holds checksums would be weak, so TFRecord stores them changed.
std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(lamella::detail::crc32c(bytes), 15) + 0xa282ead8u;
}

void put_record(std::string& out, std::string_view data) {
  std::string length;
  put_raw(length, std::uint64_t{data.size()});
  out += length;
  put_raw(out, masked_crc(length));
  out += data;
  put_raw(out, masked_crc(data));
}

// Protocol Buffers refuse other strings, and TensorBoard would refuse the whole event.
bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i++]);
    if (first < 0x80) continue;
    const int more = first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
    if (more < 0) return false;
    std::uint32_t point = first & (0x3fu >> more);
    for (int k = 0; k < more; ++k) {
      if (i == text.size() || (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return false;
      point = point << 6 | (static_cast<unsigned char>(text[i++]) & 0x3f);
    }
    // Too long a form, half of a surrogate pair, behind the last one.
    if ((more == 2 && point < 0x800) || (more == 3 && point < 0x10000)) return false;
    if ((point >= 0xd800 && point < 0xe000) || point > 0x10ffff) return false;
  }
  return true;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// The computer's name, as far as a file's name should have it.
std::string host() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  std::string text = name;
  for (char& c : text)
    if (c <= ' ' || c > '~' || c == '/' || c == '\\' || c == ':') c = '-';
  return text.empty() ? "unknown" : text;
}

std::string error_text(int error) { return std::system_category().message(error); }

}  // namespace

EventWriter::EventWriter(const std::filesystem::path& folder, const EventWriterOptions& options) {
  LAMELLA_CHECK(Error, options.purge_step.value_or(0) >= 0, "EventWriter: purge_step is ",
                *options.purge_step, ", must be at least 0");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  LAMELLA_CHECK(IoError, !error, "cannot create the folder ", folder.string(), ": ", error.message());
  const double start = now();
  // TensorBoard reads files in the order of their names.
  char time[32];
  std::snprintf(time, sizeof time, "%010.0f", std::floor(start));
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100 && file_ < 0; ++attempt) {
    path_ = folder / lamella::detail::concat("events.out.tfevents.", time, ".", host(), ".", ::getpid(), ".",
                                             counter.fetch_add(1));
    file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0 && errno != EEXIST) break;
  }
  LAMELLA_CHECK(IoError, file_ >= 0, "cannot create ", path_.string(), ": ", error_text(errno));
  put_record(gathered_, event(start, 0, 3, "brain.Event:2"));
  // TensorBoard drops what has a session's step or a later one, but not at the first session that it sees: so
  // every file has one, if need be with a step that nothing reaches.
  const std::int64_t step = options.purge_step.value_or(std::numeric_limits<std::int64_t>::max());
  put_record(gathered_, event(start, step, 7, session_start()));
  try {
    flush();
  } catch (const IoError&) {
    ::close(file_);
    ::unlink(path_.c_str());
    throw;
  }
}

EventWriter::~EventWriter() {
  try {
    flush();
  } catch (const std::exception& error) {
    try {
      log_message(LogLevel::Error, error.what());
    } catch (...) {  // a sink's own; there is nobody left to tell
    }
  }
  ::close(file_);
}

void EventWriter::add_scalar(const std::string& tag, std::int64_t step, double value,
                             std::optional<double> wall_time) {
  LAMELLA_CHECK(Error, !tag.empty(), "add_scalar: the tag is empty");
  LAMELLA_CHECK(Error, is_utf8(tag), "add_scalar: the tag is not UTF-8");
  LAMELLA_CHECK(Error, step >= 0, "add_scalar: the step of ", tag, " is ", step, ", must be at least 0");
  const double time = wall_time.value_or(0);
  LAMELLA_CHECK(Error, std::isfinite(time), "add_scalar: the wall_time of ", tag, " is ", time);
  append(event(wall_time ? time : now(), step, 5, scalar_summary(tag, static_cast<float>(value))));
}

void EventWriter::append(const std::string& event) {
  const std::size_t before = gathered_.size();
  put_record(gathered_, event);
  if (gathered_.size() < kGathered) return;
  try {
    flush();
  } catch (const IoError&) {
    gathered_.resize(before);
    throw;
  }
}

void EventWriter::flush() {
  std::size_t done = 0;
  while (done < gathered_.size()) {
    // By position, so that a second try begins where the whole events end even if they cannot be cut there.
    const ssize_t put = ::pwrite(file_, gathered_.data() + done, gathered_.size() - done,
                                 static_cast<off_t>(written_ + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      const int error = put < 0 ? errno : ENOSPC;
      while (::ftruncate(file_, static_cast<off_t>(written_)) != 0 && errno == EINTR) {
      }
      throw IoError(lamella::detail::concat("cannot write ", path_.string(), ": ", error_text(error)));
    }
    done += static_cast<std::size_t>(put);
  }
  written_ += gathered_.size();
  gathered_.clear();
}

}  // namespace lamella::io
