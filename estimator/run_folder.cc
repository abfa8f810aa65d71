#include "estimator/run_folder.h"

#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {
constexpr int kPrivateFolder = 0700;
constexpr int kPrivateFile = 0600;
constexpr int kTokenBytes = 32;

std::string TimeText(absl::Time time) { return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone()); }
}  // namespace

std::string RunRecordToJson(const RunRecord& record) {
  using Json = nlohmann::ordered_json;
  Json out = {{"run_id", record.run_id}, {"experiment", record.experiment}, {"state", RunPhaseName(record.phase)}};
  if (!record.reason.empty()) out["reason"] = record.reason;
  out["created"] = TimeText(record.created);
  if (record.ended) {
    out["ended"] = TimeText(*record.ended);
    out["duration_s"] = absl::ToDoubleSeconds(*record.ended - record.created);
  }
  out["tasks"] = Json::array();
  for (const TaskRecord& task : record.tasks) {
    Json one = {{"role", std::string(Name(task.name.role))}, {"index", task.name.index}};
    if (!task.address.empty()) one["address"] = task.address;
    if (task.pid != 0) one["pid"] = task.pid;
    if (task.exit) {
      if (task.exit->signal != 0) {
        one["signal"] = task.exit->signal;
      } else {
        one["exit_code"] = task.exit->code;
      }
    }
    out["tasks"].push_back(one);
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string RunFolder::PathFor(const std::string& runs, const std::string& experiment, const std::string& run_id) {
  return absl::StrCat(runs, "/", experiment, "/", run_id);
}

absl::Status RunFolder::Create() const {
  const size_t last_slash = path_.rfind('/');
  BASIN_RETURN_IF_ERROR(MakeFolders(path_.substr(0, last_slash), kPrivateFolder));
  if (mkdir(path_.c_str(), kPrivateFolder) != 0)
    return ErrnoStatus(errno, absl::StrCat("make the run's folder ", path_));
  BASIN_RETURN_IF_ERROR(MakeFolders(absl::StrCat(path_, "/logs"), kPrivateFolder));
  BASIN_RETURN_IF_ERROR(MakeFolders(absl::StrCat(path_, "/outputs"), kPrivateFolder));
  return WriteFileAtomically(TokenPath(), SecretHex(kTokenBytes), kPrivateFile);
}

absl::Status RunFolder::WriteJob(absl::string_view json) const {
  return WriteFileAtomically(absl::StrCat(path_, "/job.json"), json, kPrivateFile);
}
absl::Status RunFolder::WritePlan(absl::string_view json) const {
  return WriteFileAtomically(absl::StrCat(path_, "/plan.json"), json, kPrivateFile);
}
absl::Status RunFolder::WriteRecord(const RunRecord& record) const {
  return WriteFileAtomically(absl::StrCat(path_, "/run.json"), RunRecordToJson(record), kPrivateFile);
}

std::string RunFolder::LogPath(const TaskId& name) const {
  return absl::StrCat(path_, "/logs/", Name(name.role), "-", name.index, ".txt");
}
std::string RunFolder::OutputPath(absl::string_view name) const { return absl::StrCat(path_, "/outputs/", name); }
std::string RunFolder::TokenPath() const { return absl::StrCat(path_, "/token"); }

std::vector<std::string> LastLines(const std::string& path, int count) {
  constexpr std::streamoff kMost = 64 << 10;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  const std::streamoff size = file.tellg();
  const std::streamoff from = size > kMost ? size - kMost : 0;
  file.seekg(from);
  std::string text(static_cast<size_t>(size - from), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  if (lines.size() > static_cast<size_t>(count)) lines.erase(lines.begin(), lines.end() - count);
  return lines;
}

}  // namespace basin
