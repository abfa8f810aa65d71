// basin.h: pushes, assignments and pulls of variables, and their order with a device's streams.
#include <algorithm>
#include <new>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/codec/half.h"
#include "worker/client/abi_dtype.h"
#include "worker/client/abi_types.h"

namespace basin::abi {
namespace {

// The bytes of a dense tensor. The core compares them with the variable's size; here its own description is checked.
absl::StatusOr<absl::Span<char>> DenseBytes(const basin_tensor* tensor, uint32_t variable, absl::string_view what) {
  const auto where = [&] { return absl::StrCat(what, " of variable ", variable, ": "); };
  if (tensor->device.type != kCpu && tensor->device.type != kCuda) {
    return absl::UnimplementedError(
        absl::StrCat(where(), "device type ", tensor->device.type,
                     "; this version moves CPU memory (type 1) and CUDA memory (type 2), copy it there first"));
  }
  const absl::StatusOr<DType> dtype = FromDLPack(tensor->dtype);
  if (!dtype.ok()) return absl::InvalidArgumentError(absl::StrCat(where(), dtype.status().message()));
  if (tensor->ndim < 0 || (tensor->ndim > 0 && tensor->shape == nullptr)) {
    return absl::InvalidArgumentError(absl::StrCat(where(), "rank ", tensor->ndim, " without a shape"));
  }
  uint64_t elements = 1;
  for (int32_t axis = tensor->ndim - 1; axis >= 0; --axis) {
    // A stride counts elements; axes of one element may have any.
    if (tensor->strides != nullptr && tensor->shape[axis] > 1 &&
        tensor->strides[axis] != static_cast<int64_t>(elements)) {
      return absl::InvalidArgumentError(absl::StrCat(where(), "not dense row-major (axis ", axis, " has stride ",
                                                     tensor->strides[axis], ", expected ", elements,
                                                     "); make it contiguous first"));
    }
    if (tensor->shape[axis] < 0 ||
        __builtin_mul_overflow(elements, static_cast<uint64_t>(tensor->shape[axis]), &elements)) {
      return absl::InvalidArgumentError(absl::StrCat(where(), "axis ", axis, " is ", tensor->shape[axis]));
    }
  }
  uint64_t bytes;
  if (__builtin_mul_overflow(elements, static_cast<uint64_t>(SizeOf(*dtype)), &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(where(), "too large"));
  }
  if (tensor->data == nullptr && bytes > 0) return absl::InvalidArgumentError(absl::StrCat(where(), "data is NULL"));
  return absl::Span<char>(static_cast<char*>(tensor->data) + tensor->byte_offset, bytes);
}

absl::Status CheckShape(const wire::v1::RunSpec& spec, uint32_t id, const basin_tensor& tensor, absl::string_view what,
                        bool is_push) {
  if (id >= static_cast<uint32_t>(spec.model().variables_size())) return absl::OkStatus();  // the core refuses it
  const wire::v1::Variable& variable = spec.model().variables(static_cast<int>(id));
  const absl::StatusOr<DType> dtype = FromDLPack(tensor.dtype);
  const auto expected = static_cast<DType>(variable.dtype());
  const bool may_be_half = is_push && expected == DType::kF32;
  if (dtype.ok() && *dtype != expected && !(may_be_half && IsHalf(*dtype))) {
    return absl::InvalidArgumentError(absl::StrCat(what, " of \"", variable.name(), "\": elements are ", Name(*dtype),
                                                   ", expected ", Name(expected), may_be_half ? ", f16 or bf16" : ""));
  }
  bool same = tensor.ndim == variable.shape_size();
  for (int32_t axis = 0; same && axis < tensor.ndim; ++axis) same = tensor.shape[axis] == variable.shape(axis);
  if (same) return absl::OkStatus();
  auto text = [](auto begin, auto end) {
    std::string out = "[";
    for (auto at = begin; at != end; ++at) absl::StrAppend(&out, at == begin ? "" : ", ", *at);
    return out + "]";
  };
  return absl::InvalidArgumentError(absl::StrCat(what, " of \"", variable.name(), "\": shape ",
                                                 text(tensor.shape, tensor.shape + tensor.ndim), ", the variable's is ",
                                                 text(variable.shape().begin(), variable.shape().end())));
}

std::string NameOf(basin_client* client, uint32_t variable) {
  return client->session->Run([variable](ClientCore& core, absl::Time) {
    const bool known = core.spec() && variable < static_cast<uint32_t>(core.spec()->model().variables_size());
    return known ? absl::StrCat("\"", core.spec()->model().variables(static_cast<int>(variable)).name(), "\"")
                 : absl::StrCat("variable ", variable);
  });
}

// Takes the item's tensor: what the core is told of it, and the device's part, if it is one's.
class Taker final {
 public:
  Taker(basin_client* client, size_t count) : client_(client), count_(count) {}

