// basin-ps: one parameter server of a run, as TF_CONFIG says.
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cluster_spec/cluster_view.h"
#include "cluster_spec/tf_config.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/wire/bind_address.h"
#include "common/wire/host_transport.h"
#include "common/wire/memory_mapping.h"
#include "common/wire/resolve.h"
#include "ps/device/ps_device.h"
#include "ps/machine_limits.h"
#include "ps/server.h"
#include "ps/start_report.h"

namespace basin {
namespace {

constexpr absl::Duration kReportEvery = absl::Seconds(10);
constexpr int kMostDefaultLanes = 16;

struct Flags {
  std::string tf_config, run_id, token_file, interface, metrics_host = "0.0.0.0";
  std::optional<int64_t> task_index;
  std::string transport = "auto", device = "cpu";
  int lanes = 0, spin_us = 50, listen_fd = -1;
  std::optional<uint16_t> metrics_port;
  uint64_t memory_limit = 0, device_memory_limit = 0;
  double start_timeout_s = 600, dead_after_s = 10, heartbeat_s = 1, finish_grace_s = 60;
};

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<ClusterView> ViewOf(const Flags& flags) {
  if (flags.tf_config.empty()) {
    return absl::InvalidArgumentError(
        "TF_CONFIG is not set, so this process does not know which parameter server it is. Set it to, for one ps and "
        "one worker on this machine, "
        "{\"cluster\": {\"ps\": [\"127.0.0.1:2222\"], \"worker\": [\"127.0.0.1:2223\"]}, \"task\": {\"type\": \"ps\", "
        "\"index\": 0}}; "
        "or start basin-worker alone, which brings a ps of its own; or describe the job in a file and run basin "
        "submit");
  }
  BASIN_ASSIGN_OR_RETURN(const TfConfig config, ParseTfConfig(flags.tf_config));
  TaskOverrides overrides;
  overrides.task_index = flags.task_index;
  if (!config.task_type && flags.task_index) overrides.task_type = "ps";
  BASIN_ASSIGN_OR_RETURN(ClusterView view, Resolve(config, overrides));
  if (view.standalone) {
    return absl::InvalidArgumentError(
        "TF_CONFIG names no cluster: add the jobs ps and worker with their addresses, or start basin-worker alone, "
        "which brings a ps of its own");
  }
  if (!view.self_ps) {
    return absl::InvalidArgumentError(
        absl::StrCat("TF_CONFIG says that this task is ", view.self.Sentence(),
                     ", and this program is a ps; start basin-worker here, or correct task.type"));
  }
  return view;
}

absl::StatusOr<std::string> TokenFrom(const std::string& path) {
  if (path.empty()) return "";
  BASIN_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 4096));
  const std::string token(absl::StripAsciiWhitespace(text));
  if (token.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        "token file ", path, " is empty; write a random token into it, such as that of openssl rand -hex 16"));
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & 0077) != 0)
    Warn(absl::StrCat("token file ", path, " can be read by others; chmod 600 it"));
  return token;
}

// The signals that end a ps come through a descriptor. REQUIRES: before any thread starts.
int OpenSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

// Whether `fd` becomes readable within `most`.
bool Readable(int fd, absl::Duration most) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(most))) > 0;
}

// Its own name may appear late (Kubernetes): asked again until the start time-out.
absl::StatusOr<wire::BindAddress> ChooseAddress(const Flags& flags, const ClusterView& view, int signals) {
  BASIN_ASSIGN_OR_RETURN(const wire::HostPort own, wire::SplitHostPort(view.self_address));
  std::vector<std::string> hosts;
  for (const auto* peers : {&view.ps, &view.workers}) {
    for (const Peer& peer : *peers) {
      if (const auto address = wire::SplitHostPort(peer.address); address.ok()) hosts.push_back(address->host);
    }
  }
  if (view.chief_address) {
    if (const auto address = wire::SplitHostPort(*view.chief_address); address.ok()) hosts.push_back(address->host);
  }
  const absl::Time start = SteadyNow();
  absl::Time next_report = start;
  while (true) {
    absl::StatusOr<wire::BindFacts> facts = wire::CollectBindFacts(own.host, hosts);
    if (facts.ok()) {
      BASIN_ASSIGN_OR_RETURN(wire::BindAddress address, wire::ChooseBindAddress(*facts, flags.interface));
      address.port = own.port;
      return address;
    }
    if (facts.status().code() != absl::StatusCode::kUnavailable) return facts.status();
    const absl::Duration waited = SteadyNow() - start;
    if (waited >= absl::Seconds(flags.start_timeout_s)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "this task's own address is ", view.self_address, ", and after ", absl::ToInt64Seconds(waited),
          " s (--start-timeout): ", facts.status().message(), "; correct it in TF_CONFIG or the name service"));
    }
    if (SteadyNow() >= next_report) {
      next_report = SteadyNow() + kReportEvery;
      Info(absl::StrCat("waiting for this task's own name, ", absl::ToInt64Seconds(waited),
                        " s: ", facts.status().message()));
    }
    if (Readable(signals, std::min(absl::Seconds(1), absl::Seconds(flags.start_timeout_s))))
      return absl::CancelledError("ended by a signal before it listened");
  }
}

