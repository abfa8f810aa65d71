// A task's outputs on their way to a claim, which the pod itself copies. By a child: it may take long.
#pragma once

#include <poll.h>

#include <optional>
#include <string>
#include <vector>

#include "estimator/agent/forked_work.h"

namespace basin {

class KeptOutputs final {
 public:
  // Copies `tree`/outputs to `to`/outputs, or says at the next Poll why it does not.
  void Begin(const std::string& tree, const std::string& to);
  void AddWaits(std::vector<pollfd>* waits) const;
  // Once, when it is done: the text of the pod's `kept` line (pod_log.h).
  std::optional<std::string> Poll();

 private:
  std::optional<ForkedWork> copying_;
  std::string why_not_;
};

}  // namespace basin
