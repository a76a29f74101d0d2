#include "lamella/io/events.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

#include "io/crc32c.h"
#include "lamella/core/error.h"
#include "lamella/core/log.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temp_folder.h"

namespace lamella::io {
namespace {

using Bytes = std::vector<std::uint8_t>;

/// CRC-32C by its definition: the remainder of a division by the polynomial, a bit at a time.
std::uint32_t plain_crc32c(const std::uint8_t* bytes, std::size_t size) {
  std::uint32_t rest = 0xffffffff;
  for (std::size_t i = 0; i < 8 * size; ++i) {
    const bool bit = ((bytes[i / 8] >> (i % 8)) & 1) != 0;
    const bool out = (rest & 1) != 0;
    rest >>= 1;
    if (bit != out) rest ^= 0x82f63b78;
  }
  return ~rest;
}

/// The events of a file, its framing checked; what follows the last whole record fails the test.
std::vector<Bytes> read_records(const std::filesystem::path& path) {
  const Bytes file = test::get_file(path);
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, &file.at(at), bytes);
    return value;
  };
  const auto expect_crc = [&](std::size_t at, std::size_t from, std::size_t size) {
    const std::uint32_t crc = plain_crc32c(&file[from], size);
    EXPECT_EQ(number(at, 4), ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff) << "at byte " << at;
  };
  std::vector<Bytes> records;
  std::size_t at = 0;
  while (at < file.size()) {
    if (file.size() - at < 16 || file.size() - at - 16 < number(at, 8)) {
      ADD_FAILURE() << path << " ends in the middle of a record";
      break;
    }
    const auto size = static_cast<std::size_t>(number(at, 8));
    expect_crc(at + 8, at, 8);
    expect_crc(at + 12 + size, at + 12, size);
    const auto begin = file.begin() + static_cast<std::ptrdiff_t>(at + 12);
    records.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(size));
    at += 16 + size;
  }
  return records;
}

std::filesystem::path only_file(const std::filesystem::path& folder) {
  EXPECT_EQ(test::count_entries(folder), 1u);
  return std::filesystem::directory_iterator(folder)->path();
}

