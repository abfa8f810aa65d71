#include "estimator/launch/ssh_launcher.h"

#include <gnu/libc-version.h>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "estimator/launch/spawn.h"
#include "estimator/launch/ssh_command.h"

namespace basin {
namespace {

class SshLauncher final : public Launcher {
 public:
  SshLauncher(Target target, std::string version, Bundle bundle)
      : target_(std::move(target)), version_(std::move(version)), bundle_(std::move(bundle)) {
    if (!bundle_.path.empty()) sent_ = absl::StrCat(version_, "-", bundle_.digest);
  }

  absl::StatusOr<AgentPipe> Open(const AgentRequest& request) override {
    const std::vector<std::string> arguments = {"agent", "--run", request.run_id, "--node", absl::StrCat(request.node)};
    return SpawnPiped(
        "ssh", SshCommand(target_, request.host, ForAnyShell(RunBasinScript(target_, version_, sent_, arguments))));
  }

  absl::StatusOr<ProgramsTransfer> SendPrograms(const AgentRequest& request, const std::string& text) override {
    const NodeSystem theirs = ParseProgramsMissing(text);
    if (bundle_.path.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("it has no Basin ", version_, " (", theirs.machine, ", ", theirs.libc,
                       "), and there is no archive of the programs to send; make it (cmake --build build/release "
                       "--target bundle) or "
                       "name one by --bundle, or name the folder of basin on the node by programs in the target"));
    }
    const NodeSystem ours = {bundle_.machine, absl::StrCat("glibc ", gnu_get_libc_version())};
    if (const std::string why = WhyNotRunnable(ours, theirs); !why.empty()) return absl::FailedPreconditionError(why);
    ProgramsTransfer transfer;
    BASIN_ASSIGN_OR_RETURN(transfer.programs, OpenBundle(bundle_));
    transfer.bytes = bundle_.bytes;
    BASIN_ASSIGN_OR_RETURN(
        transfer.pipe,
        SpawnPiped("ssh", SshCommand(target_, request.host, ForAnyShell(StoreProgramsScript(target_, sent_)))));
    return transfer;
  }

  std::string Complaint(const AgentRequest& request, const PipeEnd& end) override {
    const SshAdvice advice = SshComplaint(request.host, end);
    return advice.fix.empty() ? advice.found : absl::StrCat(advice.found, ": ", advice.fix);
  }

 private:
  const Target target_;
  const std::string version_;
  const Bundle bundle_;
  std::string sent_;  // VERSION-DIGEST; empty without a bundle
};

}  // namespace

std::unique_ptr<Launcher> MakeSshLauncher(const Target& target, const std::string& version, const Bundle& bundle) {
  return std::make_unique<SshLauncher>(target, version, bundle);
}

}  // namespace basin
