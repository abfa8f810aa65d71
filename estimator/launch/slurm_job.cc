#include "estimator/launch/slurm_job.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace basin {
namespace {

constexpr int kMostNodes = 100'000;

// The words of people's reasons, for those that are met often.
absl::string_view ReasonInWords(const std::string& reason) {
  const std::pair<const char*, const char*> known[] = {
      {"Resources", "the nodes are busy"},
      {"Priority", "others come first"},
      {"Dependency", "it waits for another job"},
      {"BadConstraints", "no nodes can ever satisfy it; cancel it, and ask for less"},
      {"PartitionConfig", "the partition does not allow it; cancel it, and ask for less"},
      {"PartitionDown", "the partition is down"},
      {"PartitionNodeLimit", "the partition has too few nodes"},
      {"PartitionTimeLimit", "the partition's time limit is shorter"},
      {"ReqNodeNotAvail", "a node that it needs is down or reserved"},
      {"JobHeldUser", "held by its user; scontrol release lets it go"},
      {"JobHeldAdmin", "held by an administrator"},
      {"BeginTime", "it may not start yet"},
  };
  for (const auto& [name, words] : known) {
    if (absl::StartsWith(reason, name)) return words;
  }
  return "";
}

std::string Told(const SlurmJob& job) {
  return absl::StrCat("Slurm's job ", job.id, ": ", job.state,
                      job.reason.empty() ? "" : absl::StrCat(", reason ", job.reason));
}

}  // namespace

bool SlurmJob::is_waiting() const {
  return state == "PENDING" || state == "CONFIGURING" || state == "REQUEUED" || state == "REQUEUE_HOLD" ||
         state == "REQUEUE_FED" || state == "RESV_DEL_HOLD" || state == "SPECIAL_EXIT";
}

bool SlurmJob::is_over() const {
  for (const char* over : {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
                           "PREEMPTED", "REVOKED", "TIMEOUT"}) {
    if (state == over) return true;
  }
  return false;
}

absl::StatusOr<SlurmJob> ParseSlurmJob(absl::string_view text) {
  SlurmJob job;
  // Values may hold blanks (a comment, a command), so that only the first of a name counts.
  const auto value = [text](absl::string_view name) -> std::string {
    size_t at = 0;
    while ((at = text.find(name, at)) != absl::string_view::npos) {
      if (at == 0 || text[at - 1] == ' ' || text[at - 1] == '\n') {
        const absl::string_view rest = text.substr(at + name.size());
        return std::string(rest.substr(0, rest.find_first_of(" \n")));
      }
      at += name.size();
    }
    return "";
  };
  job.id = value("JobId=");
  job.state = value("JobState=");
  if (job.id.empty() || job.state.empty()) return absl::NotFoundError("Slurm tells of no job");
  job.reason = value("Reason=");
  if (job.reason == "None") job.reason.clear();
  job.exit_code = value("ExitCode=");
  job.start = value("StartTime=");
  if (job.start == "Unknown" || job.start == "N/A") job.start.clear();
  // Times of one form, which compare as they stand. A life before may have been preempted too.
  const std::string preempted = value("PreemptTime=");
  job.preempted = !preempted.empty() && absl::ascii_isdigit(preempted[0]) && preempted >= job.start;
  job.nodes = value("NodeList=");
  if (job.nodes == "(null)") job.nodes.clear();
  if (!absl::SimpleAtoi(value("Restarts="), &job.restarts)) job.restarts = 0;
  return job;
}

std::vector<std::string> ParseHostNames(absl::string_view text) {
  std::vector<std::string> names;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    names.emplace_back(absl::StripAsciiWhitespace(line));
  }
  return names;
}

absl::StatusOr<std::vector<int>> ParseCpusPerNode(absl::string_view text) {
  std::vector<int> cpus;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int number = 0, times = 1;
    const size_t open = part.find("(x");
    bool is_fine = absl::SimpleAtoi(part.substr(0, open), &number) && number > 0;
    if (open != absl::string_view::npos) {
      absl::string_view rest = part.substr(open + 2);
      is_fine = is_fine && absl::ConsumeSuffix(&rest, ")") && absl::SimpleAtoi(rest, &times) && times > 0 &&
                times <= kMostNodes;
    }
    if (!is_fine) {
      return absl::InvalidArgumentError(
          absl::StrCat("SLURM_JOB_CPUS_PER_NODE: \"", text, "\" is not what Slurm writes, such as 4(x2),8"));
    }
    cpus.insert(cpus.end(), static_cast<size_t>(times), number);
  }
  return cpus;
}

BatchVerdict VerdictOf(const SlurmJob& job, int restarts) {
  if (job.restarts > restarts || job.is_waiting()) {
    return {BatchVerdict::kRequeued, absl::StrCat("Slurm puts job ", job.id, " back into its queue")};
  }
  if (job.preempted) return {BatchVerdict::kFailed, absl::StrCat("Slurm's job ", job.id, ": PREEMPTED")};
  if (job.state == "COMPLETING" && job.reason.empty()) {
    return {BatchVerdict::kCanceled, absl::StrCat("canceled by scancel of Slurm's job ", job.id)};
  }
  if (job.state == "CANCELLED") {
    return {BatchVerdict::kCanceled, absl::StrCat("canceled by scancel of Slurm's job ", job.id)};
  }
  if (job.state == "COMPLETING" || job.is_over()) {
    const bool is_time = job.reason == "TimeLimit" || job.state == "TIMEOUT";
    return {BatchVerdict::kFailed,
            absl::StrCat(Told(job), is_time ? "; set a longer slurm.time, or max_run_duration_seconds" : "")};
  }
  return {BatchVerdict::kGoesOn, ""};
}

SlurmEnd EndOf(const std::string& id, const std::optional<SlurmJob>& job, bool started, const std::string& folder) {
  const std::string log = absl::StrCat("; see ", folder, "/supervisor.log");
  if (!job) {
    return {RunPhase::kFailed, absl::StrCat("Slurm does not know its job ", id,
                                            " any more, and nobody has said how the run ended", started ? log : "")};
  }
  if (job->state == "CANCELLED") {
    return {RunPhase::kCanceled, absl::StrCat("canceled by scancel of Slurm's job ", id)};
  }
  if (job->state == "TIMEOUT") {
    return {RunPhase::kFailed, absl::StrCat(Told(*job), "; set a longer slurm.time, or max_run_duration_seconds")};
  }
  const bool by_itself = job->state == "FAILED" || job->state == "COMPLETED";
  if (!by_itself) return {RunPhase::kFailed, Told(*job)};
  const std::string ended = absl::StrCat(Told(*job), ", exit code ", job->exit_code);
  if (started) return {RunPhase::kFailed, absl::StrCat("its supervisor ended without a word (", ended, ")", log)};
  return {RunPhase::kFailed,
          absl::StrCat("its supervisor never began (", ended,
                       job->nodes.empty() ? "" : absl::StrCat(", on ", job->nodes), "): the run's folder ", folder,
                       " and Basin's programs must lie on a file system that the nodes share; give --runs DIR, or name "
                       "programs in the target",
                       log)};
}

std::string WaitingText(const SlurmJob& job) {
  const absl::string_view words = ReasonInWords(job.reason);
  return absl::StrCat("Slurm's job ", job.id, " waits", job.reason.empty() ? "" : absl::StrCat(": ", job.reason),
                      words.empty() ? "" : absl::StrCat(", ", words),
                      job.start.empty() ? "" : absl::StrCat(" (expected to start ", job.start, ")"));
}

}  // namespace basin
