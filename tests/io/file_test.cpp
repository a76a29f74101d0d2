#include "io/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "io/mapped_file.h"
#include "lamella/core/error.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temp_folder.h"

namespace lamella::detail {
namespace {

using Bytes = std::vector<std::uint8_t>;

TEST(ReadFileTest, reads_whole_files_within_the_limit) {
  const test::TempFolder folder;
  test::put_file(folder / "f", Bytes{1, 2, 3});
  test::put_file(folder / "none", Bytes{});
  EXPECT_EQ(read_file(folder / "f"), (Bytes{1, 2, 3}));
  EXPECT_EQ(read_file(folder / "f", 3), (Bytes{1, 2, 3}));
  EXPECT_EQ(read_file(folder / "none"), Bytes{});
  EXPECT_THROW_WITH(read_file(folder / "f", 2), IoError,
                    (folder / "f").string() + ": it has 3 bytes, more than the 2");
}

TEST(ReadFileTest, names_what_cannot_be_read) {
  const test::TempFolder folder;
  EXPECT_THROW_WITH(read_file(folder / "absent"), IoError, (folder / "absent").string() + ": No such file");
  EXPECT_THROW_WITH(read_file(folder.path()), IoError, "it is a folder");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW_WITH(read_file(folder / "pipe"), IoError, "not a regular file");
}

TEST(InputFileTest, reads_at_any_place) {
  const test::TempFolder folder;
  test::put_file(folder / "f", Bytes{1, 2, 3, 4, 5});
  const InputFile file(folder / "f");
  EXPECT_EQ(file.bytes(), 5u);
  Bytes part(2);
  file.read(3, part.data(), 2);
  EXPECT_EQ(part, (Bytes{4, 5}));
  file.read(0, part.data(), 2);
  EXPECT_EQ(part, (Bytes{1, 2}));
  file.read(9, part.data(), 0);
  EXPECT_THROW_WITH(file.read(4, part.data(), 2), IoError, "it became shorter than 5 bytes");
}

TEST(InputFileTest, a_file_cut_short_meanwhile_is_an_error) {
  const test::TempFolder folder;
  test::put_file(folder / "f", Bytes(100000, 7));
  const InputFile file(folder / "f");
  std::filesystem::resize_file(folder / "f", 5000);
  Bytes content(100000);
  EXPECT_THROW_WITH(file.read(0, content.data(), content.size()), IoError,
                    (folder / "f").string() + ": it became shorter than 100000 bytes while it was read");
  EXPECT_THROW_WITH(file.read(50000, content.data(), 1), IoError, "it became shorter");
}

TEST(InputFileTest, names_what_it_cannot_open_and_does_not_wait) {
  const test::TempFolder folder;
  EXPECT_THROW_WITH(InputFile(folder / "absent"), IoError, (folder / "absent").string() + ": No such file");
  EXPECT_THROW_WITH(InputFile(folder.path()), IoError, "it is a folder");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW_WITH(InputFile(folder / "pipe"), IoError, "not a regular file");
  EXPECT_THROW_WITH(InputFile("/dev/zero"), IoError, "not a regular file");
}

TEST(AtomicFileTest, appears_whole_on_commit_only) {
  const test::TempFolder folder;
  test::put_file(folder / "f", Bytes{1});
  {
    AtomicFile file(folder / "f");
    file.write("abcdef", 6);
    file.rewrite(1, "XY", 2);
    EXPECT_EQ(test::get_file(folder / "f"), Bytes{1});
    file.commit();
    EXPECT_EQ(test::get_file(folder / "f"), (Bytes{'a', 'X', 'Y', 'd', 'e', 'f'}));
  }
  {
    AtomicFile file(folder / "f");
    file.write("gone", 4);
  }
  EXPECT_EQ(test::get_file(folder / "f").size(), 6u);
  EXPECT_EQ(test::count_entries(folder.path()), 1u);
}

TEST(AtomicFileTest, writes_through_a_symbolic_link) {
  const test::TempFolder folder;
  test::put_file(folder / "real/f", Bytes{1});
  std::filesystem::create_symlink(folder / "real/f", folder / "link");
  AtomicFile file(folder / "link");
  file.write("ab", 2);
  file.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(test::get_file(folder / "real/f"), (Bytes{'a', 'b'}));
}

TEST(AtomicFileTest, a_full_disk_keeps_the_old_file) {
  const test::TempFolder folder;
  test::put_file(folder / "f", Bytes{1, 2, 3});
  {
    const test::FileSizeLimit limit(1000);
    const Bytes large(5000);
    EXPECT_THROW_WITH(
        {
          AtomicFile file(folder / "f");
          file.write(large.data(), large.size());
          file.commit();
        },
        IoError, "cannot write " + (folder / "f").string());
  }
  EXPECT_EQ(test::get_file(folder / "f"), (Bytes{1, 2, 3}));
  EXPECT_EQ(test::count_entries(folder.path()), 1u) << "the temporary file is removed";
}

TEST(AtomicFileTest, names_a_place_it_cannot_write) {
  const test::TempFolder folder;
  EXPECT_THROW_WITH(AtomicFile(folder / "no/such/folder/f"), IoError, "no/such/folder/f: No such file");
  std::filesystem::create_directories(folder / "a/b");
  AtomicFile file(folder / "a");
  EXPECT_THROW_WITH(file.commit(), IoError, "cannot replace");
}

TEST(MappedFileTest, shows_the_bytes) {
  const test::TempFolder folder;
  test::put_file(folder / "f", Bytes{1, 2, 3});
  test::put_file(folder / "none", Bytes{});
  MappedFile file(folder / "f");
  EXPECT_EQ(Bytes(file.bytes().begin(), file.bytes().end()), (Bytes{1, 2, 3}));
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.bytes().size(), 3u);
  moved = MappedFile(folder / "none");
  EXPECT_TRUE(moved.bytes().empty());
  EXPECT_THROW_WITH(MappedFile(folder / "absent"), IoError, "absent");
  EXPECT_THROW_WITH(MappedFile(folder.path()), IoError, "not a regular file");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW_WITH(MappedFile(folder / "pipe"), IoError, "not a regular file");
}

}  // namespace
}  // namespace lamella::detail
