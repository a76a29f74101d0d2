#pragma once

#include <functional>
#include <string>

#include "lamella/core/export.h"

namespace lamella {

/// How much a message matters; Off is above all of them and belongs to no message.
enum class LogLevel { Debug, Info, Warning, Error, Off };

/// Messages below `level` are dropped; Off drops all. The start value is the environment variable
/// LAMELLA_LOG_LEVEL (debug, info, warning, error or off), else Info. Any thread may call it.
LAMELLA_API void set_log_level(LogLevel level);
/// The level set last.
LAMELLA_API LogLevel log_level();
/// Sends messages to `sink` instead of standard error; an empty function restores that. Threads that log at
/// the same time call it at the same time; it may log itself.
LAMELLA_API void set_log_sink(std::function<void(LogLevel, const std::string&)> sink);
/// Logs one message, a line without its end. What the sink throws comes out here.
LAMELLA_API void log_message(LogLevel level, const std::string& message);

}  // namespace lamella
