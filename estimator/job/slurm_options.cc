#include "estimator/job/slurm_options.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "common/format/yaml_fields.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

// Options of sbatch that Basin sets itself, and how a job says the same.
struct OwnOption {
  const char* name;
  const char* letter;  // "" for none
  const char* instead;
};
constexpr OwnOption kOwnOptions[] = {
    {"--job-name", "-J", "the job is named basin-EXPERIMENT; set experiment"},
    {"--nodes", "-N", "set node_count"},
    {"--ntasks", "-n", "Basin starts one agent a node, and the tasks by worker_count and its kin"},
    {"--ntasks-per-node", "", "Basin starts one agent a node, and the tasks by worker_count and its kin"},
    {"--cpus-per-task", "-c", "set roles: {worker: {cpus: N}}"},
    {"--array", "-a", "a run is one job; submit it several times"},
    {"--het-group", "", "heterogeneous jobs are not supported"},
    {"--output", "-o", "what the job prints comes into the run's folder"},
    {"--error", "-e", "what the job prints comes into the run's folder"},
    {"--open-mode", "", "what the job prints comes into the run's folder"},
    {"--input", "-i", "the job reads nothing"},
    {"--signal", "", "Basin is told before the time limit, and ends its tasks then"},
    {"--time", "-t", "set slurm.time, or max_run_duration_seconds"},
    {"--partition", "-p", "set slurm.partition"},
    {"--account", "-A", "set slurm.account"},
    {"--qos", "-q", "set slurm.qos"},
    {"--reservation", "", "set slurm.reservation"},
    {"--constraint", "-C", "set slurm.constraint"},
    {"--requeue", "", "set slurm.requeue: true"},
    {"--no-requeue", "", "set slurm.requeue: false"},
    {"--export", "", "the job has the environment of its submitter, and its tasks environment_variables"},
    {"--export-file", "", "the job has the environment of its submitter, and its tasks environment_variables"},
    {"--chdir", "-D", "each task has a folder of its own"},
    {"--parsable", "", "Basin reads the job's number itself"},
    {"--wrap", "", "Basin writes the script"},
    {"--clusters", "-M", "submit where sbatch speaks with that cluster by itself, for the run is followed there"},
    {"--wait", "-W", "basin submit waits, and basin submit --detach does not"},
    {"--test-only", "", "use basin doctor"},
    {"--help", "-h", "call sbatch yourself"},
    {"--usage", "", "call sbatch yourself"},
    {"--version", "-V", "call sbatch yourself"},
};

absl::Status ReadExtra(const YamlFields& slurm, SlurmOptions* out) {
  std::vector<std::string> words;
  BASIN_RETURN_IF_ERROR(ReadTexts(slurm, "extra", "an option of sbatch", &words));
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find('='));
    const bool is_option = word.size() > 1 && word[0] == '-' &&
                           std::all_of(word.begin(), word.end(), [](char c) { return c >= ' ' && c != 0x7f; });
    if (!is_option) {
      return slurm.ErrorAt("extra", absl::StrCat("\"", word,
                                                 "\" is no option of sbatch; write each with its value as "
                                                 "one text: [\"--exclusive\", \"--mem=64G\"]"));
    }
    if (const size_t blank = word.find(' '); absl::StartsWith(word, "--") && blank < word.find('=')) {
      return slurm.ErrorAt("extra",
                           absl::StrCat("\"", word, "\" would be the name of an option with a blank in it; write ",
                                        word.substr(0, blank), "=", absl::StripAsciiWhitespace(word.substr(blank))));
    }
    for (const OwnOption& own : kOwnOptions) {
      const bool is_letter =
          own.letter[0] != '\0' && !absl::StartsWith(word, "--") && absl::StartsWith(word, own.letter);
      // sbatch takes the beginning of a long name for it.
      const bool is_name = name.size() > 2 && absl::StartsWith(own.name, name);
      if (!is_name && !is_letter) continue;
      return slurm.ErrorAt("extra", absl::StrCat(word, " is set by Basin itself; remove it: ", own.instead));
    }
    out->extra.push_back(word);
  }
  return absl::OkStatus();
}

}  // namespace