// The line that ends the process early, from another thread.
struct Verdict {
  Mutex mutex;
  std::string line ABSL_GUARDED_BY(mutex);
  wire::WakeFd given;
};

absl::Status Run(const Flags& flags, int signals) {
  BASIN_ASSIGN_OR_RETURN(const ClusterView view, ViewOf(flags));
  SetLogPrefix(view.self.Sentence());
  for (const std::string& warning : view.warnings) Warn(warning);
  if (flags.dead_after_s < 2 * flags.heartbeat_s) {
    return absl::InvalidArgumentError(absl::StrCat("--dead-after ", flags.dead_after_s,
                                                   " is less than two heartbeats (--heartbeat ", flags.heartbeat_s,
                                                   "); make it longer"));
  }
  ServerOptions options;
  options.view = view;
  options.run_id = flags.run_id;
  BASIN_ASSIGN_OR_RETURN(options.token, TokenFrom(flags.token_file));
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  options.host = host;
  options.lanes = static_cast<uint32_t>(flags.lanes > 0 ? flags.lanes : std::min(UsableCores(), kMostDefaultLanes));
  options.memory_limit_bytes = flags.memory_limit > 0 ? flags.memory_limit : UsableMemoryBytes() / 5 * 4;
  BASIN_ASSIGN_OR_RETURN(options.device, OpenPsDevice({.name = flags.device,
                                                       .memory_limit_bytes = flags.device_memory_limit,
                                                       .reply_limit_bytes = options.memory_limit_bytes}));
  options.heartbeat = absl::Seconds(flags.heartbeat_s);
  options.dead_after = absl::Seconds(flags.dead_after_s);
  options.finish_grace = absl::Seconds(flags.finish_grace_s);
  options.metrics_port = flags.metrics_port;
  options.metrics_host = flags.metrics_host;
  BASIN_ASSIGN_OR_RETURN(const wire::BindAddress address, ChooseAddress(flags, view, signals));
  if (!address.note.empty()) Info(address.note);

  BASIN_ASSIGN_OR_RETURN(const wire::TransportKind kind, wire::TransportKindFromName(flags.transport));
  wire::TransportOptions transport;
  transport.spin = absl::Microseconds(flags.spin_us);
  transport.io_threads = static_cast<int>(std::max<uint32_t>(1, options.lanes / 4));
  const std::shared_ptr<wire::ZmqContext> context = wire::MakeZmqContext(transport.io_threads);
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server,
                         Server::Start(options, [&](uint32_t lane) -> absl::StatusOr<std::unique_ptr<wire::Listener>> {
                           wire::BindAddress own = address;
                           if (lane > 0) own.port = 0;
                           if (lane == 0) own.listening_fd = flags.listen_fd;
                           BASIN_ASSIGN_OR_RETURN(std::unique_ptr<wire::HostListener> listener,
                                                  wire::HostListen(own, kind, transport, context));
                           if (lane == 0 && !listener->note().empty()) Warn(listener->note());
                           return listener;
                         }));
  Info(absl::StrCat(
      "listening on ", server->address(), ", ", options.lanes, options.lanes == 1 ? " lane" : " lanes",
      server->run_id().empty() ? ", of the run of the first client" : absl::StrCat(", run ", server->run_id()),
      server->metrics_port() ? absl::StrCat(", metrics on port ", *server->metrics_port()) : ""));
  if (options.device) {
    Info(absl::StrCat("variables on ", options.device->name(), " (", options.device->detail(), "), in at most ",
                      options.device->memory_limit_bytes() >> 20,
                      " MiB of its memory; tables on the host unless they have max_bytes and admit every key"));
  } else if (flags.device == "auto") {
    Info("variables and tables on the host: no GPU can be used");
  }
  if (options.token.empty()) Info("no token: any peer on this network may take part (--token-file)");

  Verdict verdict;
  StartReport report(
      view, kReportEvery, absl::Seconds(flags.start_timeout_s), [&] { return server->missing(); },
      [&](std::string line) {
        {
          MutexLock lock(verdict.mutex);
          verdict.line = std::move(line);
        }
        verdict.given.Wake();
      });
  pollfd wait[] = {{.fd = signals, .events = POLLIN, .revents = 0},
                   {.fd = server->finished_fd(), .events = POLLIN, .revents = 0},
                   {.fd = verdict.given.fd(), .events = POLLIN, .revents = 0}};
  while (poll(wait, std::size(wait), -1) < 0) {
  }
  const bool over = server->run_over();
  const absl::Status failure = server->failure();
  server->End();
  if (wait[2].revents != 0) {
    MutexLock lock(verdict.mutex);
    return absl::InvalidArgumentError(verdict.line);
  }
  BASIN_RETURN_IF_ERROR(failure);
  Info(absl::StrCat(over ? "the run is over: " : "ended by a signal before the run was over: ", server->Summary()));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  wire::KeepMemoryMapped();
  Flags flags;
  flags.tf_config = Environment("TF_CONFIG");
  flags.run_id = Environment("BASIN_RUN_ID");
  flags.token_file = Environment("BASIN_TOKEN_FILE");

  CLI::App app(
      "A parameter server: holds its part of the model's variables, and applies gradients as they come.\n"
      "TF_CONFIG says which one it is and where. It may be started before or after the workers, and ends when the run "
      "does.");
  app.set_version_flag("--version", BASIN_VERSION);
  app.add_option("--tf-config", flags.tf_config, "The cluster and this task, as JSON (default: $TF_CONFIG)")
      ->group("Cluster");
  app.add_option("--task-index", flags.task_index, "Index of this ps, instead of TF_CONFIG's")
      ->check(CLI::Range(0, 1000000))
      ->group("Cluster");
  app.add_option("--run-id", flags.run_id,
                 "Run this ps serves (default: $BASIN_RUN_ID; none: ps 0 makes one, others take the first client's)")
      ->group("Cluster");
  app.add_option("--token-file", flags.token_file,
                 "File with the run's token, which every client must show (default: $BASIN_TOKEN_FILE; none: no token)")
      ->group("Cluster");
  app.add_option("--interface", flags.interface,
                 "Network interface or address to listen on (default: the one that this task's own name has)")
      ->group("Cluster");
  app.add_option("--listen-fd", flags.listen_fd,
                 "Descriptor of a socket that listens on this task's port already, inherited from a launcher "
                 "(default: none)")
      ->check(CLI::Range(0, 1000000))
      ->group("Cluster");
  app.add_option(
         "--transport", flags.transport,
         "auto: shared memory for clients of this host and user, TCP for others; tcp: TCP alone (default: auto)")
      ->check(CLI::IsMember({"auto", "tcp"}))
      ->group("Cluster");
  app.add_option("--start-timeout", flags.start_timeout_s,
                 "Seconds that a name may take to resolve before this ps gives up (default: 600)")
      ->check(CLI::Range(0.1, 1e9))
      ->group("Time");
  app.add_option("--heartbeat", flags.heartbeat_s, "Seconds between the heartbeats that clients send (default: 1)")
      ->check(CLI::Range(0.01, 1e6))
      ->group("Time");
  app.add_option("--dead-after", flags.dead_after_s,
                 "Seconds of silence after which a client counts as dead (default: 10)")
      ->check(CLI::Range(0.02, 1e6))
      ->group("Time");
  app.add_option("--finish-grace", flags.finish_grace_s,
                 "Seconds that clients get to leave once the run is over (default: 60)")
      ->check(CLI::Range(0.0, 1e9))
      ->group("Time");
  app.add_option("--lanes", flags.lanes,
                 "Threads, each with its own shards and port (default: one per core, at most 16)")
      ->check(CLI::Range(1, 1024))
      ->group("Machine");
  app.add_option(
         "--spin-us", flags.spin_us,
         "Microseconds that a lane looks for the next message in shared memory before it sleeps: shorter answers "
         "for some of a core (default: 50; 0: never)")
      ->check(CLI::Range(0, 1000000))
      ->group("Machine");
  app.add_option("--memory-limit", flags.memory_limit,
                 "Bytes that parameters and slots may take, such as 400GiB (default: 80% of the memory)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->group("Machine");
  app.add_option(
         "--device", flags.device,
         "Where variables and tables lie: cpu: the host's memory; cuda or cuda:N: that of a GPU, but for tables "
         "without max_bytes or with rules of admission; auto: of a GPU where one can be used (default: cpu)")
      ->group("Machine");
  app.add_option("--device-memory-limit", flags.device_memory_limit,
                 "Bytes that variables and tables may take of the GPU's memory, such as 60GiB (default: 15/16 of what "
                 "is free)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->group("Machine");
  app.add_option("--metrics-port", flags.metrics_port,
                 "Serve Prometheus metrics on this port at /metrics; 0: any free one (default: none)")
      ->check(CLI::Range(0, 65535))
      ->group("Machine");
  app.add_option("--metrics-host", flags.metrics_host, "Address that the metrics are served on (default: 0.0.0.0)")
      ->group("Machine");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  SetLogPrefix("basin-ps");
  const absl::Status status = Run(flags, OpenSignals());
  if (status.code() == absl::StatusCode::kCancelled) {
    Info(status.message());
    return kExitOk;
  }
  if (!status.ok()) Error(status.message());
  return ExitCodeFor(status);
}

}  // namespace
}  // namespace basin

int main(int argc, char** argv) { return basin::Main(argc, argv); }
