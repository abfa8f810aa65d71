#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "estimator/container/container.h"
#include "estimator/job/job_fields.h"
#include "estimator/job/job_readers.h"

namespace basin {
namespace {

constexpr size_t kMostImageBytes = 1024;

// As docker takes sizes: "512m", "2g", "1073741824". False where it is none.
bool ParseSize(absl::string_view text, int64_t* bytes) {
  std::string lower = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text));
  absl::string_view rest = lower;
  int64_t unit = 1;
  if (rest.size() > 1 && !absl::ascii_isdigit(rest[rest.size() - 2])) absl::ConsumeSuffix(&rest, "b");  // "2gb"
  const std::pair<const char*, int> units[] = {{"k", 10}, {"m", 20}, {"g", 30}, {"b", 0}};
  for (const auto& [name, shift] : units) {
    if (absl::ConsumeSuffix(&rest, name)) {
      unit = int64_t{1} << shift;
      break;
    }
  }
  int64_t number = 0;
  if (!std::all_of(rest.begin(), rest.end(), absl::ascii_isdigit) || !absl::SimpleAtoi(rest, &number)) return false;
  if (number < 1 || number > std::numeric_limits<int64_t>::max() / unit) return false;
  *bytes = number * unit;
  return true;
}

// Nothing that an engine could take for an option, or for more than a word.
bool IsImage(const std::string& name) {
  return !name.empty() && name.size() <= kMostImageBytes && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || absl::string_view("-_.:/@+~").find(c) != absl::string_view::npos;
         });
}

// Registries refuse capitals in a repository's path; hosts and tags may have some.
bool HasCapitals(absl::string_view name) {
  name = name.substr(0, name.find('@'));
  const size_t slash = name.find('/');
  const absl::string_view first = slash == absl::string_view::npos ? "" : name.substr(0, slash);
  if (absl::StrContains(first, '.') || absl::StrContains(first, ':')) name.remove_prefix(slash + 1);
  if (const size_t tag = name.rfind(':'); tag != absl::string_view::npos) name = name.substr(0, tag);
  return std::any_of(name.begin(), name.end(), [](char c) { return absl::ascii_isupper(c); });
}

}  // namespace

absl::Status ReadContainer(const YamlFields& fields, Job* job) {
  std::string field;
  BASIN_RETURN_IF_ERROR(FindSpelling(fields, "custom_docker_image", &field, &job->warnings));
  BASIN_RETURN_IF_ERROR(fields.Read(field, &job->image));
  if (fields.Has(field) && !IsImage(job->image)) {
    return fields.ErrorAt(field, absl::StrCat("\"", job->image,
                                              "\" is no image; write its name as docker pull takes it, such as "
                                              "continuumio/miniconda3:24.1.2-0"));
  }
  if (!IsImageFile(job->image) && HasCapitals(job->image)) {
    return fields.ErrorAt(field,
                          absl::StrCat("\"", job->image,
                                       "\" is no image: in the name of one only the tag may have capitals; write it "
                                       "in small letters, or a file's path beginning with / or ./"));
  }
  if (!job->image.empty() && job->script.empty()) {
    return fields.ErrorAt(field, absl::StrCat("conflicts with entry_script: basin:", job->program,
                                              ", which is Basin's own program and needs nothing of an image; remove ",
                                              field, ", or name a script of your own"));
  }
  if (!fields.Has("shm_size")) return absl::OkStatus();
  if (!fields.Value("shm_size").IsScalar() || !ParseSize(fields.Value("shm_size").Scalar(), &job->shm_bytes)) {
    return fields.ErrorAt(
        "shm_size", absl::StrCat("expected a size such as 512m or 2g, found ", Describe(fields.Value("shm_size"))));
  }
  if (job->image.empty()) {
    return fields.ErrorAt(
        "shm_size",
        "is of a container, and without custom_docker_image tasks run on the node itself, with all of "
        "its /dev/shm; remove shm_size, or name an image, or for a target of kind kubernetes, whose "
        "pods have an image anyway, write kubernetes: {shm_size: 512Mi}");
  }
  if (job->backend == Backend::kMpi) {
    return fields.ErrorAt("shm_size",
                          "conflicts with the mpi backend, whose processes share the node's /dev/shm; remove it, and "
                          "enlarge the node's where it is too small (mount -o remount,size=8g /dev/shm)");
  }
  return absl::OkStatus();
}

}  // namespace basin