TEST(Crc32cTest, gives_the_values_of_rfc_3720) {
  const auto crc = [](const std::string& bytes) { return lamella::detail::crc32c(bytes); };
  EXPECT_EQ(crc(""), 0u);
  EXPECT_EQ(crc("123456789"), 0xe3069283u);
  EXPECT_EQ(crc(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) {
    rising += static_cast<char>(i);
    falling += static_cast<char>(31 - i);
  }
  EXPECT_EQ(crc(rising), 0x46dd794eu);
  EXPECT_EQ(crc(falling), 0x113fdb5cu);
}

TEST(EventWriterTest, writes_these_bytes) {
  const test::TempFolder folder;
  EventWriter events(folder.path());
  events.flush();
  const std::size_t begin = test::get_file(events.path()).size();
  events.add_scalar("a/b", 300, -2.5, 1.5);
  events.flush();
  Bytes file = test::get_file(events.path());
  ASSERT_EQ(file.size(), events.bytes_written());
  // As TensorBoard's own RecordWriter and Google's protobuf write it: length 26, its checksum; wall_time 1.5;
  // step 300; summary of one value, tag "a/b" and float -2.5; checksum.
  const Bytes expected = {0x1a, 0,    0,   0,   0,   0,    0,    0,    0x12, 0x9b, 0xd8, 0x2d, 0x09, 0,
                          0,    0,    0,   0,   0,   0xf8, 0x3f, 0x10, 0xac, 0x02, 0x2a, 0x0c, 0x0a, 0x0a,
                          0x0a, 0x03, 'a', '/', 'b', 0x15, 0,    0,    0x20, 0xc0, 0x74, 0x40, 0xba, 0x7a};
  EXPECT_EQ(Bytes(file.begin() + static_cast<std::ptrdiff_t>(begin), file.end()), expected);
}

TEST(EventWriterTest, begins_with_the_version_of_the_format_and_the_step_to_purge_from) {
  const test::TempFolder folder;
  { const EventWriter events(folder.path(), {.purge_step = 7}); }
  const auto path = only_file(folder.path());
  EXPECT_EQ(path.filename().string().rfind("events.out.tfevents.1", 0), 0u) << path;
  const auto records = read_records(path);
  ASSERT_EQ(records.size(), 2u);
  const std::string_view version =
      "\x1a\x0d"
      "brain.Event:2";
  EXPECT_EQ(Bytes(records[0].begin() + 9, records[0].end()), Bytes(version.begin(), version.end()));
  // Step 7, and a session's start.
  EXPECT_EQ(Bytes(records[1].begin() + 9, records[1].end()), (Bytes{0x10, 7, 0x3a, 2, 8, 1}));
  double time = 0;
  std::memcpy(&time, &records[0].at(1), sizeof time);
  EXPECT_NEAR(time, static_cast<double>(std::time(nullptr)), 60);
}

TEST(EventWriterTest, keeps_every_number) {
  const test::TempFolder folder;
  const double values[] = {0,     -0.0,        1e-40, 1e300, std::numeric_limits<double>::infinity(),
                           -1e39, std::nan("")};
  EventWriter events(folder.path());
  const std::int64_t last = std::numeric_limits<std::int64_t>::max();
  for (const double value : values) events.add_scalar("x", last, value);
  events.add_scalar("größe", 0, 1);
  events.flush();
  const auto records = read_records(events.path());
  ASSERT_EQ(records.size(), 10u);
  for (std::size_t i = 0; i < 7; ++i) {
    const Bytes& record = records[i + 2];
    // 9 bytes of wall_time, the step in 9 groups of 7 bits.
    EXPECT_EQ(Bytes(record.begin() + 9, record.begin() + 19),
              (Bytes{0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}));
    std::uint32_t bits = 0;
    std::memcpy(&bits, &record.at(record.size() - 4), sizeof bits);
    const auto number = std::bit_cast<float>(bits);
    if (std::isnan(values[i]))
      EXPECT_TRUE(std::isnan(number));
    else
      EXPECT_EQ(bits, std::bit_cast<std::uint32_t>(static_cast<float>(values[i]))) << values[i];
  }
}

TEST(EventWriterTest, goes_on_in_a_file_of_its_own) {
  const test::TempFolder folder;
  const auto place = folder / "runs/first";
  Bytes before;
  std::filesystem::path first;
  {
    EventWriter events(place);
    events.add_scalar("loss", 1, 2);
    first = events.path();
  }
  before = test::get_file(first);
  EXPECT_EQ(read_records(first).size(), 3u) << "the end flushes";
  EventWriter events(place);
  events.add_scalar("loss", 2, 1);
  events.flush();
  EXPECT_EQ(test::count_entries(place), 2u);
  EXPECT_EQ(test::get_file(first), before);
  EXPECT_LT(first, events.path());
}

TEST(EventWriterTest, writes_by_itself_when_much_is_gathered) {
  const test::TempFolder folder;
  EventWriter events(folder.path());
  const std::uint64_t begin = events.bytes_written();
  events.add_scalar("x", 1, 2);
  EXPECT_EQ(events.bytes_written(), begin);
  for (int i = 0; i < 2000; ++i) events.add_scalar("x", i, i);
  EXPECT_GT(events.bytes_written(), 60000u);
  EXPECT_EQ(test::get_file(events.path()).size(), events.bytes_written());
  read_records(events.path());
  events.flush();
  EXPECT_EQ(read_records(events.path()).size(), 2003u);
}

TEST(EventWriterTest, a_full_disk_leaves_whole_events_and_loses_none) {
  const test::TempFolder folder;
  EventWriter events(folder.path());
  const std::uint64_t begin = events.bytes_written();
  int added = 0, refused = 0;
  {
    const test::FileSizeLimit limit(1000);
    for (; added < 50; ++added) events.add_scalar("x", added, added);
    EXPECT_THROW_WITH(events.flush(), IoError, "cannot write " + events.path().string() + ": File too large");
    EXPECT_EQ(events.bytes_written(), begin);
    EXPECT_EQ(test::get_file(events.path()).size(), begin) << "what went out in part is taken back";
    for (int i = 0; i < 5000; ++i) try {
        events.add_scalar("x", added, added);
        ++added;
      } catch (const IoError&) {
        ++refused;
      }
    EXPECT_GT(refused, 3000) << "does not grow without end";
  }
  events.flush();
  EXPECT_EQ(read_records(events.path()).size(), static_cast<std::size_t>(added) + 2);
}

TEST(EventWriterTest, says_at_its_end_what_was_not_written) {
  const test::TempFolder folder;
  std::string logged;
  set_log_sink([&](LogLevel, const std::string& message) { logged = message; });
  {
    EventWriter events(folder.path());
    events.add_scalar("x", 0, std::nan(""));
    const test::FileSizeLimit limit(events.bytes_written());
    EventWriter* const last = new EventWriter(folder / "other");
    last->add_scalar("x", 0, 0);
    delete last;
  }
  set_log_sink(nullptr);
  EXPECT_NE(logged.find("other/events.out.tfevents."), std::string::npos) << logged;
}

TEST(EventWriterTest, names_a_place_it_cannot_write) {
  const test::TempFolder folder;
  test::put_file(folder / "file", Bytes{1});
  EXPECT_THROW_WITH(EventWriter(folder / "file"), IoError, (folder / "file").string());
  EXPECT_THROW_WITH(EventWriter(folder / "file/below"), IoError,
                    "cannot create the folder " + (folder / "file/below").string());
  {
    const test::FileSizeLimit limit(10);
    EXPECT_THROW_WITH(EventWriter(folder / "full"), IoError,
                      "cannot write " + (folder / "full/events.out.tfevents.").string());
  }
  EXPECT_EQ(test::count_entries(folder / "full"), 0u);
}

TEST(EventWriterTest, refuses_what_tensorboard_could_not_read) {
  const test::TempFolder folder;
  EXPECT_THROW_WITH(EventWriter(folder / "x", {.purge_step = -1}), Error,
                    "purge_step is -1, must be at least 0");
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
  EventWriter events(folder.path());
  EXPECT_THROW_WITH(events.add_scalar("", 0, 0), Error, "add_scalar: the tag is empty");
  EXPECT_THROW_WITH(events.add_scalar("x", -1, 0), Error, "the step of x is -1, must be at least 0");
  EXPECT_THROW_WITH(events.add_scalar("x", 0, 0, std::nan("")), Error, "the wall_time of x is nan");
  for (const char* tag : {"\x80", "\xc3", "a\xc0\x80", "\xe2\x82", "\xe0\x80\x80", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xf0\x80\x80\x80", "\xff"})
    EXPECT_THROW_WITH(events.add_scalar(tag, 0, 0), Error, "the tag is not UTF-8") << tag;
  for (const char* tag : {"x", "é", "€", "\xef\xbf\xbf", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"})
    events.add_scalar(tag, 0, 0);
  events.flush();
  EXPECT_EQ(read_records(events.path()).size(), 8u);
}

}  // namespace
}  // namespace lamella::io
