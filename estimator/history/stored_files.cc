#include "estimator/history/stored_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "estimator/history/files_below.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

constexpr char kByTask[] = "by-task";
constexpr const char* kStreamNames[] = {"log", "script_log", "metrics", "output", "agent"};

std::optional<RunStream> StreamNamed(absl::string_view name) {
  for (size_t i = 0; i < std::size(kStreamNames); ++i) {
    if (name == kStreamNames[i]) return static_cast<RunStream>(i);
  }
  return std::nullopt;
}

// Names below logs/ that the run itself uses: a script may not write into another task's log.
bool IsOursInLogs(absl::string_view path) {
  const size_t slash = path.find('/');
  const absl::string_view first = path.substr(0, slash);
  if (first == "tensorboard" && slash != absl::string_view::npos) {
    const absl::string_view rest = path.substr(slash + 1);
    return TaskOfFileName(rest.substr(0, rest.find('/'))).has_value();
  }
  return TaskOfFileName(absl::StripSuffix(first, ".txt")).has_value() || absl::StartsWith(first, "environment-") ||
         absl::StartsWith(first, "agent");
}

}  // namespace

StoredFiles::Key StoredFiles::KeyOf(const FilePiece& piece) {
  const bool has_path = piece.stream != RunStream::kLog && piece.stream != RunStream::kMetrics;
  return {piece.stream, piece.stream == RunStream::kAgent ? TaskId{} : piece.task, has_path ? piece.path : ""};
}

absl::StatusOr<std::unique_ptr<StoredFiles>> StoredFiles::Open(const RunFolder& folder) {
  BASIN_ASSIGN_OR_RETURN(FolderBeneath beneath, FolderBeneath::Open(folder.path()));
  const std::string path = absl::StrCat(folder.path(), "/files.jsonl");
  BASIN_ASSIGN_OR_RETURN(LineFile index, LineFile::Open(path));
  std::unique_ptr<StoredFiles> files(new StoredFiles(std::move(beneath), std::move(index)));
  BASIN_RETURN_IF_ERROR(files->Recall(path));
  return files;
}

absl::Status StoredFiles::Recall(const std::string& path) {
  std::ifstream lines(path);
  for (std::string line; std::getline(lines, line);) {
    const OrderedJson json = OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    const std::optional<RunStream> stream = StreamNamed(TextField(json, "stream"));
    const absl::StatusOr<TaskId> task = ParseTaskId(TextField(json, "task"));
    if (!stream) continue;
    Place place;
    place.path = TextField(json, "at");
    place.movable = json.value("movable", false);
    if (!CheckPathBeneath(place.path).ok()) continue;
    places_[{*stream, task.value_or(TaskId{}), TextField(json, "path")}] = place;  // a later line is the truth
  }
  std::set<std::string> taken;
  for (const auto& [key, place] : places_) taken.insert(place.path);
  for (auto& [key, place] : places_) {
    absl::StatusOr<BeneathFacts> facts = folder_.Look(place.path);
    // It may have got its short name just before a crash, which then came before the line that tells of it.
    if (const std::string moved = absl::StrCat("outputs/", key.path);
        !facts.ok() && place.movable && !taken.contains(moved) && folder_.Look(moved).ok() &&
        !folder_.Look(absl::StrCat(place.path, kPartialSuffix)).ok()) {
      place.path = moved;
      place.movable = false;
      taken.insert(moved);
      facts = folder_.Look(moved);
    }
    place.whole = key.stream == RunStream::kOutput && facts.ok();
    if (!facts.ok() && key.stream == RunStream::kOutput) facts = folder_.Look(absl::StrCat(place.path, kPartialSuffix));
    place.bytes = facts.ok() ? facts->bytes : 0;
  }
  return absl::OkStatus();
}

absl::Status StoredFiles::Remember(const Key& key, const Place& place) {
  OrderedJson json = {{"stream", kStreamNames[static_cast<size_t>(key.stream)]}};
  if (key.stream != RunStream::kAgent) json["task"] = key.task.Name();
  if (!key.path.empty()) json["path"] = key.path;
  json["at"] = place.path;
  if (place.movable) json["movable"] = true;
  return index_.Append(Line(json) + "\n", /*sync=*/false);
}

