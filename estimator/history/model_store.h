// Registered models: copies of what runs have left, under a name, with versions that count up from 1.
//
//   RUNS/.models/<name, '/' as %2F>/<version>/model.json
//                                             files/...   the file or folder under its own name
//
// A version is complete once it is there. Numbers are never used again: a deleted version leaves <version>.deleted.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/history/run_folder.h"

namespace basin {

struct RegisteredModel {
  std::string name;
  int version = 0;
  std::string path;    // in the run's folder, as it was found
  std::string folder;  // absolute: where the copy lies
  std::string run_id, experiment;
  std::string checksum;  // CopiedFiles::checksum
  uint64_t bytes = 0;
  std::map<std::string, std::string> tags, properties;
  std::string description;
  absl::Time created;
};

std::string ModelToJson(const RegisteredModel& model);

struct ModelToRegister {
  std::string name;
  std::string path;  // empty: the name is the path
  std::map<std::string, std::string> tags, properties;
  std::string description;
};

// Several processes may use one store at once.
class ModelStore final {
 public:
  explicit ModelStore(const std::string& runs) : folder_(runs + "/.models") {}

  // Copies from the run's folder. NOT_FOUND, naming the run's files, where the path is not there.
  absl::StatusOr<RegisteredModel> Register(const RunFolder& run, const std::string& run_id,
                                           const std::string& experiment, const ModelToRegister& model,
                                           absl::Time now) const;
  // By name, then version. `name` empty: all.
  absl::StatusOr<std::vector<RegisteredModel>> List(const std::string& name) const;
  // "NAME" for its newest version, or "NAME:VERSION". NOT_FOUND names what there is.
  absl::StatusOr<RegisteredModel> Find(const std::string& name_and_version) const;
  absl::Status Delete(const RegisteredModel& model) const;

 private:
  std::string FolderOf(const std::string& name) const;
  std::string folder_;
};

}  // namespace basin
