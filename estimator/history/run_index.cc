#include "estimator/history/run_index.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/base/checksum.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

constexpr int kVersion = 1;  // of the table; another one is thrown away
constexpr int kBusyMs = 2000;

absl::Status Failed(sqlite3* database, absl::string_view what) {
  const int code = sqlite3_errcode(database);
  // SQLITE_ERROR: the statements here are sound, so it is the table that is not.
  const bool damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_ERROR;
  return absl::Status(damaged ? absl::StatusCode::kDataLoss : absl::StatusCode::kUnavailable,
                      absl::StrCat("index of runs: ", what, ": ", sqlite3_errmsg(database)));
}

int64_t ChecksumOf(const std::string& runs, const std::string& name, const IndexedRun& run) {
  const std::string text = absl::StrCat(runs, "\n", name, "\n", run.stamp, "\n", run.created_ms, "\n", run.state);
  return Crc32c(text.data(), text.size());
}

class Statement {
 public:
  Statement(sqlite3* database, const char* sql) : database_(database) {
    sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  bool ok() const { return statement_ != nullptr; }
  void Bind(int at, const std::string& text) {
    sqlite3_bind_text(statement_, at, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
  }
  void Bind(int at, int64_t number) { sqlite3_bind_int64(statement_, at, number); }
  int Step() { return sqlite3_step(statement_); }
  absl::Status Run(absl::string_view what) {
    const int code = Step();
    sqlite3_reset(statement_);
    return code == SQLITE_DONE ? absl::OkStatus() : Failed(database_, what);
  }
  std::string Text(int column) const {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return text == nullptr ? "" : std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
  }
  int64_t Number(int column) const { return sqlite3_column_int64(statement_, column); }

 private:
  sqlite3* database_;
  sqlite3_stmt* statement_ = nullptr;
};

}  // namespace

RunIndex::~RunIndex() { sqlite3_close(database_); }

absl::Status RunIndex::Execute(const char* sql) {
  if (sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return absl::OkStatus();
  return Failed(database_, sql);
}

absl::Status RunIndex::Prepare() {
  sqlite3_busy_timeout(database_, kBusyMs);
  // It can be made anew at any time, so a crash of the machine may damage it.
  BASIN_RETURN_IF_ERROR(Execute("PRAGMA synchronous = OFF"));
  int64_t version = -1;
  {
    Statement ask(database_, "PRAGMA user_version");
    if (ask.ok() && ask.Step() == SQLITE_ROW) version = ask.Number(0);
  }
  if (version < 0) return Failed(database_, "read its version");
  // Readers wait for no writer then. A table that is missing all the same shows when it is read (DATA_LOSS).
  if (version == kVersion) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
  BASIN_RETURN_IF_ERROR(Execute("DROP TABLE IF EXISTS runs"));
  BASIN_RETURN_IF_ERROR(
      Execute("CREATE TABLE runs (folder TEXT, name TEXT, stamp TEXT, created_ms INTEGER, state TEXT, "
              "checksum INTEGER, PRIMARY KEY (folder, name)) WITHOUT ROWID"));
  BASIN_RETURN_IF_ERROR(Execute(absl::StrCat("PRAGMA user_version = ", kVersion).c_str()));
  return Execute("COMMIT");
}

absl::StatusOr<std::unique_ptr<RunIndex>> RunIndex::Open(const std::string& path) {
  BASIN_RETURN_IF_ERROR(MakeFolders(path.substr(0, path.rfind('/')), 0700));
  absl::Status failed;
  // A damaged one is taken away once.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); fd >= 0) close(fd);
    sqlite3* database = nullptr;
    const int code = sqlite3_open_v2(path.c_str(), &database, SQLITE_OPEN_READWRITE, nullptr);
    std::unique_ptr<RunIndex> index(new RunIndex(database));
    failed = code == SQLITE_OK ? index->Prepare() : Failed(database, absl::StrCat("open ", path));
    if (failed.ok()) return index;
    if (!absl::IsDataLoss(failed)) return failed;
    index.reset();
    Discard(path);
  }
  return failed;
}

absl::StatusOr<std::map<std::string, IndexedRun>> RunIndex::Read(const std::string& runs) {
  std::map<std::string, IndexedRun> found;
  Statement ask(database_, "SELECT name, stamp, created_ms, state, checksum FROM runs WHERE folder = ?");
  if (!ask.ok()) return Failed(database_, "read");
  ask.Bind(1, runs);
  int code;
  while ((code = ask.Step()) == SQLITE_ROW) {
    IndexedRun run{ask.Text(1), ask.Number(2), ask.Text(3)};
    const std::string name = ask.Text(0);
    if (ChecksumOf(runs, name, run) == ask.Number(4)) found[name] = std::move(run);
  }
  if (code != SQLITE_DONE) return Failed(database_, "read");
  return found;
}

absl::Status RunIndex::Update(const std::string& runs, const std::map<std::string, IndexedRun>& changed,
                              const std::vector<std::string>& gone) {
  if (changed.empty() && gone.empty()) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
  const absl::Status written = [&]() -> absl::Status {
    Statement put(database_, "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)");
    Statement remove(database_, "DELETE FROM runs WHERE folder = ? AND name = ?");
    if (!put.ok() || !remove.ok()) return Failed(database_, "write");
    for (const auto& [name, run] : changed) {
      put.Bind(1, runs);
      put.Bind(2, name);
      put.Bind(3, run.stamp);
      put.Bind(4, run.created_ms);
      put.Bind(5, run.state);
      put.Bind(6, ChecksumOf(runs, name, run));
      BASIN_RETURN_IF_ERROR(put.Run("write"));
    }
    for (const std::string& name : gone) {
      remove.Bind(1, runs);
      remove.Bind(2, name);
      BASIN_RETURN_IF_ERROR(remove.Run("write"));
    }
    return absl::OkStatus();
  }();
  if (written.ok()) return Execute("COMMIT");
  Execute("ROLLBACK").IgnoreError();
  return written;
}

void RunIndex::Discard(const std::string& path) {
  for (const char* suffix : {"", "-journal", "-wal", "-shm"}) unlink(absl::StrCat(path, suffix).c_str());
}

}  // namespace basin
