#include "estimator/history/run_list.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/nearest.h"
#include "common/base/status_macros.h"
#include "estimator/history/run_index.h"

namespace basin {
namespace {

constexpr size_t kNamedMax = 8;
constexpr char kLatest[] = "latest";

// Of a run that is being made: until then there may be its job alone.
constexpr absl::Duration kBeingMade = absl::Minutes(1);

// Names of the folders in `path`, but hidden ones: those are the run store's own. None where it does not exist.
absl::StatusOr<std::vector<std::string>> FoldersIn(const std::string& path) {
  std::vector<std::string> names;
  DIR* folder = opendir(path.c_str());
  if (folder == nullptr && errno == ENOENT) return names;
  if (folder == nullptr) return ErrnoStatus(errno, absl::StrCat("list ", path));
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    bool is_folder = entry->d_type == DT_DIR;
    if (entry->d_type == DT_UNKNOWN || entry->d_type == DT_LNK) {
      std::error_code error;
      is_folder = std::filesystem::is_directory(absl::StrCat(path, "/", entry->d_name), error);
    }
    if (is_folder) names.push_back(entry->d_name);
  }
  closedir(folder);
  std::sort(names.begin(), names.end());
  return names;
}

// Differs whenever run.json has been replaced. Empty where there is none.
std::string StampOf(const RunFolder& folder) {
  struct stat info;
  if (stat(folder.RecordPath().c_str(), &info) != 0) return "";
  return absl::StrCat(info.st_ino, ".", info.st_size, ".", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, ".",
                      info.st_ctim.tv_sec, ".", info.st_ctim.tv_nsec);
}

// Whether a folder whose record cannot be read was a run's.
bool IsDamaged(const RunFolder& folder) {
  if (access(folder.path().c_str(), R_OK | X_OK) != 0) return errno != ENOENT;
  if (SupervisorLock::IsHeld(folder)) return false;
  struct stat info;
  for (const std::string& path : {folder.RecordPath(), folder.JournalPath()}) {
    if (stat(path.c_str(), &info) == 0) return true;
  }
  return stat((folder.path() + "/job.json").c_str(), &info) == 0 &&
         absl::Now() - absl::FromTimeT(info.st_mtim.tv_sec) > kBeingMade;
}

struct Candidate {
  int64_t created_ms = 0;
  std::string run_id;
  RunFolder folder{""};
  std::string state;
  std::optional<RunRecord> record;  // where it was read
};

bool IsNewer(const Candidate& a, const Candidate& b) {
  return a.created_ms != b.created_ms ? a.created_ms > b.created_ms : a.run_id > b.run_id;
}

ShownState Shown(const RunRecord& record, const RunFolder& folder) {
  return StateToShow(record, IsFinal(record.phase) || SupervisorLock::IsHeld(folder));
}

// nullopt: the index could not be used, or what it said of a run is not what its folder says. *cache: what went wrong
// with it, DATA_LOSS where it is no use.
std::optional<RunListing> ListWith(const std::string& runs, const std::vector<RunName>& names, RunIndex* index,
                                   const RunQuery& query, absl::Status* cache) {
  std::map<std::string, IndexedRun> known;
  if (index != nullptr) {
    absl::StatusOr<std::map<std::string, IndexedRun>> read = index->Read(runs);
    *cache = read.status();
    if (!read.ok()) return std::nullopt;
    known = *std::move(read);
  }
  std::vector<Candidate> candidates;
  std::map<std::string, IndexedRun> changed;
  RunListing listing;
  for (const RunName& name : names) {
    const std::string key = absl::StrCat(name.experiment, "/", name.run_id);
    Candidate one{0, name.run_id, RunFolder(RunFolder::PathFor(runs, name.experiment, name.run_id)), "", {}};
    const std::string stamp = StampOf(one.folder);
    const auto found = known.find(key);
    if (found != known.end() && !stamp.empty() && found->second.stamp == stamp) {
      one.created_ms = found->second.created_ms;
      one.state = found->second.state;
    } else {
      absl::StatusOr<RunRecord> record = ReadRun(one.folder);
      if (!record.ok()) {
        if (IsDamaged(one.folder)) listing.damaged.push_back(one.folder.path());
        continue;  // else a folder that somebody is making at this moment, or no run
      }
      one.created_ms = absl::ToUnixMillis(record->created);
      one.state = Shown(*record, one.folder).name;
      // The stamp is older than what was read, so it never stands for more than it has seen. Where the end is in the
      // journal alone, it stands for less.
      if (IsFinal(record->phase) && !stamp.empty()) changed[key] = {stamp, one.created_ms, one.state};
      one.record = *std::move(record);
    }
    if (found != known.end()) known.erase(found);
    if (query.state.empty() || absl::EqualsIgnoreCase(query.state, one.state)) candidates.push_back(std::move(one));
  }
  std::sort(candidates.begin(), candidates.end(), IsNewer);
  if (query.limit > 0 && candidates.size() > query.limit)
    candidates.erase(candidates.begin() + query.limit, candidates.end());
  for (Candidate& one : candidates) {
    if (!one.record) {
      absl::StatusOr<RunRecord> record = ReadRun(one.folder);
      if (!record.ok() && absl::IsNotFound(record.status())) continue;  // deleted at this moment
      if (!record.ok() || absl::ToUnixMillis(record->created) != one.created_ms ||
          RunPhaseName(record->phase) != one.state) {
        *cache = absl::DataLossError("the index of runs is wrong");
        return std::nullopt;
      }
      one.record = *std::move(record);
    }
    ShownState shown = Shown(*one.record, one.folder);
    listing.runs.push_back({*std::move(one.record), std::move(shown)});
  }
  if (index != nullptr) {
    std::vector<std::string> gone;
    // With an experiment, the others have not been looked at.
    for (const auto& [name, run] : known) {
      if (query.experiment.empty()) gone.push_back(name);
    }
    *cache = index->Update(runs, changed, gone);
  }
  return listing;
}

std::string Named(const std::vector<RunName>& names) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < std::min(names.size(), kNamedMax); ++i) {
    texts.push_back(absl::StrCat(names[i].experiment, "/", names[i].run_id));
  }
  if (names.size() > kNamedMax) texts.push_back(absl::StrCat("and ", names.size() - kNamedMax, " more"));
  return absl::StrJoin(texts, ", ");
}

