#include "estimator/kubernetes/source_archive.h"

#include <zstd.h>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "estimator/agent/channel.h"
#include "estimator/run/snapshot_sender.h"

namespace basin {
namespace {

// However well it is packed, more does not fit.
constexpr size_t kMostBytes = size_t{256} << 20;
constexpr int kLevel = 12;

void Append(const agent::ToAgent& message, std::string* frames) {
  const std::string bytes = message.SerializeAsString();
  for (int shift = 0; shift < 32; shift += 8) frames->push_back(static_cast<char>(bytes.size() >> shift));
  frames->append(bytes);
}

}  // namespace

absl::StatusOr<std::string> PackSource(const StagedSnapshot& snapshot) {
  if (snapshot.tree.bytes > kMostBytes / 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "source_directory: ", ShowBytes(snapshot.tree.bytes),
        " do not fit into a ConfigMap (1 MiB, packed); leave things out by .basinignore, or write kubernetes: {source: "
        "\"image:/PATH\"} or {source: \"claim:NAME/PATH\"} and put it there"));
  }
  std::string frames;
  Append(OfferOf(snapshot), &frames);
  SnapshotSender sender(&snapshot);
  while (!sender.done()) {
    BASIN_ASSIGN_OR_RETURN(const SnapshotSender::Part part, sender.Next());
    Append(part.message, &frames);
  }
  std::string packed(ZSTD_compressBound(frames.size()), '\0');
  const size_t size = ZSTD_compress(packed.data(), packed.size(), frames.data(), frames.size(), kLevel);
  if (ZSTD_isError(size)) return absl::InternalError(absl::StrCat("zstd: ", ZSTD_getErrorName(size)));
  packed.resize(size);
  return packed;
}

absl::StatusOr<std::vector<agent::ToAgent>> UnpackSource(absl::string_view archive) {
  const unsigned long long size = ZSTD_getFrameContentSize(archive.data(), archive.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > kMostBytes) {
    return absl::InvalidArgumentError("the packed source is none");
  }
  std::string bytes(size, '\0');
  const size_t got = ZSTD_decompress(bytes.data(), bytes.size(), archive.data(), archive.size());
  if (ZSTD_isError(got)) return absl::InvalidArgumentError(absl::StrCat("the packed source: ", ZSTD_getErrorName(got)));
  FrameReader frames;
  BASIN_RETURN_IF_ERROR(frames.Take(bytes));
  std::vector<agent::ToAgent> messages;
  std::string text;
  while (frames.Next(&text)) {
    messages.emplace_back();
    if (!messages.back().ParseFromString(text))
      return absl::InvalidArgumentError("the packed source has a part that is none");
  }
  if (messages.size() < 2 || !messages.front().has_offer_snapshot() || !messages.back().has_tree_end()) {
    return absl::InvalidArgumentError("the packed source is not whole");
  }
  return messages;
}

}  // namespace basin