absl::StatusOr<StoredFiles::Place*> StoredFiles::PlaceFor(const FilePiece& piece) {
  const Key key = KeyOf(piece);
  if (const auto found = places_.find(key); found != places_.end()) return &found->second;
  const std::string task = FileNameOf(piece.task);
  Place place;
  if (!key.path.empty() || (piece.stream != RunStream::kLog && piece.stream != RunStream::kMetrics)) {
    BASIN_RETURN_IF_ERROR(CheckPathBeneath(piece.path));
  }
  switch (piece.stream) {
    case RunStream::kLog:
      place.path = absl::StrCat("logs/", task, ".txt");
      break;
    case RunStream::kMetrics:
      place.path = absl::StrCat("metrics/", task, ".jsonl");
      break;
    case RunStream::kAgent:
      place.path = absl::StrCat("logs/", piece.path);
      break;
    case RunStream::kScriptLog: {
      const bool short_name = piece.is_chief && !IsOursInLogs(piece.path);
      place.path = short_name ? absl::StrCat("logs/", piece.path) : absl::StrCat("logs/", task, "/", piece.path);
      break;
    }
    case RunStream::kOutput: {
      const bool ours = piece.path == kByTask || absl::StartsWith(piece.path, absl::StrCat(kByTask, "/"));
      const bool short_name = piece.is_chief && !ours;
      place.path = short_name ? absl::StrCat("outputs/", piece.path)
                              : absl::StrCat("outputs/", kByTask, "/", task, "/", piece.path);
      place.movable = !short_name && !ours;
      break;
    }
  }
  // What lies there under another origin's name (an agent's text beside the chief's log) would be mixed up.
  if (const absl::StatusOr<BeneathFacts> facts = folder_.Look(place.path); facts.ok()) {
    if (facts->kind != BeneathFacts::Kind::kFile) {
      return absl::FailedPreconditionError(absl::StrCat(place.path, ": something that is no file lies there"));
    }
    place.bytes = facts->bytes;
    place.whole = piece.stream == RunStream::kOutput;
  }
  BASIN_RETURN_IF_ERROR(Remember(key, place));
  return &(places_[key] = place);
}

absl::StatusOr<absl::string_view> StoredFiles::Store(const FilePiece& piece) {
  BASIN_ASSIGN_OR_RETURN(Place * place, PlaceFor(piece));
  const bool output = piece.stream == RunStream::kOutput;
  if (output && place->whole) return absl::string_view();
  if (output && !piece.link_target.empty()) {
    BASIN_RETURN_IF_ERROR(StoreLink(piece, *place));
    return absl::string_view();
  }
  if (piece.offset > place->bytes) {
    return absl::OutOfRangeError(absl::StrCat(place->path, ": bytes ", place->bytes, " to ", piece.offset,
                                              " are missing, so what follows is not stored"));
  }
  absl::string_view fresh = piece.data;
  fresh.remove_prefix(std::min<uint64_t>(place->bytes - piece.offset, fresh.size()));
  if (!fresh.empty() || (output && place->bytes == 0)) {
    const std::string path = output ? absl::StrCat(place->path, kPartialSuffix) : place->path;
    const absl::Status wrote = folder_.WriteAt(path, place->bytes, fresh);
    if (!wrote.ok()) {
      // Part of it may be there.
      if (const absl::StatusOr<BeneathFacts> facts = folder_.Look(path); facts.ok() && facts->bytes > place->bytes) {
        folder_.Truncate(path, place->bytes).IgnoreError();
      }
      return wrote;
    }
    place->bytes += fresh.size();
  }
  if (output && piece.last) BASIN_RETURN_IF_ERROR(Finish(piece, *place));
  return fresh;
}

absl::Status StoredFiles::Finish(const FilePiece& piece, Place& place) {
  const std::string partial = absl::StrCat(place.path, kPartialSuffix);
  BASIN_RETURN_IF_ERROR(folder_.SetExecutable(partial, piece.executable));
  BASIN_RETURN_IF_ERROR(Rename(partial, place.path));
  place.whole = true;
  return absl::OkStatus();
}

absl::Status StoredFiles::StoreLink(const FilePiece& piece, Place& place) {
  // From the task's own outputs/ it must not lead out, wherever these end up.
  BASIN_RETURN_IF_ERROR(CheckLinkTarget(piece.path, piece.link_target));
  BASIN_RETURN_IF_ERROR(folder_.MakeLink(place.path, piece.link_target));
  place.whole = true;
  return absl::OkStatus();
}

absl::Status StoredFiles::Rename(const std::string& from, const std::string& to) {
  if (renameat2(folder_.fd(), from.c_str(), folder_.fd(), to.c_str(), RENAME_NOREPLACE) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("rename ", from, " to ", to));
}

std::vector<StoredFile> StoredFiles::All() const {
  std::vector<StoredFile> files;
  for (const auto& [key, place] : places_) files.push_back({key.stream, key.task, key.path, place.bytes});
  return files;
}

absl::Status StoredFiles::PutOutputsInPlace() {
  absl::Status all;
  for (auto& [key, place] : places_) {  // by task, in the order of TaskId
    if (key.stream != RunStream::kOutput || !place.movable || !place.whole) continue;
    const std::string to = absl::StrCat("outputs/", key.path);
    // MakeFolder also refuses where a link or a file stands on the way.
    if (!folder_.MakeFolder(to.substr(0, to.rfind('/'))).ok() || !Rename(place.path, to).ok()) continue;
    const std::string from = std::exchange(place.path, to);
    place.movable = false;
    all.Update(Remember(key, place));
    // Folders that are empty now; the first that is not ends it.
    for (size_t slash = from.rfind('/'); slash > sizeof("outputs") - 1 && slash != std::string::npos;
         slash = from.rfind('/', slash - 1)) {
      if (unlinkat(folder_.fd(), from.substr(0, slash).c_str(), AT_REMOVEDIR) != 0) break;
    }
  }
  return all;
}

}  // namespace basin
