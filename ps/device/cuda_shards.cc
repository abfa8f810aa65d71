#include "ps/device/cuda_shards.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/dtype.h"
#include "common/base/status_macros.h"
#include "common/codec/cuda_half.h"
#include "common/codec/half.h"
#include "common/device/cuda_status.h"
#include "ps/device/cuda_values.h"

namespace basin {
namespace {

// What a batch uploads besides gradients: values at their first touch, parameters and all slots of a shard at least.
constexpr size_t kUploadBytes = 4 * kMaxShardBytes;
static_assert(kUploadBytes >= (1 + kMaxSlots) * kMaxShardBytes);

// On both sides: gradients and items, then a flag a shard. On the host uploads follow.
constexpr size_t kItemsBytes = kBatchShards * sizeof(CudaApplyItem);
constexpr size_t kFlagsAt = kBatchBytes + kItemsBytes;
constexpr size_t kFlagOfHalvesAt = kFlagsAt + kBatchShards * sizeof(uint32_t);  // which nobody reads: apply looks too
constexpr size_t kUploadsAt = kFlagOfHalvesAt + kShardAlignmentBytes;
// On the device floats follow, of gradients that came in 16 bits.
constexpr size_t kWidenedAt = kUploadsAt;
constexpr size_t kOnDeviceBytes = kWidenedAt + kBatchBytes;
constexpr size_t kStagingBytes = kUploadsAt + kUploadBytes;
static_assert(kBatchBytes % alignof(CudaApplyItem) == 0 && sizeof(CudaApplyItem) % sizeof(uint32_t) == 0 &&
              kUploadsAt % kShardAlignmentBytes == 0);

constexpr size_t Aligned(size_t bytes) {
  return (bytes + kShardAlignmentBytes - 1) / kShardAlignmentBytes * kShardAlignmentBytes;
}

}  // namespace

absl::StatusOr<std::shared_ptr<ShardDevice>> CudaShards::Open(CudaShardsOptions options) {
  auto shards = std::shared_ptr<CudaShards>(new CudaShards(std::move(options)));
  BASIN_RETURN_IF_ERROR(shards->OpenStream());
  return shards;
}

absl::Status CudaShards::OpenStream() {
  const auto check = [this](cudaError_t error, const char* what) { return CudaStatus(error, options_.name, what); };
  BASIN_RETURN_IF_ERROR(check(cudaSetDevice(options_.number), "use"));
  cudaStream_t stream = nullptr;
  BASIN_RETURN_IF_ERROR(check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream"));
  stream_.reset(stream);
  void* staging = nullptr;
  BASIN_RETURN_IF_ERROR(check(cudaHostAlloc(&staging, kStagingBytes, cudaHostAllocDefault), "pin memory"));
  staging_.reset(staging);
  if (!options_.budget->Take(kOnDeviceBytes)) return NoMemory(kOnDeviceBytes, "a lane's batch needs");
  taken_ += kOnDeviceBytes;
  return there_.Resize(options_.name, kOnDeviceBytes);
}

CudaShards::~CudaShards() {
  static_cast<void>(cudaSetDevice(options_.number));
  options_.budget->GiveBack(taken_);
}

// ---- Memory ----

absl::Status CudaShards::NoMemory(uint64_t wanted, absl::string_view why) const {
  return absl::ResourceExhaustedError(absl::StrCat(
      why, " ", wanted, " bytes on ", options_.name, "; ", options_.budget->taken(), " of ", options_.budget->limit(),
      " bytes are taken already; use more ps, or start basin-ps with a larger --device-memory-limit"));
}

absl::Status CudaShards::Reserve(absl::Span<const ShardOptions> shards, absl::Span<const StoredTableOptions> tables) {
  BASIN_RETURN_IF_ERROR(lost_);
  uint64_t taken = 0;
  std::vector<std::unique_ptr<CudaLaneTable>> made;
  absl::Status status = MakeTables(tables, &taken, &made);
  if (status.ok()) status = ReserveShards(shards);
  if (!status.ok()) {
    made.clear();
    options_.budget->GiveBack(taken);
    return status;
  }
  taken_ += taken;
  for (std::unique_ptr<CudaLaneTable>& table : made) {
    reserved_tables_[table->options().name] = std::move(table);
  }
  return absl::OkStatus();
}

absl::Status CudaShards::MakeTables(absl::Span<const StoredTableOptions> tables, uint64_t* taken,
                                    std::vector<std::unique_ptr<CudaLaneTable>>* made) {
  if (tables.empty()) return absl::OkStatus();
  const auto take = [&](uint64_t bytes, absl::string_view why) {
    if (!options_.budget->Take(bytes)) return NoMemory(bytes, why);
    *taken += bytes;
    return absl::OkStatus();
  };
  BASIN_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.number), options_.name, "use"));
  if (!tables_.allocated()) {
    BASIN_RETURN_IF_ERROR(take(CudaTableBatch::DeviceBytes(), "a lane's batch for tables needs"));
    BASIN_RETURN_IF_ERROR(tables_.Allocate());
    // It stays, whatever becomes of the tables.
    taken_ += std::exchange(*taken, 0);
  }
  for (const StoredTableOptions& options : tables) {
    const std::string why = absl::StrCat("table \"", options.name, "\" takes all of its part of max_bytes at once,");
    BASIN_RETURN_IF_ERROR(take(options.max_bytes, why));
    absl::StatusOr<std::unique_ptr<CudaTable>> rows = CudaTable::Make(options_.name, options, stream_.get());
    if (!rows.ok()) {
      return absl::Status(rows.status().code(),
                          absl::StrCat(why, " ", options.max_bytes, " bytes: ", rows.status().message(),
                                       "; others may use the device too"));
    }
    // Numbers of rows come in buckets, and a little stands beside them.
    if (const uint64_t bytes = (*rows)->bytes(); bytes > options.max_bytes) {
      BASIN_RETURN_IF_ERROR(take(bytes - options.max_bytes, why));
    } else {
      options_.budget->GiveBack(options.max_bytes - bytes);
      *taken -= options.max_bytes - bytes;
    }
    made->push_back(std::make_unique<CudaLaneTable>(options, *std::move(rows), *this, tables_));
  }
  return absl::OkStatus();
}