  absl::StatusOr<absl::Span<char>> Take(const basin_tensor* tensor, size_t item, uint32_t variable,
                                        absl::string_view what) {
    BASIN_ASSIGN_OR_RETURN(const absl::Span<char> bytes, DenseBytes(tensor, variable, what));
    if (tensor->device.type == kCpu) return bytes;
    const auto named = [&](const absl::Status& status) {
      return absl::Status(status.code(), absl::StrCat(what, " of ", NameOf(client_, variable), ": ", status.message()));
    };
    const absl::StatusOr<DeviceCopies*> copies = client_->session->device_copies();
    if (!copies.ok()) return named(copies.status());
    if (copies_ != nullptr && update_.device != tensor->device.id) {
      return named(absl::InvalidArgumentError(absl::StrCat("cuda:", tensor->device.id, ", and cuda:", update_.device,
                                                           " in the same call; make a call for each device")));
    }
    copies_ = *copies;
    update_.device = tensor->device.id;
    update_.items.resize(count_);
    if (const absl::Status found = copies_->Check(update_.device, bytes.data(), bytes.size()); !found.ok()) {
      return named(found);
    }
    if (what == "pull") {
      update_.items[item].in = bytes.data();
    } else {
      update_.items[item].out = bytes.data();
    }
    return bytes;
  }

  // nullptr: all is host memory.
  DeviceCopies* copies() const { return copies_; }
  // Its items are there once one of them is a device's.
  DeviceUpdate& update() { return update_; }

