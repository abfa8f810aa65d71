// Whatever bytes a peer sends, the channel gives whole frames or an error, and what the agent does with the messages in
// them stays in its folder. Nothing is started here.
//   input := first byte: bit 0: as a supervisor reads an agent, else as an agent reads a supervisor; then the stream
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "common/base/status_macros.h"
#include "estimator/agent/channel.h"
#include "estimator/agent/file_streams.h"
#include "estimator/agent/messages.h"
#include "estimator/agent/snapshot_receiver.h"
#include "estimator/agent/task_command.h"

namespace {

using basin::agent::FromAgent;
using basin::agent::ToAgent;

const std::string& Root() {
  static const std::string* root = [] {
    char name[] = "/tmp/basin_agent_fuzz_XXXXXX";
    auto* made = new std::string(mkdtemp(name));
    std::atexit([] {
      std::error_code error;
      std::filesystem::remove_all(Root(), error);
    });
    return made;
  }();
  return *root;
}

void AsAgent(absl::string_view stream) {
  basin::FrameReader reader;
  basin::SnapshotReceiver snapshots(Root() + "/base");
  basin::FileStreams files;
  bool is_fine = true;
  while (is_fine && !stream.empty()) {
    const size_t step = 1 + stream.size() / 3;
    is_fine = reader.Take(stream.substr(0, step)).ok();
    stream.remove_prefix(std::min(step, stream.size()));
    std::string bytes;
    while (is_fine && reader.Next(&bytes)) {
      BASIN_CHECK(bytes.size() <= basin::kMostFrameBytes);
      ToAgent message;
      if (!message.ParseFromString(bytes)) return;
      switch (message.body_case()) {
        case ToAgent::kOfferSnapshot:
          BASIN_CHECK(!snapshots.Offer(message.offer_snapshot()).have());
          break;
        case ToAgent::kTreeEntry:
          is_fine = snapshots.Entry(message.tree_entry()).ok();
          break;
        case ToAgent::kTreeData:
          is_fine = snapshots.Data(message.tree_data().data()).ok();
          break;
        case ToAgent::kTreeEnd:
          is_fine = snapshots.End().ok();
          break;
        case ToAgent::kStreamFiles:
          files.Begin(message.stream_files());
          BASIN_CHECK(!files.Next().has_value());
          break;
        case ToAgent::kStartTask:
          BASIN_CHECK(basin::TaskWords(message.start_task(), {}).size() + 1 > 0);
          BASIN_CHECK(basin::EnvironmentLines(basin::TaskEnvironment({}, message.start_task(), {})).size() >= 3);
          break;
        default:
          break;
      }
    }
  }
  // All that was made lies in the base.
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(Root(), error)) {
    BASIN_CHECK(entry.path().filename() == "base");
  }
}

void AsSupervisor(absl::string_view stream) {
  basin::MagicReader magic;
  std::string rest;
  bool found = false;
  for (size_t at = 0; !found && at < stream.size(); at += 7) {
    const absl::StatusOr<bool> took = magic.Take(std::string(stream.substr(at, 7)), &rest);
    if (!took.ok()) {
      BASIN_CHECK(!took.status().message().empty());
      return;
    }
    found = *took;
    if (found) rest += std::string(stream.substr(std::min(at + 7, stream.size())));
  }
  if (!found) return;
  basin::FrameReader reader;
  if (!reader.Take(rest).ok()) return;
  std::string bytes;
  while (reader.Next(&bytes)) {
    FromAgent message;
    if (!message.ParseFromString(bytes)) return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // protobuf says for each malformed string that it is one.
  static const auto silenced = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(silenced);
  if (size == 0) return 0;
  const absl::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] & 1) {
    AsSupervisor(stream);
  } else {
    AsAgent(stream);
  }
  return 0;
}
