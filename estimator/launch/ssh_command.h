// The words of the ssh client, what the node's shell is given, and what its complaints mean. Pure.
#pragma once

#include <string>
#include <vector>

#include "estimator/launch/launcher.h"
#include "estimator/launch/target.h"

namespace basin {

// ssh with its options and the host, then `remote` as one word. Host keys are checked as the user's own configuration
// says; nothing here weakens that.
std::vector<std::string> SshCommand(const Target& target, const TargetNode& node, const std::string& remote);

// A word of a POSIX shell that stands for exactly `text`.
std::string ShellWord(const std::string& text);
// What any login shell (also csh, fish) runs as `script` by sh.
std::string ForAnyShell(const std::string& script);

// Shell lines that set B to Basin's folder on the node: `folder` ("~/" is the home there), or ~/.cache/basin.
std::string SetBaseFolder(const std::string& folder);

// Finds `basin` of this version on the node (target.programs, the programs that were sent, PATH) and runs it with
// `arguments` and --base; prints kProgramsMissing where there is none. `sent`: VERSION-DIGEST of the bundle; empty:
// whatever of this version was sent before will do.
std::string RunBasinScript(const Target& target, const std::string& version, const std::string& sent,
                           const std::vector<std::string>& arguments);

// Unpacks a tar archive from standard input to BASE/programs/SENT, by way of a folder of its own and a rename; only one
// that came whole (kProgramsWhole).
std::string StoreProgramsScript(const Target& target, const std::string& sent);

// What `kProgramsMissing` tells: "x86_64" and "glibc 2.36"; empty where it does not.
struct NodeSystem {
  std::string machine;
  std::string libc;
};
NodeSystem ParseProgramsMissing(const std::string& printed);
// Empty where programs made for `ours` run on `theirs`, else why not: another machine, no glibc, an older glibc.
std::string WhyNotRunnable(const NodeSystem& ours, const NodeSystem& theirs);

// Why no agent spoke, or the programs were not stored, and what to do about it (empty: what was said must do). Only
// where ssh itself has failed (exit code kSshFailed) are its words taken for ssh's.
inline constexpr int kSshFailed = 255;
struct SshAdvice {
  std::string found;
  std::string fix;
};
SshAdvice SshComplaint(const TargetNode& node, const PipeEnd& end);
// How the user would reach the node by hand: "ssh -p 2022 ann@h0".
std::string SshByHand(const TargetNode& node);

}  // namespace basin
