#include "estimator/launch/ssh_command.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "estimator/agent/channel.h"

namespace basin {
namespace {

std::string HostOf(const TargetNode& node) {
  return node.user.empty() ? node.name : absl::StrCat(node.user, "@", node.name);
}

std::vector<int> VersionNumbers(const std::string& libc) {
  std::vector<int> numbers;
  for (const absl::string_view part : absl::StrSplit(absl::StripPrefix(libc, "glibc "), '.')) {
    int number = 0;
    if (absl::SimpleAtoi(part, &number)) numbers.push_back(number);
  }
  return numbers;
}

// A path as the targets file writes it: "~/" is the home on the node.
std::string PathOfNode(const std::string& path) {
  return absl::StartsWith(path, "~/") ? absl::StrCat("\"$HOME\"/", ShellWord(path.substr(2))) : ShellWord(path);
}

}  // namespace

std::string SshByHand(const TargetNode& node) {
  return absl::StrCat("ssh ", node.ssh_port != 0 ? absl::StrCat("-p ", node.ssh_port, " ") : "", HostOf(node));
}

std::vector<std::string> SshCommand(const Target& target, const TargetNode& node, const std::string& remote) {
  std::vector<std::string> argv = {"ssh", "-T", "-x", "-a"};
  for (const char* option : {"BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=10", "ServerAliveCountMax=3",
                             "ClearAllForwardings=yes", "RequestTTY=no"}) {
    argv.insert(argv.end(), {"-o", option});
  }
  if (!target.ssh_config.empty()) argv.insert(argv.end(), {"-F", target.ssh_config});
  if (node.ssh_port != 0) argv.insert(argv.end(), {"-p", absl::StrCat(node.ssh_port)});
  argv.insert(argv.end(), {"--", HostOf(node), remote});
  return argv;
}

std::string ShellWord(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

// sh gets the script by a word without quotes, line ends, '!' and '\' in it, which csh and fish would read otherwise:
// those are written as octal for printf.
std::string ForAnyShell(const std::string& script) {
  std::string octal;
  for (const char c : script) {
    if (absl::ascii_isalnum(c) || absl::string_view("_-./:=, ").find(c) != absl::string_view::npos) {
      octal.push_back(c);
      continue;
    }
    const unsigned value = static_cast<unsigned char>(c);
    absl::StrAppend(&octal, "@", value / 64, value / 8 % 8, value % 8);
  }
  // '@' becomes '\' on the node; the script's own '@' is octal already.
  return absl::StrCat("exec sh -c 'eval \"$(printf %s \"$0\" | tr @ \"\\134\" | { read -r s; printf \"$s\"; })\"' '",
                      octal, "'");
}

std::string SetBaseFolder(const std::string& folder) {
  if (folder.empty()) return "B=\"${BASIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/basin}\"\n";
  return absl::StrCat("B=", PathOfNode(folder), "\n");
}

std::string RunBasinScript(const Target& target, const std::string& version, const std::string& sent,
                           const std::vector<std::string>& arguments) {
  std::string words;
  for (const std::string& argument : arguments) absl::StrAppend(&words, " ", ShellWord(argument));
  std::string script = SetBaseFolder(target.folder);
  absl::StrAppend(&script, "V=", ShellWord(absl::StrCat("basin ", version)), "\n");
  if (!target.programs.empty()) {
    // Named by the user: this one or none.
    absl::StrAppend(&script, "P=", PathOfNode(target.programs + "/basin"), "\n", "if [ -x \"$P\" ]; then exec \"$P\"",
                    words, " --base \"$B\"; fi\n",
                    "echo \"basin: $P is not there; correct programs of the target\" >&2\nexit 127\n");
    return script;
  }
  absl::StrAppend(&script, "for P in ", "\"$B\"/programs/",
                  sent.empty() ? absl::StrCat(ShellWord(version), "-*") : ShellWord(sent), "/bin/basin ",
                  "\"$(command -v basin 2>/dev/null)\"; do\n",
                  "if [ -x \"$P\" ] && [ \"$(\"$P\" --version 2>/dev/null)\" = \"$V\" ]; then exec \"$P\"", words,
                  " --base \"$B\"; fi\ndone\n", "L=$(getconf GNU_LIBC_VERSION 2>/dev/null)\n", "echo \"",
                  kProgramsMissing, " $(uname -m) ${L:-none}\"\n");
  return script;
}

std::string StoreProgramsScript(const Target& target, const std::string& sent) {
  const std::string name = ShellWord(sent);
  return absl::StrCat(SetBaseFolder(target.folder), "umask 077\nmkdir -p \"$B/programs\" || exit 1\n",
                      "T=\"$B/programs/.partial-$$\"\nrm -rf \"$T\"\nmkdir \"$T\" || exit 1\n",
                      // -i: what follows the end of the archive is read too.
                      "if tar -x -i -o -f - -C \"$T\"; then :; else rm -rf \"$T\"; exit 1; fi\n", "if [ ! -f \"$T/",
                      kProgramsWhole,
                      "\" ]; then rm -rf \"$T\"; echo \"basin: the archive came in part only\" >&2; exit 1; fi\n",
                      // The archive has one folder; another sender may have been faster.
                      "set -- \"$T\"/*\nmv -T \"$1\" \"$B/programs/\"", name, " 2>/dev/null\nrm -rf \"$T\"\n",
                      "if [ -x \"$B/programs/\"", name, "/bin/basin ]; then echo ", kProgramsStored,
                      "; else echo \"basin: the archive has no bin/basin\" >&2; exit 1; fi\n");
}

NodeSystem ParseProgramsMissing(const std::string& printed) {
  NodeSystem system;
  for (const absl::string_view line : absl::StrSplit(printed, '\n')) {
    const size_t at = line.find(kProgramsMissing);
    if (at == absl::string_view::npos) continue;
    const std::vector<std::string> words = absl::StrSplit(line.substr(at), ' ', absl::SkipEmpty());
    if (words.size() >= 2) system.machine = words[1];
    if (words.size() >= 4) system.libc = absl::StrCat(words[2], " ", words[3]);
  }
  return system;
}

std::string WhyNotRunnable(const NodeSystem& ours, const NodeSystem& theirs) {
  const std::string both = absl::StrCat("the programs are for ", ours.machine, " with ", ours.libc, ", the node has ",
                                        theirs.machine, " with ", theirs.libc.empty() ? "no glibc" : theirs.libc);
  if (ours.machine != theirs.machine) return absl::StrCat(both, "; build Basin there and name it by programs");
  if (!absl::StartsWith(theirs.libc, "glibc "))
    return absl::StrCat(both, "; build Basin there and name it by programs");
  if (VersionNumbers(theirs.libc) < VersionNumbers(ours.libc)) {
    return absl::StrCat(both, "; build the bundle on a system that is as old as the node's");
  }
  return "";
}

SshAdvice SshComplaint(const TargetNode& node, const PipeEnd& end) {
  const std::string lines = LastLines(end.errors);
  if (end.exit_code != kSshFailed) {
    SshAdvice advice;
    advice.found = end.sent_programs ? "Basin's programs could not be stored there"
                                     : absl::StrCat("no agent answered over ", SshByHand(node));
    if (!lines.empty()) absl::StrAppend(&advice.found, "; it said: ", lines);
    if (const std::string shell = LastLines(end.printed); !shell.empty()) {
      absl::StrAppend(&advice.found, "; its shell printed: ", shell);
    }
    return advice;
  }
  constexpr char kNoAnswer[] = "it does not answer; is it up, and the network between?";
  constexpr char kClosed[] =
      "it closes the connection before anybody is let in; see sshd's log there (MaxStartups, "
      "its load), and try: %S";
  const std::pair<const char*, const char*> known[] = {
      {"REMOTE HOST IDENTIFICATION HAS CHANGED",
       "the host's key is not the known one: somebody may be listening in, or it was installed anew; ask who runs it, "
       "and then: ssh-keygen -R %H"},
      {"Host key verification failed", "its host key is not known here; look at it once: %S"},
      {"Permission denied",
       "no key of this user is accepted there; try: %S (no password can be asked for), or ssh-add"},
      {"Could not resolve hostname", "no such host is known here; correct its name in the target, or in ~/.ssh/config"},
      {"Connection refused", "no sshd listens there; correct the port in the target, or start sshd"},
      {"timed out", kNoAnswer},  // of connecting, and of sshd's banner
      {"not responding", kNoAnswer},
      {"No route to host", kNoAnswer},
      {"Network is unreachable", kNoAnswer},
      {"Network is down", kNoAnswer},
      {"Host is down", kNoAnswer},
      {"kex_exchange_identification", kClosed},
      {"Connection closed", kClosed},
      {"Connection reset", kClosed},
      {"Bad configuration option", "correct ssh's configuration"},
      {"Can't open user config file", "correct ssh_config of the target"}};
  // ssh's own lines begin with its name already.
  SshAdvice advice = {absl::StrCat("ssh: ", absl::StripPrefix(lines, "ssh: ")),
                      absl::StrCat("try the same by hand: ", SshByHand(node), " -v")};
  if (lines.empty()) advice.found = "ssh: it failed, and did not say why";
  for (const auto& [text, fix] : known) {
    if (!absl::StrContains(end.errors, text)) continue;
    advice.fix = absl::StrReplaceAll(fix, {{"%H", node.name}, {"%S", SshByHand(node)}});
    break;
  }
  return advice;
}

}  // namespace basin
