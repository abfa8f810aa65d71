#include "worker/train/all_reduce_parameters.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rules/apply.h"

namespace basin {
namespace {

// Behind the gradients of the last buffer: sums that tell the ranks of each other.
enum Tail { kFailedRanks, kFailedRankNumbers, kLoss, kTailElements };

std::string Described(const FusedBuffer& layout, const std::vector<std::string>& names) {
  std::string text = names[layout.parts.front().variable];
  if (layout.parts.size() > 1) absl::StrAppend(&text, " to ", names[layout.parts.back().variable]);
  return text;
}

}  // namespace

AllReduceParameters::AllReduceParameters(const std::vector<VariableDecl>& variables, const RuleSpec& rule,
                                         uint64_t fusion_bytes, AllReduceGroup& group, Timeline* timeline)
    : group_(group), timeline_(timeline), update_(variables, rule) {
  std::vector<uint64_t> elements;
  for (const VariableDecl& variable : variables) {
    names_.push_back(variable.name);
    elements.push_back(variable.elements());
  }
  gradients_.resize(variables.size());
  buffer_of_.resize(variables.size());
  for (FusedBuffer& layout : FuseBackward(elements, fusion_bytes)) {
    Buffer buffer;
    buffer.text = Described(layout, names_);
    buffer.layout = std::move(layout);
    buffers_.push_back(std::move(buffer));
  }
  for (Buffer& buffer : buffers_) {
    const size_t index = static_cast<size_t>(&buffer - buffers_.data());
    const bool last = index + 1 == buffers_.size();
    buffer.values.resize(buffer.layout.elements + (last ? kTailElements : 0));
    buffer.waits_for = buffer.layout.parts.size();
    for (const FusedBuffer::Part& part : buffer.layout.parts) {
      gradients_[part.variable] = absl::MakeSpan(buffer.values).subspan(part.begin, elements[part.variable]);
      buffer_of_[part.variable] = index;
    }
    if (timeline_ != nullptr) {
      timeline_->NameRow(static_cast<uint32_t>(index + 1), absl::StrCat("buffer ", index, ": ", buffer.text));
    }
  }
}

void AllReduceParameters::Ready(size_t variable) {
  bool finite = true;
  for (float& value : gradients_[variable]) {
    value *= share_;
    finite &= std::isfinite(value);
  }
  if (!finite && failure_.empty()) failure_ = absl::StrCat("the gradient of ", names_[variable], " is no number");
  --buffers_[buffer_of_[variable]].waits_for;
  // The last buffer sets out with the loss, in StartUpdate. All ranks start them in the same order.
  while (started_ + 1 < buffers_.size() && buffers_[started_].waits_for == 0) Start(buffers_[started_]);
  group_.Progress();
}

void AllReduceParameters::Start(Buffer& buffer) {
  ++started_;
  if (!broken_.ok()) return;
  buffer.started = absl::Now();
  absl::StatusOr<size_t> ticket = group_.StartSum(
      absl::MakeSpan(buffer.values), absl::StrCat("the sum of the gradients ", buffer.text, " of step ", step_ + 1));
  if (ticket.ok()) {
    buffer.ticket = *ticket;
  } else {
    broken_ = ticket.status();
  }
}

absl::Status AllReduceParameters::StartUpdate(double loss, float learning_rate) {
  if (const absl::Status checked = CheckLoss(loss, step_ + 1); !checked.ok()) failure_ = std::string(checked.message());
  learning_rate_ = learning_rate;
  float* const tail = Tail();
  tail[kFailedRanks] = failure_.empty() ? 0 : 1;
  tail[kFailedRankNumbers] = failure_.empty() ? 0 : static_cast<float>(group_.rank());
  tail[kLoss] = failure_.empty() ? static_cast<float>(loss) * share_ : 0;
  Start(buffers_.back());
  ++step_;
  under_way_ = true;
  return broken_;
}

absl::Status AllReduceParameters::Settle() {
  if (!under_way_) return absl::OkStatus();
  under_way_ = false;
  started_ = 0;
  std::string not_finite;
  for (Buffer& buffer : buffers_) {
    BASIN_ASSIGN_OR_RETURN(const absl::Time done, group_.Wait(buffer.ticket));
    buffer.waits_for = buffer.layout.parts.size();
    const Timeline::Span span(timeline_, "update");
    if (timeline_ != nullptr) {
      timeline_->Add("all-reduce", static_cast<uint32_t>(&buffer - buffers_.data() + 1), buffer.started, done, step_,
                     buffer.values.size() * sizeof(float));
    }
    for (const FusedBuffer::Part& part : buffer.layout.parts) {
      if (!not_finite.empty()) break;
      const absl::Span<const float> gradient = gradients_[part.variable];
      if (!AllFinite(gradient)) {
        not_finite = names_[part.variable];
      } else {
        update_.Apply(part.variable, gradient, step_, learning_rate_);
      }
    }
  }
  mean_loss_ = Tail()[kLoss];
  if (not_finite.empty() && Tail()[kFailedRanks] == 0) return absl::OkStatus();
  return Failure(not_finite);
}

absl::Status AllReduceParameters::Failure(const std::string& not_finite) {
  const auto failed = static_cast<uint64_t>(Tail()[kFailedRanks]);
  const std::string in_all = absl::StrCat(" in rank ", group_.rank(), " of ", group_.size());
  constexpr char kAdvice[] = ": training has diverged; try a smaller --learning-rate";
  if (!failure_.empty()) {
    // Of the loss it says the rest already.
    const bool is_loss = failure_.find("at step") != std::string::npos;
    return absl::AbortedError(is_loss ? absl::StrCat(failure_, " (", in_all.substr(1), ")")
                                      : absl::StrCat(failure_, in_all, " at step ", step_, kAdvice));
  }
  if (failed == 0) {
    return absl::AbortedError(absl::StrCat("the sum of the ranks' gradients of ", not_finite, " is no number at step ",
                                           step_, ", though each rank's was", kAdvice));
  }
  const std::string who = failed == 1 ? absl::StrCat("rank ", static_cast<uint64_t>(Tail()[kFailedRankNumbers]))
                                      : absl::StrCat(failed, " of the ", group_.size(), " ranks");
  return absl::AbortedError(
      absl::StrCat(who, " computed a loss or a gradient that is no number at step ", step_, kAdvice));
}

}  // namespace basin
