#include <gmock/gmock.h>

#include "examples/mobilenet/text.h"
#include "program.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

// Names of classes, files and folders with characters of all kinds, and bytes that are none.
namespace lamella::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(MobileNetTextTest, knows_utf8) {
  for (const char* good : {"", "plain", "caf\xc3\xa9", "\xe6\x97\xa5\xe6\x9c\xac", "\xf0\x9f\x90\x88",
                           "\xef\xbf\xbd", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_utf8(good)) << visible(good);
  // Alone, too long, surrogates, beyond the last, cut.
  for (const char* bad :
       {"\x80", "a\xff", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xed\xa0\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe6\x97", "\xc3", "caf\xe9", "\xf0\x9f\x90"})
    EXPECT_FALSE(is_utf8(bad)) << visible(bad);
}

TEST(MobileNetTextTest, shows_every_byte) {
  EXPECT_EQ(visible("caf\xc3\xa9 \xe6\x97\xa5"), "caf\xc3\xa9 \xe6\x97\xa5");
  EXPECT_EQ(visible("caf\xe9"), "caf\\xe9");
  EXPECT_EQ(visible("a\xe6\x97z"), "a\\xe6\\x97z");
  EXPECT_EQ(visible("\x1b[31m\n\t\x7f"), "\\x1b[31m\\x0a\\x09\\x7f");
  EXPECT_EQ(visible("\xc2\x9b"
                    "1m\xc2\xa0"),
            "\\xc2\\x9b"
            "1m\xc2\xa0");  // a control character of two bytes
  EXPECT_EQ(visible(visible("\xff")), visible("\xff"));
}

TEST(MobileNetTextTest, counts_characters) {
  EXPECT_EQ(columns("caf\xc3\xa9"), 4u);
  EXPECT_EQ(padded("caf\xc3\xa9", 6), "caf\xc3\xa9  ");
  EXPECT_EQ(padded("longer", 3), "longer");
  EXPECT_EQ(first_columns("\xc3\xa9\xe6\x97\xa5z", 2), "\xc3\xa9\xe6\x97\xa5");
  EXPECT_EQ(first_columns("ab", 7), "ab");
  EXPECT_EQ(first_columns("ab", 0), "");
}

std::string get_text(const fs::path& path) {
  const auto bytes = get_file(path);
  return {bytes.begin(), bytes.end()};
}

class MobileNetNamesTest : public ::testing::Test {
 protected:
  std::vector<std::string> training(const fs::path& data) const {
    return {"train", "--data",  data, "--checkpoint", net_,  "--width",  "0.1",   "--epochs", "1", "--lr",
            "0.01",  "--batch", "8",  "--device",     "cpu", "--report", report_, "--csv",    csv_};
  }
  TempFolder temp_;
  const fs::path net_ = temp_ / "net.safetensors", report_ = temp_ / "report.html",
                 csv_ = temp_ / "curve.csv";
};

TEST_F(MobileNetNamesTest, classes_and_files) {
  const fs::path images = temp_ / "images";
  make_small_dataset(images);
  // In Latin-1, with what makes a terminal red, and in Japanese with markup: longer than a column of the
  // table.
  const std::string latin = "caf\xe9", red = "\x1b[31mred\nline",
                    japanese =
                        "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e<b>&\"";
  for (const char* part : {"train", "test"}) {
    fs::rename(images / part / "bars", images / part / latin);
    fs::rename(images / part / "dark", images / part / red);
    fs::rename(images / part / "light", images / part / japanese);
    fs::rename(images / part / latin / "image0.png", images / part / latin / "\xff<i>.png");
  }
  const Outcome trained = mobilenet(training(images));
  ASSERT_EQ(trained.status, 0) << trained;
  const Outcome tested = mobilenet({"eval", "--checkpoint", net_, "--confusion"});
  ASSERT_EQ(tested.status, 0) << tested;
  const Outcome predicted =
      mobilenet({"predict", "--checkpoint", net_, "--draw", images / "test" / japanese / "image0.png"});
  ASSERT_EQ(predicted.status, 0) << predicted;
  const std::string page = get_text(report_);
  for (const std::string& text : {page, get_text(csv_), tested.out, predicted.out}) {
    EXPECT_TRUE(is_utf8(text)) << visible(text);
    EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  }
  EXPECT_THAT(page, HasSubstr("caf\\xe9"));
  EXPECT_THAT(page, HasSubstr("\\x1b[31mred\\x0aline"));
  EXPECT_THAT(page, HasSubstr("\xe8\xaa\x9e&lt;b&gt;&amp;&quot;"));
  EXPECT_THAT(page, HasSubstr("/\xef\xbf\xbd&lt;i&gt;.png\""));
  EXPECT_THAT(page, Not(HasSubstr("<i>")));
  EXPECT_THAT(tested.out, HasSubstr("caf\\xe9 "));
  EXPECT_THAT(tested.out,
              HasSubstr(" \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e<"));
  // The columns stand below each other: all lines of the table are of one length.
  const std::size_t table = tested.out.find("class ");
  ASSERT_NE(table, std::string::npos) << tested;
  std::size_t length = 0, at = table;
  for (int line = 0; line < 4; ++line) {
    const std::size_t end = tested.out.find('\n', at);
    const std::size_t taken = columns(tested.out.substr(at, end - at));
    if (line == 0) length = taken;
    EXPECT_EQ(taken, length) << tested;
    at = end + 1;
  }
  // They are the same classes when it goes on.
  EXPECT_EQ(mobilenet({"train", "--resume", "--checkpoint", net_}).status, 0);
}

TEST_F(MobileNetNamesTest, folders) {
  const fs::path images = temp_ / "im\xe9ges\\ <b>";
  make_small_dataset(images);
  const Outcome trained = mobilenet(training(images));
  ASSERT_EQ(trained.status, 0) << trained;
  EXPECT_TRUE(is_utf8(get_text(report_)));
  EXPECT_THAT(get_text(report_), Not(HasSubstr("<b>\"")));
  // They are found again.
  const Outcome tested = mobilenet({"eval", "--checkpoint", net_});
  EXPECT_EQ(tested.status, 0) << tested;
  EXPECT_EQ(mobilenet({"train", "--resume", "--checkpoint", net_}).status, 0);
  EXPECT_EQ(mobilenet({"train", "--config", net_.string() + ".toml"}).status, 0);
}

}  // namespace
}  // namespace lamella::test
