#include "cluster_spec/cluster_json.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/host_port.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

std::string TaskWords(absl::string_view job, absl::string_view index) {
  return absl::StrCat("job ", JsonQuote(job), " index ", index);
}

absl::Status AddTask(const JsonDocument& document, absl::string_view index_text, int64_t index,
                     const JsonValue& address, ClusterSpec::Job& job) {
  const std::string place = absl::StrCat(document.Place(address.at), ": ", TaskWords(job.name, index_text));
  if (address.kind != JsonValue::Kind::kString)
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": expected an address as a string, found ", Name(address.kind), "; write \"host:port\""));
  if (const auto parsed = ParseHostPort(address.text); !parsed.ok())
    return absl::InvalidArgumentError(
        absl::StrCat(place, " address ", JsonQuote(address.text), ": ", parsed.status().message()));
  if (!job.tasks.emplace(index, address.text).second)
    return absl::InvalidArgumentError(absl::StrCat(place, " address ", JsonQuote(address.text),
                                                   ": expected each index once, but index ", index, " has ",
                                                   JsonQuote(job.tasks.at(index)), " already; remove one"));
  return absl::OkStatus();
}

}  // namespace

std::optional<int64_t> ParseIndex(absl::string_view text) {
  absl::string_view digits = text;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) digits.remove_prefix(1);
  if (digits.empty()) return std::nullopt;
  for (char c : digits) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return std::nullopt;
  }
  int64_t out = 0;
  if (!absl::SimpleAtoi(text, &out)) return std::nullopt;
  return out;
}

absl::StatusOr<ClusterSpec> ReadCluster(const JsonDocument& document, const JsonValue& value) {
  if (value.kind != JsonValue::Kind::kObject)
    return absl::InvalidArgumentError(absl::StrCat(document.Place(value.at),
                                                   ": cluster: expected an object from job name to addresses, found ",
                                                   Name(value.kind), "; write {\"ps\": [\"host:port\"], ...}"));
  std::vector<ClusterSpec::Job> jobs;
  for (const JsonMember& member : value.members) {
    ClusterSpec::Job job{member.key, {}};
    const JsonValue& tasks = member.value;
    if (tasks.kind == JsonValue::Kind::kArray) {
      for (size_t i = 0; i < tasks.items.size(); ++i)
        BASIN_RETURN_IF_ERROR(AddTask(document, absl::StrCat(i), static_cast<int64_t>(i), tasks.items[i], job));
    } else if (tasks.kind == JsonValue::Kind::kObject) {
      for (const JsonMember& task : tasks.members) {
        const std::optional<int64_t> index = ParseIndex(task.key);
        if (!index)
          return absl::InvalidArgumentError(absl::StrCat(document.Place(task.at), ": ",
                                                         TaskWords(job.name, JsonQuote(task.key)),
                                                         ": expected an integer as the key; write it such as \"0\""));
        BASIN_RETURN_IF_ERROR(AddTask(document, absl::StrCat(*index), *index, task.value, job));
      }
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat(document.Place(tasks.at), ": job ", JsonQuote(job.name),
                       ": expected a list of addresses or an object from index to address, found ", Name(tasks.kind),
                       "; write [\"host:port\"]"));
    }
    jobs.push_back(std::move(job));
  }
  auto spec = ClusterSpec::Make(std::move(jobs));
  if (!spec.ok())
    return absl::Status(spec.status().code(), absl::StrCat(document.source, " ", spec.status().message()));
  return spec;
}

}  // namespace basin
