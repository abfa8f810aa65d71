// basin.h: the model and its declaration.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "cluster_spec/table_placement.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "worker/client/abi_dtype.h"
#include "worker/client/abi_types.h"

namespace basin::abi {

// DLPack's codes (dlpack.h, DLDataTypeCode).
absl::StatusOr<DType> FromDLPack(const basin_dtype& type) {
  if (type.lanes != 1 && type.lanes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a vector type of ", type.lanes, " lanes; expected 1"));
  }
  static constexpr std::pair<std::pair<int, int>, DType> known[] = {
      {{2, 32}, DType::kF32},  // the usual one first
      {{2, 64}, DType::kF64}, {{2, 16}, DType::kF16}, {{4, 16}, DType::kBF16}, {{0, 64}, DType::kI64},
      {{0, 32}, DType::kI32}, {{0, 8}, DType::kI8},   {{1, 8}, DType::kU8},    {{6, 8}, DType::kBool}};
  for (const auto& [key, dtype] : known) {
    if (key.first == type.code && key.second == type.bits) return dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown element type (DLPack code ", type.code, ", ", type.bits, " bits)"));
}

basin_dtype ToDLPack(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
    case DType::kF16:
      return {2, static_cast<uint8_t>(8 * SizeOf(dtype)), 1};
    case DType::kBF16:
      return {4, 16, 1};
    case DType::kU8:
      return {1, 8, 1};
    case DType::kBool:
      return {6, 8, 1};
    default:
      return {0, static_cast<uint8_t>(8 * SizeOf(dtype)), 1};
  }
}

namespace {

wire::v1::Rule ToProto(const basin_rule& rule) {
  wire::v1::Rule proto;
  proto.set_kind(static_cast<wire::v1::RuleKind>(rule.kind));
  proto.set_learning_rate(rule.learning_rate);
  proto.set_momentum(rule.momentum);
  proto.set_nesterov(rule.nesterov != 0);
  proto.set_beta1(rule.beta1);
  proto.set_beta2(rule.beta2);
  proto.set_epsilon(rule.epsilon);
  proto.set_initial_accumulator(rule.initial_accumulator);
  proto.set_l1(rule.l1);
  proto.set_l2(rule.l2);
  proto.set_beta(rule.beta);
  return proto;
}

basin_rule FromProto(const wire::v1::Rule& proto) {
  basin_rule rule;
  basin_rule_init(&rule, sizeof(rule), proto.kind(), proto.learning_rate());
  rule.momentum = proto.momentum();
  rule.nesterov = proto.nesterov() ? 1 : 0;
  rule.beta1 = proto.beta1();
  rule.beta2 = proto.beta2();
  rule.epsilon = proto.epsilon();
  rule.initial_accumulator = proto.initial_accumulator();
  rule.l1 = proto.l1();
  rule.l2 = proto.l2();
  rule.beta = proto.beta();
  return rule;
}

basin_initializer FromProto(const wire::v1::Initializer& proto) {
  return {proto.kind(), proto.a(), proto.b(), proto.seed()};
}

// REQUIRES: the kind is 0 (zeros) or known.
void Describe(const basin_initializer& from, wire::v1::Initializer* to) {
  to->set_kind(static_cast<wire::v1::InitKind>(from.kind == 0 ? BASIN_ZEROS : from.kind));
  to->set_a(from.a);
  to->set_b(from.b);
  to->set_seed(from.seed);
}

absl::StatusOr<wire::v1::Rule> CheckedRule(const basin_rule* given) {
  if (given == nullptr) return absl::InvalidArgumentError("the rule is NULL");
  basin_rule defaults;
  basin_rule_init(&defaults, sizeof(defaults), given->kind, given->learning_rate);
  const basin_rule rule = Known(given, defaults);
  if (rule.kind < BASIN_RULE_SGD || rule.kind > BASIN_RULE_ROWWISE_ADAGRAD) {
    return absl::InvalidArgumentError(
        absl::StrCat("rule kind ", rule.kind,
                     " is unknown; this version has SGD, momentum, Adagrad, Adam, FTRL and row-wise Adagrad (1 to 6)"));
  }
  return ToProto(rule);
}

absl::Status CheckUnique(const basin_model& model, absl::string_view name) {
  if (!model.names.contains(name)) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("\"", name, "\" is in the model already"));
}

absl::Status AddVariable(basin_model* model, const basin_variable* given, uint32_t* id) {
  if (model == nullptr) return absl::InvalidArgumentError("the model is NULL");
  basin_variable defaults = {};
  defaults.dtype = {2, 32, 1};
  const basin_variable variable = Known(given, defaults);
  BASIN_RETURN_IF_ERROR(CheckName(variable.name, "a variable"));
  const std::string name = variable.name;
  if (variable.ndim < 0 || variable.ndim > static_cast<int32_t>(kMaxRank) ||
      (variable.ndim > 0 && variable.shape == nullptr)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name, "\": rank ", variable.ndim, "; expected 0 to ", kMaxRank, " and a shape"));
  }
  BASIN_RETURN_IF_ERROR(CheckUnique(*model, name));
  const absl::StatusOr<DType> dtype = FromDLPack(variable.dtype);
  if (!dtype.ok()) return absl::InvalidArgumentError(absl::StrCat("\"", name, "\": ", dtype.status().message()));
  wire::v1::Variable proto;
  proto.set_name(name);
  proto.set_dtype(static_cast<uint32_t>(*dtype));
  for (int32_t axis = 0; axis < variable.ndim; ++axis) {
    if (variable.shape[axis] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", name, "\": axis ", axis, " is ", variable.shape[axis], "; expected 0 or more"));
    }
    proto.add_shape(variable.shape[axis]);
  }
  const int32_t init = variable.initializer.kind;
  if (init != 0 && (init < BASIN_ZEROS || init > BASIN_ASSIGNED)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\": initializer kind ", init, " is unknown"));
  }
  Describe(variable.initializer, proto.mutable_initializer());
  if (variable.statistic < BASIN_TRAINED || variable.statistic > BASIN_STATISTIC_LAST) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\": statistic ", variable.statistic, " is unknown"));
  }
  proto.set_statistic(static_cast<wire::v1::Statistic>(variable.statistic));
  if (variable.rule != nullptr) {
    BASIN_ASSIGN_OR_RETURN(*proto.mutable_rule(), CheckedRule(variable.rule));
  }
  if (id != nullptr) *id = static_cast<uint32_t>(model->proto.variables_size());
  model->names.insert(name);
  *model->proto.add_variables() = std::move(proto);
  return absl::OkStatus();
}

