#include "lamella/core/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

namespace lamella {
namespace {

using Sink = std::function<void(LogLevel, const std::string&)>;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::Debug:
      return spdlog::level::debug;
    case LogLevel::Info:
      return spdlog::level::info;
    case LogLevel::Warning:
      return spdlog::level::warn;
    case LogLevel::Error:
      return spdlog::level::err;
    case LogLevel::Off:
      break;
  }
  return spdlog::level::off;
}

LogLevel initial_level() {
  static constexpr std::pair<std::string_view, LogLevel> kLevels[] = {{"debug", LogLevel::Debug},
                                                                      {"info", LogLevel::Info},
                                                                      {"warning", LogLevel::Warning},
                                                                      {"error", LogLevel::Error},
                                                                      {"off", LogLevel::Off}};
  const char* const text = std::getenv("LAMELLA_LOG_LEVEL");
  if (text == nullptr || *text == '\0') return LogLevel::Info;
  for (const auto& [name, level] : kLevels)
    if (name == text) return level;
  // Nothing can be logged yet.
  std::fprintf(stderr,
               "[lamella] warning: LAMELLA_LOG_LEVEL=%s is none of debug, info, warning, error, off\n", text);
  return LogLevel::Info;
}

// A logger of our own, outside spdlog's registry, so that nothing of the user's spdlog setup is touched.
struct Logger {
  spdlog::logger standard_error{"lamella", std::make_shared<spdlog::sinks::stderr_color_sink_mt>()};
  std::atomic<LogLevel> level{initial_level()};
  std::mutex mutex;
  std::shared_ptr<const Sink> sink;  // null: standard error

  Logger() {
    standard_error.set_level(spdlog::level::trace);  // filtered by `level` above
    standard_error.flush_on(spdlog::level::trace);
    standard_error.set_pattern("[lamella] %^%l%$: %v");
  }
};

Logger& logger() {
  static Logger& instance = *new Logger;  // never destroyed: static objects may log after main
  return instance;
}

}  // namespace

void set_log_level(LogLevel level) { logger().level = level; }
LogLevel log_level() { return logger().level; }

void set_log_sink(Sink sink) {
  std::shared_ptr<const Sink> next = sink ? std::make_shared<const Sink>(std::move(sink)) : nullptr;
  std::lock_guard lock(logger().mutex);
  logger().sink.swap(next);
}

void log_message(LogLevel level, const std::string& message) {
  Logger& l = logger();
  if (level == LogLevel::Off || level < l.level) return;
  std::shared_ptr<const Sink> sink;
  {
    std::lock_guard lock(l.mutex);
    sink = l.sink;
  }
  // Outside the lock, so that a sink may log or replace itself.
  if (sink) {
    (*sink)(level, message);
  } else {
    l.standard_error.log(to_spdlog(level), spdlog::string_view_t(message));
  }
}

}  // namespace lamella
