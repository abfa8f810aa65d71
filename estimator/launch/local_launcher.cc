#include "estimator/launch/local_launcher.h"

#include "absl/strings/str_cat.h"
#include "estimator/agent/channel.h"
#include "estimator/launch/spawn.h"

namespace basin {
namespace {

class LocalLauncher final : public Launcher {
 public:
  LocalLauncher(std::string base, std::string programs) : base_(std::move(base)), programs_(std::move(programs)) {}

  absl::StatusOr<AgentPipe> Open(const AgentRequest& request) override {
    std::vector<std::string> argv = {"basin",  "agent", "--run", request.run_id, "--node", absl::StrCat(request.node),
                                     "--base", base_};
    if (!programs_.empty()) argv.insert(argv.end(), {"--programs", programs_});
    return SpawnPiped("/proc/self/exe", argv);
  }

  absl::StatusOr<ProgramsTransfer> SendPrograms(const AgentRequest&, const std::string&) override {
    return absl::UnimplementedError("on this machine Basin's programs are those beside the one that runs");
  }

  std::string Complaint(const AgentRequest&, const PipeEnd& end) override {
    const std::string said = LastLines(end.errors.empty() ? end.printed : end.errors);
    return absl::StrCat("the agent on this machine could not be started", said.empty() ? "" : ": ", said);
  }

 private:
  const std::string base_;
  const std::string programs_;
};

}  // namespace

std::unique_ptr<Launcher> MakeLocalLauncher(const std::string& base, const std::string& programs) {
  return std::make_unique<LocalLauncher>(base, programs);
}

}  // namespace basin
