// basin.h: rows of tables.
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "worker/client/abi_types.h"

namespace basin::abi {
namespace {

absl::StatusOr<RowsItem> ToItem(const basin_rows& rows) {
  const auto refuse = [&](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat("rows of table ", rows.table, ": ", why...));
  };
  for (const int32_t type : {rows.device.type, rows.keys_device.type}) {
    if (type == 0 || type == kCpu || type == kCuda) continue;
    return absl::UnimplementedError(
        absl::StrCat("rows of table ", rows.table, ": device type ", type,
                     "; this version moves CPU memory (type 1) and CUDA memory (type 2), copy it there first"));
  }
  if (rows.count > 0 && rows.keys == nullptr) return refuse("keys is NULL for ", rows.count, " keys");
  RowsItem item{.table = rows.table, .push = rows.push, .pull = rows.pull};
  const bool moves = rows.push != nullptr || rows.pull != nullptr;
  item.by_pieces = rows.device.type == kCuda && moves;
  if (!item.by_pieces && rows.keys_device.type == kCuda && rows.count > 0) {
    return refuse("keys in device memory, push and pull in host memory; keys may be there where push and pull are");
  }
  if (item.by_pieces && rows.keys_device.type == kCuda && rows.keys_device.id != rows.device.id) {
    return refuse("keys of cuda:", rows.keys_device.id, ", push and pull of cuda:", rows.device.id,
                  "; expected one device");
  }
  if (!item.by_pieces) item.keys = absl::MakeConstSpan(rows.keys, rows.count);
  if (rows.bags != nullptr) {
    if (rows.pooling != BASIN_POOL_SUM && rows.pooling != BASIN_POOL_MEAN)
      return refuse("pooling ", rows.pooling, " of bags; expected BASIN_POOL_SUM (1) or BASIN_POOL_MEAN (2)");
    if (rows.bag_count == std::numeric_limits<size_t>::max()) return refuse("bag_count is ", rows.bag_count);
    item.bags = {.offsets = absl::MakeConstSpan(rows.bags, rows.bag_count + 1),
                 .mean = rows.pooling == BASIN_POOL_MEAN};
  } else if (rows.bag_count != 0) {
    return refuse("bags is NULL for ", rows.bag_count, " bags");
  }
  if (!moves && (rows.count > 0 || rows.bag_count > 0)) return refuse("both push and pull are NULL");
  return item;
}

// Looks at the parts of a call that are device memory, and makes ready what moves them.
class RowsTaker final {
 public:
  explicit RowsTaker(basin_client* client) : client_(client) {}

  absl::Status Take(const basin_rows& rows, const RowsItem& item) {
    const std::optional<ClientCore::TableShape> shape =
        client_->session->Run([&](ClientCore& core, absl::Time) { return core.ShapeOf(item.table); });
    if (!shape) return absl::OkStatus();  // the core refuses it
    const auto named = [&](const absl::Status& status, absl::string_view what) {
      return absl::Status(status.code(), absl::StrCat("table \"", shape->name, "\": ", what, status.message()));
    };
    const auto refuse = [&](const auto&... why) { return named(absl::InvalidArgumentError(absl::StrCat(why...)), ""); };
    const absl::StatusOr<DeviceCopies*> copies = client_->session->device_copies();
    if (!copies.ok()) return named(copies.status(), "");
    if (copies_ != nullptr && update_.device != rows.device.id) {
      return refuse("cuda:", rows.device.id, ", and cuda:", update_.device,
                    " in the same call; make a call for each device");
    }
    const bool bagged = !item.bags.offsets.empty();
    if (rows.count > kMaxKeys || (bagged && rows.bag_count > kMaxKeys)) {
      return refuse(rows.count, " keys in ", rows.bag_count, " bags, at most ", kMaxKeys,
                    " of each in one call with device memory");
    }
    // What is wrong with them is told before anything is copied by them.
    if (bagged) {
      if (const absl::Status bags = CheckBags(item.bags.offsets, rows.count); !bags.ok()) return named(bags, "");
    }
    copies_ = *copies;
    update_.device = rows.device.id;
    const size_t bytes = (bagged ? rows.bag_count : rows.count) * shape->dim * sizeof(float);
    const bool keys_there = rows.keys_device.type == kCuda;
    struct Buffer {
      const void* data;
      size_t bytes, alignment;
      absl::string_view what;
    };
    for (const Buffer& buffer :
         {Buffer{rows.push, bytes, sizeof(float), "gradients: "}, Buffer{rows.pull, bytes, sizeof(float), "rows: "},
          Buffer{keys_there ? rows.keys : nullptr, rows.count * sizeof(uint64_t), sizeof(uint64_t), "keys: "}}) {
      if (buffer.data == nullptr) continue;
      if (const absl::Status found = copies_->Check(update_.device, buffer.data, buffer.bytes); !found.ok())
        return named(found, buffer.what);
      // A kernel that reads at such an address would lose the device.
      if (const auto address = reinterpret_cast<uintptr_t>(buffer.data); address % buffer.alignment != 0) {
        return refuse(buffer.what, "device memory at 0x", absl::Hex(address), ", which is no multiple of ",
                      buffer.alignment, "; align it");
      }
    }
    BASIN_RETURN_IF_ERROR(client_->session->PrepareDevice(update_.device));
    const DeviceRowsItem there{.device = update_.device,
                               .keys = rows.keys,
                               .count = rows.count,
                               .keys_there = keys_there,
                               .bags = item.bags,
                               .dim = shape->dim,
                               .bucket_bits = shape->bucket_bits,
                               .push = rows.push,
                               .pull = rows.pull,
                               .sent_as = client_->gradient_dtype};
    absl::StatusOr<std::unique_ptr<DeviceRows>> prepared = copies_->PrepareRows(there);
    if (!prepared.ok()) return named(prepared.status(), "");
    update_.rows.push_back({.there = *std::move(prepared),
                            .table = shape->name,
                            .sent_as = client_->gradient_dtype,
                            .pulls = rows.pull != nullptr});
    return absl::OkStatus();
  }

