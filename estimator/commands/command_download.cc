#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/runs_place.h"
#include "estimator/history/bytes_text.h"
#include "estimator/history/copy_files.h"
#include "estimator/history/files_below.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

struct DownloadFlags : RunFlags {
  std::string path, to;
  bool all = false;
};

absl::Status Download(const CommandContext& context, const DownloadFlags& flags) {
  if (flags.all != flags.path.empty()) {
    return absl::InvalidArgumentError(
        flags.all ? "download: give a PATH or --all, not both"
                  : "download: which file? Give its PATH, or --all; `basin show RUN` lists them");
  }
  BASIN_ASSIGN_OR_RETURN(const RunFolder folder, RunOf(context, flags));
  uint64_t files = 0, bytes = 0;
  std::vector<std::string> not_whole;
  std::string to = flags.to;
  std::error_code error;
  if (flags.all) {
    if (to.empty()) to = fs::path(folder.path()).filename().string();
    for (const char* part : {"outputs", "logs"}) {
      BASIN_ASSIGN_OR_RETURN(const CopiedFiles copied, CopyFrom(folder.path(), part, absl::StrCat(to, "/", part)));
      files += copied.files;
      bytes += copied.bytes;
      not_whole.insert(not_whole.end(), copied.not_whole.begin(), copied.not_whole.end());
    }
  } else {
    BASIN_ASSIGN_OR_RETURN(const std::string path, PathInRun(folder.path(), flags.path));
    const std::string name = fs::path(path).filename().string();
    if (to.empty()) {
      to = name;
    } else if (to.back() == '/' ||
               (fs::is_directory(to, error) && !fs::is_directory(fs::path(folder.path()) / path, error))) {
      to = (fs::path(to) / name).string();
    }
    BASIN_ASSIGN_OR_RETURN(const CopiedFiles copied, CopyFrom(folder.path(), path, to));
    files = copied.files;
    bytes = copied.bytes;
    not_whole = copied.not_whole;
  }
  if (!not_whole.empty()) {
    Warn(absl::StrCat(not_whole.size(), not_whole.size() == 1 ? " file is" : " files are",
                      " left out, of which only a part has come: ", absl::StripSuffix(not_whole[0], kPartialSuffix),
                      not_whole.size() > 1 ? ", ..." : ""));
  }
  if (flags.json) {
    std::printf("%s\n", Pretty({{"path", to}, {"bytes", bytes}, {"files", files}}).c_str());
  } else {
    std::printf("%s: %s in %d file%s\n", to.c_str(), BytesText(bytes).c_str(), static_cast<int>(files),
                files == 1 ? "" : "s");
  }
  return absl::OkStatus();
}

}  // namespace

void AddDownload(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* download = app.add_subcommand("download", "Copies what a run has left to where you are");
  const auto flags = std::make_shared<DownloadFlags>();  // the callback keeps it
  AddRunOption(*download, flags.get());
  download
      ->add_option("PATH", flags->path,
                   "A file or folder of the run: outputs/model.bin, logs, or without outputs/ in front: model.bin")
      ->type_name("");
  download->add_flag("--all", flags->all, "Its outputs and logs");
  NotEmpty(
      download->add_option("--to", flags->to,
                           "Where to; a folder that exists takes the file in. Default: its own name, with --all the "
                           "run's"))
      ->type_name("DEST");
  AddJsonOption(*download, flags.get(), "Print {\"path\", \"bytes\", \"files\"}");
  download->footer(kUsualExitCodes);
  download->callback([&context, exit_code, flags] {
    const absl::Status status = Download(context, *flags);
    *exit_code = status.ok() ? kExitOk : Complain(status);
  });
}

}  // namespace basin