bool IsSbatchWord(absl::string_view text) {
  return !text.empty() && text[0] != '-' && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isgraph(c) && absl::string_view("\"'`\\$#;<>").find(c) == absl::string_view::npos;
  });
}

absl::Status ReadSlurmOptions(const YamlFields& fields, const std::string& file, SlurmOptions* out) {
  if (!fields.Has("slurm")) return absl::OkStatus();
  BASIN_ASSIGN_OR_RETURN(const YamlFields slurm, YamlFields::From(fields.Value("slurm"), file, fields.PathOf("slurm"),
                                                                  {"partition", "account", "qos", "reservation",
                                                                   "constraint", "time", "requeue", "extra"}));
  const std::pair<const char*, std::string*> words[] = {{"partition", &out->partition},
                                                        {"account", &out->account},
                                                        {"qos", &out->qos},
                                                        {"reservation", &out->reservation},
                                                        {"constraint", &out->constraint}};
  for (const auto& [name, value] : words) {
    BASIN_RETURN_IF_ERROR(slurm.Read(name, value));
    if (value->empty() || IsSbatchWord(*value)) continue;
    return slurm.ErrorAt(name, absl::StrCat("\"", *value, "\" is no value that sbatch takes in one word"));
  }
  BASIN_RETURN_IF_ERROR(slurm.Read("time", &out->time));
  if (!out->time.empty() && SlurmTimeSeconds(out->time) < 0) {
    return slurm.ErrorAt("time",
                         absl::StrCat("\"", out->time,
                                      "\" is no time as Slurm takes it; write minutes (30), HH:MM:SS (\"2:00:00\","
                                      " in quotation marks) or D-HH (1-12)"));
  }
  BASIN_RETURN_IF_ERROR(slurm.Read("requeue", &out->requeue));
  return ReadExtra(slurm, out);
}

SlurmOptions MergedSlurmOptions(const SlurmOptions& target, const SlurmOptions& job) {
  SlurmOptions merged = target;
  for (std::string SlurmOptions::*field :
       {&SlurmOptions::partition, &SlurmOptions::account, &SlurmOptions::qos, &SlurmOptions::reservation,
        &SlurmOptions::constraint, &SlurmOptions::time}) {
    if (!(job.*field).empty()) merged.*field = job.*field;
  }
  merged.requeue = target.requeue || job.requeue;
  merged.extra.insert(merged.extra.end(), job.extra.begin(), job.extra.end());
  return merged;
}

std::string SlurmOptionsToJson(const SlurmOptions& options) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  const std::pair<const char*, const std::string&> words[] = {
      {"partition", options.partition},     {"account", options.account},       {"qos", options.qos},
      {"reservation", options.reservation}, {"constraint", options.constraint}, {"time", options.time}};
  for (const auto& [name, value] : words) {
    if (!value.empty()) json[name] = value;
  }
  if (options.requeue) json["requeue"] = true;
  if (!options.extra.empty()) json["extra"] = options.extra;
  return json.empty() ? "" : json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

int64_t SlurmTimeSeconds(absl::string_view text) {
  if (absl::EqualsIgnoreCase(text, "UNLIMITED") || absl::EqualsIgnoreCase(text, "INFINITE")) return 0;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('-', 1));
  const bool has_days = parts.size() == 2;
  int64_t days = 0;
  if (has_days && (!absl::SimpleAtoi(parts[0], &days) || days < 0 || days > 3650)) return -1;
  std::vector<int64_t> numbers;
  for (const absl::string_view part : absl::StrSplit(parts.back(), ':')) {
    int64_t number = 0;
    const bool is_number = !part.empty() && std::all_of(part.begin(), part.end(), absl::ascii_isdigit);
    if (!is_number || !absl::SimpleAtoi(part, &number) || number > 100'000'000) return -1;
    numbers.push_back(number);
  }
  if (numbers.size() > 3) return -1;
  // Of what the first number is: hours after days, otherwise minutes unless there are three.
  const size_t first = has_days || numbers.size() == 3 ? 0 : 1;
  constexpr int64_t kUnits[] = {3600, 60, 1};
  int64_t seconds = days * 24 * 3600;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (first + i > 2) return -1;
    seconds += numbers[i] * kUnits[first + i];
  }
  return seconds;
}

}  // namespace basin
