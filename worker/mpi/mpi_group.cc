#include "worker/mpi/mpi_group.h"

#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr size_t kMostGathered = INT_MAX;  // MPI counts in int
constexpr char kModule[] = "libbasin_mpi.so";
// While somebody waits: at first without a pause (a sum takes microseconds), then other processes get the core.
constexpr absl::Duration kSpin = absl::Microseconds(50), kYield = absl::Milliseconds(2),
                         kSleep = absl::Microseconds(50);
constexpr absl::Duration kProgressEvery = absl::Microseconds(50);
constexpr absl::Duration kFarewell = absl::Seconds(2);
// A wait that is told of before its deadline.
constexpr absl::Duration kTold = absl::Seconds(10);

// Where the module lies beside this program: build folder and bundle, then an installation.
std::vector<std::string> ModulePlaces() {
  char self[4096];
  const ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
  if (size <= 0) return {kModule};
  std::string folder(self, static_cast<size_t>(size));
  folder = folder.substr(0, folder.rfind('/'));
  std::vector<std::string> places = {absl::StrCat(folder, "/../lib/", kModule)};
  const std::string installed = absl::StrCat(folder, "/../", BASIN_LIBDIR, "/", kModule);
  if (installed != places[0]) places.push_back(installed);
  return places;
}

// RTLD_GLOBAL: MPI's own plugins look for its symbols.
absl::StatusOr<const basin_mpi_api*> LoadModule() {
  std::string tried;
  for (const std::string& place : ModulePlaces()) {
    if (access(place.c_str(), F_OK) != 0) {
      absl::StrAppend(&tried, tried.empty() ? "" : ", ", place);
      continue;
    }
    void* const module = dlopen(place.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (module == nullptr) {
      const std::string why = dlerror();
      return absl::NotFoundError(absl::StrCat(
          "--backend mpi: ", why,
          absl::StrContains(why, "libmpi")
              ? "; the MPI library is not on this machine: install Open MPI (Debian: openmpi-bin, which brings "
                "libopenmpi3), or put its folder into LD_LIBRARY_PATH"
              : ""));
    }
    using GetApi = const basin_mpi_api* (*)();
    const auto get = reinterpret_cast<GetApi>(dlsym(module, BASIN_MPI_SYMBOL));
    const basin_mpi_api* const api = get == nullptr ? nullptr : get();
    if (api == nullptr || api->version != BASIN_MPI_VERSION) {
      return absl::FailedPreconditionError(
          absl::StrCat("--backend mpi: ", place, " is of another version of Basin; install both of the same version"));
    }
    return api;
  }
  return absl::NotFoundError(absl::StrCat("--backend mpi: ", kModule, " is not there (looked for ", tried,
                                          "); this Basin was built where no MPI was: install it (Debian: "
                                          "libopenmpi-dev), configure and build again"));
}

std::string TextOf(const basin_mpi_api* api, int error) {
  char text[512] = "";
  api->error_text(error, text, sizeof text);
  return absl::StrCat(text, " (", error, ")");
}

}  // namespace

absl::StatusOr<std::unique_ptr<MpiGroup>> MpiGroup::Join(const MpiOptions& options) {
  BASIN_ASSIGN_OR_RETURN(const basin_mpi_api* const api, LoadModule());
  int serialized = 0;
  if (const int error = api->init(&serialized); error != 0) {
    return absl::UnavailableError(absl::StrCat("MPI does not start: ", TextOf(api, error)));
  }
  return std::unique_ptr<MpiGroup>(new MpiGroup(api, options, serialized != 0));
}

MpiGroup::MpiGroup(const basin_mpi_api* api, const MpiOptions& options, bool serialized)
    : api_(api),
      options_(options),
      rank_(static_cast<uint32_t>(api->rank())),
      size_(static_cast<uint32_t>(api->size())) {
  char text[256] = "";
  api->library(text, sizeof text);
  library_ = text;
  if (!options.progress_thread || size_ == 1) return;
  if (serialized) {
    progress_ = std::thread([this] { ProgressLoop(); });
  } else if (rank_ == 0) {
    Warn(absl::StrCat(library_, " allows one thread alone (MPI_THREAD_SERIALIZED is not there): no --progress-thread"));
  }
}

MpiGroup::~MpiGroup() { Leave(1); }

absl::StatusOr<size_t> MpiGroup::Started(int error, std::string what) {
  if (error != 0) return ErrorOf(error, what);
  calls_.push_back({std::move(what), next_++});
  if (progress_.joinable()) work_.NotifyOne();
  return calls_.back().ticket;
}

absl::StatusOr<size_t> MpiGroup::StartSum(absl::Span<float> values, std::string what) {
  const MutexLock lock(mutex_);
  return Started(api_->start_sum(NextSlot(), values.data(), values.size()), std::move(what));
}

void MpiGroup::Progress() {
  const MutexLock lock(mutex_);
  TestAll();
}

size_t MpiGroup::TestAll() {
  size_t under_way = 0;
  for (Call& call : calls_) {
    if (call.done) continue;
    int done = 0;
    call.error = api_->test(static_cast<int>(call.ticket % BASIN_MPI_SLOTS), &done);
    call.done = done != 0 || call.error != 0;
    if (call.done) {
      call.seen = absl::Now();
    } else {
      ++under_way;
    }
  }
  return under_way;
}

absl::StatusOr<absl::Time> MpiGroup::Wait(size_t ticket) { return WaitFor(ticket, options_.timeout); }

