// What is kept about runs that have ended, in an SQLite file that several processes share: enough to sort and filter
// them without reading their folders.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct sqlite3;

namespace basin {

struct IndexedRun {
  std::string stamp;  // of run.json as it was read: another stamp, another content
  int64_t created_ms = 0;
  std::string state;
};

// Not thread-safe. Any failure is one of a cache: the caller goes on without. DATA_LOSS: it is damaged.
class RunIndex final {
 public:
  // Makes it where it is missing, and anew where it is damaged or of another version.
  static absl::StatusOr<std::unique_ptr<RunIndex>> Open(const std::string& path);
  ~RunIndex();
  RunIndex(const RunIndex&) = delete;
  RunIndex& operator=(const RunIndex&) = delete;

  // Of one folder of runs, by EXPERIMENT/ID. Rows whose checksum does not fit are left out.
  absl::StatusOr<std::map<std::string, IndexedRun>> Read(const std::string& runs);
  // In one transaction: puts `changed` in, takes `gone` out.
  absl::Status Update(const std::string& runs, const std::map<std::string, IndexedRun>& changed,
                      const std::vector<std::string>& gone);
  // Removes the file, after it was found to be damaged or wrong. Whoever has it open goes on with a file that nobody
  // sees.
  static void Discard(const std::string& path);

 private:
  explicit RunIndex(sqlite3* database) : database_(database) {}
  absl::Status Execute(const char* sql);
  absl::Status Prepare();
  sqlite3* database_;
};

}  // namespace basin
