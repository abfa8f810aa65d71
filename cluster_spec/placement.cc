#include "cluster_spec/placement.h"

#include <xxhash.h>

#include <algorithm>
#include <numeric>
#include <queue>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// A bound on the bytes of a model that leaves room for sums and rounding in 64 bits.
constexpr uint64_t kMaxModelBytes = uint64_t{1} << 60;
constexpr uint64_t kLine = kShardAlignmentBytes;

std::string Words(const PlacedVariable& variable) {
  return absl::StrCat("variable \"", absl::Utf8SafeCEscape(absl::string_view(variable.name).substr(0, kMaxNameBytes)),
                      "\"");
}

absl::StatusOr<uint64_t> CheckedBytes(const PlacedVariable& variable) {
  if (variable.name.empty() || variable.name.size() > kMaxNameBytes)
    return absl::InvalidArgumentError(absl::StrCat(Words(variable), ": expected a name of 1 to ", kMaxNameBytes,
                                                   " bytes, found ", variable.name.size(), "; rename it"));
  if (SizeOf(variable.dtype) == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(Words(variable), ": expected a dtype, found the number ", static_cast<int>(variable.dtype)));
  if (variable.shape.size() > kMaxRank)
    return absl::InvalidArgumentError(absl::StrCat(Words(variable), ": expected at most ", kMaxRank,
                                                   " dimensions, found ", variable.shape.size(), "; reshape it"));
  // A zero anywhere makes the product zero, whatever the other dimensions are.
  bool empty = false;
  for (size_t i = 0; i < variable.shape.size(); ++i) {
    if (variable.shape[i] < 0)
      return absl::InvalidArgumentError(absl::StrCat(Words(variable), ": expected dimensions of 0 or more, found ",
                                                     variable.shape[i], " at axis ", i, "; declare the full shape"));
    empty = empty || variable.shape[i] == 0;
  }
  if (empty) return 0;
  uint64_t bytes = SizeOf(variable.dtype);
  for (int64_t dimension : variable.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dimension), &bytes) || bytes > kMaxModelBytes)
      return absl::ResourceExhaustedError(absl::StrCat(
          Words(variable), ": expected at most 2^60 bytes, found a shape with more; use a table for what is sparse"));
  }
  return bytes;
}

// Into how many shards a variable goes. Cutting stops at 16 KiB even where the limit would ask for more: the line count
// is of full lines, so that the shard with the incomplete last line is not under 16 KiB either.
uint64_t ShardCount(uint64_t bytes, uint64_t limit_lines) {
  const uint64_t lines = (bytes + kLine - 1) / kLine;
  const uint64_t wanted = (lines + limit_lines - 1) / limit_lines;
  const uint64_t allowed = bytes / kLine / (kMinShardBytes / kLine);
  return std::max<uint64_t>(1, std::min(wanted, allowed));
}

class Digest {
 public:
  Digest() { XXH64_reset(state_.get(), 0); }
  void Add(uint64_t number) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(number >> (8 * i));
    XXH64_update(state_.get(), bytes, sizeof bytes);
  }
  void Add(const std::string& text) {
    Add(text.size());
    XXH64_update(state_.get(), text.data(), text.size());
  }
  uint64_t Value() const { return XXH64_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH64_state_t* state) const { XXH64_freeState(state); }
  };
  std::unique_ptr<XXH64_state_t, Free> state_{XXH64_createState()};
};

}  // namespace

struct Placement::State {
  int ps_count = 1;
  std::vector<PlacedVariable> variables;
  // One more than variables: where each one's shards begin, and the end.
  std::vector<uint32_t> first_shard{0};
  std::vector<ShardPlace> shards;
  std::vector<uint64_t> bytes_on;
  std::vector<uint32_t> shards_on;
  uint64_t total_bytes = 0;
  uint64_t digest = 0;

  uint64_t Bytes(const ShardPlace& shard) const {
    return shard.elements() * SizeOf(variables[shard.variable.value()].dtype);
  }

  // Little-endian 64-bit numbers: ps_count; per variable its name, dtype, rank, dimensions; per shard all its fields.
  uint64_t ComputeDigest() const {
    Digest out;
    out.Add(static_cast<uint64_t>(ps_count));
    out.Add(variables.size());
    for (const PlacedVariable& variable : variables) {
      out.Add(variable.name);
      out.Add(static_cast<uint64_t>(variable.dtype));
      out.Add(variable.shape.size());
      for (int64_t dimension : variable.shape) out.Add(static_cast<uint64_t>(dimension));
    }
    out.Add(shards.size());
    for (const ShardPlace& shard : shards) {
      out.Add(shard.variable.value());
      out.Add(shard.begin);
      out.Add(shard.end);
      out.Add(shard.ps.value());
      out.Add(shard.ordinal_on_ps);
    }
    return out.Value();
  }

