#include "ps/start_report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/log.h"
#include "common/wire/resolve.h"
#include "ps/lane_thread.h"

namespace basin {
namespace {

// Names looked up in one round: a resolver that times out takes seconds for each.
constexpr size_t kNamesAtOnce = 8;
constexpr size_t kTasksShown = 8;

}  // namespace

StartReport::StartReport(const ClusterView& view, absl::Duration every, absl::Duration start_timeout,
                         std::function<std::vector<TaskId>()> missing, std::function<void(std::string)> on_timeout)
    : every_(every), start_timeout_(start_timeout), missing_(std::move(missing)), on_timeout_(std::move(on_timeout)) {
  for (const Peer& worker : view.workers) addresses_[{Role::kWorker, worker.index}] = worker.address;
  if (view.chief_address) addresses_[view.chief] = *view.chief_address;
  thread_ = std::thread([this] { Run(); });
}

StartReport::~StartReport() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

bool StartReport::stopping() {
  MutexLock lock(mutex_);
  return stop_;
}

void StartReport::Run() {
  const absl::Time start = SteadyNow();
  absl::Time next = start + std::min(every_, start_timeout_);
  while (true) {
    {
      MutexLock lock(mutex_);
      while (!stop_ && SteadyNow() < next)
        changed_.WaitFor(mutex_, std::max(absl::Milliseconds(1), next - SteadyNow()));
      if (stop_) return;
    }
    const std::vector<TaskId> missing = missing_();
    const std::string waited = absl::StrCat(absl::ToInt64Seconds(SteadyNow() - start), " s");
    if (missing.empty()) {
      if (!addresses_.empty())
        Info(absl::StrCat("all ", addresses_.size(), " tasks that train have come, after at most ", waited));
      return;
    }
    std::vector<std::string> shown, unresolved;
    for (const TaskId& task : missing) {
      const auto address = addresses_.find(task);
      if (address == addresses_.end()) {
        if (shown.size() < kTasksShown) shown.push_back(task.Sentence());
        continue;
      }
      std::string state;
      if (shown.size() < kNamesAtOnce) {
        if (stopping()) return;
        const auto host = wire::SplitHostPort(address->second);
        const absl::Status status = host.ok() ? wire::Resolve(host->host).status() : host.status();
        if (!status.ok()) {
          state = absl::StrCat(", ", status.message());
          unresolved.push_back(absl::StrCat(task.Sentence(), " at ", address->second, state));
        }
      }
      if (shown.size() < kTasksShown) shown.push_back(absl::StrCat(task.Sentence(), " at ", address->second, state));
    }
    std::string line = absl::StrCat("waiting for ", absl::StrJoin(shown, "; "));
    if (missing.size() > shown.size()) absl::StrAppend(&line, " and ", missing.size() - shown.size(), " more");
    Info(absl::StrCat(line, ", ", waited));
    if (!unresolved.empty() && SteadyNow() - start >= start_timeout_) {
      on_timeout_(absl::StrCat("gave up after ", waited, " (--start-timeout): ", absl::StrJoin(unresolved, "; "),
                               "; correct the cluster in TF_CONFIG or the name service"));
      return;
    }
    next = std::max(next + every_, SteadyNow());
    if (!unresolved.empty()) next = std::min(next, std::max(SteadyNow(), start + start_timeout_));
  }
}

}  // namespace basin