absl::Status AddTable(basin_model* model, const basin_table* given, uint32_t* id) {
  if (model == nullptr) return absl::InvalidArgumentError("the model is NULL");
  if (given == nullptr) return absl::InvalidArgumentError("basin_model_add_table: table is NULL");
  const basin_table table = Known(given, basin_table{});
  BASIN_RETURN_IF_ERROR(CheckName(table.name, "a table"));
  const auto refuse = [&](const auto&... why) {
    return absl::InvalidArgumentError(absl::StrCat("table \"", table.name, "\": ", why...));
  };
  BASIN_RETURN_IF_ERROR(CheckUnique(*model, table.name));
  if (static_cast<size_t>(model->proto.tables_size()) >= kMaxTables)
    return refuse("the model has ", kMaxTables, " tables already, the most there can be");
  if (table.dim < 1 || table.dim > kMaxTableDim) return refuse("dim is ", table.dim, ", expected 1 to ", kMaxTableDim);
  // All zeros: float32, as for a variable whose dtype is not set by an older caller.
  const bool unset = table.storage.code == 0 && table.storage.bits == 0;
  const absl::StatusOr<DType> storage = unset ? DType::kF32 : FromDLPack(table.storage);
  if (!storage.ok()) return refuse("storage: ", storage.status().message());
  if (*storage != DType::kF32 && *storage != DType::kF16 && *storage != DType::kBF16)
    return refuse("storage is ", Name(*storage), ", expected f32, f16 or bf16");
  const int32_t init = table.initializer.kind;
  if (init != 0 && (init < BASIN_ZEROS || init > BASIN_NORMAL))
    return refuse("initializer kind ", init, "; a row's is zeros, constant, uniform or normal (1 to 4)");
  if (!(table.admit_probability >= 0 && table.admit_probability <= 1))
    return refuse("admit_probability is ", table.admit_probability, ", expected 0 to 1 (0 and 1: always)");
  if (!(table.evict_unused_s >= 0 && table.evict_unused_s <= kMaxEvictUnusedMs / 1000))
    return refuse("evict_unused_s is ", table.evict_unused_s, ", expected 0 (never) to ", kMaxEvictUnusedMs / 1000);
  wire::v1::Table proto;
  proto.set_name(table.name);
  proto.set_dim(table.dim);
  proto.set_storage(static_cast<uint32_t>(*storage));
  Describe(table.initializer, proto.mutable_initializer());
  if (table.rule != nullptr) {
    BASIN_ASSIGN_OR_RETURN(*proto.mutable_rule(), CheckedRule(table.rule));
  }
  proto.set_admit_after(std::max(table.admit_after, 1u));
  proto.set_admit_probability(table.admit_probability == 0 ? 1 : table.admit_probability);
  // A time below a millisecond must not become "never".
  proto.set_evict_unused_ms(static_cast<uint64_t>(std::ceil(table.evict_unused_s * 1000)));
  proto.set_max_bytes(table.max_bytes);
  if (id != nullptr) *id = static_cast<uint32_t>(model->proto.tables_size());
  model->names.insert(table.name);
  *model->proto.add_tables() = std::move(proto);
  return absl::OkStatus();
}

