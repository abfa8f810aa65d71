// The system's kubectl: its words, what its complaints mean (pure), and calls of it.
#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "estimator/job/kubernetes_settings.h"
#include "estimator/launch/child_pipes.h"

namespace basin {

// kubectl with the settings' kubeconfig, context and namespace, then `words`.
std::vector<std::string> KubectlWords(const KubernetesSettings& settings, const std::vector<std::string>& words);

struct KubectlResult {
  int exit_code = -1;  // 128 + signal where it was killed
  std::string out;
  std::string errors;
};

// OK where it ended with 0. Otherwise for people, with what to do: UNAUTHENTICATED (no login, or one that has expired),
// PERMISSION_DENIED, NOT_FOUND (the object, the namespace, the context), FAILED_PRECONDITION (the cluster refuses what
// was asked), UNAVAILABLE (the cluster does not answer: it may later), INTERNAL. `what`: "create the run's objects".
// Pure.
absl::Status KubectlStatus(const KubernetesSettings& settings, const std::string& what, const KubectlResult& result);

// One call under way, which ends with this object. Not thread-safe.
class KubectlCall final {
 public:
  // NOT_FOUND where there is no kubectl. `input` goes to its standard input.
  static absl::StatusOr<std::unique_ptr<KubectlCall>> Start(const KubernetesSettings& settings,
                                                            const std::vector<std::string>& words, std::string input,
                                                            absl::Time deadline);
  void AddWaits(std::vector<pollfd>* waits) const;
  absl::Time deadline() const { return deadline_; }
  // Reads and writes what can be. The result, once: where the deadline has passed, with exit code 124.
  std::optional<KubectlResult> Service(absl::Time now);
  // What of its output has come; for calls that go on (logs -f).
  std::string TakeOutput();

 private:
  KubectlCall(AgentPipe pipe, std::string input, absl::Time deadline);
  ChildPipes child_;
  std::string input_;
  size_t input_at_ = 0;
  const absl::Time deadline_;
  std::string out_;
};

// Blocks. The output where it ended with 0, otherwise KubectlStatus. Signals are not looked at meanwhile.
absl::StatusOr<std::string> RunKubectl(const KubernetesSettings& settings, const std::string& what,
                                       const std::vector<std::string>& words, const std::string& input = "",
                                       absl::Duration limit = absl::Seconds(30));

// Whether the cluster has JobSet's CRD: "jobset" or "jobs", as the settings have it or as the cluster says.
absl::StatusOr<std::string> AskController(const KubernetesSettings& settings);

}  // namespace basin