std::unique_ptr<DeviceTable> CudaShards::MakeTable(const std::string& name) {
  const auto at = reserved_tables_.find(name);
  BASIN_CHECK(at != reserved_tables_.end());
  std::unique_ptr<DeviceTable> table = std::move(at->second);
  reserved_tables_.erase(at);
  return table;
}

absl::Status CudaShards::ReserveShards(absl::Span<const ShardOptions> shards) {
  BlockPlan plan = plan_;
  for (const ShardOptions& shard : shards) plan.Add(shard);
  const uint64_t more = plan.bytes() - plan_.bytes();
  if (more == 0) return absl::OkStatus();
  constexpr absl::string_view kWhy = "the model's shards, with the rule's slots and the blocks of a batch, need";
  if (!options_.budget->Take(more)) return NoMemory(more, kWhy);
  CudaMemory memory;
  absl::Status status = CudaStatus(cudaSetDevice(options_.number), options_.name, "use");
  if (status.ok()) status = memory.Resize(options_.name, more);
  if (!status.ok()) {
    options_.budget->GiveBack(more);
    return absl::Status(status.code(),
                        absl::StrCat(kWhy, " ", more, " bytes: ", status.message(), "; others may use the device too"));
  }
  char* at = memory.as<char>();
  arenas_.push_back(std::move(memory));
  taken_ += more;
  std::map<size_t, size_t> had = plan_.blocks();
  for (const auto& [bytes, count] : plan.blocks()) {
    for (size_t i = had[bytes]; i < count; ++i, at += bytes) free_[bytes].push_back(reinterpret_cast<float*>(at));
  }
  plan_ = std::move(plan);
  return absl::OkStatus();
}

