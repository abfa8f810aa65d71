#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/files.h"
#include "estimator/commands/run_flags.h"
#include "estimator/run/progress_view.h"

namespace basin {
namespace {

// What the evaluator left: null where there is nothing, or nothing readable.
nlohmann::json Evaluation(const RunFolder& folder) {
  const absl::StatusOr<std::string> text = ReadFile(folder.OutputPath("evaluation.json"), size_t{1} << 20);
  if (!text.ok()) return nullptr;
  const nlohmann::json json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return json.is_object() ? json : nlohmann::json(nullptr);
}

}  // namespace

void PrintOutcome(const RunRecord& record, int64_t last_step, const RunFolder& folder, bool as_json) {
  const nlohmann::json evaluation = Evaluation(folder);
  if (as_json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::parse(RunRecordToJson(record));
    if (!evaluation.is_null()) out["evaluation"] = evaluation;
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return;
  }
  const bool completed = record.phase == RunPhase::kCompleted;
  std::string line = absl::StrCat("run ", record.run_id, ": ", RunPhaseName(record.phase));
  if (record.ended) absl::StrAppend(&line, " after ", ShortDuration(*record.ended - record.created));
  if (last_step > 0) absl::StrAppend(&line, ", ", last_step, " steps seen");
  if (record.ended && !record.reason.empty()) absl::StrAppend(&line, ": ", record.reason);
  line += "\n";
  std::error_code error;
  if (std::filesystem::exists(folder.RecordPath(), error)) {  // it may have been removed while the run went on
    absl::StrAppend(&line, "folder ", folder.path(), "\npage ", folder.PageUrl(), "\n");
  }
  if (const std::string model = folder.OutputPath("model.safetensors"); std::filesystem::exists(model, error)) {
    absl::StrAppend(&line, "model ", model, "\n");
  }
  if (completed && evaluation.is_object()) {
    const std::pair<const char*, const char*> shown[] = {
        {"test_loss", "test loss"}, {"test_accuracy", "test accuracy"}, {"test_auc", "test AUC"}};
    for (const auto& [name, text] : shown) {
      if (!evaluation.contains(name) || !evaluation[name].is_number()) continue;
      absl::StrAppendFormat(&line, "%s %.4f\n", text, evaluation[name].get<double>());
    }
  }
  std::fputs(line.c_str(), stdout);
}

}  // namespace basin
