// One command, put into a container: what is to run becomes the words of podman, docker or apptainer. Pure.
//
// Variables do not stand among those words, where every user of the machine could read them, nor in a file: they are a
// shell script, which the engine's standard input brings into the container (`input`), and which then becomes the
// command. Whatever the job sets, PATH or HTTP_PROXY, is so set for the command and not for the engine.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/container/container.h"

namespace basin {

struct ContainerMount {
  std::string path;  // absolute; the same inside and outside
  bool read_only = false;
  bool operator==(const ContainerMount&) const = default;
};

struct ContainerUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  mode_t umask = 0022;
  // What one process may have open, and the user run: engines have defaults of their own, other than the node's.
  rlimit open_files = {RLIM_INFINITY, RLIM_INFINITY};
  rlimit processes = {RLIM_INFINITY, RLIM_INFINITY};
};

struct ContainedCommand {
  std::string name;    // the container's, one at a time on a machine: letters, digits, '-', '_', '.'
  std::string run_id;  // its label basin.run
  std::vector<std::string> argv;
  std::vector<std::pair<std::string, std::string>> environment;  // by name, each once; the image's own where not here
  std::vector<std::string> path;         // folders before those of PATH, the image's or the environment's
  std::vector<std::string> python_path;  // likewise of PYTHONPATH
  std::string folder;                    // where it starts
  std::string home;                      // HOME where the image gives this user none that can be written
  std::vector<ContainerMount> mounts;    // each path once
};

struct EngineCommand {
  std::vector<std::string> argv;    // the engine's program first; its exit code is the command's
  std::string input;                // for its standard input
  std::vector<std::string> remove;  // ends the container whatever it does, and removes what is left of it; empty: the
                                    // container is below the engine's process, and nothing is left of it
};

// INVALID_ARGUMENT for a mount whose path the engine could not be told (with a comma, say), and for a size of /dev/shm
// that the engine cannot give.
absl::StatusOr<EngineCommand> InContainer(const NodeImage& image, const ContainerRequest& request,
                                          const ContainerUser& user, const ContainedCommand& command);

// The part of a path that is no pattern, up to its last '/': what must be mounted so that the pattern finds its files.
// "/a/b*.csv" -> "/a", "/a/b" -> "/a/b".
std::string MountFor(const std::string& path);

}  // namespace basin
