#include "estimator/launch/doctor_visit.h"

#include <signal.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/secret.h"
#include "estimator/agent/channel.h"
#include "estimator/launch/doctor_connection.h"
#include "estimator/launch/spawn.h"
#include "estimator/launch/ssh_command.h"

namespace basin {
namespace {

// Connecting takes ssh up to 15 s, a driver up to 10 s.
constexpr absl::Duration kHelloLimit = absl::Seconds(60);
// What the node grants its resolver, its files and its tools, and some more.
constexpr absl::Duration kLookLimit = absl::Seconds(75);
constexpr absl::Duration kReachLimit = absl::Seconds(20);
constexpr absl::Duration kFolderLimit = absl::Seconds(12);  // of one
constexpr size_t kMostPortsTried = 64;

absl::StatusOr<AgentPipe> Open(const Target& target, const TargetNode& node, const DoctorWay& way) {
  if (target.kind == TargetKind::kLocal) {
    return SpawnPiped("/proc/self/exe", {"basin", "doctor-node", "--base", way.base});
  }
  return SpawnPiped(
      "ssh", SshCommand(target, node, ForAnyShell(RunBasinScript(target, way.version, way.sent, {"doctor-node"}))));
}

// Its process has ended, or is ended here, without a hello.
void ExplainSilence(const Target& target, const TargetNode& node, DoctorConnection* connection, NodeVisit* visit) {
  const bool in_time = connection->ended();
  const int code = connection->Finish();
  const std::string& printed = connection->printed();
  if (absl::StrContains(printed, kProgramsMissing)) {
    visit->programs_missing = true;
    visit->system = ParseProgramsMissing(printed);
    return;
  }
  const std::string said = LastLines(connection->errors().empty() ? printed : connection->errors());
  if (target.kind == TargetKind::kSsh && in_time && code == kSshFailed) {
    const SshAdvice advice = SshComplaint(node, {code, connection->errors(), printed, false});
    visit->not_reached = advice.found;
    visit->not_reached_fix = advice.fix;
    return;
  }
  if (target.kind == TargetKind::kSsh && !in_time && printed.empty()) {
    visit->not_reached = absl::StrCat("nothing came over ssh within ", absl::FormatDuration(kHelloLimit),
                                      said.empty() ? "" : absl::StrCat(", but: ", said));
    visit->not_reached_fix = absl::StrCat(
        "it does not answer; is it up, and the network between? If so, try: ", SshByHand(node), " basin --version");
    return;
  }
  visit->no_answer = absl::StrCat(in_time ? absl::StrCat("basin doctor-node ended with ", code)
                                          : absl::StrCat("no answer within ", absl::FormatDuration(kHelloLimit)),
                                  said.empty() ? "" : ": ", said);
  visit->no_answer_fix = target.programs.empty()
                             ? "see whether `basin --version` runs there"
                             : absl::StrCat("correct programs of the target: see whether ", target.programs,
                                            "/basin is there and of the same version");
}

class Visitor {
 public:
  Visitor(const Target& target, const DoctorNeeds& needs, const DoctorWay& way)
      : target_(target), needs_(needs), way_(way), nodes_(target.nodes.size()), visits_(nodes_), connections_(nodes_) {
    for (size_t i = 0; i < nodes_; ++i) nonces_.push_back(SecretHex(16));
  }

  std::vector<NodeVisit> Visit() {
    SayHello();
    Look();
    TryPairs();
    ShareFolders();
    for (const auto& connection : connections_) {
      if (connection) connection->Finish();
    }
    return std::move(visits_);
  }

 private:
  void SayHello() {
    for (size_t i = 0; i < nodes_; ++i) {
      const absl::StatusOr<AgentPipe> pipe = Open(target_, target_.nodes[i], way_);
      if (!pipe.ok()) {
        visits_[i].not_reached = std::string(pipe.status().message());
        visits_[i].not_reached_fix = "install ssh on this machine (Debian: apt-get install openssh-client)";
        continue;
      }
      connections_[i] = std::make_unique<DoctorConnection>(*pipe);
      connections_[i]->AskNothing();
    }
    Wait(kHelloLimit);
    for (size_t i = 0; i < nodes_; ++i) {
      if (!connections_[i]) continue;
      const std::optional<DoctorMessage>& answer = connections_[i]->answer();
      if (answer && answer->hello) {
        visits_[i].hello = *answer->hello;
        continue;
      }
      ExplainSilence(target_, target_.nodes[i], connections_[i].get(), &visits_[i]);
      connections_[i].reset();
    }
  }

  void Look() {
    DoctorLookRequest request;
    for (const TargetNode& node : target_.nodes) request.resolve.push_back(node.address);
    request.first_port = needs_.range.first;
    request.last_port = needs_.range.last;
    request.pip = needs_.pip;
    request.conda = needs_.conda;
    request.mpi = needs_.mpi;
    if (!needs_.image.empty()) {
      ContainerRequest container;
      container.settings = target_.containers;
      container.image = needs_.image;
      request.container = ContainerRequestToText(container);
    }
    for (const JobInput& input : needs_.inputs) request.inputs.push_back({input.name, input.path});
    std::vector<std::pair<size_t, DoctorMessage>> asked;
    for (size_t i = 0; i < nodes_; ++i) {
      request.ports = needs_.ports[i];
      request.bind_address = target_.nodes[i].address;
      request.nonce = nonces_[i];
      asked.emplace_back(i, DoctorMessage()).second.look_request = request;
    }
    Ask(asked, kLookLimit, [this](size_t i, const DoctorMessage& answer) {
      if (!answer.look) return false;
      visits_[i].looked = true;
      visits_[i].look = *answer.look;
      return true;
    });
  }

