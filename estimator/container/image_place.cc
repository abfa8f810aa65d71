#include "estimator/container/image_place.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/host_name.h"
#include "common/base/status_macros.h"
#include "estimator/container/container_user.h"
#include "estimator/container/in_container.h"
#include "estimator/container/removal.h"
#include "estimator/environment/installer.h"

namespace basin {
namespace {

// Environments are for their user, like their folder.
constexpr mode_t kUmask = 0022;

bool IsThere(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

void AddMountIfThere(const std::string& path, bool read_only, std::vector<ContainerMount>* mounts) {
  const bool known =
      std::any_of(mounts->begin(), mounts->end(), [&path](const ContainerMount& one) { return one.path == path; });
  if (!known && IsThere(path)) mounts->push_back({path, read_only});
}

class Tools {
 public:
  Tools(const NodeImage& image, const ContainerRequest& request, const EnvironmentSpec& spec,
        const ImagePlaceOptions& options)
      : image_(image), request_(request), options_(options) {
    request_.gpus = false;
    request_.shm_bytes = 0;
    const std::string environments = options.base + "/environments";
    command_.name = options.name;
    command_.run_id = options.run_id;
    command_.folder = environments;
    command_.home = environments;
    AddMountIfThere(environments, false, &command_.mounts);
    for (const std::string& path : PathsIn(spec.requirements)) AddMountIfThere(path, true, &command_.mounts);
    for (const std::string& path : PathsIn(spec.constraints)) AddMountIfThere(path, true, &command_.mounts);
    AddMountIfThere("/etc/pip.conf", true, &command_.mounts);
    for (const std::string& variable : ToolVariablesElsewhere()) {
      const std::pair<std::string, std::string> parts = absl::StrSplit(variable, absl::MaxSplits('=', 1));
      command_.environment.push_back(parts);
      // Certificates, pip.conf, folders of wheels.
      for (const absl::string_view word : absl::StrSplit(parts.second, ' ')) {
        if (absl::StartsWith(word, "/")) AddMountIfThere(std::string(word), true, &command_.mounts);
      }
    }
  }

  absl::StatusOr<InstallerOutcome> Run(const std::vector<std::string>& argv,
                                       const std::function<void(absl::string_view line)>& say) {
    command_.argv = argv;
    rlimit open_files = {RLIM_INFINITY, RLIM_INFINITY};
    getrlimit(RLIMIT_NOFILE, &open_files);
    BASIN_ASSIGN_OR_RETURN(const EngineCommand engine,
                           InContainer(image_, request_, ThisUser(kUmask, open_files), command_));
    if (!engine.remove.empty()) {
      BASIN_RETURN_IF_ERROR(NoteRemoval(options_.removals, command_.name, engine.remove));
    }
    absl::StatusOr<InstallerOutcome> outcome = RunInstaller(engine.argv, say, engine.input);
    // The engine has removed it when it ends by itself.
    if (outcome.ok() && outcome->exit_code < 125) ForgetRemoval(options_.removals, command_.name);
    if (HasNoted(options_.removals)) RemoveNoted(options_.removals, absl::Seconds(30));
    return outcome;
  }

 private:
  const NodeImage image_;
  ContainerRequest request_;
  const ImagePlaceOptions options_;
  ContainedCommand command_;
};

}  // namespace

BuildPlace ImagePlace(const NodeImage& image, const ContainerRequest& request, const EnvironmentSpec& spec,
                      const ImagePlaceOptions& options) {
  const auto tools = std::make_shared<Tools>(image, request, spec, options);
  BuildPlace place;
  place.run = [tools](const std::vector<std::string>& argv, const std::function<void(absl::string_view line)>& say) {
    return tools->Run(argv, say);
  };
  place.where = absl::StrCat("image ", request.image, " on ", HostName());
  place.identity = image.identity;
  place.is_image = true;
  return place;
}

std::vector<std::string> PathsIn(const std::vector<std::string>& lines) {
  std::vector<std::string> paths;
  for (const std::string& line : lines) {
    for (absl::string_view word : absl::StrSplit(line, absl::ByAnyChar(" \t;=@"), absl::SkipEmpty())) {
      absl::ConsumePrefix(&word, "-f");
      absl::ConsumePrefix(&word, "file://");
      if (absl::StartsWith(word, "/") && word.size() > 1) paths.push_back(MountFor(std::string(word)));
    }
  }
  return paths;
}

}  // namespace basin
