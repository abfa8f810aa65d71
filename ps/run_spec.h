// The model of a run: what a peer may declare, how two declarations are compared, and what placement makes of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster_spec/placement.h"
#include "cluster_spec/table_placement.h"
#include "common/wire/control.pb.h"

namespace basin {

// Bounds that keep a peer from making a ps allocate (limits.h), and everything that is not in this version, each
// by name. `model` may come from anybody.
absl::Status CheckModel(const wire::v1::Model& model);

// As declared, with what may be left out filled in: consistency, and each variable's and table's own rule taken away
// where it is the model's. Equal models have equal canonical forms.
wire::v1::Model Canonical(wire::v1::Model model);

// Whether `spec` has as many variables, tables and inputs as `declared`.
bool Covers(const wire::v1::Model& spec, const wire::v1::Model& declared);

// The first difference between the first variables, tables and inputs of `spec` and `declared` (both canonical), over
// as many as both have: INVALID_ARGUMENT with name and both values. With `loose`, rule, consistency, inputs and
// max_steps that `declared` leaves out are not compared: only the chief must say them.
absl::Status Compare(const wire::v1::Model& spec, const wire::v1::Model& declared, absl::string_view declarer,
                     bool loose);

// Whether `longer` says all that `shorter` says, and perhaps more variables, tables and inputs in further generations.
absl::Status CheckExtends(const wire::v1::RunSpec& shorter, const wire::v1::RunSpec& longer);

// A RunSpec with what is made of it.
class RunModel {
 public:
  // The coordinator's: generation 1 of a checked, canonical model.
  static absl::StatusOr<RunModel> Make(const std::string& run_id, uint32_t ps_count, const wire::v1::Model& model);
  // With the variables, tables and inputs of `model` that this one lacks as a further generation; itself where there
  // are none.
  absl::StatusOr<RunModel> Extended(const wire::v1::Model& model) const;
  // What came with an Install. Everything is checked.
  static absl::StatusOr<RunModel> Read(absl::string_view bytes, absl::string_view hash);

  const wire::v1::RunSpec& spec() const { return spec_; }
  const std::string& bytes() const { return bytes_; }
  const std::string& hash() const { return hash_; }  // 8 bytes, little-endian
  const Placement& placement() const { return placement_; }
  const TablePlacement& table_placement() const { return table_placement_; }
  const wire::v1::Rule& rule_of(const wire::v1::Variable& variable) const {
    return variable.has_rule() ? variable.rule() : spec_.model().rule();
  }
  const wire::v1::Rule& rule_of(const wire::v1::Table& table) const {
    return table.has_rule() ? table.rule() : spec_.model().rule();
  }
  uint64_t elements() const { return elements_; }
  uint64_t bytes_of_parameters() const { return parameter_bytes_; }

 private:
  RunModel(wire::v1::RunSpec spec, Placement placement);
  static absl::StatusOr<RunModel> Finish(wire::v1::RunSpec spec);

  wire::v1::RunSpec spec_;
  std::string bytes_, hash_;
  Placement placement_;
  TablePlacement table_placement_;
  uint64_t elements_ = 0, parameter_bytes_ = 0;
};

}  // namespace basin
