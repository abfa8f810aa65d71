#include "estimator/run/submission.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "estimator/launch/targets_file.h"

namespace basin {
namespace {

using nlohmann::json;

constexpr size_t kMostBytes = size_t{16} << 20;

std::string PathOf(const RunFolder& folder) { return folder.path() + "/submission.json"; }

std::string TextOf(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// Of the journal: the last job, and whether a supervisor came after it.
std::pair<std::string, bool> BatchOf(const RunFolder& folder) {
  std::pair<std::string, bool> batch;
  const absl::StatusOr<std::string> journal = ReadFile(folder.JournalPath(), size_t{1} << 30);
  if (!journal.ok()) return batch;
  for (const absl::string_view line : absl::StrSplit(*journal, '\n', absl::SkipEmpty())) {
    const json event = json::parse(ToStd(line), nullptr, /*allow_exceptions=*/false);
    if (!event.is_object()) continue;
    if (TextOf(event, "event") == "slurm") batch = {TextOf(event, "job"), false};
    if (TextOf(event, "event") == "supervisor") batch.second = true;
  }
  return batch;
}

}  // namespace

absl::Status WriteSubmission(const RunFolder& folder, const Submission& submission) {
  const json text = {{"target", json::parse(TargetToJson(submission.target))},
                     {"environment", submission.environment_spec},
                     {"program", submission.program}};
  return WriteFileAtomically(PathOf(folder), text.dump(2, ' ', false, json::error_handler_t::replace) + "\n", 0600);
}

absl::StatusOr<Submission> ReadSubmission(const RunFolder& folder) {
  BASIN_ASSIGN_OR_RETURN(const std::string text, ReadFile(PathOf(folder), kMostBytes));
  const json read = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!read.is_object() || !read.contains("target")) {
    return absl::InvalidArgumentError(
        absl::StrCat(PathOf(folder), " is not what basin submit writes; submit the job again"));
  }
  Submission submission;
  BASIN_ASSIGN_OR_RETURN(submission.target, ParseTargetJson(read["target"].dump()));
  submission.environment_spec = TextOf(read, "environment");
  submission.program = TextOf(read, "program");
  return submission;
}

std::string StagedFolder(const RunFolder& folder) { return folder.path() + "/staged"; }

std::string BatchJobOf(const RunFolder& folder) { return BatchOf(folder).first; }
bool HasBegun(const RunFolder& folder) { return BatchOf(folder).second; }

}  // namespace basin