  // nullptr: all is host memory.
  DeviceCopies* copies() const { return copies_; }
  DeviceUpdate& update() { return update_; }

 private:
  static constexpr uint64_t kMaxKeys = (uint64_t{1} << 31) - 1;  // a device's sort counts in int

  basin_client* const client_;
  DeviceCopies* copies_ = nullptr;
  DeviceUpdate update_;
};

absl::Status StartRows(basin_client* client, const basin_rows* rows, size_t count, const basin_stream* given_stream,
                       basin_call** call) {
  BASIN_RETURN_IF_ERROR(CheckProcess(client));
  if (count > 0 && rows == nullptr) return absl::InvalidArgumentError("basin_start_rows: rows is NULL");
  BASIN_ASSIGN_OR_RETURN(const DeviceStream stream, StreamOf(given_stream));
  // The caller's structs may be shorter than ours: their size is also how far the next one is.
  const size_t stride = count > 0 ? rows->size : 0;
  if (count > 0 && (stride < offsetof(basin_rows, bags) || stride % alignof(basin_rows) != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("basin_start_rows: size is ", stride, ", expected sizeof(basin_rows), ", sizeof(basin_rows)));
  }
  absl::InlinedVector<RowsItem, 8> items;
  RowsTaker taker(client);
  for (size_t i = 0; i < count; ++i) {
    const auto* given = reinterpret_cast<const basin_rows*>(reinterpret_cast<const char*>(rows) + i * stride);
    if (given->size != stride)
      return absl::InvalidArgumentError(
          absl::StrCat("basin_start_rows: size of rows[", i, "] is ", given->size, ", that of rows[0] is ", stride));
    const basin_rows known = Known(given, basin_rows{});
    BASIN_ASSIGN_OR_RETURN(const RowsItem item, ToItem(known));
    items.push_back(item);
    if (item.by_pieces) BASIN_RETURN_IF_ERROR(taker.Take(known, item));
  }
  auto handle = std::make_unique<basin_call>();
  DeviceUpdate* on_device = nullptr;
  if (taker.copies() != nullptr) {
    on_device = &taker.update();
    BASIN_ASSIGN_OR_RETURN(on_device->after, taker.copies()->MarkNow(on_device->device, stream));
    on_device->lender = client->session->NewLender();
    handle->lent = on_device->lender;
    handle->on_device = true;
  } else if (stream.kind != BASIN_STREAM_NONE) {
    return absl::InvalidArgumentError("a stream is given, and all rows of the call are in host memory; pass NULL");
  }
  BASIN_ASSIGN_OR_RETURN(
      handle->id, StartUpdate(
                      client, [&](ClientCore& core, absl::Time now) { return core.StartRows(items, now); }, on_device));
  handle->session = client->session;
  handle->process = client->process;
  *call = handle.release();
  return absl::OkStatus();
}

absl::Status Evicted(basin_client* client, uint32_t table, uint64_t* keys, size_t capacity, size_t* count,
                     int32_t* missed) {
  BASIN_RETURN_IF_ERROR(CheckProcess(client));
  const auto take = [&](uint64_t* to, size_t most) {
    return client->session->Run([&](ClientCore& core, absl::Time) { return core.TakeEvicted(table, to, most); });
  };
  // All lanes are asked at least once, then those again that have more, while there is room for it.
  ClientCore::EvictedRows waiting;
  do {
    BASIN_ASSIGN_OR_RETURN(const CallId call, client->session->Run([&](ClientCore& core, absl::Time now) {
      return core.AskEvicted(table, now);
    }));
    ClientCore::Result result;
    BASIN_RETURN_IF_ERROR(client->session->Wait(call, absl::InfiniteFuture(), &result));
    waiting = take(nullptr, 0);
  } while (waiting.more && waiting.waiting < capacity);
  const ClientCore::EvictedRows taken = take(keys, capacity);
  *count = taken.count;
  *missed = taken.missed ? 1 : 0;
  return absl::OkStatus();
}

}  // namespace
}  // namespace basin::abi

using basin::abi::Report;

extern "C" {

int32_t basin_start_rows_on_stream(basin_client* client, const basin_rows* rows, size_t count,
                                   const basin_stream* stream, basin_call** call, basin_status* status) {
  if (call == nullptr) return Report(absl::InvalidArgumentError("basin_start_rows: call is NULL"), status);
  *call = nullptr;
  try {
    return Report(basin::abi::StartRows(client, rows, count, stream, call), status);
  } catch (const std::bad_alloc&) {
    return Report(
        absl::ResourceExhaustedError(absl::StrCat("no memory for a call over ", count, " tables; nothing was sent")),
        status);
  }
}

int32_t basin_start_rows(basin_client* client, const basin_rows* rows, size_t count, basin_call** call,
                         basin_status* status) {
  return basin_start_rows_on_stream(client, rows, count, nullptr, call, status);
}

int32_t basin_evicted_keys(basin_client* client, uint32_t table, uint64_t* keys, size_t capacity, size_t* count,
                           int32_t* missed, basin_status* status) {
  if (count == nullptr || missed == nullptr || keys == nullptr || capacity == 0) {
    return Report(
        absl::InvalidArgumentError("basin_evicted_keys: keys, count or missed is NULL, or there is no room for a key"),
        status);
  }
  *count = 0;
  *missed = 0;
  return Report(basin::abi::Evicted(client, table, keys, capacity, count, missed), status);
}

}  // extern "C"
