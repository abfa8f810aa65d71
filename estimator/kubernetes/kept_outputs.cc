#include "estimator/kubernetes/kept_outputs.h"

#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/history/copy_files.h"
#include "estimator/kubernetes/pod_log.h"

namespace basin {
namespace {

std::string Copy(const std::string& tree, const std::string& to) {
  if (access((tree + "/outputs").c_str(), F_OK) != 0) return "";  // the task never began
  absl::Status made = MakeFolders(to);
  if (made.ok()) made = CopyFrom(tree, "outputs", to + "/outputs").status();
  return made.ok() ? to + "/outputs" : absl::StrCat(kNotKept, made.message());
}

}  // namespace

void KeptOutputs::Begin(const std::string& tree, const std::string& to) {
  absl::StatusOr<ForkedWork> work = ForkedWork::Start([tree, to] { return Copy(tree, to); });
  if (work.ok()) {
    copying_.emplace(*std::move(work));
  } else {
    why_not_ = absl::StrCat(kNotKept, work.status().message());
  }
}

void KeptOutputs::AddWaits(std::vector<pollfd>* waits) const {
  if (copying_) waits->push_back({copying_->fd(), POLLIN, 0});
}

std::optional<std::string> KeptOutputs::Poll() {
  if (!why_not_.empty()) return std::exchange(why_not_, "");
  if (!copying_) return std::nullopt;
  const std::optional<absl::StatusOr<std::string>> said = copying_->Poll();
  if (!said) return std::nullopt;
  waitpid(copying_->pid(), nullptr, 0);
  copying_.reset();
  return said->ok() ? **said : absl::StrCat(kNotKept, said->status().message());
}

}  // namespace basin
