#include <gmock/gmock.h>

#include <algorithm>

#include "program.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> train(const std::filesystem::path& data, const std::filesystem::path& checkpoint,
                               std::vector<std::string> more) {
  std::vector<std::string> all = {"train", "--data",   data, "--checkpoint", checkpoint, "--width",
                                  "0.1",   "--epochs", "2",  "--batch",      "8",        "--device",
                                  "cpu"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::string get_text(const std::filesystem::path& path) {
  const auto bytes = get_file(path);
  return {bytes.begin(), bytes.end()};
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// Every tag that is opened is closed, in order, and no "<", ">" or quote stands where it is not markup.
void expect_balanced(const std::string& page) {
  std::vector<std::string> open;
  std::size_t at = page.find('\n') + 1;  // behind the document type
  while (at < page.size()) {
    const std::size_t tag = page.find('<', at);
    const std::string text = page.substr(at, std::min(tag, page.size()) - at);
    EXPECT_THAT(text, Not(HasSubstr(">")));
    for (std::size_t and_sign = text.find('&'); and_sign != std::string::npos;
         and_sign = text.find('&', and_sign + 1))
      EXPECT_THAT(text.substr(and_sign, 6), ContainsRegex("^&(amp;|lt;|gt;|quot;|#39;)"));
    if (tag == std::string::npos) break;
    std::size_t end = tag + 1;
    for (bool quoted = false; end < page.size() && (quoted || page[end] != '>'); ++end) {
      if (page[end] == '"') quoted = !quoted;
      ASSERT_FALSE(page[end] == '<') << page.substr(tag, 80);
    }
    ASSERT_LT(end, page.size()) << page.substr(tag, 80);
    const std::string inside = page.substr(tag + 1, end - tag - 1);
    const std::string name = inside.substr(0, inside.find_first_of(" \n/", 1));
    if (inside[0] == '/') {
      ASSERT_FALSE(open.empty()) << inside;
      ASSERT_EQ('/' + open.back(), inside);
      open.pop_back();
    } else if (inside.back() != '/') {
      open.push_back(name);
    }
    at = end + 1;
  }
  EXPECT_THAT(open, ::testing::IsEmpty());
}

TEST(MobileNetReportTest, shows_the_training_and_escapes_names) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const std::string odd = "<b>&\"'";
  for (const char* part : {"train", "test"})
    std::filesystem::rename(temp / "images" / part / "dark", temp / "images" / part / odd);
  const auto report = temp / "report.html";
  const Outcome outcome =
      mobilenet(train(temp / "images", temp / "net", {"--report", report, "--events", temp / "events"}));
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_THAT(outcome.out, HasSubstr("saved " + report.string()));
  const std::string page = get_text(report);
  expect_balanced(page);

  EXPECT_EQ(count(page, "<svg "), 4u);
  EXPECT_EQ(count(page, "<circle "), 10u);  // five lines of two epochs
  EXPECT_EQ(count(page, "<img "), 9u);
  EXPECT_EQ(count(page, "src=\"data:image/png;base64,"), 9u);
  EXPECT_EQ(count(page, "class=\"hit") + count(page, "class=\"miss") + count(page, "class=\"none"), 9u);
  EXPECT_THAT(page, HasSubstr("<title>MobileNetV2 × 0.1 on "));
  // The accuracy that was printed last.
  const std::size_t last = outcome.out.find("epoch 2/2: test accuracy ");
  ASSERT_NE(last, std::string::npos) << outcome;
  const std::string accuracy = outcome.out.substr(last + 25, outcome.out.find(" (", last) - last - 25);
  EXPECT_THAT(page, HasSubstr("<b>" + accuracy + "</b>"));
  EXPECT_THAT(page, HasSubstr("<dt>width</dt><dd><b>0.1</b></dd>"));
  EXPECT_THAT(page, HasSubstr("<dt>momentum</dt><dd>0.9</dd>"));
  EXPECT_THAT(page, HasSubstr("<dt>device</dt><dd>cpu</dd>"));
  EXPECT_THAT(page, HasSubstr("<dd>lamella 0."));
  EXPECT_THAT(page, HasSubstr("&lt;b&gt;&amp;&quot;&#39;"));
  EXPECT_THAT(page, Not(HasSubstr(odd)));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
  EXPECT_THAT(page, Not(HasSubstr("class=\"note\"")));
  EXPECT_EQ(count_entries(temp.path()), 5u) << "images, checkpoint, its options, report and events";

  ASSERT_EQ(count_entries(temp / "events"), 1u);
  const std::string events = get_text(std::filesystem::directory_iterator(temp / "events")->path());
  for (const char* tag : {"loss/train", "loss/test", "accuracy/test", "learning_rate", "images_per_second"})
    EXPECT_EQ(count(events, tag), 2u) << tag;
}

TEST(MobileNetReportTest, goes_on_with_the_curves_where_they_are_at_hand) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto net = temp / "net", csv = temp / "c.csv", report = temp / "r.html";
  const Outcome stopped = mobilenet(
      train(temp / "images", net, {"--epochs", "20", "--lr", "0.01", "--csv", csv, "--report", report}),
      {.interrupt_after = "epoch 2/20:"});
  ASSERT_EQ(stopped.status, 130) << stopped;
  EXPECT_FALSE(std::filesystem::exists(report)) << "the training is not over";
  std::filesystem::copy(net, temp / "copy");

  const Outcome resumed =
      mobilenet({"train", "--resume", "--checkpoint", net, "--csv", csv, "--report", report});
  ASSERT_EQ(resumed.status, 0) << resumed;
  std::string page = get_text(report);
  expect_balanced(page);
  EXPECT_THAT(page, Not(HasSubstr("class=\"note\"")));
  EXPECT_THAT(page, HasSubstr("<title>epoch 1, training: "));
  EXPECT_EQ(count(page, "<circle "), 100u);

  ASSERT_EQ(mobilenet({"train", "--resume", "--checkpoint", temp / "copy", "--report", report}).status, 0);
  page = get_text(report);
  expect_balanced(page);
  EXPECT_THAT(page,
              ContainsRegex("was resumed in epoch [0-9]+, and nothing is at hand of the epochs before"));
  EXPECT_THAT(page, Not(HasSubstr("<title>epoch 1, ")));
  EXPECT_THAT(page, HasSubstr("<title>epoch 20, test: "));

  // Nothing is left to train.
  ASSERT_EQ(mobilenet({"train", "--resume", "--checkpoint", net, "--csv", "", "--report", report}).status, 0);
  page = get_text(report);
  expect_balanced(page);
  EXPECT_THAT(page, HasSubstr("The training was over when it was resumed"));
  EXPECT_EQ(count(page, "<img "), 9u);
  EXPECT_EQ(count(page, "<svg "), 0u);
}

TEST(MobileNetReportTest, is_written_by_a_training_that_was_resumed_without_asking_again) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto net = temp / "net", csv = temp / "a \"curve\".csv", report = temp / "r.html",
             events = temp / "events";
  const auto resume = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"train", "--resume", "--checkpoint", net});
    return mobilenet(more);
  };
  ASSERT_EQ(mobilenet(train(temp / "images", net,
                            {"--epochs", "20", "--lr", "0.01", "--csv", csv, "--report", report, "--events",
                             events, "--keep", "2", "--keep-best"}),
                      {.interrupt_after = "epoch 2/20:"})
                .status,
            130);
  const Outcome resumed = resume({});
  ASSERT_EQ(resumed.status, 0) << resumed;
  EXPECT_THAT(resumed.error, HasSubstr("resume: as before with --"));
  EXPECT_THAT(resumed.error, HasSubstr(" --csv " + csv.string()));
  EXPECT_EQ(count(get_text(report), "<circle "), 100u) << "the curves of all epochs";
  EXPECT_EQ(count(get_text(csv), "\n"), 21u);
  EXPECT_EQ(count_entries(events), 2u);
  EXPECT_TRUE(std::filesystem::exists(temp / "net.1"));

  // What is given counts more, and an empty name is none.
  const auto other = temp / "other.html";
  for (const auto& path : {report, csv}) std::filesystem::remove(path);
  ASSERT_EQ(resume({"--report", other, "--csv", ""}).status, 0);
  EXPECT_TRUE(std::filesystem::exists(other));
  EXPECT_FALSE(std::filesystem::exists(report));
  EXPECT_FALSE(std::filesystem::exists(csv));

  std::filesystem::remove(net.string() + ".toml");
  ASSERT_EQ(resume({}).status, 0);
  EXPECT_FALSE(std::filesystem::exists(report));
  const std::string broken = "[train]\nkeep = many\n";
  put_file(net.string() + ".toml", {reinterpret_cast<const std::uint8_t*>(broken.data()), broken.size()});
  const Outcome refused = resume({});
  EXPECT_EQ(refused.status, 1) << refused;
  EXPECT_THAT(refused.error, HasSubstr("net.toml: "));
}

TEST(MobileNetReportTest, says_where_it_cannot_write) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto expect = [&](const std::string& option, const std::filesystem::path& place,
                          const std::string& message) {
    const Outcome outcome = mobilenet(train(temp / "images", temp / "net", {option, place}));
    EXPECT_EQ(outcome.status, 1) << outcome;
    EXPECT_THAT(outcome.error, HasSubstr(message));
    EXPECT_THAT(outcome.out, Not(HasSubstr("epoch")));
  };
  expect("--report", temp / "images", "it is a folder; name a file");
  expect("--report", temp / "none/r.html", "there is no folder");
  expect("--events", temp / "images/train/dark/image0.png", "image0.png");
}

}  // namespace
}  // namespace lamella::test
