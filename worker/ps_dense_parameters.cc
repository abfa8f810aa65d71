#include "worker/ps_dense_parameters.h"

#include <cstdlib>
#include <numeric>

#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/model_file.h"

namespace basin {
namespace {

// Gradients on a device that are ready one after the other travel together until they are so many: as much as the
// client brings out of it in one copy. A call for each small variable would cost more than the moment that it waits.
constexpr uint64_t kGroupBytes = uint64_t{1} << 20;

std::vector<std::vector<size_t>> GroupsOf(const std::vector<VariableDecl>& declared, MemoryOf values) {
  std::vector<std::vector<size_t>> groups;
  if (values == MemoryOf::kHost) {
    groups.emplace_back(declared.size());
    std::iota(groups.back().begin(), groups.back().end(), 0);
    return groups;
  }
  uint64_t bytes = kGroupBytes;  // of the group so far
  for (size_t variable = declared.size(); variable-- > 0;) {
    if (bytes >= kGroupBytes) {
      groups.emplace_back();
      bytes = 0;
    }
    groups.back().push_back(variable);
    bytes += declared[variable].elements() * sizeof(float);
  }
  return groups;
}

}  // namespace

PsDenseParameters::PsDenseParameters(Client& client, Device& device, const std::vector<VariableDecl>& declared,
                                     const std::vector<std::pair<std::string, Variable>>& variables, bool pipeline,
                                     Timeline* timeline)
    : client_(client),
      device_(device),
      declared_(declared),
      variables_(variables),
      pipeline_(pipeline),
      timeline_(timeline),
      groups_(GroupsOf(declared, values())) {
  if (timeline_ != nullptr) timeline_->NameRow(1, "push and pull");
}

absl::StatusOr<PsDenseParameters::Values> PsDenseParameters::Make(bool pushed) const {
  Values made;
  for (const VariableDecl& variable : declared_) {
    const size_t elements = variable.elements(), bytes = elements * sizeof(float);
    if (!device_.is_host()) {
      BASIN_ASSIGN_OR_RETURN(DeviceMemory memory, device_.Allocate(bytes));
      made.memory.push_back(std::move(memory));
    } else if (pushed) {
      made.memory.emplace_back(basin_allocate(bytes), bytes, &basin_deallocate);
    } else {
      made.memory.emplace_back(std::calloc(elements, sizeof(float)), bytes, &std::free);
    }
    auto* const data = static_cast<float*>(made.memory.back().data());
    BASIN_CHECK(data != nullptr || elements == 0);
    made.read.emplace_back(data, elements);
    made.write.emplace_back(data, elements);
  }
  return made;
}

template <typename Buffer, typename Span>
std::vector<std::vector<Buffer>> PsDenseParameters::ByGroup(const std::vector<Span>& spans,
                                                            const Location& where) const {
  std::vector<std::vector<Buffer>> groups(groups_.size());
  for (size_t group = 0; group < groups.size(); ++group) {
    for (const size_t i : groups_[group]) {
      groups[group].emplace_back(variables_[i].second, spans[i].data(), spans[i].size(), where);
    }
  }
  return groups;
}

absl::Status PsDenseParameters::Start() {
  // With the pipeline a device may still compute on one set of parameters when another is shown and a third is pulled.
  const size_t parameter_sets = pipeline_ && values() == MemoryOf::kDevice ? 3 : 2;
  const Location where = values() == MemoryOf::kDevice ? Location::Cuda(device_.number()) : Location();
  for (int set = 0; set < (pipeline_ ? 2 : 1); ++set) {
    BASIN_ASSIGN_OR_RETURN(Values made, Make(/*pushed=*/true));
    push_.push_back(ByGroup<Source>(made.read, where));
    gradients_.push_back(std::move(made));
  }
  for (size_t set = 0; set < parameter_sets; ++set) {
    BASIN_ASSIGN_OR_RETURN(Values made, Make(/*pushed=*/false));
    pull_.push_back(ByGroup<Target>(made.write, where));
    parameters_.push_back(std::move(made));
  }
  std::vector<Target> all;
  for (size_t i = 0; i < variables_.size(); ++i) {
    const absl::Span<float> target = parameters_[current_].write[i];
    all.emplace_back(variables_[i].second, target.data(), target.size(), where);
  }
  return ToAbslStatus(client_.Pull(all).Wait());
}

void PsDenseParameters::Ready(size_t variable) {
  if (values() == MemoryOf::kDevice && variable == groups_[made_.size()].back()) made_.push_back(device_.Mark());
}

absl::Status PsDenseParameters::StartUpdate(double loss, float learning_rate) {
  // Nothing is pushed that was computed on parameters of an update that failed, or whose loss is no number.
  BASIN_RETURN_IF_ERROR(Collect());
  BASIN_RETURN_IF_ERROR(CheckLoss(loss, ++steps_));
  BASIN_RETURN_IF_ERROR(ToAbslStatus(client_.SetLearningRate(learning_rate)));
  started_ = absl::Now();
  shown_ = false;
  const size_t next = (current_ + 1) % parameters_.size();
  for (size_t group = 0; group < groups_.size(); ++group) {
    Stream stream;
    if (values() == MemoryOf::kDevice) {
      BASIN_ASSIGN_OR_RETURN(const void* const behind, device_.StreamAt(made_.at(group)));
      stream = Stream::Cuda(behind);
    }
    under_way_.push_back(client_.PushPull(push_[writing_][group], pull_[next][group], stream));
  }
  made_.clear();
  writing_ = (writing_ + 1) % gradients_.size();
  return absl::OkStatus();
}

absl::Status PsDenseParameters::Settle() {
  BASIN_RETURN_IF_ERROR(Collect());
  Show();
  return absl::OkStatus();
}

absl::Status PsDenseParameters::SettleInOrder() {
  if (values() == MemoryOf::kHost) return Settle();
  for (Call& call : under_way_) BASIN_RETURN_IF_ERROR(ToAbslStatus(call.OrderBefore(Stream::Cuda(device_.stream()))));
  Show();
  return absl::OkStatus();
}

void PsDenseParameters::Show() {
  if (!shown_) current_ = (current_ + 1) % parameters_.size();
  shown_ = true;
}

absl::Status PsDenseParameters::Collect() {
  if (under_way_.empty()) return absl::OkStatus();
  for (Call& call : under_way_) BASIN_RETURN_IF_ERROR(ToAbslStatus(call.Wait()));
  under_way_.clear();
  if (timeline_ != nullptr) {
    uint64_t bytes = 0;
    for (const absl::Span<const float> values : parameters_[0].read) bytes += values.size() * sizeof(float);
    timeline_->Add("push and pull", 1, started_, absl::Now(), steps_, bytes);
  }
  if (steps_ == 1) {
    Info(absl::StrFormat("first step, after %.3f s in the loop", absl::ToDoubleSeconds(absl::Now() - constructed_)));
  }
  return absl::OkStatus();
}

}  // namespace basin