absl::Status NoSuchRun(const std::string& runs, const std::string& text, const std::vector<RunName>& names) {
  if (names.empty()) {
    return absl::NotFoundError(
        absl::StrCat("run ", text, ": there are no runs in ", runs,
                     "; `basin submit JOB` makes one, --runs or BASIN_RUNS names another folder"));
  }
  std::vector<std::string> known;
  for (const RunName& name : names) {
    if (text == name.experiment) {
      return absl::NotFoundError(absl::StrCat("run ", text, ": that is an experiment; its newest run is ", text,
                                              "/latest, and `basin runs --experiment ", text, "` lists all"));
    }
    known.push_back(name.run_id);
    known.push_back(absl::StrCat(name.experiment, "/", name.run_id));
    known.push_back(absl::StrCat(name.experiment, "/", kLatest));
  }
  known.push_back(kLatest);
  const std::optional<std::string> near = Nearest(text, known);
  return absl::NotFoundError(absl::StrCat(
      "run ", text, ": there is none of this name in ", runs,
      near ? absl::StrCat("; did you mean ", *near, "?") : "; `basin runs` lists them, `latest` is the newest"));
}

// Why the folder's run, or runs, cannot be shown, and what to do. Empty where it can be, by now.
std::string DamageOf(const std::string& path, bool is_experiment) {
  if (access(path.c_str(), R_OK | X_OK) != 0) {
    if (errno == ENOENT) return "";
    return absl::StrCat(ErrnoStatus(errno, absl::StrCat("read ", path)).message(), "; make it readable");
  }
  if (is_experiment) return "";
  const absl::StatusOr<RunRecord> record = ReadRun(RunFolder(path));
  if (record.ok() || !IsDamaged(RunFolder(path))) return "";
  return absl::StrCat(record.status().message(),
                      "; bring run.json or journal.jsonl back, or remove what is left: ", "basin delete --force ",
                      std::filesystem::path(path).filename().string());
}

}  // namespace