std::unique_ptr<ShardValues> CudaShards::Make(const ShardOptions& options) {
  return std::make_unique<CudaValues>(options, *this);
}

float* CudaShards::TakeBlock(size_t bytes) {
  std::vector<float*>& free = free_[BlockPlan::BlockBytes(bytes)];
  BASIN_CHECK(!free.empty());
  float* const block = free.back();
  free.pop_back();
  return block;
}

void CudaShards::GiveBack(float* block, size_t bytes) {
  if (block != nullptr) free_[BlockPlan::BlockBytes(bytes)].push_back(block);
}

void CudaShards::Keep(CudaValues* values) {
  for (const CudaValues* other : kept_) {
    if (other == values) return;
  }
  CudaValues*& place = kept_[next_kept_++ % kMostKept];
  if (place != nullptr) place->DropCopy();
  place = values;
}

void CudaShards::DropCopies() {
  for (CudaValues*& values : kept_) {
    if (values != nullptr) values->DropCopy();
    values = nullptr;
  }
}

// ---- The batch ----

absl::Status CudaShards::MakeRoom(size_t changed, size_t uploaded) {
  if (changed_ + changed <= kBatchBytes && begun_.size() < kBatchShards && uploaded_ + uploaded <= kUploadBytes)
    return lost_;
  return Run();
}

float* CudaShards::Upload(float* to, size_t bytes) {
  auto* const from = reinterpret_cast<float*>(static_cast<char*>(staging_.get()) + kUploadsAt + uploaded_);
  uploaded_ += BlockPlan::BlockBytes(bytes);
  uploads_.push_back({to, from, bytes});
  return from;
}

void CudaShards::BeginApply(CudaValues* values, CudaApplyItem item, const GradientView& gradient) {
  // The bytes of the message go when it has been answered.
  const size_t bytes = gradient.elements * SizeOf(gradient.type);
  char* const there = there_.as<char>();
  const char* from = gradient.data;
  if (!gradient.on_device) {
    if (bytes > 0) std::memcpy(static_cast<char*>(staging_.get()) + staged_, gradient.data, bytes);
    from = there + staged_;
    staged_ += Aligned(bytes);
  }
  item.gradient = reinterpret_cast<const float*>(from);
  if (IsHalf(gradient.type)) {
    auto* const floats = reinterpret_cast<float*>(there + kWidenedAt + widened_);
    halves_.push_back({gradient.type, from, floats, gradient.elements});
    item.gradient = floats;
    widened_ += Aligned(gradient.elements * sizeof(float));
  }
  changed_ += BlockPlan::BlockBytes(gradient.elements * sizeof(float));
  items_.push_back(item);
  begun_.push_back({values, true});
}

void CudaShards::BeginAssign(CudaValues* values, size_t bytes) {
  changed_ += BlockPlan::BlockBytes(bytes);
  begun_.push_back({values, false});
}

absl::StatusOr<BlockRef> CudaShards::Download(const float* from, size_t bytes) {
  BlockRef block = options_.replies->Allocate(bytes);
  if (!block) {
    DropCopies();  // which only save work
    block = options_.replies->Allocate(bytes);
  }
  if (!block) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no pinned memory for a reply of ", bytes, " bytes, ", options_.replies->mapped_bytes(), " of ",
        options_.replies->limit_bytes(), " bytes are in use by replies that are under way (--memory-limit)"));
  }
  downloads_.push_back({block, from, bytes});
  return block;
}

void CudaShards::Lose(const absl::Status& why) {
  // Other lanes may get the blocks that copies of before the failure still write.
  static_cast<void>(cudaStreamSynchronize(stream_.get()));
  lost_ = absl::InternalError(
      absl::StrCat(why.message(), "; the device is lost, and with it the shards of this ps, tables included"));
}

absl::Status CudaShards::Do(absl::FunctionRef<absl::Status()> work) {
  BASIN_RETURN_IF_ERROR(lost_);
  absl::Status status = CudaStatus(cudaSetDevice(options_.number), options_.name, "use");
  if (status.ok()) status = work();
  if (!status.ok()) Lose(status);
  return lost_;
}

