#pragma once

#include <functional>
#include <string>

#include "lamella/core/export.h"

namespace lamella {

enum class LogLevel { Debug, Info, Warning, Error, Off };

/// Messages below `level` are dropped. The start value is LAMELLA_LOG_LEVEL (debug, info, warning, error,
/// off), else info. Messages go to standard error.
LAMELLA_API void set_log_level(LogLevel level);
LAMELLA_API LogLevel log_level();
/// Sends messages to `sink` instead; an empty function restores standard error. Threads that log at once call
/// it at once.
LAMELLA_API void set_log_sink(std::function<void(LogLevel, const std::string&)> sink);
/// Logs one message.
LAMELLA_API void log(LogLevel level, const std::string& message);

}  // namespace lamella
