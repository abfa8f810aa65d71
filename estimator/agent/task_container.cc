#include "estimator/agent/task_container.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/agent/inherited_settings.h"
#include "estimator/container/container_user.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

void AddMount(const std::string& path, bool read_only, std::vector<ContainerMount>* mounts) {
  for (ContainerMount& known : *mounts) {
    if (known.path != path) continue;
    known.read_only = known.read_only && read_only;
    return;
  }
  mounts->push_back({path, read_only});
}

// Where an image has files of its own.
bool IsShared(const std::string& folder) {
  if (absl::StrContains(folder, "/basin")) return false;
  for (const char* top : {"/usr", "/bin", "/sbin", "/lib"}) {
    if (absl::StartsWith(folder, top)) return true;
  }
  return false;
}

void AddProgramMounts(const std::string& folder, const char* beginning, std::vector<ContainerMount>* mounts) {
  if (folder.empty()) return;
  if (!IsShared(folder)) return AddMount(folder, true, mounts);
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    if (absl::StartsWith(entry->path().filename().string(), beginning)) files.push_back(entry->path().string());
  }
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) AddMount(file, true, mounts);
}

}  // namespace

std::vector<ContainerMount> ProgramMounts(const Programs& programs) {
  std::vector<ContainerMount> mounts;
  AddProgramMounts(programs.folder, "basin", &mounts);
  if (!programs.library.empty()) {
    AddProgramMounts(fs::path(programs.library).parent_path().string(), "libbasin.so", &mounts);
  }
  AddProgramMounts(programs.python, "basin", &mounts);
  return mounts;
}

std::string RemovalsOf(const NodeFolder& folder, const std::string& task) {
  return absl::StrCat(folder.path, "/containers/", task);
}

absl::StatusOr<EngineCommand> TaskInContainer(const TaskContainer& container, const TaskSurroundings& surroundings,
                                              const std::vector<std::string>& words, const Environment& environment) {
  ContainedCommand command;
  command.name = container.name;
  command.run_id = container.folder.run_id;
  command.argv = words;
  command.environment = environment;
  command.folder = surroundings.paths.task;
  command.home = absl::StrCat(container.folder.path, "/home");
  if (mkdir(command.home.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, absl::StrCat("create ", command.home));
  }
  command.mounts = {{container.folder.path, false}};
  // Basin's own programs come first; among others of the system the image's python would come before the environment's.
  const std::string& programs = surroundings.programs.folder;
  if (!IsShared(programs)) command.path.push_back(programs);
  if (!surroundings.environment_prefix.empty()) {
    command.path.push_back(absl::StrCat(surroundings.environment_prefix, "/bin"));
    AddMount(surroundings.environment_prefix, true, &command.mounts);
  }
  if (IsShared(programs)) command.path.push_back(programs);
  if (!surroundings.programs.python.empty()) command.python_path.push_back(surroundings.programs.python);
  for (const ContainerMount& mount : ProgramMounts(surroundings.programs)) {
    AddMount(mount.path, mount.read_only, &command.mounts);
  }
  for (const std::string& path : container.request.paths) AddMount(MountFor(path), false, &command.mounts);
  return InContainer(container.image, container.request, ThisUser(InheritedUmask(), InheritedOpenFilesLimit()),
                     command);
}

}  // namespace basin
