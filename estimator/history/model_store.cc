#include "estimator/history/model_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/nearest.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "estimator/history/aside.h"
#include "estimator/history/copy_files.h"
#include "estimator/history/files_below.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

constexpr size_t kNameBytesMax = 200;
constexpr char kDeleted[] = ".deleted";
constexpr char kNew[] = ".new-";
constexpr char kGone[] = ".gone-";

// Of a model: what a crash has left half made or half removed.
void Prune(const std::string& folder) {
  for (const char* prefix : {kNew, kGone}) PruneAsides(folder, prefix);
}

absl::Status CheckModelName(absl::string_view name) {
  const bool good = !name.empty() && name.size() <= kNameBytesMax && name[0] != '.' && name[0] != '/' &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                             absl::StrContains("_-./", absl::string_view(&c, 1));
                    });
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "model \"", name, "\": a name has letters, digits and _ - . /, begins with neither . nor /, and has at most ",
      kNameBytesMax, " bytes"));
}

// Also of a version that was deleted; 0 for another file's name.
int VersionOf(absl::string_view file_name) {
  absl::ConsumeSuffix(&file_name, kDeleted);
  int version = 0;
  return absl::SimpleAtoi(file_name, &version) && version > 0 ? version : 0;
}

int HighestVersion(const std::string& folder) {
  int highest = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    highest = std::max(highest, VersionOf(entry.path().filename().string()));
  }
  return highest;
}

std::map<std::string, std::string> TextsOf(const OrderedJson& json, const char* name) {
  std::map<std::string, std::string> texts;
  const auto found = json.find(name);
  if (found == json.end() || !found->is_object()) return texts;
  for (const auto& [key, value] : found->items()) {
    if (value.is_string()) texts[key] = value.get<std::string>();
  }
  return texts;
}

OrderedJson ModelJson(const RegisteredModel& model) {
  OrderedJson json = {{"name", model.name},
                      {"version", model.version},
                      {"path", model.path},
                      {"folder", model.folder},
                      {"run_id", model.run_id},
                      {"experiment", model.experiment},
                      {"checksum", model.checksum},
                      {"bytes", model.bytes},
                      {"tags", OrderedJson::object()},
                      {"properties", OrderedJson::object()},
                      {"description", model.description}};
  json["tags"].update(OrderedJson(model.tags));
  json["properties"].update(OrderedJson(model.properties));
  json["created"] = TimeToText(model.created);
  return json;
}

absl::StatusOr<RegisteredModel> ReadModel(const std::string& folder) {
  BASIN_ASSIGN_OR_RETURN(const std::string text, ReadFile(absl::StrCat(folder, "/model.json"), size_t{16} << 20));
  const OrderedJson json = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::DataLossError(absl::StrCat(folder, "/model.json: no JSON object"));
  RegisteredModel model;
  model.name = TextField(json, "name");
  model.version = VersionOf(fs::path(folder).filename().string());
  model.path = TextField(json, "path");
  model.folder = absl::StrCat(folder, "/files");
  model.run_id = TextField(json, "run_id");
  model.experiment = TextField(json, "experiment");
  model.checksum = TextField(json, "checksum");
  if (const auto bytes = json.find("bytes"); bytes != json.end() && bytes->is_number_unsigned()) {
    model.bytes = bytes->get<uint64_t>();
  }
  model.tags = TextsOf(json, "tags");
  model.properties = TextsOf(json, "properties");
  model.description = TextField(json, "description");
  model.created = TimeField(json, "created").value_or(absl::UnixEpoch());
  return model;
}

}  // namespace

std::string ModelToJson(const RegisteredModel& model) { return Pretty(ModelJson(model)); }

std::string ModelStore::FolderOf(const std::string& name) const {
  return absl::StrCat(folder_, "/", absl::StrReplaceAll(name, {{"/", "%2F"}}));
}

