// Parts of a planned command that only the node knows; the agent puts its own paths in their place, in argv and in the
// environment. The plan names them, so that it can be made before a node is asked, and printed by --dry-run. Pure.
#pragma once

#include <string>

namespace basin {

inline constexpr char kProgramsPlaceholder[] = "{programs}";  // folder of basin-ps and basin-worker
inline constexpr char kTaskPlaceholder[] = "{task}";          // the task's own tree, its working directory
inline constexpr char kTokenPlaceholder[] = "{token}";        // file with the run's token
inline constexpr char kSharedMemoryPlaceholder[] = "{shm}";  // the run's own folder in the node's /dev/shm
inline constexpr char kPythonPlaceholder[] = "{python}";      // the environment's python, or python3

struct NodePaths {
  std::string programs;
  std::string task;
  std::string token;
  std::string python = "python3";
  std::string shared_memory;
};

// All placeholders in `text` replaced; also in words of the user's own, who may write {task} for the tree of each task.
std::string ReplacePlaceholders(const std::string& text, const NodePaths& paths);

}  // namespace basin