 private:
  basin_client* const client_;
  const size_t count_;
  DeviceCopies* copies_ = nullptr;
  DeviceUpdate update_;
};

absl::Status Start(basin_client* client, const basin_item* items, size_t count, const basin_stream* given,
                   basin_call** call) {
  BASIN_RETURN_IF_ERROR(CheckProcess(client));
  if (count > 0 && items == nullptr) return absl::InvalidArgumentError("basin_start: items is NULL");
  BASIN_ASSIGN_OR_RETURN(const DeviceStream stream, StreamOf(given));
  absl::InlinedVector<UpdateItem, 8> update(count);
  auto handle = std::make_unique<basin_call>();
  Taker taker(client, count);
  for (size_t i = 0; i < count; ++i) {
    update[i].variable = VariableId(items[i].variable);
    // (One tensor may stand for both: pushed, then overwritten by the pull.)
    if (items[i].push != nullptr) {
      BASIN_ASSIGN_OR_RETURN(update[i].push, taker.Take(items[i].push, i, items[i].variable, "gradient"));
      update[i].push_dtype = *FromDLPack(items[i].push->dtype);
    }
    if (items[i].assign != nullptr) {
      BASIN_ASSIGN_OR_RETURN(update[i].assign, taker.Take(items[i].assign, i, items[i].variable, "value"));
    }
    if (items[i].pull != nullptr) {
      BASIN_ASSIGN_OR_RETURN(update[i].pull, taker.Take(items[i].pull, i, items[i].variable, "pull"));
    }
  }
  for (size_t i = 0; i < taker.update().items.size(); ++i) {
    update[i].writes_by_pieces = taker.update().items[i].out != nullptr;
    update[i].pulls_by_pieces = taker.update().items[i].in != nullptr;
  }
  DeviceUpdate* const on_device = taker.copies() == nullptr ? nullptr : &taker.update();
  if (on_device != nullptr) {
    BASIN_RETURN_IF_ERROR(client->session->PrepareDevice(on_device->device));
    BASIN_RETURN_IF_ERROR(
        SendHalvesOfDevice(client->gradient_dtype, *client->session, absl::MakeSpan(update), *on_device));
    BASIN_ASSIGN_OR_RETURN(on_device->after, taker.copies()->MarkNow(on_device->device, stream));
  } else if (stream.kind != BASIN_STREAM_NONE) {
    return absl::InvalidArgumentError("a stream is given, and all tensors of the call are in host memory; pass NULL");
  }
  std::shared_ptr<char> narrowed;
  if (IsHalf(client->gradient_dtype)) {
    BASIN_RETURN_IF_ERROR(NarrowGradients(client->gradient_dtype, *client->session, *client->spare_memory,
                                          absl::MakeSpan(update), &narrowed));
  }
  const auto is_large = [](const UpdateItem& item) {
    return std::max(item.push.size(), item.assign.size()) >= kLeastFrameBytes;
  };
  ClientSession::Lender lender;  // small payloads are copied at once
  if (on_device != nullptr || std::any_of(update.begin(), update.end(), is_large)) {
    lender = client->session->NewLender();
  }
  if (lender && narrowed) {
    // What is sent lies there, and is held with the caller's own buffers.
    using Held = std::pair<ClientSession::Lender, std::shared_ptr<char>>;
    lender = std::make_shared<const Held>(std::move(lender), narrowed);
  }
  handle->lent = lender;
  handle->on_device = on_device != nullptr;
  std::vector<UpdatePiece>* pieces = nullptr;
  if (on_device != nullptr) {
    on_device->lender = lender;
    pieces = &on_device->pieces;
  }
  const auto start = [&](ClientCore& core, absl::Time now) -> absl::StatusOr<CallId> {
    if (core.spec()) {
      for (size_t i = 0; i < count; ++i) {
        for (const auto& [tensor, what] : {std::pair(items[i].push, "gradient"), std::pair(items[i].assign, "value"),
                                           std::pair(items[i].pull, "pull")}) {
          if (tensor == nullptr) continue;
          BASIN_RETURN_IF_ERROR(CheckShape(*core.spec(), items[i].variable, *tensor, what, tensor == items[i].push));
        }
      }
    }
    return core.StartUpdate(update, lender, now, pieces);
  };
  BASIN_ASSIGN_OR_RETURN(handle->id, StartUpdate(client, start, on_device));
  handle->session = client->session;
  handle->process = client->process;
  *call = handle.release();
  return absl::OkStatus();
}

absl::Status OrderBefore(basin_call* call, const basin_stream* given) {
  if (call == nullptr) return absl::InvalidArgumentError("the call is NULL");
  BASIN_RETURN_IF_ERROR(CheckProcess(call->process));
  BASIN_ASSIGN_OR_RETURN(const DeviceStream stream, StreamOf(given));
  if (stream.kind == BASIN_STREAM_NONE)
    return absl::InvalidArgumentError("basin_call_order_before: no stream is given");
  if (!call->on_device) {
    return absl::InvalidArgumentError(
        "basin_call_order_before: the call is over host memory alone; wait for it with basin_call_wait");
  }
  return call->session->OrderBefore(call->id, stream);
}

}  // namespace

absl::StatusOr<DeviceStream> StreamOf(const basin_stream* stream) {
  if (stream == nullptr) return DeviceStream();
  if (stream->kind == BASIN_STREAM_NONE || stream->kind == BASIN_STREAM_CUDA) {
    return DeviceStream{.kind = stream->kind, .handle = stream->handle};
  }
  return absl::InvalidArgumentError(absl::StrCat("stream of kind ", stream->kind, "; expected 0 (none) or 1 (CUDA)"));
}

}  // namespace basin::abi

using basin::abi::Report;

extern "C" {

int32_t basin_start_on_stream(basin_client* client, const basin_item* items, size_t count, const basin_stream* stream,
                              basin_call** call, basin_status* status) {
  if (call == nullptr) return Report(absl::InvalidArgumentError("basin_start: call is NULL"), status);
  *call = nullptr;
  try {
    return Report(basin::abi::Start(client, items, count, stream, call), status);
  } catch (const std::bad_alloc&) {
    return Report(
        absl::ResourceExhaustedError(absl::StrCat("no memory for a call over ", count, " variables; nothing was sent")),
        status);
  }
}

int32_t basin_start(basin_client* client, const basin_item* items, size_t count, basin_call** call,
                    basin_status* status) {
  return basin_start_on_stream(client, items, count, nullptr, call, status);
}

int32_t basin_call_order_before(basin_call* call, const basin_stream* stream, basin_status* status) {
  try {
    return Report(basin::abi::OrderBefore(call, stream), status);
  } catch (const std::bad_alloc&) {
    return Report(absl::ResourceExhaustedError("no memory to order a stream behind a call"), status);
  }
}

}  // extern "C"
