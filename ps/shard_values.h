// Where the values of a shard lie, and how they change: its parameters and the slots of its rule. Twins: HostValues, in
// blocks of the ps's memory, and those of a ShardDevice, in the memory of a GPU. Whether something is applied, and as
// which version, is the Shard's to decide.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/rules/rule_spec.h"
#include "common/wire/control.pb.h"
#include "common/wire/frame.h"
#include "ps/gradient_view.h"

namespace basin {

struct ShardOptions {
  ShardId id;
  wire::v1::Variable variable;  // checked (run_spec.h)
  wire::v1::Rule rule;          // the variable's, or the model's
  uint64_t begin = 0, end = 0;  // elements of the variable, half-open

  uint64_t elements() const { return end - begin; }
  size_t bytes() const { return elements() * sizeof(float); }
  bool is_statistic() const { return variable.statistic() != wire::v1::STATISTIC_UNSPECIFIED; }
  // Of the rule; a statistic has none.
  size_t slots() const;
  // "\"w\" elements [0, 16)", for messages.
  std::string Place() const;
};

// Not thread-safe: its lane's. Frames that Read returned are read by other threads.
class ShardValues {
 public:
  virtual ~ShardValues() = default;

  // One push, as the rule or the statistic takes it.
  struct Push {
    // elements() of it. Holds still until Settle, but for one on the device, which its client may write to meanwhile:
    // each element is read once.
    GradientView gradient;
    uint64_t count = 1;  // pushes since the slots (or the statistic) began, this one included
    float learning_rate = 0;
  };
  // Each begins one change, and Settle ends it; between them nothing is begun. An error says why it was not begun, or
  // how it ended: then the values are as they were. INVALID_ARGUMENT: NaN or Inf; RESOURCE_EXHAUSTED: no memory;
  // INTERNAL: the device is lost.
  virtual absl::Status Apply(const Push& push) = 0;
  // New parameters; the slots start afresh.
  virtual absl::Status Assign(absl::Span<const char> parameters) = 0;
  virtual absl::Status Settle() = 0;
  // Assign, from the memory of the values' device, 64-byte aligned. INTERNAL: they have none.
  virtual absl::Status AssignOnDevice(const char* parameters);

  // The parameters, with the change that was begun. They hold still for as long as the frame lives; in a device's
  // memory, they are there once it has run.
  virtual absl::StatusOr<wire::Frame> Read() = 0;
  // The same bytes to memory of the values' device, 64-byte aligned, where they are once it has run. INTERNAL: they
  // have none.
  virtual absl::Status ReadOnDevice(char* to);
  // As they lie on the host, or nullptr; filled in if nobody has touched them.
  virtual const float* on_host() = 0;
};

// Of a gradient in which AllFinite has said no: which element is NaN or Inf.
absl::Status NotFiniteError(const ShardOptions& options, const GradientView& gradient);

}  // namespace basin
