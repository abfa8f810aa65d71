// basin.h: rows of tables.
#include <cstddef>
#include <limits>

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
  if (rows.device.type != 0 && rows.device.type != 1) {
    return absl::UnimplementedError(absl::StrCat("rows of table ", rows.table, ": device type ", rows.device.type,
                                                 "; tables take host memory in this version, copy it there first"));
  }
  if (rows.count > 0 && rows.keys == nullptr) return refuse("keys is NULL for ", rows.count, " keys");
  RowsItem item{.table = rows.table, .push = rows.push, .pull = rows.pull};
  item.keys = absl::MakeConstSpan(rows.keys, rows.count);
  if (rows.bags != nullptr) {
    if (rows.pooling != BASIN_POOL_SUM && rows.pooling != BASIN_POOL_MEAN)
      return refuse("pooling ", rows.pooling, " of bags; expected BASIN_POOL_SUM (1) or BASIN_POOL_MEAN (2)");
    if (rows.bag_count == std::numeric_limits<size_t>::max()) return refuse("bag_count is ", rows.bag_count);
    item.bags = {.offsets = absl::MakeConstSpan(rows.bags, rows.bag_count + 1),
                 .mean = rows.pooling == BASIN_POOL_MEAN};
  } else if (rows.bag_count != 0) {
    return refuse("bags is NULL for ", rows.bag_count, " bags");
  }
  if (rows.push == nullptr && rows.pull == nullptr && (rows.count > 0 || rows.bag_count > 0))
    return refuse("both push and pull are NULL");
  return item;
}

absl::Status StartRows(basin_client* client, const basin_rows* rows, size_t count, basin_call** call) {
  BASIN_RETURN_IF_ERROR(CheckProcess(client));
  if (count > 0 && rows == nullptr) return absl::InvalidArgumentError("basin_start_rows: rows is NULL");
  // The caller's structs may be shorter than ours: their size is also how far the next one is.
  const size_t stride = count > 0 ? rows->size : 0;
  if (count > 0 && (stride < offsetof(basin_rows, bags) || stride % alignof(basin_rows) != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("basin_start_rows: size is ", stride, ", expected sizeof(basin_rows), ", sizeof(basin_rows)));
  }
  absl::InlinedVector<RowsItem, 8> items;
  for (size_t i = 0; i < count; ++i) {
    const auto* given = reinterpret_cast<const basin_rows*>(reinterpret_cast<const char*>(rows) + i * stride);
    if (given->size != stride)
      return absl::InvalidArgumentError(
          absl::StrCat("basin_start_rows: size of rows[", i, "] is ", given->size, ", that of rows[0] is ", stride));
    BASIN_ASSIGN_OR_RETURN(const RowsItem item, ToItem(Known(given, basin_rows{})));
    items.push_back(item);
  }
  auto handle = std::make_unique<basin_call>();
  BASIN_ASSIGN_OR_RETURN(
      handle->id, StartUpdate(client, [&](ClientCore& core, absl::Time now) { return core.StartRows(items, now); }));
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

int32_t basin_start_rows(basin_client* client, const basin_rows* rows, size_t count, basin_call** call,
                         basin_status* status) {
  if (call == nullptr) return Report(absl::InvalidArgumentError("basin_start_rows: call is NULL"), status);
  *call = nullptr;
  try {
    return Report(basin::abi::StartRows(client, rows, count, call), status);
  } catch (const std::bad_alloc&) {
    return Report(
        absl::ResourceExhaustedError(absl::StrCat("no memory for a call over ", count, " tables; nothing was sent")),
        status);
  }
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
