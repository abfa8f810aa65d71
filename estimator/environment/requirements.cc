#include "estimator/environment/requirements.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr size_t kMaxDepth = 16;  // of files that include one another

struct Line {
  int number = 0;  // of its first part, counted from 1
  std::string text;
};

// From a '#' at the beginning or after a space.
absl::string_view WithoutComment(absl::string_view line) {
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '#' && (i == 0 || absl::ascii_isspace(line[i - 1]))) return line.substr(0, i);
  }
  return line;
}

std::vector<Line> LogicalLines(absl::string_view text) {
  absl::ConsumePrefix(&text, "\xEF\xBB\xBF");
  std::vector<Line> lines;
  int number = 0;
  bool goes_on = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    absl::ConsumeSuffix(&line, "\r");
    if (!goes_on) lines.push_back({number, ""});
    // A comment ends a line that goes on, as in pip.
    const bool is_comment = absl::StartsWith(absl::StripLeadingAsciiWhitespace(line), "#");
    goes_on = !is_comment && absl::ConsumeSuffix(&line, "\\");
    absl::StrAppend(&lines.back().text, line);
  }
  for (Line& line : lines) line.text = std::string(absl::StripAsciiWhitespace(WithoutComment(line.text)));
  return lines;
}

// "-r x", "-rx", "--requirement x", "--requirement=x": whether it is that option; its value then.
bool TakesOption(absl::string_view line, absl::string_view short_name, absl::string_view long_name,
                 std::string* value) {
  absl::string_view rest = line;
  const bool is_long = absl::ConsumePrefix(&rest, long_name);
  if (is_long ? !(absl::StartsWith(rest, "=") || absl::StartsWith(rest, " ") || rest.empty())
              : !absl::ConsumePrefix(&rest, short_name)) {
    return false;
  }
  if (is_long) absl::ConsumePrefix(&rest, "=");
  *value = std::string(absl::StripAsciiWhitespace(rest));
  return true;
}

bool IsUrl(absl::string_view text) { return absl::StrContains(text, "://"); }

// Whether the requirement is a path that is taken from where pip happens to run.
bool IsRelativePath(absl::string_view line) {
  absl::string_view what = line.substr(0, line.find_first_of(" ;\t"));
  // "name @ URL" names no file of ours, unless the URL is file:relative.
  if (const size_t at = line.find('@'); at != absl::string_view::npos)
    what = absl::StripAsciiWhitespace(line.substr(at + 1));
  if (absl::StartsWith(what, "file:")) return !absl::StartsWith(what, "file:/");
  if (IsUrl(what) || absl::StartsWith(what, "/")) return false;
  if (absl::StartsWith(what, ".") || absl::StrContains(what, "/")) return true;
  for (const char* suffix : {".whl", ".tar.gz", ".zip"}) {
    if (absl::EndsWith(what, suffix)) return true;
  }
  return false;
}

class Flattener {
 public:
  Flattener(const RequirementsReader& read, Requirements* out) : read_(read), out_(out) {}

  absl::Status Add(absl::string_view text, const std::string& name, bool constraints) {
    for (const std::string& open : open_) {
      if (open == name) return absl::InvalidArgumentError(absl::StrCat(name, " includes itself"));
    }
    if (open_.size() >= kMaxDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": files that include one another, more than ", kMaxDepth, " deep"));
    }
    open_.push_back(name);
    for (const Line& line : LogicalLines(text)) {
      if (!line.text.empty()) BASIN_RETURN_IF_ERROR(AddLine(line, name, constraints));
    }
    open_.pop_back();
    return absl::OkStatus();
  }

 private:
  absl::Status AddLine(const Line& line, const std::string& name, bool constraints) {
    const auto refused = [&](absl::string_view problem) {
      return absl::InvalidArgumentError(absl::StrCat(name, ":", line.number, ": ", line.text, ": ", problem));
    };
    std::string value;
    const bool requirement = TakesOption(line.text, "-r", "--requirement", &value);
    if (requirement || TakesOption(line.text, "-c", "--constraint", &value)) {
      if (IsUrl(value)) {
        // pip fetches it when the environment is built.
        (constraints ? out_->constraints : out_->lines).push_back(line.text);
        return absl::OkStatus();
      }
      if (value.empty() || value[0] == '/') return refused("a file below source_directory is expected");
      const size_t slash = name.rfind('/');
      const std::string path = slash == std::string::npos ? value : absl::StrCat(name.substr(0, slash + 1), value);
      absl::StatusOr<std::string> content = read_(path);
      if (!content.ok()) return refused(content.status().message());
      // Also from within constraints, -r names requirements, as in pip.
      return Add(*content, path, !requirement);
    }
    if (TakesOption(line.text, "-e", "--editable", &value)) {
      return refused(
          "an environment is shared by runs and cannot be edited; what lies in source_directory can be imported "
          "without being installed");
    }
    if (TakesOption(line.text, "-f", "--find-links", &value)) {
      if (!IsUrl(value) && !absl::StartsWith(value, "/") && !absl::StartsWith(value, "file:/")) {
        return refused("an absolute path, which every node sees, or an URL is expected");
      }
    } else if (line.text[0] != '-' && IsRelativePath(line.text)) {
      return refused(
          "an absolute path, which every node sees, an URL or a package's name is expected: an environment is "
          "shared by runs and is not built in source_directory");
    }
    (constraints ? out_->constraints : out_->lines).push_back(line.text);
    return absl::OkStatus();
  }

  const RequirementsReader& read_;
  Requirements* const out_;
  std::vector<std::string> open_;
};

}  // namespace

absl::Status AddRequirements(absl::string_view text, const std::string& name, const RequirementsReader& read,
                             Requirements* out) {
  return Flattener(read, out).Add(text, name, false);
}

}  // namespace basin
