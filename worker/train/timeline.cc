#include "worker/train/timeline.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace basin {
namespace {

// Names are the program's own words and names of variables: no control characters in them.
std::string Quoted(absl::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  quoted.push_back('"');
  return quoted;
}

std::string Meta(absl::string_view what, uint32_t process, uint32_t row, absl::string_view name) {
  return absl::StrCat(R"({"ph": "M", "name": ")", what, R"(", "pid": )", process, R"(, "tid": )", row,
                      R"(, "args": {"name": )", Quoted(name), "}}");
}

}  // namespace

void Timeline::Add(absl::string_view name, uint32_t row, absl::Time from, absl::Time to, uint64_t step,
                   uint64_t bytes) {
  if (from < zero_) return;
  if (events_.size() >= kMostEvents) {
    ++left_out_;
    return;
  }
  events_.push_back({name, row, absl::ToInt64Microseconds(from - zero_),
                     std::max(int64_t{0}, absl::ToInt64Microseconds(to - from)), step, bytes});
}

std::string Timeline::EventLines(absl::string_view title) const {
  if (events_.empty()) return "";
  std::string lines = Meta("process_name", process_, 0, title);
  absl::StrAppend(&lines, ",\n", Meta("thread_name", process_, 0, "steps"));
  for (const auto& [row, name] : rows_) absl::StrAppend(&lines, ",\n", Meta("thread_name", process_, row, name));
  for (const Event& event : events_) {
    absl::StrAppend(&lines, ",\n", R"({"ph": "X", "name": )", Quoted(event.name), R"(, "pid": )", process_,
                    R"(, "tid": )", event.row, R"(, "ts": )", event.from_us, R"(, "dur": )", event.duration_us);
    if (event.bytes > 0) {
      absl::StrAppend(&lines, R"(, "args": {"step": )", event.step, R"(, "bytes": )", event.bytes, "}");
    }
    lines.push_back('}');
  }
  return lines;
}

std::string Timeline::File(const std::vector<std::string>& lines) {
  std::string file = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  bool first = true;
  for (const std::string& one : lines) {
    if (one.empty()) continue;
    absl::StrAppend(&file, first ? "" : ",\n", one);
    first = false;
  }
  return file + "\n]}\n";
}

}  // namespace basin
