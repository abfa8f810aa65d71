// How a row of a table lies in device memory. As on the host (rows.h),
//
//   [dim values in the table's storage type | slots in float32 | steps of this row]
//
// but each part begins where a device can read it at once: at a multiple of 16 bytes where dim is a multiple of 4 (then
// four neighbouring elements are one access), else of 4. `steps` has 4 bytes wherever there is one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/base/dtype.h"
#include "common/rules/rule_spec.h"

namespace basin {

struct CudaRowLayout {
  uint32_t dim = 0;
  uint32_t slots = 0;        // of slot_floats floats each
  uint32_t slot_floats = 0;  // dim, or 1
  uint32_t slots_offset = 0;
  uint32_t slot_bytes = 0;    // from one slot to the next
  uint32_t steps_offset = 0;  // the row's end where there are none
  uint32_t stride = 0;        // from one row to the next
  uint32_t value_bytes = 4;   // of one element
  bool vectors = false;       // elements are read and written four at a time
};

// REQUIRES: as for RowRule.
CudaRowLayout MakeCudaRowLayout(const RuleSpec& rule, DType storage, uint32_t dim);

// A row as RowRule has it (RowRule::row_bytes), of one copied from the device.
void ToHostRow(const CudaRowLayout& layout, size_t host_row_bytes, const char* device_row, char* host_row);

}  // namespace basin
