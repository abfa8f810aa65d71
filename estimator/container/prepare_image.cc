#include "estimator/container/prepare_image.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "estimator/environment/installer.h"
#include "estimator/snapshot/digest.h"

namespace basin {
namespace {

using Say = std::function<void(absl::string_view line)>;

void Nothing(absl::string_view) {}

constexpr size_t kIdentityDigits = 12;

// What was found, and what to do (kNextStep).
std::string Advised(const std::string& found, absl::string_view next) { return absl::StrCat(found, kNextStep, next); }

const char* HowToInstall(ContainerEngine engine) {
  switch (engine) {
    case ContainerEngine::kPodman:
      return "podman (Debian: apt-get install podman)";
    case ContainerEngine::kDocker:
      return "docker (Debian: apt-get install docker.io)";
    case ContainerEngine::kApptainer:
      return "apptainer (packages: github.com/apptainer/apptainer/releases)";
  }
  return "it";
}

class ImagePreparation {
 public:
  ImagePreparation(const ContainerRequest& request, const std::string& base, const Say& say, bool may_pull)
      : request_(request), base_(base), say_(say), may_pull_(may_pull) {}

  absl::StatusOr<NodeImage> Run() {
    BASIN_RETURN_IF_ERROR(FindEngine());
    BASIN_RETURN_IF_ERROR(AskEngine());
    say_(absl::StrCat("containers by ", found_.program, ", ", found_.version));
    BASIN_RETURN_IF_ERROR(found_.engine == ContainerEngine::kApptainer ? FindFile() : FindImage());
    say_(absl::StrCat("image ", request_.image, " is ", found_.identity));
    return found_;
  }

 private:
  std::string EngineName() const { return Name(found_.engine); }

  absl::Status FindEngine() {
    std::vector<std::string> names;
    for (const ContainerEngine engine : request_.settings.engines) {
      names.emplace_back(Name(engine));
      const auto outcome = RunInstaller({"sh", "-c", "command -v \"$1\"", "sh", names.back()}, Nothing);
      BASIN_RETURN_IF_ERROR(outcome.status());
      if (outcome->exit_code != 0 || outcome->last.empty()) continue;
      found_.engine = engine;
      found_.program = outcome->last.back();
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError(Advised(
        absl::StrCat("there is no ", absl::StrJoin(names, ", no "), " on PATH, which image ", request_.image, " needs"),
        absl::StrCat("install ", HowToInstall(request_.settings.engines.front()),
                     ", name another in the target's container_engine, or remove custom_docker_image")));
  }

  std::vector<std::string> Words(const std::vector<std::string>& words) const {
    std::vector<std::string> argv = {found_.program};
    argv.insert(argv.end(), request_.settings.engine_options.begin(), request_.settings.engine_options.end());
    argv.insert(argv.end(), words.begin(), words.end());
    return argv;
  }

  absl::Status Fails(const InstallerOutcome& outcome, absl::string_view next) const {
    // In one line, whatever it printed.
    const std::string ending = outcome.Ending();
    std::vector<absl::string_view> said = {absl::string_view(ending).substr(0, ending.find('\n'))};
    for (const std::string& line : outcome.last) said.push_back(absl::StripAsciiWhitespace(line));
    return absl::FailedPreconditionError(Advised(
        absl::StrCat(EngineName(), " (", found_.program, ") does not work: ", absl::StrJoin(said, "; ")), next));
  }

  // Its version, whether it works at all, and whose it is.
  absl::Status AskEngine() {
    if (found_.engine == ContainerEngine::kApptainer) {
      BASIN_ASSIGN_OR_RETURN(const InstallerOutcome outcome, RunInstaller(Words({"--version"}), Nothing));
      if (outcome.exit_code != 0) return Fails(outcome, "see its configuration on that node");
      found_.version = outcome.last.empty() ? "" : outcome.last.back();
      return absl::OkStatus();
    }
    const bool is_podman = found_.engine == ContainerEngine::kPodman;
    const char* format = is_podman ? "{{.Version.Version}} rootless={{.Host.Security.Rootless}}"
                                   : "{{.ServerVersion}} {{.SecurityOptions}}";
    BASIN_ASSIGN_OR_RETURN(const InstallerOutcome outcome, RunInstaller(Words({"info", "--format", format}), Nothing));
    const std::string said = outcome.last.empty() ? "" : outcome.last.back();
    const std::pair<std::string, std::string> parts = absl::StrSplit(said, absl::MaxSplits(' ', 1));
    if (outcome.exit_code != 0 || parts.first.empty()) {
      return Fails(outcome, is_podman
                                ? "try `podman info` there; the target's container_engine_options are flags for it"
                                : "start its daemon there, and let this user use it (group docker), or name "
                                  "another engine in the target's container_engine");
    }
    found_.version = absl::StrCat(EngineName(), " ", parts.first);
    found_.is_rootless = absl::StrContains(parts.second, is_podman ? "rootless=true" : "name=rootless");
    return absl::OkStatus();
  }

  // False: it is not there.
  absl::StatusOr<bool> Inspect(const std::string& name) {
    BASIN_ASSIGN_OR_RETURN(const InstallerOutcome outcome,
                           RunInstaller(Words({"image", "inspect", "--format", "{{.Id}}", name}), Nothing));
    if (outcome.exit_code != 0 || outcome.last.empty()) return false;
    absl::string_view id = absl::StripPrefix(outcome.last.back(), "sha256:");
    if (id.size() < kIdentityDigits) return false;
    found_.image = std::string(id);
    found_.identity = std::string(id.substr(0, kIdentityDigits));
    return true;
  }

  absl::Status FindImage() {
    if (IsImageFile(request_.image)) {
      return absl::FailedPreconditionError(Advised(
          absl::StrCat("custom_docker_image: ", request_.image, " is a file, which ", EngineName(), " does not run"),
          absl::StrCat("name apptainer in the target's container_engine, or load the image there (", EngineName(),
                       " load --input FILE) and name it")));
    }
    BASIN_ASSIGN_OR_RETURN(const bool is_there, Inspect(request_.image));
    if (is_there) return absl::OkStatus();
    const std::string full = FullImageName(request_.image);
    if (!may_pull_) return NotThere(full);
    say_(absl::StrCat("pulling image ", full));
    BASIN_ASSIGN_OR_RETURN(const InstallerOutcome outcome, RunInstaller(Words({"pull", full}), say_));
    BASIN_ASSIGN_OR_RETURN(const bool is_pulled, outcome.exit_code == 0 ? Inspect(full) : absl::StatusOr<bool>(false));
    return is_pulled ? absl::OkStatus() : NotPulled(full, outcome);
  }

  absl::Status NotThere(const std::string& full) const {
    return absl::NotFoundError(
        absl::StrCat(found_.version, " has no image ", request_.image, " yet, and would pull ", full));
  }

  absl::Status NotPulled(const std::string& full, const InstallerOutcome& outcome) const {
    const std::string registry = full.substr(0, full.find('/'));
    return absl::FailedPreconditionError(
        Advised(absl::StrCat(EngineName(), " has no image ", request_.image, " and could not pull ", full, ": ",
                             outcome.Ending()),
                absl::StrCat("correct custom_docker_image; see that the node reaches ", registry, " and is logged in (",
                             EngineName(), " login ", registry, "); or bring the image there: ", EngineName(),
                             " save on a machine that has it, ", EngineName(), " load there")));
  }

  // A file's identity is what it is called and when it was last written: it may have many gigabytes.
  absl::Status UseFile(const std::string& path) {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) {
      return absl::FailedPreconditionError(
          Advised(absl::StrCat("custom_docker_image: ", path, ": ", ErrnoStatus(errno, "look at it").message()),
                  "correct the path, which must be the same on every node"));
    }
    found_.image = path;
    found_.identity = DigestOf(absl::StrCat(path, "\n", info.st_size, "\n", info.st_mtim.tv_sec, "\n",
                                            info.st_mtim.tv_nsec, "\n", info.st_ino))
                          .substr(0, kIdentityDigits);
    return absl::OkStatus();
  }