  void TryPairs() {
    std::vector<std::pair<size_t, DoctorMessage>> asked;
    for (size_t i = 0; i < nodes_; ++i) {
      if (!visits_[i].looked) continue;
      std::vector<DoctorPeer> peers;
      for (const auto& [from, to] : PairsToTry(static_cast<int>(nodes_))) {
        if (static_cast<size_t>(from) != i || !visits_[to].looked) continue;
        const std::string address = AddressToTry(visits_[i].look, target_.nodes[to], nodes_ == 1);
        std::vector<int> ports = visits_[to].look.ports;
        ports.resize(std::min(ports.size(), kMostPortsTried));
        if (!address.empty() && !ports.empty()) peers.push_back({to, address, ports, nonces_[to]});
      }
      if (!peers.empty()) asked.emplace_back(i, DoctorMessage()).second.reach = peers;
    }
    Ask(asked, kReachLimit, [this](size_t i, const DoctorMessage& answer) {
      if (!answer.reached) return false;
      visits_[i].reached = *answer.reached;
      return true;
    });
  }

  // The first node that can writes a file into each folder, the others look for it.
  void ShareFolders() {
    std::vector<std::string> unwritten = target_.shared_folders;
    const std::string nonce = SecretHex(16);
    std::vector<std::string> written;
    std::vector<std::pair<size_t, std::vector<std::string>>> writers;
    for (size_t i = 0; i < nodes_ && !unwritten.empty(); ++i) {
      if (!IsThere(visits_[i])) continue;
      AskAboutFolders({{i, {"write", nonce, unwritten}}}, &NodeVisit::wrote);
      std::vector<std::string> mine;
      for (const DoctorFolder& folder : visits_[i].wrote) {
        if (!folder.problem.empty()) continue;
        mine.push_back(folder.path);
        unwritten.erase(std::remove(unwritten.begin(), unwritten.end(), folder.path), unwritten.end());
      }
      written.insert(written.end(), mine.begin(), mine.end());
      if (!mine.empty()) writers.emplace_back(i, mine);
    }
    std::vector<std::pair<size_t, DoctorFolders>> reads, removes;
    for (size_t i = 0; i < nodes_; ++i) {
      std::vector<std::string> others = written;
      for (const auto& [writer, mine] : writers) {
        if (writer != i) continue;
        for (const std::string& path : mine)
          others.erase(std::remove(others.begin(), others.end(), path), others.end());
        removes.push_back({i, {"remove", nonce, mine}});
      }
      if (IsThere(visits_[i]) && !others.empty()) reads.push_back({i, {"read", nonce, others}});
    }
    AskAboutFolders(reads, &NodeVisit::read);
    AskAboutFolders(removes, nullptr);
  }

  void AskAboutFolders(const std::vector<std::pair<size_t, DoctorFolders>>& requests,
                       std::vector<DoctorFolder> NodeVisit::*where) {
    std::vector<std::pair<size_t, DoctorMessage>> asked;
    absl::Duration limit = absl::Seconds(5);
    for (const auto& [i, request] : requests) {
      limit = std::max(limit, kFolderLimit * static_cast<int64_t>(request.folders.size()));
      asked.emplace_back(i, DoctorMessage()).second.folders_request = request;
    }
    Ask(asked, limit, [this, where](size_t i, const DoctorMessage& answer) {
      if (!answer.folders) return false;
      if (where != nullptr) visits_[i].*where = *answer.folders;
      return true;
    });
  }

  // Nodes that do not answer as `take` wants are lost.
  void Ask(const std::vector<std::pair<size_t, DoctorMessage>>& requests, absl::Duration limit,
           const std::function<bool(size_t node, const DoctorMessage& answer)>& take) {
    std::vector<size_t> asked;
    for (const auto& [i, message] : requests) {
      if (!connections_[i]) continue;
      connections_[i]->Ask(message);
      asked.push_back(i);
    }
    Wait(limit);
    for (const size_t i : asked) {
      const std::optional<DoctorMessage>& answer = connections_[i]->answer();
      if (answer && take(i, *answer)) continue;
      const bool ended = connections_[i]->ended();
      connections_[i]->Finish();
      const std::string said = LastLines(connections_[i]->errors());
      visits_[i].lost =
          absl::StrCat(ended ? "its connection ended" : "it has not answered any more", said.empty() ? "" : ": ", said);
      connections_[i].reset();
    }
  }

  void Wait(absl::Duration limit) {
    std::vector<DoctorConnection*> all;
    for (const auto& connection : connections_) {
      if (connection) all.push_back(connection.get());
    }
    DoctorConnection::WaitForAll(all, limit);
  }

  const Target& target_;
  const DoctorNeeds& needs_;
  const DoctorWay& way_;
  const size_t nodes_;
  std::vector<NodeVisit> visits_;
  std::vector<std::unique_ptr<DoctorConnection>> connections_;  // null: none, or no more
  std::vector<std::string> nonces_;
};

}  // namespace

std::vector<NodeVisit> VisitNodes(const Target& target, const DoctorNeeds& needs, const DoctorWay& way) {
  // A node whose connection ends while it is asked must not end us.
  const auto before = signal(SIGPIPE, SIG_IGN);
  std::vector<NodeVisit> visits = Visitor(target, needs, way).Visit();
  signal(SIGPIPE, before);
  return visits;
}

}  // namespace basin
