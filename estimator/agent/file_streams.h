// The files that grow while tasks run, told to a supervisor piece by piece: what tasks print, their metrics, their
// ./logs, the agent's own log. Files are only read when the supervisor has room; a slow one never holds up a task.
//
// Offsets count the bytes of a stream: what a file held, and after it was cut or replaced, a line that says so and what
// it holds since. So they only grow, and a supervisor that says what it has goes on exactly there.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "absl/time/time.h"
#include "estimator/agent/folder_listing.h"
#include "estimator/agent/messages.h"
#include "estimator/snapshot/beneath.h"

namespace basin {

class FileStreams final {
 public:
  // A file of the agent's folder, which need not be there yet. `shown` is FileChunk::path.
  void FollowFile(agent::StreamKind stream, uint32_t task, const std::string& shown, const std::string& path);
  // The files of ./logs in a task's tree, at most kMostScriptLogs. Again after the tree was made anew.
  void FollowTree(uint32_t task, const std::string& name, FolderBeneath tree);
  // The task writes no more: an unfinished last line of its metrics is told too.
  void TaskIsGone(uint32_t task);

  // A supervisor says what it has; files that it does not name begin at 0.
  void Begin(const agent::StreamFiles& has);
  void Stop() { active_ = false; }
  bool active() const { return active_; }

  // Looks which files have grown; `everything`: new files of ./logs too, which otherwise are looked for once a second.
  void Look(absl::Time now, bool everything);
  // The next piece, from the files in turn; nullopt where all that Look saw is told. REQUIRES: active().
  std::optional<agent::FileChunk> Next();
  // Of the ./logs of all tasks, what was not told and will not be. Looks at them all: for the end, once Next has
  // nothing more.
  LeftOut NotTold() const;

 private:
  using Key = std::tuple<int, uint32_t, std::string>;  // stream, task, path as shown
  struct File {
    std::string path;    // absolute; of a script's log: below the tree
    uint64_t start = 0;  // the stream's offset at which the file, as it is now, begins
    uint64_t sent = 0;   // the stream's offset of the next byte to tell
    uint64_t size = 0;   // of the file, when it was looked at last
    ino_t inode = 0;
    uint64_t waits_at = 0;  // METRICS: no whole line more up to this size
    std::string note;       // to be told before what the file holds
    bool is_final = false;
  };
  struct Tree {
    std::string name;
    FolderBeneath folder;
    bool told_limit = false;
  };

  File& FileOf(const Key& key, const std::string& path);
  UniqueFd Open(const Key& key, const File& file) const;
  void LookAt(const Key& key, File* file);
  void FindScriptLogs();
  std::optional<agent::FileChunk> Read(const Key& key, File* file);

  bool active_ = false;
  std::map<Key, File> files_;
  std::map<uint32_t, Tree> trees_;
  std::map<Key, uint64_t> has_;  // what the supervisor said of files that are not followed yet
  Key told_last_;
  absl::Time next_search_ = absl::InfinitePast();
};

inline constexpr size_t kMostScriptLogs = 1000;  // of one task, the folders among them counted; docs/runs.md says so

}  // namespace basin
