// Records as JSON values, for the files here that embed them in others. Only .cc files of this folder and of commands/
// include it: nlohmann's header is large.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "estimator/history/run_record.h"

namespace basin {

using OrderedJson = nlohmann::ordered_json;

OrderedJson RecordToJsonValue(const RunRecord& record);
RunRecord RecordFromJsonValue(const OrderedJson& json);
OrderedJson TaskToJsonValue(const TaskRecord& task);
std::optional<TaskRecord> TaskFromJsonValue(const OrderedJson& json);

// A number, or the string that stands for one JSON cannot say.
OrderedJson NumberToJson(double value);
std::optional<double> NumberFromJson(const OrderedJson& json);

// Of an object; empty or absent where the field is missing or no string.
std::string TextField(const OrderedJson& object, const char* name);
std::optional<absl::Time> TimeField(const OrderedJson& object, const char* name);

// On one line, or indented by two; text that is no UTF-8 is shown with replacement characters.
std::string Line(const OrderedJson& json);
std::string Pretty(const OrderedJson& json);

}  // namespace basin