absl::Status CudaShards::Run() {
  if (begun_.empty() && uploads_.empty() && downloads_.empty() && copies_.empty() && tables_.empty()) return lost_;
  if (lost_.ok()) {
    if (absl::Status status = CarryOut(); !status.ok()) Lose(status);
  }
  const auto* const flags = reinterpret_cast<const uint32_t*>(static_cast<const char*>(staging_.get()) + kFlagsAt);
  size_t item = 0;
  for (const Begun& begun : begun_) begun.values->Ended(lost_, begun.has_item && flags[item++] != 0);
  if (!tables_.empty()) tables_.Ended(lost_.ok());
  staged_ = widened_ = changed_ = uploaded_ = 0;
  items_.clear();
  halves_.clear();
  begun_.clear();
  uploads_.clear();
  downloads_.clear();
  copies_.clear();
  return lost_;
}

absl::Status CudaShards::CarryOut() {
  const auto check = [this](cudaError_t error, const char* what) { return CudaStatus(error, options_.name, what); };
  char* const here = static_cast<char*>(staging_.get());
  char* const there = there_.as<char>();
  BASIN_RETURN_IF_ERROR(check(cudaSetDevice(options_.number), "use"));
  for (const Piece& piece : uploads_) {
    BASIN_RETURN_IF_ERROR(check(
        cudaMemcpyAsync(piece.to, piece.from, piece.bytes, cudaMemcpyHostToDevice, stream_.get()), "upload values"));
  }
  if (!items_.empty()) {
    const auto count = static_cast<uint32_t>(items_.size());
    const uint64_t chunks = CountChunks(items_.data(), count);
    std::memcpy(here + staged_, items_.data(), count * sizeof(CudaApplyItem));
    auto* const flags = reinterpret_cast<uint32_t*>(there + kFlagsAt);
    BASIN_RETURN_IF_ERROR(check(
        cudaMemcpyAsync(there, here, staged_ + count * sizeof(CudaApplyItem), cudaMemcpyHostToDevice, stream_.get()),
        "upload gradients"));
    for (const Halves& halves : halves_) {
      BASIN_RETURN_IF_ERROR(
          check(StartWiden(stream_.get(), halves.type, reinterpret_cast<const uint16_t*>(halves.from), halves.elements,
                           halves.to, reinterpret_cast<uint32_t*>(there + kFlagOfHalvesAt)),
                "widen gradients"));
    }
    BASIN_RETURN_IF_ERROR(
        check(StartApply(stream_.get(), reinterpret_cast<const CudaApplyItem*>(there + staged_), count, chunks, flags),
              "apply"));
    BASIN_RETURN_IF_ERROR(
        check(cudaMemcpyAsync(here + kFlagsAt, flags, count * sizeof(uint32_t), cudaMemcpyDeviceToHost, stream_.get()),
              "read what was refused"));
  }
  for (const Copy& copy : copies_) {
    BASIN_RETURN_IF_ERROR(
        check(cudaMemcpyAsync(copy.to, copy.from, copy.bytes, cudaMemcpyDeviceToDevice, stream_.get()),
              "copy parameters to a client's block"));
  }
  // Replies hold these blocks already, and nobody looks into them before the batch has run.
  for (Wanted& wanted : downloads_) {
    BASIN_RETURN_IF_ERROR(check(
        cudaMemcpyAsync(wanted.to.mutable_floats(), wanted.from, wanted.bytes, cudaMemcpyDeviceToHost, stream_.get()),
        "read parameters"));
  }
  if (!tables_.empty()) BASIN_RETURN_IF_ERROR(tables_.Start(stream_.get()));
  BASIN_RETURN_IF_ERROR(check(cudaStreamSynchronize(stream_.get()), "wait for a batch"));
  if (!tables_.refuses()) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(tables_.StartAgain(stream_.get()));
  return check(cudaStreamSynchronize(stream_.get()), "wait for a batch");
}

}  // namespace basin
