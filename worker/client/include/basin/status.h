// How Basin's C++ functions say what went wrong. Part of <basin/client.h>.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "basin/basin.h"

namespace basin {

// OK, or a code of basin.h with a message for a person.
class [[nodiscard]] Status final {
 public:
  Status() = default;
  Status(int32_t code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == BASIN_OK; }
  int32_t code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  int32_t code_ = BASIN_OK;
  std::string message_;
};

// Prints a failed status as one line on standard error. Returns main's exit code: 0; 2 where the input must be changed
// first (a wrong TF_CONFIG, shape or token); else 1.
inline int Exit(const Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", status.message().c_str());
  switch (status.code()) {
    case BASIN_INVALID_ARGUMENT:
    case BASIN_NOT_FOUND:
    case BASIN_ALREADY_EXISTS:
    case BASIN_PERMISSION_DENIED:
    case BASIN_FAILED_PRECONDITION:
    case BASIN_OUT_OF_RANGE:
    case BASIN_UNIMPLEMENTED:
    case BASIN_UNAUTHENTICATED:
      return 2;
    default:
      return 1;
  }
}

// A Status, or a value when it is OK. Reading the value of a failed result is undefined.
template <class T>
class [[nodiscard]] Result final {
 public:
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit, as returns want it
  Result(T value) : value_(std::move(value)) {}          // NOLINT
  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& operator*() { return *value_; }
  T* operator->() { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

namespace internal {
inline Status ToStatus(const basin_status& status) {
  return {status.code, status.code == BASIN_OK ? "" : status.message};
}
}  // namespace internal

}  // namespace basin
