// What Slurm is asked for, as the group `slurm:` of a job or a target says it. Pure values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace basin {

class YamlFields;

// Empty: Slurm's own default.
struct SlurmOptions {
  std::string partition;
  std::string account;
  std::string qos;
  std::string reservation;
  std::string constraint;
  std::string time;                // as sbatch takes it: "30", "2:00:00", "1-12"; see SlurmTimeSeconds
  bool requeue = false;            // a job that Slurm puts back into the queue begins a new attempt of its run
  std::vector<std::string> extra;  // further options of sbatch, one word each: "--exclusive", "--mem=64G"
  bool operator==(const SlurmOptions&) const = default;
};

// Reads the group `slurm` of `fields` where it is given. INVALID_ARGUMENT with its place for an unknown field, for what
// is no word of sbatch, and for an extra option that would take the job out of Basin's hands, naming what to write
// instead.
absl::Status ReadSlurmOptions(const YamlFields& fields, const std::string& file, SlurmOptions* out);

// Field by field, the job's where it says something; its extra options come after the target's.
SlurmOptions MergedSlurmOptions(const SlurmOptions& target, const SlurmOptions& job);

// The group as YAML or JSON has it: "" where nothing is set.
std::string SlurmOptionsToJson(const SlurmOptions& options);

// A time limit in seconds: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS. -1 for anything else, 0 for UNLIMITED.
int64_t SlurmTimeSeconds(absl::string_view text);

}  // namespace basin
