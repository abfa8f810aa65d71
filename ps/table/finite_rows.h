// What a push's gradients are checked for, wherever the table lies.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/base/dtype.h"
#include "ps/table/host_table.h"

namespace basin {

// INVALID_ARGUMENT: one of n rows of gradients holds a NaN or an infinity, named by its key and place.
absl::Status CheckFinite(const StoredTableOptions& table, const char* keys, size_t n, const char* gradients,
                         DType type);

// The same, of what somebody else has found: "nan", and where.
absl::Status NotFiniteError(const StoredTableOptions& table, uint64_t key, absl::string_view what, size_t element);

}  // namespace basin
