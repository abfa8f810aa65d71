#include "estimator/agent/granted_gpus.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace basin {
namespace {

std::optional<std::string> ValueOf(const std::vector<std::pair<std::string, std::string>>& environment,
                                   const std::string& name) {
  for (const auto& [known, value] : environment) {
    if (known == name) return value;
  }
  return std::nullopt;
}

std::vector<std::string> WordsOf(const std::string& text) {
  std::vector<std::string> words;
  for (const absl::string_view word : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    words.emplace_back(absl::StripAsciiWhitespace(word));
  }
  return words;
}

// None where the word names none of them.
std::optional<std::string> Named(const std::vector<std::string>& all, const std::string& word) {
  size_t number = 0;
  if (std::all_of(word.begin(), word.end(), absl::ascii_isdigit) && absl::SimpleAtoi(word, &number)) {
    return number < all.size() ? std::optional(all[number]) : std::nullopt;
  }
  if (!absl::StartsWith(word, "GPU-") && !absl::StartsWith(word, "MIG-")) return std::nullopt;
  const auto found =
      std::find_if(all.begin(), all.end(), [&word](const std::string& uuid) { return absl::StartsWith(uuid, word); });
  return found == all.end() ? std::nullopt : std::optional(*found);
}

}  // namespace

GrantedGpus GpusGrantedBySlurm(const std::vector<std::string>& all,
                               const std::vector<std::pair<std::string, std::string>>& environment) {
  const std::optional<std::string> job = ValueOf(environment, "SLURM_JOB_ID");
  if (!job || all.empty()) return {all, ""};
  GrantedGpus granted;
  std::string name;
  std::optional<std::string> text;
  for (const char* one : {"CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"}) {
    name = one;
    text = ValueOf(environment, one);
    if (text) break;
  }
  if (!text) {
    granted.problem = absl::StrCat("Slurm has granted job ", *job,
                                   " none of its GPUs: neither CUDA_VISIBLE_DEVICES nor SLURM_JOB_GPUS is set there");
    return granted;
  }
  const std::vector<std::string> words = WordsOf(*text);
  // Slurm's own lists have the machine's numbers, also where a step sees its own devices alone.
  if (name != "CUDA_VISIBLE_DEVICES" && words.size() >= all.size()) return {all, ""};
  for (const std::string& word : words) {
    const std::optional<std::string> uuid = Named(all, word);
    if (!uuid) break;  // as CUDA reads it: what follows a wrong one is not visible either
    if (std::find(granted.gpus.begin(), granted.gpus.end(), *uuid) == granted.gpus.end()) granted.gpus.push_back(*uuid);
  }
  if (granted.gpus.empty()) {
    granted.problem =
        absl::StrCat("Slurm has granted job ", *job, " none that is there: ", name, " is \"", *text, "\"");
  }
  return granted;
}

}  // namespace basin
