// Says every few seconds whom a ps waits for, how long, and whether their names resolve, until all have come.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "cluster_spec/cluster_view.h"
#include "common/base/mutex.h"

namespace basin {

class StartReport {
 public:
  // Starts a thread (resolving a name may block for seconds). `missing` is asked from it. `on_timeout` is called once,
  // if a task that has not come still has a name that does not resolve after `start_timeout`, with the line that says
  // so.
  StartReport(const ClusterView& view, absl::Duration every, absl::Duration start_timeout,
              std::function<std::vector<TaskId>()> missing, std::function<void(std::string)> on_timeout);
  ~StartReport();

 private:
  void Run();
  bool stopping();

  const absl::Duration every_, start_timeout_;
  const std::function<std::vector<TaskId>()> missing_;
  const std::function<void(std::string)> on_timeout_;
  std::map<TaskId, std::string> addresses_;
  Mutex mutex_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace basin
