#include "lamella/core/log.h"

#include <gtest/gtest.h>

#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace lamella {
namespace {

using Messages = std::vector<std::pair<LogLevel, std::string>>;

class LogTest : public testing::Test {
 protected:
  void SetUp() override { set_log_level(LogLevel::Info); }
  void TearDown() override {
    set_log_sink({});
    set_log_level(before_);
  }

 private:
  const LogLevel before_ = log_level();
};

TEST_F(LogTest, sends_messages_to_the_sink) {
  Messages got;
  set_log_sink([&](LogLevel level, const std::string& message) { got.emplace_back(level, message); });
  log_message(LogLevel::Warning, "one {} %s");
  log_message(LogLevel::Error, "");
  EXPECT_EQ(got, (Messages{{LogLevel::Warning, "one {} %s"}, {LogLevel::Error, ""}}));
}

TEST_F(LogTest, drops_messages_below_the_level) {
  Messages got;
  set_log_sink([&](LogLevel level, const std::string& message) { got.emplace_back(level, message); });
  for (const LogLevel threshold :
       {LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error, LogLevel::Off}) {
    set_log_level(threshold);
    EXPECT_EQ(log_level(), threshold);
    got.clear();
    for (const LogLevel level : {LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error})
      log_message(level, "x");
    EXPECT_EQ(static_cast<int>(got.size()), 4 - static_cast<int>(threshold));
  }
  set_log_level(LogLevel::Debug);
  got.clear();
  log_message(LogLevel::Off, "never");
  EXPECT_TRUE(got.empty());
}

TEST_F(LogTest, writes_to_standard_error_by_default) {
  testing::internal::CaptureStderr();
  log_message(LogLevel::Warning, "mind the {gap} %d");
  log_message(LogLevel::Debug, "unseen");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "[lamella] warning: mind the {gap} %d\n");
}

TEST_F(LogTest, an_empty_sink_restores_standard_error) {
  set_log_sink([](LogLevel, const std::string&) { FAIL(); });
  set_log_sink({});
  testing::internal::CaptureStderr();
  log_message(LogLevel::Info, "back");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "[lamella] info: back\n");
}

TEST_F(LogTest, a_sink_may_log_and_replace_itself) {
  Messages got;
  set_log_sink([&](LogLevel level, const std::string& message) {
    got.emplace_back(level, message);
    set_log_sink([&](LogLevel l, const std::string& m) { got.emplace_back(l, "second " + m); });
    log_message(LogLevel::Info, "inner");
  });
  log_message(LogLevel::Info, "outer");
  EXPECT_EQ(got, (Messages{{LogLevel::Info, "outer"}, {LogLevel::Info, "second inner"}}));
}

TEST_F(LogTest, takes_messages_from_many_threads) {
  std::mutex mutex;
  int count = 0;
  set_log_sink([&](LogLevel, const std::string&) {
    std::lock_guard lock(mutex);
    ++count;
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 100; ++i) log_message(LogLevel::Info, "m");
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 400);
}

}  // namespace
}  // namespace lamella
