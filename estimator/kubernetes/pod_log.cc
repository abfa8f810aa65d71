#include "estimator/kubernetes/pod_log.h"

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace basin {
namespace {

constexpr char kMark[] =
    "\x1e"
    "BASIN ";
constexpr size_t kMarkBytes = sizeof(kMark) - 1;
// A chunk of 64 KiB in base64, and some.
constexpr size_t kMostLineBytes = size_t{256} << 10;

std::string Unescaped(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 1 < text.size();
    if (!escape) {
      out.push_back(text[i]);
    } else {
      out.push_back(text[++i] == 'n' ? '\n' : text[i]);
    }
  }
  return out;
}

}  // namespace

std::string PodLine(absl::string_view word, absl::string_view text) {
  return absl::StrCat(kMark, word, text.empty() ? "" : " ", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\n", "\\n"}}),
                      "\n");
}

std::string PodChunkLine(const agent::FileChunk& chunk) {
  return absl::StrCat(kMark, "chunk ", absl::Base64Escape(chunk.SerializeAsString()), "\n");
}

std::vector<PodEvent> PodLogReader::Take(absl::string_view bytes) {
  std::vector<PodEvent> events;
  rest_.append(bytes.data(), bytes.size());
  size_t at = 0;
  while (at < rest_.size()) {
    const size_t mark = rest_.find('\x1e', at);
    TakeLog(absl::string_view(rest_).substr(at, mark - at), &events);
    if (mark == std::string::npos) {
      at = rest_.size();
      break;
    }
    at = mark;
    const absl::string_view line = absl::string_view(rest_).substr(at);
    const bool is_mark = absl::StartsWith(line, kMark);
    if (!is_mark && !absl::StartsWith(kMark, line)) {
      TakeLog(line.substr(0, 1), &events);  // the task's own byte
      ++at;
      continue;
    }
    const size_t end = line.find('\n');
    if (end == absl::string_view::npos) {
      if (line.size() < kMostLineBytes) break;  // the rest is on its way
      TakeLog(line, &events);
      at = rest_.size();
      break;
    }
    TakeLine(std::string(line.substr(kMarkBytes, end - kMarkBytes)), &events);
    at += end + 1;
  }
  rest_.erase(0, at);
  return events;
}

void PodLogReader::TakeLog(absl::string_view bytes, std::vector<PodEvent>* events) {
  if (bytes.empty()) return;
  if (!knows_offset_) {
    begins_late_ = true;
    return;
  }
  PodEvent event;
  event.kind = PodEvent::kLog;
  event.offset = offset_;
  event.text = std::string(bytes);
  offset_ += bytes.size();
  if (!events->empty() && events->back().kind == PodEvent::kLog) {
    events->back().text += event.text;
  } else {
    events->push_back(std::move(event));
  }
}

void PodLogReader::TakeLine(const std::string& line, std::vector<PodEvent>* events) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(line, absl::MaxSplits(' ', 1));
  const std::string& word = parts.first;
  PodEvent event;
  event.text = Unescaped(parts.second);
  if (word == "pod") {
    event.kind = PodEvent::kPod;
    knows_offset_ = true;
  } else if (word == "log") {
    // The same bytes again are no harm, others would be.
    uint64_t offset = 0;
    if (absl::SimpleAtoi(parts.second, &offset)) offset_ = offset;
    if (!knows_offset_) begins_late_ = true;
    knows_offset_ = true;
    return;
  } else if (word == "agent") {
    event.kind = PodEvent::kAgent;
  } else if (word == "state") {
    event.kind = PodEvent::kState;
  } else if (word == "started") {
    event.kind = PodEvent::kStarted;
    if (!absl::SimpleAtoi(parts.second, &event.number)) return;
  } else if (word == "exited") {
    event.kind = PodEvent::kExited;
    const std::vector<std::string> words = absl::StrSplit(event.text, absl::MaxSplits(' ', 2));
    if (words.size() < 2 || !absl::SimpleAtoi(words[0], &event.exit.code) ||
        !absl::SimpleAtoi(words[1], &event.exit.signal)) {
      return;
    }
    event.text = words.size() > 2 ? words[2] : "";
  } else if (word == "ending") {
    event.kind = PodEvent::kEnding;
  } else if (word == "gone") {
    event.kind = PodEvent::kGone;
  } else if (word == "refused") {
    event.kind = PodEvent::kRefused;
    const std::pair<std::string, std::string> words = absl::StrSplit(event.text, absl::MaxSplits(' ', 1));
    if (!absl::SimpleAtoi(words.first, &event.number)) return;
    event.text = words.second;
  } else if (word == "kept") {
    event.kind = PodEvent::kKept;
  } else if (word == "chunk") {
    event.kind = PodEvent::kChunk;
    std::string bytes;
    if (!absl::Base64Unescape(parts.second, &bytes) || !event.chunk.ParseFromString(bytes)) return;
  } else {
    return;  // of a later version
  }
  events->push_back(std::move(event));
}

}  // namespace basin
