#include "estimator/history/run_record.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/text.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

constexpr char kTimeFormat[] = "%Y-%m-%dT%H:%M:%E3SZ";

std::optional<int> IntField(const OrderedJson& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer()) return std::nullopt;
  const int64_t value = found->get<int64_t>();
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) return std::nullopt;
  return static_cast<int>(value);
}

}  // namespace

bool TaskRecord::operator==(const TaskRecord& other) const {
  return name == other.name && address == other.address && pid == other.pid && host == other.host &&
         exit.has_value() == other.exit.has_value() &&
         (!exit || (exit->code == other.exit->code && exit->signal == other.exit->signal));
}

bool IsFinal(RunPhase phase) {
  return phase == RunPhase::kCompleted || phase == RunPhase::kFailed || phase == RunPhase::kCanceled;
}

std::optional<RunPhase> PhaseNamed(absl::string_view name) {
  const std::vector<std::string> names = RunPhaseNames();
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? std::nullopt : std::optional(static_cast<RunPhase>(found - names.begin()));
}

std::string TimeToText(absl::Time time) { return absl::FormatTime(kTimeFormat, time, absl::UTCTimeZone()); }
std::optional<absl::Time> TimeFromText(const std::string& text) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) return std::nullopt;
  return time;
}

OrderedJson NumberToJson(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}
std::optional<double> NumberFromJson(const OrderedJson& json) {
  if (json.is_number()) return json.get<double>();
  if (json == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (json == "Infinity") return std::numeric_limits<double>::infinity();
  if (json == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

std::string TextField(const OrderedJson& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}
std::optional<absl::Time> TimeField(const OrderedJson& object, const char* name) {
  return TimeFromText(TextField(object, name));
}
std::string Line(const OrderedJson& json) { return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace); }
std::string Pretty(const OrderedJson& json) { return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace); }

OrderedJson TaskToJsonValue(const TaskRecord& task) {
  OrderedJson one = {{"role", std::string(Name(task.name.role))}, {"index", task.name.index}};
  if (!task.host.empty()) one["host"] = task.host;
  if (!task.address.empty()) one["address"] = task.address;
  if (task.pid != 0) one["pid"] = task.pid;
  if (task.exit) {
    if (task.exit->signal != 0) {
      one["signal"] = task.exit->signal;
    } else {
      one["exit_code"] = task.exit->code;
    }
  }
  return one;
}

std::optional<TaskRecord> TaskFromJsonValue(const OrderedJson& json) {
  if (!json.is_object()) return std::nullopt;
  const std::optional<Role> role = RoleNamed(TextField(json, "role"));
  const std::optional<int> index = IntField(json, "index");
  if (!role || !index || *index < 0) return std::nullopt;
  TaskRecord task;
  task.name = {*role, static_cast<uint32_t>(*index)};
  task.host = TextField(json, "host");
  task.address = TextField(json, "address");
  task.pid = IntField(json, "pid").value_or(0);
  const std::optional<int> code = IntField(json, "exit_code");
  const std::optional<int> signal = IntField(json, "signal");
  if (code || signal) task.exit = TaskExit{code.value_or(0), signal.value_or(0)};
  return task;
}

OrderedJson RecordToJsonValue(const RunRecord& record) {
  OrderedJson out = {
      {"run_id", record.run_id}, {"experiment", record.experiment}, {"state", RunPhaseName(record.phase)}};
  if (!record.reason.empty()) out["reason"] = record.reason;
  if (!record.folder.empty()) out["folder"] = record.folder;
  if (!record.portal_url.empty()) out["portal_url"] = record.portal_url;
  out["created"] = TimeToText(record.created);
  if (record.ended) {
    out["ended"] = TimeToText(*record.ended);
    out["duration_s"] = absl::ToDoubleSeconds(*record.ended - record.created);
  }
  if (record.exit_code) out["exit_code"] = *record.exit_code;
  if (!record.target.empty()) out["target"] = record.target;
  if (!record.git.empty()) out["git"] = record.git;
  out["tasks"] = OrderedJson::array();
  for (const TaskRecord& task : record.tasks) out["tasks"].push_back(TaskToJsonValue(task));
  out["metrics"] = OrderedJson::object();
  for (const auto& [name, value] : record.metrics) out["metrics"][name] = NumberToJson(value);
  out["history"] = OrderedJson::array();
  for (const StateChange& change : record.history) {
    OrderedJson one = {{"state", RunPhaseName(change.phase)}, {"time", TimeToText(change.time)}};
    if (!change.reason.empty()) one["reason"] = change.reason;
    out["history"].push_back(one);
  }
  return out;
}

RunRecord RecordFromJsonValue(const OrderedJson& json) {
  RunRecord record;
  record.run_id = TextField(json, "run_id");
  record.experiment = TextField(json, "experiment");
  record.phase = PhaseNamed(TextField(json, "state")).value_or(RunPhase::kNotStarted);
  record.reason = TextField(json, "reason");
  record.folder = TextField(json, "folder");
  record.portal_url = TextField(json, "portal_url");
  record.created = TimeField(json, "created").value_or(absl::UnixEpoch());
  record.ended = TimeField(json, "ended");
  record.exit_code = IntField(json, "exit_code");
  record.target = TextField(json, "target");
  static const OrderedJson kNothing = OrderedJson::array();
  const auto part = [&json](const char* name) -> const OrderedJson& {
    const auto found = json.find(name);
    return found == json.end() || !found->is_structured() ? kNothing : *found;
  };
  for (const auto& [name, value] : part("git").items()) {
    if (value.is_string()) record.git[name] = value.get<std::string>();
  }
  for (const OrderedJson& one : part("tasks")) {
    if (std::optional<TaskRecord> task = TaskFromJsonValue(one)) record.tasks.push_back(*std::move(task));
  }
  for (const auto& [name, value] : part("metrics").items()) {
    if (const std::optional<double> number = NumberFromJson(value)) record.metrics[name] = *number;
  }
  for (const OrderedJson& one : part("history")) {
    if (!one.is_object()) continue;
    const std::optional<RunPhase> phase = PhaseNamed(TextField(one, "state"));
    const std::optional<absl::Time> time = TimeField(one, "time");
    if (phase && time) record.history.push_back({*phase, *time, TextField(one, "reason")});
  }
  return record;
}

std::string RunRecordToJson(const RunRecord& record) { return Pretty(RecordToJsonValue(record)) + "\n"; }

absl::StatusOr<RunRecord> RunRecordFromJson(absl::string_view text) {
  const OrderedJson json = OrderedJson::parse(ToStd(text), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("run_id")) {
    return absl::InvalidArgumentError("no run's record: expected a JSON object with run_id");
  }
  return RecordFromJsonValue(json);
}

}  // namespace basin
