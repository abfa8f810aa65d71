#include "estimator/snapshot/left_out.h"

#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/snapshot/ignore_rules.h"

namespace basin {
namespace {

constexpr size_t kMaxRulesBytes = size_t{4} << 20;  // as tree.cc reads them

// The content of an ignore file; none where it is not there.
absl::Status EnterRules(const std::string& root, const std::string& folder, const char* name, IgnoreRules* rules,
                        bool* entered) {
  *entered = false;
  absl::StatusOr<std::string> content =
      ReadFile(absl::StrCat(root, "/", folder, folder.empty() ? "" : "/", name), kMaxRulesBytes);
  if (absl::IsNotFound(content.status())) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(content.status());
  rules->Enter(folder, *content);
  *entered = true;
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckIsKept(const std::string& source_directory, const std::string& path) {
  IgnoreRules rules;
  bool entered = false;
  std::string ignore_file = ".gitignore";
  for (const char* name : {".basinignore", ".amlignore"}) {
    BASIN_RETURN_IF_ERROR(EnterRules(source_directory, "", name, &rules, &entered));
    if (!entered) continue;
    ignore_file = name;
    break;
  }
  const bool by_git = ignore_file == ".gitignore";
  std::string folder;
  for (size_t end = 0; end != std::string::npos;) {
    if (by_git) {
      // Git reads none through a link.
      std::error_code error;
      const std::filesystem::path file = std::filesystem::path(source_directory) / folder / ignore_file;
      if (std::filesystem::symlink_status(file, error).type() == std::filesystem::file_type::regular) {
        BASIN_RETURN_IF_ERROR(EnterRules(source_directory, folder, ".gitignore", &rules, &entered));
      }
    }
    const size_t begin = folder.empty() ? 0 : folder.size() + 1;
    end = path.find('/', begin);
    folder = path.substr(0, end);
    std::error_code error;
    const bool is_folder =
        std::filesystem::symlink_status(std::filesystem::path(source_directory) / folder, error).type() ==
        std::filesystem::file_type::directory;
    if (folder.substr(begin) == ".git") {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " does not reach the nodes: nothing named .git does; move it"));
    }
    IgnoreRule rule;
    if (!rules.Ignores(folder, is_folder, &rule)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, " does not reach the nodes: ", rule.folder, rule.folder.empty() ? "" : "/", ignore_file,
                     " leaves out ", folder, is_folder ? "/" : "", " by its line \"", rule.line, "\"; remove that line",
                     by_git ? ", or add a .basinignore, which then replaces .gitignore" : ", or move the file"));
  }
  return absl::OkStatus();
}

}  // namespace basin