absl::StatusOr<std::vector<RunName>> RunNames(const std::string& runs, const std::string& experiment,
                                              std::vector<std::string>* unreadable) {
  std::vector<RunName> names;
  absl::StatusOr<std::vector<std::string>> experiments = FoldersIn(runs);
  if (!experiments.ok()) {
    return absl::Status(experiments.status().code(),
                        absl::StrCat("the folder of runs: ", experiments.status().message(),
                                     "; make it readable, or name another with --runs or BASIN_RUNS"));
  }
  for (const std::string& one : *experiments) {
    if (!experiment.empty() && one != experiment) continue;
    const std::string path = absl::StrCat(runs, "/", one);
    const absl::StatusOr<std::vector<std::string>> run_ids = FoldersIn(path);
    if (!run_ids.ok() && unreadable != nullptr) unreadable->push_back(path);
    if (!run_ids.ok()) continue;
    for (const std::string& run_id : *run_ids) names.push_back({one, run_id});
  }
  return names;
}

absl::StatusOr<RunListing> ListRuns(const std::string& given, const std::string& index_path, const RunQuery& query) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(given, error);
  const std::string runs = error ? given : real.string();
  std::vector<std::string> unreadable;
  BASIN_ASSIGN_OR_RETURN(const std::vector<RunName> names, RunNames(runs, query.experiment, &unreadable));
  const auto with_unreadable = [&unreadable](RunListing listing) {
    listing.damaged.insert(listing.damaged.begin(), unreadable.begin(), unreadable.end());
    return listing;
  };
  if (!index_path.empty()) {
    // Twice: what was damaged or wrong is thrown away and made anew.
    for (int attempt = 0; attempt < 2; ++attempt) {
      const absl::StatusOr<std::unique_ptr<RunIndex>> index = RunIndex::Open(index_path);
      if (!index.ok()) break;
      absl::Status cache;
      std::optional<RunListing> listed = ListWith(runs, names, index->get(), query, &cache);
      if (absl::IsDataLoss(cache)) RunIndex::Discard(index_path);
      if (listed && !absl::IsDataLoss(cache)) return with_unreadable(*std::move(listed));
      if (absl::IsUnavailable(cache)) break;  // in use for longer than one waits for a cache
    }
  }
  absl::Status none;
  return with_unreadable(ListWith(runs, names, nullptr, query, &none).value_or(RunListing()));
}

absl::StatusOr<RunFolder> FindRun(const std::string& runs, const std::string& index, const std::string& text,
                                  std::vector<std::string>* passed_over) {
  const size_t slash = text.find('/');
  const std::string experiment = slash == std::string::npos ? "" : text.substr(0, slash);
  const std::string wanted = slash == std::string::npos ? text : text.substr(slash + 1);
  if (wanted.empty()) return absl::InvalidArgumentError("which run? Give its id, EXPERIMENT/ID or latest");
  BASIN_ASSIGN_OR_RETURN(const std::vector<RunName> all, RunNames(runs));
  std::vector<RunName> names;
  for (const RunName& name : all) {
    if (experiment.empty() || name.experiment == experiment) names.push_back(name);
  }
  if (wanted == kLatest) {
    BASIN_ASSIGN_OR_RETURN(const RunListing newest, ListRuns(runs, index, {experiment, "", 1}));
    // When a damaged run began only its id tells: ids begin with the time.
    const std::string found = newest.runs.empty() ? "" : newest.runs[0].record.run_id;
    for (const std::string& path : newest.damaged) {
      const bool is_experiment = std::none_of(all.begin(), all.end(), [&](const RunName& name) {
        return absl::EndsWith(path, absl::StrCat("/", name.experiment, "/", name.run_id));
      });
      if (!is_experiment && std::filesystem::path(path).filename().string() <= found) continue;
      const std::string damage = DamageOf(path, is_experiment);
      if (!damage.empty()) passed_over->push_back(damage);
    }
    if (newest.runs.empty()) return NoSuchRun(runs, text, all);
    return RunFolder(newest.runs[0].record.folder);
  }
  std::vector<RunName> exact, by_prefix;
  for (const RunName& name : names) {
    if (name.run_id == wanted) exact.push_back(name);
    if (absl::StartsWith(name.run_id, wanted)) by_prefix.push_back(name);
  }
  const std::vector<RunName>& found = exact.empty() ? by_prefix : exact;
  if (found.empty()) return NoSuchRun(runs, text, all);
  if (found.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("run ", text, ": ", found.size(),
                                                   " runs are called so: ", Named(found), "; give more of the name"));
  }
  return RunFolder(RunFolder::PathFor(runs, found[0].experiment, found[0].run_id));
}

}  // namespace basin