  // Cuts variable `id` evenly; where the lines do not divide, the last shards get one line more.
  void Cut(uint32_t id, uint64_t bytes, uint64_t count) {
    const uint64_t elements_per_line = kLine / SizeOf(variables[id].dtype);
    const uint64_t elements = bytes / SizeOf(variables[id].dtype);
    const uint64_t lines = (bytes + kLine - 1) / kLine;
    const uint64_t extra_from = count - lines % count;
    uint64_t line = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t next = line + lines / count + (i >= extra_from ? 1 : 0);
      shards.push_back(
          {VariableId(id), line * elements_per_line, std::min(next * elements_per_line, elements), PsOrdinal(0), 0});
      line = next;
    }
    first_shard.push_back(static_cast<uint32_t>(shards.size()));
  }

  // Gives the shards from `begin` on their owners.
  void Assign(size_t begin) {
    std::vector<uint32_t> order(shards.size() - begin);
    std::iota(order.begin(), order.end(), static_cast<uint32_t>(begin));
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t a, uint32_t b) { return Bytes(shards[a]) > Bytes(shards[b]); });
    using Load = std::pair<uint64_t, uint32_t>;
    std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
    for (int ps = 0; ps < ps_count; ++ps) loads.emplace(bytes_on[ps], ps);
    for (uint32_t id : order) {
      const uint32_t ps = loads.top().second;
      loads.pop();
      shards[id].ps = PsOrdinal(ps);
      shards[id].ordinal_on_ps = shards_on[ps]++;
      bytes_on[ps] += Bytes(shards[id]);
      loads.emplace(bytes_on[ps], ps);
    }
  }
};

uint64_t PlacedVariable::elements() const {
  uint64_t product = 1;
  for (int64_t dimension : shape) product *= static_cast<uint64_t>(dimension);
  return product;
}

Placement Placement::Make(int ps_count) {
  BASIN_CHECK(ps_count >= 1 && static_cast<size_t>(ps_count) <= kMaxTasks);
  auto state = std::make_shared<State>();
  state->ps_count = ps_count;
  state->bytes_on.resize(ps_count);
  state->shards_on.resize(ps_count);
  state->digest = state->ComputeDigest();
  return Placement(std::move(state));
}

absl::StatusOr<Placement> Placement::Extend(absl::Span<const PlacedVariable> variables) const {
  auto next = std::make_shared<State>(*state_);
  if (variables.size() > kMaxVariables - next->variables.size())
    return absl::ResourceExhaustedError(
        absl::StrCat("expected at most ", kMaxVariables, " variables in a model, found ",
                     next->variables.size() + variables.size(), "; join small ones into one"));
  std::set<std::string> names;
  for (const PlacedVariable& variable : next->variables) names.insert(variable.name);
  std::vector<uint64_t> bytes;
  for (const PlacedVariable& variable : variables) {
    BASIN_ASSIGN_OR_RETURN(bytes.emplace_back(), CheckedBytes(variable));
    if (!names.insert(variable.name).second)
      return absl::AlreadyExistsError(
          absl::StrCat(Words(variable), ": expected each name once, found it declared before; rename one"));
    next->total_bytes += bytes.back();
    if (next->total_bytes > kMaxModelBytes)
      return absl::ResourceExhaustedError(
          absl::StrCat(Words(variable), ": with it the model has more than 2^60 bytes; make it smaller"));
    next->variables.push_back(variable);
  }
  // The mean load in bytes over 20, which is 5% of it.
  const uint64_t share = next->total_bytes / (static_cast<uint64_t>(next->ps_count) * 20);
  const uint64_t limit_lines = std::clamp<uint64_t>(share, kMinShardBytes, kMaxShardBytes) / kLine;
  const size_t first_new = next->shards.size();
  for (size_t i = 0; i < variables.size(); ++i) {
    const uint64_t count = ShardCount(bytes[i], limit_lines);
    if (count > kMaxShards - next->shards.size())
      return absl::ResourceExhaustedError(absl::StrCat(Words(variables[i]), ": with it the model has more than ",
                                                       kMaxShards, " shards; use a table for what is sparse"));
    next->Cut(static_cast<uint32_t>(state_->variables.size() + i), bytes[i], count);
  }
  next->Assign(first_new);
  next->digest = next->ComputeDigest();
  return Placement(std::move(next));
}

int Placement::ps_count() const { return state_->ps_count; }
const std::vector<PlacedVariable>& Placement::variables() const { return state_->variables; }
const std::vector<ShardPlace>& Placement::shards() const { return state_->shards; }
uint64_t Placement::bytes(ShardId id) const { return state_->Bytes(shard(id)); }

std::pair<ShardId, ShardId> Placement::shards_of(VariableId variable) const {
  return {ShardId(state_->first_shard[variable.value()]), ShardId(state_->first_shard[variable.value() + 1])};
}

uint64_t Placement::bytes_on(PsOrdinal ps) const { return state_->bytes_on[ps.value()]; }
uint32_t Placement::shards_on(PsOrdinal ps) const { return state_->shards_on[ps.value()]; }

double Placement::imbalance() const {
  if (state_->total_bytes == 0) return 1.0;
  const uint64_t fullest = *std::max_element(state_->bytes_on.begin(), state_->bytes_on.end());
  return static_cast<double>(fullest) * state_->ps_count / static_cast<double>(state_->total_bytes);
}

uint64_t Placement::digest() const { return state_->digest; }

std::string Placement::Listing() const {
  std::string out;
  for (const ShardPlace& shard : shards())
    absl::StrAppend(&out, variables()[shard.variable.value()].name, " [", shard.begin, ", ", shard.end, ") ps ",
                    shard.ps.value(), " #", shard.ordinal_on_ps, "\n");
  return out;
}

}  // namespace basin
