#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "estimator/history/files_below.h"
#include "estimator/history/run_page.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLogsMax = 200;
constexpr size_t kTailsMax = 64;
constexpr int kTailLines = 60;
constexpr size_t kOutputsMax = 500;
constexpr size_t kJobBytesMax = 256 << 10;

// By path. Links are shown, not followed.
std::vector<PageLog> FilesOf(const fs::path& root, const std::string& part) {
  std::vector<PageLog> files;
  const absl::StatusOr<std::vector<FileBelow>> found = FilesBelow((root / part).string());
  if (!found.ok()) return files;
  for (const FileBelow& file : *found) files.push_back({absl::StrCat(part, "/", file.path), file.bytes, {}});
  return files;
}

// What a terminal would show of a line: a progress bar's last state.
std::string Shown(std::string line) {
  while (!line.empty() && line.back() == '\r') line.pop_back();
  if (const size_t back = line.rfind('\r'); back != std::string::npos) line.erase(0, back + 1);
  return line;
}

std::vector<PageLog> Logs(const fs::path& root) {
  std::vector<PageLog> logs = FilesOf(root, "logs");
  std::erase_if(logs, [](const PageLog& log) { return absl::StartsWith(log.path, "logs/tensorboard/"); });
  // What the tasks printed comes first, then what their scripts logged.
  std::stable_partition(logs.begin(), logs.end(), [](const PageLog& log) {
    return log.path.find('/', 5) == std::string::npos && TaskOfFileName(fs::path(log.path).stem().string()).has_value();
  });
  if (logs.size() > kLogsMax) logs.resize(kLogsMax);
  for (size_t i = 0; i < std::min(logs.size(), kTailsMax); ++i) {
    logs[i].tail = LastLines((root / logs[i].path).string(), kTailLines);
    for (std::string& line : logs[i].tail) line = Shown(std::move(line));
    const bool binary = std::any_of(logs[i].tail.begin(), logs[i].tail.end(),
                                    [](const std::string& line) { return line.find('\0') != std::string::npos; });
    if (binary) logs[i].tail.clear();
  }
  return logs;
}

// One copy for all runs, which each run's folder links to: a run that is copied elsewhere takes it along.
absl::Status PlaceChartScript(const RunFolder& folder) {
  const std::string place = absl::StrCat(folder.path(), "/chart.js");
  if (access(place.c_str(), F_OK) == 0) return absl::OkStatus();
  const fs::path runs = fs::path(folder.path()).parent_path().parent_path();
  const std::string shared = (runs / ".page" / "chart-3.9.1.js").string();
  std::error_code error;
  if (fs::file_size(shared, error) == ChartScript().size() && link(shared.c_str(), place.c_str()) == 0)
    return absl::OkStatus();
  if (MakeFolders((runs / ".page").string(), 0700).ok() && WriteFileAtomically(shared, ChartScript(), 0600).ok() &&
      link(shared.c_str(), place.c_str()) == 0) {
    return absl::OkStatus();
  }
  return WriteFileAtomically(place, ChartScript(), 0600);
}

}  // namespace

absl::Status WriteRunPage(const RunFolder& folder, const RunRecord& record, const SeriesMap& series, absl::Time now) {
  PageContent content;
  content.record = record;
  content.series = &series;
  content.written = now;
  content.nonce = SecretHex(8);
  if (absl::StatusOr<std::string> job = ReadFile(folder.path() + "/job.json", kJobBytesMax); job.ok()) {
    content.job_json = *std::move(job);
  }
  content.logs = Logs(folder.path());
  content.outputs = FilesOf(folder.path(), "outputs");
  content.outputs_cut = content.outputs.size() > kOutputsMax;
  if (content.outputs_cut) content.outputs.resize(kOutputsMax);
  BASIN_RETURN_IF_ERROR(WriteFileAtomically(folder.PagePath(), RenderRunPage(content), 0600));
  return PlaceChartScript(folder);
}

}  // namespace basin
