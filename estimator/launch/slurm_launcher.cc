#include "estimator/launch/slurm_launcher.h"

#include "absl/strings/str_cat.h"
#include "estimator/launch/slurm_command.h"
#include "estimator/launch/spawn.h"

namespace basin {
namespace {

class SlurmLauncher final : public Launcher {
 public:
  SlurmLauncher(Target target, std::string program) : target_(std::move(target)), program_(std::move(program)) {}

  absl::StatusOr<AgentPipe> Open(const AgentRequest& request) override {
    std::vector<std::string> agent = {program_, "agent", "--run", request.run_id, "--node", absl::StrCat(request.node)};
    if (!target_.folder.empty()) agent.insert(agent.end(), {"--base", target_.folder});
    return SpawnPiped("srun", SrunCommand(target_, request, agent));
  }

  absl::StatusOr<ProgramsTransfer> SendPrograms(const AgentRequest&, const std::string&) override {
    return absl::UnimplementedError(
        "under Slurm Basin's programs are not sent: name their folder, which the nodes share, by programs in the "
        "target");
  }

  std::string Complaint(const AgentRequest& request, const PipeEnd& end) override {
    return SrunComplaint(request, program_, end);
  }

 private:
  const Target target_;
  const std::string program_;
};

}  // namespace

std::unique_ptr<Launcher> MakeSlurmLauncher(const Target& target, const std::string& program) {
  return std::make_unique<SlurmLauncher>(target, program);
}

}  // namespace basin
