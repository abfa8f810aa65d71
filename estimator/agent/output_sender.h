// What tasks left in ./outputs, sent at the end of a run, up to a limit; what stays on the node is named.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "estimator/agent/folder_listing.h"
#include "estimator/agent/messages.h"

namespace basin {

struct TaskOutputs {
  uint32_t task = 0;
  std::string name;  // "worker-1"
  std::string tree;  // its folder; one that is not there has no outputs
};

class OutputSender final {
 public:
  // `has`: of files named there (stream OUTPUT) the supervisor has the first bytes already.
  // `logs_left_out`: what of ./logs was not streamed ("worker-1/logs/pipe (...)"), told with the rest.
  OutputSender(std::vector<TaskOutputs> tasks, uint64_t limit_bytes, const agent::StreamFiles& has,
               LeftOut logs_left_out = {});

  // The next piece; nullopt when all is sent. Files come task by task, sorted; a link that stays inside as a link, and
  // one that leads outside, a pipe, a socket and a device not at all.
  std::optional<agent::FileChunk> Next();
  // Whole once Next has nothing more.
  const agent::Collected& collected() const { return collected_; }

 private:
  struct Item {
    uint32_t task;
    std::string name;  // of the task
    std::string tree;
    ListedFile file;
  };
  void Plan(const TaskOutputs& task);
  void LeaveOut(const std::string& task, const std::string& path, const std::string& why);
  bool Open(const Item& item);
  std::optional<agent::FileChunk> Piece(const Item& item);

  const std::vector<TaskOutputs> tasks_;
  size_t next_task_ = 0;     // to be listed once the one before is sent: the agent answers in between
  uint64_t room_;            // of the limit, for what is not listed yet
  std::vector<Item> items_;  // of the task before next_task_
  size_t at_ = 0;
  std::map<std::pair<uint32_t, std::string>, uint64_t> has_;
  std::string open_tree_;
  std::optional<FolderBeneath> folder_;
  UniqueFd file_;  // of items_[at_], while it is being sent
  uint64_t offset_ = 0;
  LeftOut left_out_;
  agent::Collected collected_;
};

}  // namespace basin
