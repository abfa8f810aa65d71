// Lines that a person reads: one line an event, on standard error, with the task's name in front
// ("ps 1: listening on 10.0.0.4:2222"). Programs set the prefix once; libbasin.so stays silent unless told.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace basin {

enum class LogLevel { kInfo, kWarning, kError };

// Not thread-safe: call it in main before threads start. `quiet` keeps warnings and errors alone.
void SetLogPrefix(std::string prefix, bool quiet = false);

// One line with one write, so that lines of several threads and processes do not mix.
void Log(LogLevel level, absl::string_view line);
inline void Info(absl::string_view line) { Log(LogLevel::kInfo, line); }
inline void Warn(absl::string_view line) { Log(LogLevel::kWarning, line); }
inline void Error(absl::string_view line) { Log(LogLevel::kError, line); }

}  // namespace basin
