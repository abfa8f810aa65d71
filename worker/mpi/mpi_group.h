// The ranks of an MPI launch. Loads libbasin_mpi.so, and with it MPI: nothing else of Basin is linked with it.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/base/mutex.h"
#include "worker/mpi/mpi_api.h"
#include "worker/train/all_reduce_group.h"

namespace basin {

struct MpiOptions {
  // How long a rank waits for the others: at first, while they load their data; and in each call after that.
  absl::Duration start_timeout = absl::Minutes(10), timeout = absl::Minutes(1);
  // A thread that lets sums go on while this rank computes. MPI moves nothing by itself; without the thread they go on
  // between the variables of the backward pass and while this rank waits.
  bool progress_thread = false;
};

// Used by one thread. It must be left by Leave: an MPI program that just ends takes the launch down.
class MpiGroup final : public AllReduceGroup {
 public:
  // NOT_FOUND: the module or MPI itself cannot be loaded; says what is missing, and where it was looked for.
  // UNAVAILABLE: MPI does not start.
  static absl::StatusOr<std::unique_ptr<MpiGroup>> Join(const MpiOptions& options);
  ~MpiGroup() override;

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return size_; }
  const std::string& library() const { return library_; }
  absl::StatusOr<size_t> StartSum(absl::Span<float> values, std::string what) override;
  void Progress() override;
  absl::StatusOr<absl::Time> Wait(size_t ticket) override;
  absl::Status Broadcast(std::string* text) override;
  absl::StatusOr<std::vector<std::string>> Gather(absl::string_view text) override;

  // The end of this rank's part. 0: MPI is ended as it should be. Otherwise the other ranks get a moment to come to the
  // same end by themselves, with what they have to say; where one does not, all of them are ended, and this process
  // too.
  void Leave(int exit_code);

 private:
  struct Call {
    std::string what;
    size_t ticket;
    bool done = false;
    int error = 0;
    absl::Time seen;  // when it was found done
  };

  MpiGroup(const basin_mpi_api* api, const MpiOptions& options, bool serialized);
  absl::StatusOr<size_t> Started(int error, std::string what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<absl::Time> WaitFor(size_t ticket, absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  // Tests the calls that are under way, the oldest first; how many still are.
  size_t TestAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ErrorOf(int error, const std::string& what) const;
  int NextSlot() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return static_cast<int>(next_ % BASIN_MPI_SLOTS); }
  void ProgressLoop();

  const basin_mpi_api* const api_;
  const MpiOptions options_;
  uint32_t rank_ = 0, size_ = 1;
  std::string library_;
  bool together_ = false;  // the ranks have heard of each other
  bool left_ = false;

  Mutex mutex_;  // all calls of MPI are made with it held
  CondVar work_;
  std::deque<Call> calls_ ABSL_GUARDED_BY(mutex_);  // by ticket; those at the front that were waited for are gone
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;         // ticket
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> waiting_ = false;  // the owner's thread tests by itself
  std::thread progress_;
};

}  // namespace basin