  absl::Status FindFile() {
    if (IsImageFile(request_.image)) return UseFile(request_.image);
    const std::string full = FullImageName(request_.image);
    const std::string folder = absl::StrCat(base_, "/images");
    const std::string path = absl::StrCat(folder, "/", DigestOf(full).substr(0, 16), ".sif");
    if (!may_pull_) return access(path.c_str(), R_OK) == 0 ? UseFile(path) : NotThere(full);
    BASIN_RETURN_IF_ERROR(MakeFolders(folder, 0700));
    // Another job may be pulling it: its file is then taken. The lock goes with this process.
    const UniqueFd lock(open(absl::StrCat(path, ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (lock.get() < 0) return ErrnoStatus(errno, absl::StrCat("open ", path, ".lock"));
    while (flock(lock.get(), LOCK_EX) != 0) {
      if (errno != EINTR) return ErrnoStatus(errno, absl::StrCat("lock ", path));
    }
    if (access(path.c_str(), R_OK) == 0) return UseFile(path);
    say_(absl::StrCat("pulling image ", full));
    const std::string part = absl::StrCat(path, ".part");
    BASIN_ASSIGN_OR_RETURN(const InstallerOutcome outcome,
                           RunInstaller(Words({"pull", "--force", part, absl::StrCat("docker://", full)}), say_));
    if (outcome.exit_code != 0) return NotPulled(full, outcome);
    if (std::rename(part.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, absl::StrCat("rename ", part));
    return UseFile(path);
  }

  const ContainerRequest& request_;
  const std::string& base_;
  const Say& say_;
  const bool may_pull_;
  NodeImage found_;
};

}  // namespace

absl::StatusOr<NodeImage> PrepareImage(const ContainerRequest& request, const std::string& base, const Say& say,
                                       bool may_pull) {
  return ImagePreparation(request, base, say, may_pull).Run();
}

}  // namespace basin