absl::StatusOr<RegisteredModel> ModelStore::Register(const RunFolder& run, const std::string& run_id,
                                                     const std::string& experiment, const ModelToRegister& given,
                                                     absl::Time now) const {
  BASIN_RETURN_IF_ERROR(CheckModelName(given.name));
  BASIN_ASSIGN_OR_RETURN(const std::string path, PathInRun(run.path(), given.path.empty() ? given.name : given.path));
  const std::string folder = FolderOf(given.name);
  BASIN_RETURN_IF_ERROR(MakeFolders(folder, 0700));
  Prune(folder);
  // Made aside, and given its number as a whole: two at once get two numbers.
  BASIN_ASSIGN_OR_RETURN(const FolderAside made, FolderAside::Make(folder, kNew));
  const std::string& aside = made.path();
  const std::string name_in_store = fs::path(path).filename().string();
  BASIN_ASSIGN_OR_RETURN(
      const CopiedFiles copied,
      CopyFrom(run.path(), path, absl::StrCat(aside, "/files/", name_in_store), {.owner_only = true, .sync = true}));
  if (!copied.not_whole.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not whole: only a part of ",
                                                      absl::StripSuffix(copied.not_whole[0], kPartialSuffix),
                                                      " has come from its node; see basin show ", run_id));
  }
  RegisteredModel model{
      given.name,        0,  path, "", run_id, experiment, copied.checksum, copied.bytes, given.tags, given.properties,
      given.description, now};
  while (true) {
    model.version = HighestVersion(folder) + 1;
    const std::string place = absl::StrCat(folder, "/", model.version);
    model.folder = absl::StrCat(place, "/files");
    BASIN_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(aside, "/model.json"), ModelToJson(model) + "\n", 0600));
    if (renameat2(AT_FDCWD, aside.c_str(), AT_FDCWD, place.c_str(), RENAME_NOREPLACE) == 0) break;
    if (errno != EEXIST && errno != ENOTEMPTY) return ErrnoStatus(errno, absl::StrCat("make ", place));
  }
  return model;
}

absl::StatusOr<std::vector<RegisteredModel>> ModelStore::List(const std::string& name) const {
  std::vector<RegisteredModel> models;
  std::error_code error;
  for (const auto& one : fs::directory_iterator(folder_, error)) {
    if (!name.empty() && one.path().string() != FolderOf(name)) continue;
    std::error_code ignored;
    for (const auto& version : fs::directory_iterator(one.path(), ignored)) {
      const std::string file = version.path().filename().string();
      if (VersionOf(file) == 0 || absl::EndsWith(file, kDeleted)) continue;
      absl::StatusOr<RegisteredModel> model = ReadModel(version.path().string());
      if (!model.ok() && absl::IsNotFound(model.status())) continue;  // deleted at this moment
      if (!model.ok()) return model.status();
      models.push_back(*std::move(model));
    }
  }
  std::sort(models.begin(), models.end(), [](const RegisteredModel& a, const RegisteredModel& b) {
    return a.name != b.name ? a.name < b.name : a.version < b.version;
  });
  return models;
}

absl::StatusOr<RegisteredModel> ModelStore::Find(const std::string& text) const {
  const size_t colon = text.rfind(':');
  const std::string name = text.substr(0, colon);
  BASIN_RETURN_IF_ERROR(CheckModelName(name));
  int version = 0;
  if (colon != std::string::npos && (!absl::SimpleAtoi(text.substr(colon + 1), &version) || version < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("model ", text, ": after the colon comes a version, 1 or more"));
  }
  BASIN_ASSIGN_OR_RETURN(const std::vector<RegisteredModel> models, List(name));
  std::vector<std::string> versions;
  for (const RegisteredModel& model : models) {
    if (model.version == version) return model;
    versions.push_back(absl::StrCat(model.version));
  }
  if (version == 0 && !models.empty()) return models.back();
  if (!models.empty()) {
    return absl::NotFoundError(absl::StrCat("model ", text, ": there is no such version; there ",
                                            versions.size() == 1 ? "is version " : "are the versions ",
                                            absl::StrJoin(versions, ", ")));
  }
  BASIN_ASSIGN_OR_RETURN(const std::vector<RegisteredModel> all, List(""));
  std::vector<std::string> names;
  for (const RegisteredModel& model : all) names.push_back(model.name);
  const std::optional<std::string> near = Nearest(name, names);
  return absl::NotFoundError(
      absl::StrCat("model ", name, ": there is none of this name in ", folder_,
                   near ? absl::StrCat("; did you mean ", *near, "?") : "; `basin models list` names them"));
}

absl::Status ModelStore::Delete(const RegisteredModel& model) const {
  const std::string place = absl::StrCat(FolderOf(model.name), "/", model.version);
  BASIN_RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(place, kDeleted), "", 0600));
  Prune(FolderOf(model.name));
  return RemoveByWayOf(absl::StrCat(FolderOf(model.name), "/", kGone, SecretHex(8)), place);
}

}  // namespace basin