absl::Status Declare(basin_client* client, const basin_model* model) {
  BASIN_RETURN_IF_ERROR(CheckProcess(client));
  MutexLock one_at_a_time(client->declare_mutex);
  ClientCore::Result result;
  const wire::v1::Model empty;
  BASIN_RETURN_IF_ERROR(RunToEnd(client, absl::InfiniteFuture(), &result, [&](ClientCore& core, absl::Time now) {
    return core.Declare(model == nullptr ? empty : model->proto, now);
  }));
  const wire::v1::RunSpec spec = client->session->Run([](ClientCore& core, absl::Time) { return *core.spec(); });
  MutexLock lock(client->described_mutex);
  client->described.clear();
  for (const wire::v1::Variable& proto : spec.model().variables()) {
    auto described = std::make_unique<basin_client::Described>();
    described->name = proto.name();
    described->shape.assign(proto.shape().begin(), proto.shape().end());
    described->rule = FromProto(proto.has_rule() ? proto.rule() : spec.model().rule());
    basin_variable& variable = described->variable;
    variable.size = sizeof(variable);
    variable.name = described->name.c_str();
    variable.ndim = static_cast<int32_t>(described->shape.size());
    variable.shape = described->shape.data();
    variable.dtype = ToDLPack(static_cast<DType>(proto.dtype()));
    variable.initializer = FromProto(proto.initializer());
    variable.statistic = proto.statistic();
    variable.rule = &described->rule;
    client->described.push_back(std::move(described));
  }
  client->described_tables.clear();
  for (const wire::v1::Table& proto : spec.model().tables()) {
    auto described = std::make_unique<basin_client::DescribedTable>();
    described->name = proto.name();
    described->rule = FromProto(proto.has_rule() ? proto.rule() : spec.model().rule());
    described->table = {.size = sizeof(basin_table),
                        .name = described->name.c_str(),
                        .dim = proto.dim(),
                        .storage = ToDLPack(static_cast<DType>(proto.storage())),
                        .initializer = FromProto(proto.initializer()),
                        .rule = &described->rule,
                        .admit_after = proto.admit_after(),
                        .admit_probability = proto.admit_probability(),
                        .evict_unused_s = static_cast<double>(proto.evict_unused_ms()) / 1000,
                        .max_bytes = proto.max_bytes()};
    client->described_tables.push_back(std::move(described));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace basin::abi

using basin::abi::Report;

extern "C" {

void basin_rule_init(basin_rule* rule, size_t size, int32_t kind, float learning_rate) {
  basin_rule defaults = {};
  defaults.kind = kind;
  defaults.learning_rate = learning_rate;
  if (kind == BASIN_RULE_MOMENTUM) defaults.momentum = 0.9f;
  const bool adagrad = kind == BASIN_RULE_ADAGRAD || kind == BASIN_RULE_ROWWISE_ADAGRAD;
  if (adagrad || kind == BASIN_RULE_FTRL) defaults.initial_accumulator = 0.1f;
  if (kind == BASIN_RULE_ADAM) {
    defaults.beta1 = 0.9f;
    defaults.beta2 = 0.999f;
  }
  if (adagrad || kind == BASIN_RULE_ADAM) defaults.epsilon = 1e-7f;
  if (rule == nullptr) return;
  rule->size = size;
  basin::abi::FillKnown(defaults, rule);
}

basin_model* basin_model_new(void) {
  auto* model = new basin_model;
  model->proto.set_consistency(basin::wire::v1::CONSISTENCY_ASYNC);
  basin_rule sgd;
  basin_rule_init(&sgd, sizeof(sgd), BASIN_RULE_SGD, 0.01f);
  *model->proto.mutable_rule() = basin::abi::ToProto(sgd);
  return model;
}
void basin_model_free(basin_model* model) { delete model; }

int32_t basin_model_add_variable(basin_model* model, const basin_variable* variable, uint32_t* id,
                                 basin_status* status) {
  return Report(basin::abi::AddVariable(model, variable, id), status);
}

int32_t basin_model_add_table(basin_model* model, const basin_table* table, uint32_t* id, basin_status* status) {
  return Report(basin::abi::AddTable(model, table, id), status);
}

int32_t basin_model_set_rule(basin_model* model, const basin_rule* rule, basin_status* status) {
  if (model == nullptr) return Report(absl::InvalidArgumentError("the model is NULL"), status);
  absl::StatusOr<basin::wire::v1::Rule> checked = basin::abi::CheckedRule(rule);
  if (checked.ok()) *model->proto.mutable_rule() = *checked;
  return Report(checked.status(), status);
}

int32_t basin_model_add_input(basin_model* model, const basin_input* given, basin_status* status) {
  const basin_input input = basin::abi::Known(given, basin_input{});
  if (model == nullptr) return Report(absl::InvalidArgumentError("the model is NULL"), status);
  if (const absl::Status named = basin::abi::CheckName(input.name, "an input"); !named.ok())
    return Report(named, status);
  if (input.items == 0 || input.piece_items == 0 || input.epochs == 0) {
    return Report(absl::InvalidArgumentError(absl::StrCat("input \"", input.name, "\": ", input.items,
                                                          " items in pieces of ", input.piece_items, " for ",
                                                          input.epochs, " epochs; each must be at least 1")),
                  status);
  }
  auto* proto = model->proto.add_inputs();
  proto->set_name(input.name);
  proto->set_items(input.items);
  proto->set_piece_items(input.piece_items);
  proto->set_epochs(input.epochs);
  proto->set_shuffle_seed(input.shuffle_seed);
  return Report(absl::OkStatus(), status);
}

void basin_model_set_max_steps(basin_model* model, uint64_t max_steps) {
  if (model != nullptr) model->proto.set_max_steps(max_steps);
}

int32_t basin_declare(basin_client* client, const basin_model* model, basin_status* status) {
  return Report(basin::abi::Declare(client, model), status);
}

int32_t basin_get_variable(basin_client* client, uint32_t id, basin_variable* variable, basin_status* status) {
  // Before the mutex, which a fork may have left locked.
  if (const absl::Status checked = basin::abi::CheckProcess(client); !checked.ok()) return Report(checked, status);
  if (variable == nullptr) return Report(absl::InvalidArgumentError("basin_get_variable: variable is NULL"), status);
  basin::MutexLock lock(client->described_mutex);
  if (id >= client->described.size()) {
    return Report(
        absl::NotFoundError(absl::StrCat("variable ", id, " does not exist; the model has ", client->described.size())),
        status);
  }
  basin::abi::FillKnown(client->described[id]->variable, variable);
  return Report(absl::OkStatus(), status);
}

int32_t basin_get_table(basin_client* client, uint32_t id, basin_table* table, basin_status* status) {
  if (const absl::Status checked = basin::abi::CheckProcess(client); !checked.ok()) return Report(checked, status);
  if (table == nullptr) return Report(absl::InvalidArgumentError("basin_get_table: table is NULL"), status);
  basin::MutexLock lock(client->described_mutex);
  if (id >= client->described_tables.size()) {
    return Report(absl::NotFoundError(
                      absl::StrCat("table ", id, " does not exist; the model has ", client->described_tables.size())),
                  status);
  }
  basin::abi::FillKnown(client->described_tables[id]->table, table);
  return Report(absl::OkStatus(), status);
}

}  // extern "C"
