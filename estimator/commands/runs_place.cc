#include "estimator/commands/runs_place.h"

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/given_words.h"

namespace basin {
namespace {

std::string Absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return path;
  std::string normal = absolute.lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

}  // namespace

void AddRunsOption(CLI::App& command, RunFlags* flags) {
  NotEmpty(command.add_option("--runs", flags->runs,
                              "Folder of the runs' folders; default: BASIN_RUNS, else ~/.local/state/basin/runs"))
      ->type_name("DIR")
      ->take_last();
}
void AddRunOption(CLI::App& command, RunFlags* flags) {
  command.add_option("RUN", flags->run, "A run's id, the beginning of one, EXPERIMENT/ID, or latest")
      ->type_name("")
      ->required();
  AddRunsOption(command, flags);
}
void AddJsonOption(CLI::App& command, RunFlags* flags, const std::string& help) {
  command.add_flag("--json", flags->json, help);
}

absl::StatusOr<std::string> RunsFolderOf(const CommandContext& context, const std::string& flag) {
  if (!flag.empty()) return Absolute(flag);
  if (!context.runs.empty()) return Absolute(context.runs);
  if (context.home.empty()) {
    return absl::InvalidArgumentError("where are the runs? HOME is not set; give --runs DIR or set BASIN_RUNS");
  }
  return absl::StrCat(context.home, "/.local/state/basin/runs");
}

absl::Status CreateRunFolder(const RunFolder& folder, const std::string& runs) {
  const absl::Status status = folder.Create();
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("no run can be kept in ", runs, ": ", status.message(),
                                                  "; name another folder with --runs DIR or BASIN_RUNS"));
}

std::string IndexPathOf(const CommandContext& context) {
  // The XDG rules: a path that is not absolute counts as not set.
  const bool own = !context.xdg_cache.empty() && context.xdg_cache[0] == '/';
  if (!own && context.home.empty()) return "";
  char host[256] = "host";
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat(own ? context.xdg_cache : absl::StrCat(context.home, "/.cache"), "/basin/runs-", host, ".sqlite");
}

absl::StatusOr<RunFolder> RunOf(const CommandContext& context, const RunFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const std::string runs, RunsFolderOf(context, flags.runs));
  std::vector<std::string> passed_over;
  const absl::StatusOr<RunFolder> found = FindRun(runs, IndexPathOf(context), flags.run, &passed_over);
  if (!passed_over.empty()) {
    const size_t more = passed_over.size() - 1;
    Warn(absl::StrCat(flags.run, " passes over what may be newer: ", passed_over[0],
                      more == 0 ? "" : absl::StrCat(" (and ", more, " more, see basin runs)")));
  }
  return found;
}

absl::StatusOr<RunFolder> CertainRunOf(const CommandContext& context, const RunFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const std::string runs, RunsFolderOf(context, flags.runs));
  std::vector<std::string> passed_over;
  const absl::StatusOr<RunFolder> found = FindRun(runs, IndexPathOf(context), flags.run, &passed_over);
  if (!found.ok() || passed_over.empty()) return found;
  return absl::FailedPreconditionError(absl::StrCat("run ", flags.run, ": which one that is is not certain: ",
                                                    passed_over[0], "; or give the id of the run that you mean"));
}

std::string Column(absl::string_view text, size_t width) {
  std::string column = ForTerminal(text);
  // UTF-8 bytes that continue a character take no place.
  size_t shown = 0;
  for (const char c : column) shown += (c & 0xC0) != 0x80 ? 1 : 0;
  column.append(shown < width ? width - shown : 0, ' ');
  return column + "  ";
}

std::string ForTerminal(absl::string_view text) {
  std::string plain;
  for (const char c : text) plain.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c);
  return plain;
}

std::string AgeText(absl::Duration age) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(age));
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) return absl::StrCat(seconds / 60, "m", seconds % 60, "s");
  if (seconds < 86400) return absl::StrCat(seconds / 3600, "h", seconds % 3600 / 60, "m");
  return absl::StrCat(seconds / 86400, "d", seconds % 86400 / 3600, "h");
}

}  // namespace basin
