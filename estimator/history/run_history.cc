#include "estimator/history/run_history.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "common/base/unique_fd.h"
#include "estimator/history/line_file.h"
#include "estimator/history/read_run.h"
#include "estimator/history/record_json.h"
#include "estimator/history/run_metrics.h"
#include "estimator/history/run_page.h"
#include "estimator/history/stored_files.h"

namespace basin {
namespace {

constexpr absl::Duration kPageEvery = absl::Seconds(5);
constexpr absl::Duration kRecordEvery = absl::Seconds(2);  // where only metrics have changed
constexpr absl::Duration kLookEvery = absl::Seconds(1);    // whether the folder is there, at most
constexpr off_t kReserveBytes = 128 << 10;
constexpr off_t kReserveBytesLeast = 16 << 10;
constexpr absl::Duration kReserveEvery = absl::Seconds(5);  // it is tried again where some of it is missing
// After a full disk, data is stored again once this much is free.
constexpr uint64_t kRoomBytes = 8 << 20;

class History final : public RunHistory {
 public:
  explicit History(const RunFolder& folder)
      : folder_(folder),
        metrics_(
            folder_, [this](const absl::Status& status) { Failed(status); },
            [this](const std::string& line) { Tell(line); }) {}

  absl::Status Open() {
    BASIN_ASSIGN_OR_RETURN(journal_, LineFile::Open(folder_.JournalPath()));
    BASIN_ASSIGN_OR_RETURN(files_, StoredFiles::Open(folder_));
    BASIN_RETURN_IF_ERROR(MakeFolders(absl::StrCat(folder_.path(), "/metrics"), 0700));
    BASIN_RETURN_IF_ERROR(metrics_.Open());
    if (absl::StatusOr<RunRecord> known = ReadRun(folder_); known.ok()) {
      record_ = *std::move(known);
      journaled_ = true;
    }
    CompleteJournal();
    record_.metrics = metrics_.newest();
    reserve_ = UniqueFd(open(ReservePath().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    // A file system that cannot is one where the end may go unrecorded: no reason to refuse the run.
    if (reserve_.get() < 0) Failed(ErrnoStatus(errno, absl::StrCat("make ", ReservePath())));
    Reserve();
    return absl::OkStatus();
  }

  void Journal(absl::Time now, const std::string& event, const std::string& fields_json) override {
    OrderedJson json = Event(now, event);
    const OrderedJson fields = OrderedJson::parse(fields_json, nullptr, /*allow_exceptions=*/false);
    if (fields.is_object()) {
      for (const auto& [name, value] : fields.items()) {
        if (name != "time" && name != "event") json[name] = value;
      }
    }
    WriteJournal(Line(json) + "\n");
  }

  absl::Status Store(const FilePiece& piece) override {
    if (LookIsRemoved()) return absl::NotFoundError(absl::StrCat(folder_.path(), " was removed"));
    if (full_ && !HasRoom()) {
      ++failures_;
      return absl::ResourceExhaustedError(absl::StrCat("the disk of ", folder_.path(), " is full"));
    }
    full_ = false;
    const absl::StatusOr<absl::string_view> fresh = files_->Store(piece);
    if (!fresh.ok()) {
      full_ = absl::IsResourceExhausted(fresh.status());
      Failed(fresh.status());
      return fresh.status();
    }
    if (piece.stream == RunStream::kMetrics) metrics_.Add(piece.task, *fresh);
    page_stale_ = true;
    return absl::OkStatus();
  }

  std::vector<StoredFile> Stored() const override { return files_->All(); }

  void Record(absl::Time now, const RunRecord& given) override {
    RunRecord next = given;
    next.folder = record_.folder;
    next.portal_url = folder_.PageUrl();
    if (next.folder.empty()) next.folder = folder_.path();
    next.metrics = metrics_.newest();
    next.history = record_.history;
    if (LookIsRemoved()) {
      record_ = std::move(next);
      return;
    }
    const bool final_state = IsFinal(next.phase);
    // Before the journal tells of the end: whoever finds the run ended finds its outputs in their places.
    if (final_state) {
      if (const absl::Status placed = files_->PutOutputsInPlace(); !placed.ok()) Failed(placed);
    }
    std::string lines;
    const bool first = !journaled_;
    if (first) {
      next.history.push_back({next.phase, now, next.reason});
      OrderedJson json = Event(now, "run");
      json["record"] = RecordToJsonValue(next);
      lines += Line(json) + "\n";
      journaled_ = true;
    } else {
      for (const TaskRecord& task : next.tasks) {
        if (std::find(record_.tasks.begin(), record_.tasks.end(), task) != record_.tasks.end()) continue;
        OrderedJson json = Event(now, "task");
        json.update(TaskToJsonValue(task));
        lines += Line(json) + "\n";
      }
      if (next.phase != record_.phase || next.reason != record_.reason || record_.history.empty()) {
        next.history.push_back({next.phase, now, next.reason});
        OrderedJson json = Event(now, "state");
        json["state"] = RunPhaseName(next.phase);
        if (!next.reason.empty()) json["reason"] = next.reason;
        if (next.ended) json["ended"] = TimeToText(*next.ended);
        if (next.exit_code) json["exit_code"] = *next.exit_code;
        lines += Line(json) + "\n";
      }
    }
    record_ = std::move(next);
    if (!lines.empty()) WriteJournal(lines);
    if (final_state && failures_ > 0) {
      OrderedJson json = Event(now, "history_incomplete");
      json["failures"] = failures_;
      json["first"] = std::string(health_.message());
      WriteJournal(Line(json) + "\n");
    }
    WriteRecord();
    if (final_state) {
      unlink(ReservePath().c_str());
      reserve_.Close();
    }
    page_stale_ = true;
    if (first || final_state) WritePage(now);
    if (final_state) TellUntold();
  }

  const RunRecord& record() const override { return record_; }

  void OnTime(absl::Time now) override {
    if (!journaled_ || IsFinal(record_.phase)) return;
    if (now >= looked_ + kLookEvery) {
      looked_ = now;
      TellUntold();
    }
    if (removed_) return;
    if (reserved_ < kReserveBytes && now >= reserve_tried_ + kReserveEvery) {
      reserve_tried_ = now;
      if (HasRoom()) Reserve();
    }
    if (record_points_ != metrics_.points() && now >= record_written_ + kRecordEvery) {
      record_.metrics = metrics_.newest();
      WriteRecord();
      record_written_ = now;
    }
    if (page_stale_ && now >= page_written_ + kPageEvery) WritePage(now);
  }

  absl::Time NextDeadline() const override {
    if (!journaled_ || IsFinal(record_.phase)) return absl::InfiniteFuture();
    if (removed_) return absl::InfiniteFuture();
    absl::Time next = untold_.empty() ? absl::InfiniteFuture() : looked_ + kLookEvery;
    if (record_points_ != metrics_.points()) next = record_written_ + kRecordEvery;
    if (page_stale_) next = std::min(next, page_written_ + kPageEvery);
    return next;
  }

  bool IsRemoved() const override { return removed_; }
  absl::Status health() const override { return health_; }
  void TellBy(std::function<void(const std::string&)> tell) override { tell_ = std::move(tell); }

 private:
  static OrderedJson Event(absl::Time now, const std::string& event) {
    return {{"time", TimeToText(now)}, {"event", event}};
  }

  // What could not be written comes with the next lines: the journal has no gaps, or an end that is missing.
  void WriteJournal(const std::string& lines) {
    if (LookIsRemoved()) return;
    unjournaled_ += lines;
    Keep([this] {
      const uint64_t before = journal_->bytes();
      absl::Status wrote = journal_->Append(unjournaled_, /*sync=*/true);
      if (journal_->bytes() != before) unjournaled_.clear();  // also where only the sync has failed
      return wrote;
    });
  }
  // Where run.json knows states that the journal never got, because the disk was full when a supervisor ended.
  void CompleteJournal() {
    const absl::StatusOr<std::string> journal = ReadFile(folder_.JournalPath(), size_t{1} << 30);
    if (!journaled_ || !journal.ok() || RecordFromJournal(*journal).history.size() >= record_.history.size()) return;
    OrderedJson json = Event(record_.history.back().time, "run");
    json["record"] = RecordToJsonValue(record_);
    WriteJournal(Line(json) + "\n");
  }
  void WriteRecord() {
    record_points_ = metrics_.points();
    const auto write = [this] { return folder_.WriteRecord(record_); };
    // Until the end, the journal knows all that matters of it.
    if (IsFinal(record_.phase)) return Keep(write);
    if (const absl::Status wrote = write(); !wrote.ok()) Failed(wrote);
  }
  void WritePage(absl::Time now) {
    page_written_ = now;
    page_stale_ = false;
    if (LookIsRemoved()) return;  // it would make folders anew
    const absl::Status wrote = WriteRunPage(folder_, record_, metrics_.series(), now);
    if (!wrote.ok()) Failed(wrote);
  }

  // For what must be written also when the disk is full: the room kept for it is given up first. What is left of that,
  // all of it where something other than room was missing, is kept again.
  template <typename Write>
  void Keep(const Write& write) {
    absl::Status wrote = write();
    if (absl::IsResourceExhausted(wrote) && reserved_ > 0) {
      Failed(wrote);
      full_ = true;
      Release();
      wrote = write();
      Reserve();
    }
    if (!wrote.ok()) Failed(wrote);
  }

  std::string ReservePath() const { return absl::StrCat(folder_.path(), "/.reserve"); }
  void Release() {
    if (reserve_.get() >= 0 && ftruncate(reserve_.get(), 0) == 0) reserved_ = 0;
  }
  // As much as there is room for. The file stays open, so that a lack of descriptors cannot come between.
  void Reserve() {
    if (reserve_.get() < 0) return;
    for (off_t bytes = kReserveBytes; bytes >= kReserveBytesLeast; bytes -= kReserveBytesLeast) {
      if (posix_fallocate(reserve_.get(), 0, bytes) == 0) {
        reserved_ = bytes;
        return;
      }
      Release();
    }
  }
  bool HasRoom() const {
    struct statvfs info;
    return statvfs(folder_.path().c_str(), &info) == 0 && uint64_t{info.f_bavail} * info.f_frsize >= kRoomBytes;
  }

  // Before all that would make folders or files anew.
  bool LookIsRemoved() {
    removed_ = removed_ || !journal_->IsThere();
    return removed_;
  }

  void Failed(const absl::Status& status) {
    if (LookIsRemoved()) return;  // no fault of the disk: the supervisor tells of it
    if (failures_++ == 0) health_ = status;
    if (!told_.insert(status.code()).second) return;
    std::string line =
        absl::StrCat("the run goes on, but its history in ", folder_.path(), " is not complete: ", status.message(),
                     absl::IsResourceExhausted(status) && !HasRoom() ? "; make room on that disk" : "");
    if (absl::IsResourceExhausted(status)) return Tell(line);
    // The folder may be half removed; whether all of it is, the next look will tell.
    untold_.push_back(std::move(line));
  }
  void TellUntold() {
    const std::vector<std::string> lines = std::exchange(untold_, {});
    if (LookIsRemoved()) return;
    for (const std::string& line : lines) Tell(line);
  }
  void Tell(const std::string& line) {
    if (tell_) return tell_(line);
    Warn(line);
  }

  const RunFolder folder_;
  RunMetrics metrics_;
  std::optional<LineFile> journal_;
  std::unique_ptr<StoredFiles> files_;
  RunRecord record_;
  bool journaled_ = false;  // the journal holds the run
  uint64_t record_points_ = 0;
  absl::Time record_written_ = absl::InfinitePast();
  bool page_stale_ = false;
  absl::Time page_written_ = absl::InfinitePast();
  absl::Time looked_ = absl::InfinitePast();
  bool removed_ = false;
  bool full_ = false;
  std::string unjournaled_;
  UniqueFd reserve_;
  off_t reserved_ = 0;
  absl::Time reserve_tried_ = absl::InfinitePast();
  absl::Status health_;
  int64_t failures_ = 0;
  std::set<absl::StatusCode> told_;
  std::vector<std::string> untold_;
  std::function<void(const std::string&)> tell_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RunHistory>> RunHistory::Open(const RunFolder& folder) {
  auto history = std::make_unique<History>(folder);
  BASIN_RETURN_IF_ERROR(history->Open());
  return history;
}

}  // namespace basin
