#include "bench/harness/flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bench/harness/limits.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin::bench {

void AddCommonFlags(CLI::App& app, Flags& flags) {
  app.option_defaults()->always_capture_default();
  app.add_option("--duration", flags.duration_s, "Seconds of all counted rounds of one figure together")
      ->check(CLI::Range(0.01, 86400.0))
      ->group("Time");
  app.add_option("--rounds", flags.rounds, "Rounds of each figure, between those of its limit; the median counts")
      ->check(CLI::Range(1, 1000))
      ->group("Time");
  app.add_option("--json", flags.json, "Write the results to this file, for machines")->group("Results");
}

void AddClusterFlags(CLI::App& app, Flags& flags, int workers) {
  app.option_defaults()->always_capture_default();
  app.add_option("--ps", flags.ps, "Parameter servers to start on this machine")
      ->check(CLI::Range(1, 256))
      ->group("Cluster");
  app.add_option("--workers", flags.workers, "Workers (but for stress, each a process of its own)")
      ->check(CLI::Range(1, 4096))
      ->default_str(absl::StrCat(workers))
      ->group("Cluster");
  app.add_option("--lanes", flags.lanes,
                 "Lanes of each parameter server; 0: the processors that the workers leave, at least one")
      ->check(CLI::Range(0, 1024))
      ->group("Cluster");
  app.add_option("--transport", flags.transport,
                 "tcp, shm (shared memory), or auto (what the library chooses by itself)")
      ->check(CLI::IsMember({"tcp", "shm", "auto"}))
      ->group("Cluster");
  app.add_option("--security", flags.security, "none, or token: every client shows a token made for the run")
      ->check(CLI::IsMember({"none", "token"}))
      ->group("Cluster");
  app.add_option("--target", flags.target,
                 "local: start parameter servers here. Otherwise a TF_CONFIG, or a file with one, of parameter servers "
                 "that run already and wait for their first client: join them as their workers")
      ->group("Cluster");
  app.add_option("--token-file", flags.token_file, "File with the token of the run of --target")->group("Cluster");
  app.add_flag("--netns", flags.netns,
               "Parameter servers and workers in two network namespaces with a veth pair between them, so that the "
               "network is all that they share (needs root and iproute2)")
      ->group("Cluster");
}

absl::Status Check(Flags& flags) {
  const bool local = flags.target.empty() || flags.target == "local";
  if (flags.netns && !local)
    return absl::InvalidArgumentError("--netns makes two hosts for a local cluster; leave out --target or --netns");
  if (flags.netns && flags.transport == "shm")
    return absl::InvalidArgumentError(
        "--transport shm: two network namespaces (--netns) share no memory; leave one out");
  if (!local && flags.security != "none")
    return absl::InvalidArgumentError("--security is of a local cluster; for a running one give --token-file");
  if (local && !flags.token_file.empty())
    return absl::InvalidArgumentError(
        "--token-file is of the run of --target; for a local cluster give --security token");
  if (local) {
    flags.target.clear();
  } else if (!absl::StartsWith(absl::StripLeadingAsciiWhitespace(flags.target), "{")) {
    absl::StatusOr<std::string> text = ReadFile(flags.target, 1 << 20);
    if (!text.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--target ", flags.target, " is neither \"local\" nor JSON nor a file: ", text.status().message()));
    }
    flags.target = *text;
  }
  return absl::OkStatus();
}

ClusterOptions ClusterFrom(const Flags& flags, const TwoHosts* hosts) {
  ClusterOptions cluster;
  cluster.ps = flags.ps;
  cluster.workers = flags.workers;
  // What the workers leave of the processors, at least one.
  cluster.lanes = flags.lanes > 0 ? flags.lanes : std::max(1, (Threads() - flags.workers) / flags.ps);
  cluster.token = flags.security == "token";
  cluster.target = flags.target;
  cluster.token_file = flags.token_file;
  cluster.hosts = hosts;
  return cluster;
}

RunOptions TimesFrom(const Flags& flags) {
  RunOptions options;
  options.rounds = flags.rounds;
  options.seconds = flags.duration_s / flags.rounds;
  return options;
}

}  // namespace basin::bench