absl::StatusOr<absl::Time> MpiGroup::WaitFor(size_t ticket, absl::Duration timeout) {
  const absl::Time start = absl::Now();
  absl::Time told = start;
  waiting_ = true;
  while (true) {
    std::string what;
    {
      const MutexLock lock(mutex_);
      TestAll();
      const size_t at = ticket - calls_.front().ticket;
      if (Call& call = calls_[at]; call.done) {
        const Call ended = call;
        while (!calls_.empty() && calls_.front().done && calls_.front().ticket <= ticket) calls_.pop_front();
        waiting_ = false;
        if (ended.error != 0) return ErrorOf(ended.error, ended.what);
        return ended.seen;
      }
      const absl::Duration waited = absl::Now() - start;
      if (waited > std::min(timeout, kTold)) what = calls_[at].what;
    }
    const absl::Time now = absl::Now();
    if (!what.empty() && now - told >= kTold) {
      Warn(absl::StrFormat("waiting for the other ranks in %s, %.0f s", what, absl::ToDoubleSeconds(now - start)));
      told = now;
    }
    if (now - start > timeout) {
      waiting_ = false;
      return absl::UnavailableError(absl::StrFormat(
          "rank %d of %d has waited %.0f s for the other ranks in %s: one of them has ended or hangs; their logs say "
          "why",
          rank_, size_, absl::ToDoubleSeconds(now - start), what));
    }
    if (now - start < kSpin) continue;
    if (now - start < kYield) {
      sched_yield();
    } else {
      absl::SleepFor(kSleep);
    }
  }
}

absl::Status MpiGroup::ErrorOf(int error, const std::string& what) const {
  return absl::UnavailableError(
      absl::StrCat("MPI failed in ", what, ": ", TextOf(api_, error), "; a rank may have ended, see their logs"));
}

absl::Status MpiGroup::Broadcast(std::string* text) {
  uint64_t size = text->size();
  const auto exchange = [this](void* bytes, size_t count) -> absl::Status {
    absl::StatusOr<size_t> ticket;
    {
      const MutexLock lock(mutex_);
      ticket = Started(api_->start_broadcast(NextSlot(), bytes, count), "a broadcast of rank 0");
    }
    BASIN_RETURN_IF_ERROR(ticket.status());
    return WaitFor(*ticket, together_ ? options_.timeout : options_.start_timeout).status();
  };
  BASIN_RETURN_IF_ERROR(exchange(&size, sizeof size));
  text->resize(size);
  BASIN_RETURN_IF_ERROR(exchange(text->data(), size));
  together_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MpiGroup::Gather(absl::string_view text) {
  const auto exchange = [this](const void* bytes, size_t count, void* all, const size_t* counts) -> absl::Status {
    absl::StatusOr<size_t> ticket;
    {
      const MutexLock lock(mutex_);
      ticket = Started(api_->start_gather(NextSlot(), bytes, count, all, counts), "what the ranks tell rank 0");
    }
    BASIN_RETURN_IF_ERROR(ticket.status());
    return WaitFor(*ticket, together_ ? options_.timeout : options_.start_timeout).status();
  };
  const bool root = rank_ == 0;
  const uint64_t size = text.size();
  std::vector<uint64_t> sizes(root ? size_ : 0);
  std::vector<size_t> counts(root ? size_ : 0, sizeof size);
  BASIN_RETURN_IF_ERROR(exchange(&size, sizeof size, sizes.data(), counts.data()));
  std::string all;
  size_t bytes = 0;
  for (size_t i = 0; i < sizes.size(); ++i) bytes += counts[i] = sizes[i];
  // All ranks must know of it: otherwise the others would wait in the second exchange.
  std::string total = absl::StrCat(bytes);
  BASIN_RETURN_IF_ERROR(Broadcast(&total));
  if (!absl::SimpleAtoi(total, &bytes) || bytes > kMostGathered) {
    return absl::ResourceExhaustedError(absl::StrCat("what the ranks tell rank 0 has ", total,
                                                     " bytes together, and MPI takes at most ", kMostGathered));
  }
  all.resize(root ? bytes : 0);
  BASIN_RETURN_IF_ERROR(exchange(text.data(), text.size(), all.data(), counts.data()));
  std::vector<std::string> texts;
  for (size_t i = 0, at = 0; i < counts.size(); at += counts[i++]) texts.push_back(all.substr(at, counts[i]));
  return texts;
}

void MpiGroup::ProgressLoop() {
  MutexLock lock(mutex_);
  while (!ending_) {
    if (waiting_ || TestAll() == 0) {
      // Nothing to do, or the owner does it.
      work_.WaitFor(mutex_, waiting_ ? absl::Milliseconds(1) : absl::Seconds(1));
      continue;
    }
    work_.WaitFor(mutex_, kProgressEvery);
  }
}

void MpiGroup::Leave(int exit_code) {
  if (left_) return;
  left_ = true;
  if (progress_.joinable()) {
    {
      const MutexLock lock(mutex_);
      ending_ = true;
      work_.NotifyAll();
    }
    progress_.join();
  }
  const MutexLock lock(mutex_);
  const int slot = NextSlot();
  int done = 0;
  // Without an error all have come to the same end, however long the last one takes to write its model.
  const absl::Time deadline = absl::Now() + (exit_code == 0 ? options_.start_timeout : kFarewell);
  // Sums that are still under way may write into memory that is gone: no test any more.
  const bool under_way = std::any_of(calls_.begin(), calls_.end(), [](const Call& call) { return !call.done; });
  if (!under_way && api_->start_farewell(slot) == 0) {
    while (api_->test(slot, &done) == 0 && done == 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  }
  if (done != 0) {
    (void)api_->finalize();
  } else {
    if (exit_code == 0) Error("the other ranks have not come to the end of the run");
    api_->abort(exit_code == 0 ? 1 : exit_code);
  }
}

}  // namespace basin
