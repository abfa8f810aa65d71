#include "cluster_spec/describe.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cluster_spec/json_text.h"

namespace basin {
namespace {

void Line(std::string& out, absl::string_view label, absl::string_view value) {
  absl::StrAppend(&out, absl::StrFormat("%-10s %s\n", label, value));
}

void Addresses(std::string& out, absl::string_view label, absl::string_view role, const std::vector<Peer>& peers,
               TaskId self) {
  for (size_t i = 0; i < peers.size(); ++i) {
    const bool me = Name(self.role) == role && self.index == peers[i].index;
    Line(out, i == 0 ? label : "",
         absl::StrCat(role, " ", peers[i].index, " at ", peers[i].address, me ? "  <- this task" : ""));
  }
  if (peers.empty()) Line(out, label, "none listed");
}

std::string Chief(const ClusterView& view) {
  if (view.standalone) return "this task, which trains alone";
  std::string out = view.chief.Sentence();
  if (view.chief_address) absl::StrAppend(&out, " at ", *view.chief_address);
  if (view.chief.role == Role::kWorker) absl::StrAppend(&out, " (no chief job, so the first worker is)");
  if (view.is_chief) absl::StrAppend(&out, "  <- this task");
  return out;
}

std::string JsonPeers(const std::vector<Peer>& peers) {
  return absl::StrCat("[",
                      absl::StrJoin(peers, ", ",
                                    [](std::string* out, const Peer& peer) {
                                      absl::StrAppend(out, "{\"index\": ", peer.index,
                                                      ", \"address\": ", JsonQuote(peer.address), "}");
                                    }),
                      "]");
}

std::string JsonTexts(const std::vector<std::string>& texts) {
  return absl::StrCat(
      "[", absl::StrJoin(texts, ", ", [](std::string* out, const std::string& text) { out->append(JsonQuote(text)); }),
      "]");
}

std::string JsonOptional(const std::optional<std::string>& text) { return text ? JsonQuote(*text) : "null"; }

}  // namespace

std::string Describe(const TfConfig& config, const absl::StatusOr<ClusterView>& view) {
  std::string out;
  if (!view.ok()) {
    Line(out, "role", config.task_type.value_or("not set"));
    Line(out, "index", config.task_index ? absl::StrCat(*config.task_index) : "not set");
    for (const ClusterSpec::Job& job : config.cluster.jobs()) {
      const std::string tasks = absl::StrJoin(job.tasks, ", ", [](std::string* s, const auto& task) {
        absl::StrAppend(s, task.first, " at ", task.second);
      });
      Line(out, job.name, tasks.empty() ? "none listed" : tasks);
    }
    for (const std::string& warning : config.warnings) Line(out, "warning", warning);
    Line(out, "wrong", view.status().message());
    return out;
  }
  Line(out, "role", Name(view->self.role));
  Line(out, "index", absl::StrCat(view->self.index));
  if (!view->self_address.empty()) Line(out, "address", view->self_address);
  Line(out, "chief", Chief(*view));
  if (!view->standalone) {
    Addresses(out, "ps", "ps", view->ps, view->self);
    if (!view->knows_all_ps) Line(out, "", "other ps are not known to this task; workers tell it");
    Addresses(out, "workers", "worker", view->workers, view->self);
    Line(out, "evaluator",
         view->evaluator_address               ? absl::StrCat("in the cluster, at ", *view->evaluator_address)
         : view->self.role == Role::kEvaluator ? "outside the cluster  <- this task"
                                               : "none listed; one may join from outside");
  }
  for (const std::string& warning : view->warnings) Line(out, "warning", warning);
  Line(out, "wrong", "nothing");
  return out;
}

std::string DescribeJson(const TfConfig& config, const absl::StatusOr<ClusterView>& view) {
  if (!view.ok())
    return absl::StrCat("{\"valid\": false, \"role\": ", JsonOptional(config.task_type),
                        ", \"index\": ", config.task_index ? absl::StrCat(*config.task_index) : "null",
                        ", \"cluster\": ", config.cluster.ToJson(), ", \"warnings\": ", JsonTexts(config.warnings),
                        ", \"error\": ", JsonQuote(view.status().message()), "}");
  return absl::StrCat(
      "{\"valid\": true, \"role\": ", JsonQuote(Name(view->self.role)), ", \"index\": ", view->self.index,
      ", \"address\": ", view->self_address.empty() ? "null" : JsonQuote(view->self_address),
      ", \"is_chief\": ", view->is_chief ? "true" : "false", ", \"standalone\": ", view->standalone ? "true" : "false",
      ", \"chief\": {\"role\": ", JsonQuote(Name(view->chief.role)), ", \"index\": ", view->chief.index,
      ", \"address\": ", JsonOptional(view->chief_address), "}, \"ps\": ", JsonPeers(view->ps),
      ", \"knows_all_ps\": ", view->knows_all_ps ? "true" : "false", ", \"workers\": ", JsonPeers(view->workers),
      ", \"evaluator_address\": ", JsonOptional(view->evaluator_address), ", \"warnings\": ", JsonTexts(view->warnings),
      "}");
}

}  // namespace basin
