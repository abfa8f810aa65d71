#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "estimator/launch/doctor.h"

namespace basin {
namespace {

std::string Counted(int64_t count, const char* what) { return absl::StrCat(count, " ", what, count == 1 ? "" : "s"); }

// What other machines say may have several lines.
std::string InOneLine(const std::string& text) { return absl::StrReplaceAll(text, {{"\n", " "}, {"\r", ""}}); }

}  // namespace

const char* DoctorStateName(DoctorState state) {
  switch (state) {
    case DoctorState::kOk:
      return "ok";
    case DoctorState::kWarning:
      return "warning";
    case DoctorState::kProblem:
      return "problem";
  }
  return "";
}

std::string FindingsToText(const std::vector<DoctorFinding>& findings) {
  size_t node_width = 0, check_width = 0;
  std::set<std::string> nodes;
  for (const DoctorFinding& one : findings) {
    node_width = std::max(node_width, one.node.size());
    check_width = std::max(check_width, one.check.size());
    nodes.insert(one.node);
  }
  std::string text;
  for (const DoctorFinding& one : findings) {
    absl::StrAppend(&text, absl::StrFormat("%-7s  %-*s  %-*s  %s%s\n", DoctorStateName(one.state), node_width, one.node,
                                           check_width, one.check, InOneLine(one.found),
                                           one.fix.empty() ? "" : absl::StrCat("; fix: ", InOneLine(one.fix))));
  }
  const auto count = [&findings](DoctorState state) {
    return std::count_if(findings.begin(), findings.end(),
                         [state](const DoctorFinding& one) { return one.state == state; });
  };
  absl::StrAppend(&text, Counted(static_cast<int64_t>(nodes.size()), "node"), ": ", count(DoctorState::kOk), " ok, ",
                  Counted(count(DoctorState::kWarning), "warning"), ", ",
                  Counted(count(DoctorState::kProblem), "problem"), "\n");
  return text;
}

std::string FindingsToJson(const std::vector<DoctorFinding>& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const DoctorFinding& one : findings) {
    list.push_back({{"node", one.node},
                    {"check", one.check},
                    {"state", DoctorStateName(one.state)},
                    {"found", one.found},
                    {"fix", one.fix}});
  }
  return list.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace basin
