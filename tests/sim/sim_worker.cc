#include "tests/sim/sim_worker.h"

#include "absl/strings/str_cat.h"
#include "cluster_spec/table_placement.h"
#include "common/codec/half.h"

namespace basin::sim {
namespace {

DType DTypeOfLife(uint32_t number) {
  return number % 3 == 0 ? DType::kF32 : number % 3 == 1 ? DType::kF16 : DType::kBF16;
}

ClientCoreOptions WithGradients(ClientCoreOptions options, DType dtype) {
  options.gradient_dtype = dtype;
  return options;
}

}  // namespace

uint64_t RowKey(uint32_t life, uint64_t row) {
  const uint64_t number = life * kRowsOfLife + row;
  if (row % 2 == 0) return number;
  const TablePlacement placement = TablePlacement::Make(1);  // as many buckets as for the simulation's few ps
  uint64_t key = number << 20;
  while (placement.BucketOf(key) != placement.BucketOf(number - 1)) ++key;
  return key;
}

bool RowsAreWhole(const std::vector<float>& rows) {
  for (size_t at = 0; at < rows.size(); ++at) {
    if (rows[at] != rows[at / (2 * kRowDim) * (2 * kRowDim)]) return false;
  }
  return true;
}

SimWorker::SimWorker(ClientCoreOptions options, wire::v1::Model model, uint32_t pushes_per_piece, Life& life,
                     Hooks hooks)
    : gradient_dtype_(DTypeOfLife(life.number)),
      core_(WithGradients(std::move(options), gradient_dtype_)),
      model_(std::move(model)),
      pushes_per_piece_(pushes_per_piece),
      life_(life),
      hooks_(std::move(hooks)),
      parameters_(kVariableElements),
      gradient_(kVariableElements) {
  for (uint64_t shard = 0; shard < kVariableElements / kShardElements; ++shard) {
    gradient_[shard * kShardElements + life_.number] = 1;
  }
  if (IsHalf(gradient_dtype_)) {
    narrow_gradient_.resize(gradient_.size());
    Narrow(gradient_dtype_, gradient_.data(), gradient_.size(), reinterpret_cast<char*>(narrow_gradient_.data()));
  }
  for (uint64_t row = 0; row < kRowsOfLife; ++row) keys_.push_back(RowKey(life_.number, row));
  rows_.resize(kRowsOfLife * kRowDim);
  row_gradients_.assign(kRowsOfLife * kRowDim, 1);
}

void SimWorker::Start(absl::Time now) { Await(State::kConnecting, core_.Connect(now)); }

std::string SimWorker::Describe(absl::Time now) const {
  return absl::StrCat("state ", static_cast<int>(state_), ", clock ", core_.clock().value(), ", ",
                      core_.WaitingFor(call_, now));
}

void SimWorker::End(const absl::Status& status) {
  state_ = State::kEnded;
  status_ = status;
}

CallId SimWorker::Push(absl::Time now) {
  ++life_.sent;
  const void* const gradient =
      IsHalf(gradient_dtype_) ? static_cast<const void*>(narrow_gradient_.data()) : gradient_.data();
  const UpdateItem item{.variable = VariableId(0),
                        .push = {static_cast<const char*>(gradient), gradient_.size() * SizeOf(gradient_dtype_)},
                        .push_dtype = gradient_dtype_};
  return *core_.StartUpdate({item}, nullptr, now);
}

CallId SimWorker::Pull(absl::Time now) {
  const absl::Span<char> parameters(reinterpret_cast<char*>(parameters_.data()), parameters_.size() * sizeof(float));
  return *core_.StartUpdate({{VariableId(0), {}, {}, parameters}}, nullptr, now);
}

CallId SimWorker::PushRows(absl::Time now) {
  ++life_.rows_sent;
  return *core_.StartRows({RowsItem{.keys = keys_, .push = row_gradients_.data()}}, now);
}

CallId SimWorker::PullRows(absl::Time now) {
  return *core_.StartRows({RowsItem{.keys = keys_, .pull = rows_.data()}}, now);
}

// What this life was told to be applied must be in what it reads.
void SimWorker::CheckRead() {
  for (uint64_t at = life_.number; at < kVariableElements; at += kShardElements) {
    const float read = -parameters_[at];
    if (read < static_cast<float>(life_.acknowledged) ||
        read > static_cast<float>(life_.acknowledged + life_.refused)) {
      hooks_.violation(absl::StrCat("life ", life_.number, " of worker ", life_.worker, " reads ", read,
                                    " of its pushes, ", life_.acknowledged, " were acknowledged"));
    }
  }
}

void SimWorker::CheckRowsRead() {
  if (!RowsAreWhole(rows_)) {
    hooks_.violation(absl::StrCat("life ", life_.number, " of worker ", life_.worker, " reads rows of one bucket that ",
                                  "were pushed together and differ"));
  }
  for (const float value : rows_) {
    if (-value < static_cast<float>(life_.rows_acknowledged) ||
        -value > static_cast<float>(life_.rows_acknowledged + life_.rows_refused)) {
      hooks_.violation(absl::StrCat("life ", life_.number, " of worker ", life_.worker, " reads ", -value,
                                    " of its pushes in a row, ", life_.rows_acknowledged, " were acknowledged"));
    }
  }
}

void SimWorker::Advance(absl::Time now) {
  while (state_ != State::kEnded && core_.done(call_)) {
    const ClientCore::Result result = core_.Take(call_);
    if (!core_.failure().ok()) return End(core_.failure());
    const bool pushing_rows = state_ == State::kPushingRows || state_ == State::kPushingRowsAgain;
    const bool pushing = state_ == State::kPushing || state_ == State::kPushingAgain || pushing_rows;
    if (!result.status.ok() && !pushing) {
      // A lost lease is no end: another task has the piece now.
      if (state_ == State::kFinishingPiece && result.status.code() == absl::StatusCode::kAborted) {
        Await(State::kAsking, core_.NextInput("train", now));
        continue;
      }
      return End(result.status);
    }
    if (pushing && !result.status.ok() && result.status.code() != absl::StatusCode::kInvalidArgument &&
        result.status.code() != absl::StatusCode::kOutOfRange) {
      return End(result.status);
    }
    switch (state_) {
      case State::kConnecting:
        life_.incarnation = core_.incarnation();
        life_.connected_at = now;
        hooks_.connected(life_);
        Await(State::kDeclaring, core_.Declare(model_, now));
        break;
      case State::kDeclaring:
        Await(State::kAsking, core_.NextInput("train", now));
        break;
      case State::kAsking:
        if (result.piece.end) {
          hooks_.barrier_entered(life_);
          Await(State::kBarrier, core_.Barrier("end", now));
          break;
        }
        piece_ = result.piece;
        pushed_ = 0;
        hooks_.piece_taken(life_, piece_);
        Await(State::kPulling, Pull(now));
        break;
      case State::kPulling:
        CheckRead();
        Await(State::kPullingRows, PullRows(now));
        break;
      case State::kPullingRows:
        CheckRowsRead();
        call_ = Push(now);
        second_push_ = Push(now);
        rows_push_ = PushRows(now);
        second_rows_push_ = PushRows(now);
        Await(State::kPushing, call_);
        break;
      case State::kPushing:
      case State::kPushingAgain:
        if (result.status.ok()) {
          ++life_.acknowledged;
          hooks_.acknowledged(life_);
        } else {
          ++life_.refused;
        }
        core_.Step({{"loss", 1.0}}, now);
        if (state_ == State::kPushing) {
          Await(State::kPushingAgain, second_push_);
        } else {
          Await(State::kPushingRows, rows_push_);
        }
        break;
      case State::kPushingRows:
      case State::kPushingRowsAgain:
        ++(result.status.ok() ? life_.rows_acknowledged : life_.rows_refused);
        if (state_ == State::kPushingRows) {
          Await(State::kPushingRowsAgain, second_rows_push_);
        } else if (++pushed_ < pushes_per_piece_) {
          Await(State::kPulling, Pull(now));
        } else {
          Await(State::kFinishingPiece, core_.InputDone("train", piece_.piece, now));
        }
        break;
      case State::kFinishingPiece:
        hooks_.piece_done(life_, piece_);
        Await(State::kAsking, core_.NextInput("train", now));
        break;
      case State::kBarrier:
        hooks_.barrier_left(life_);
        Await(State::kFinishing, core_.Finish("", now));
        break;
      case State::kFinishing:
        Await(State::kLeaving, core_.Goodbye(now));
        break;
      case State::kLeaving:
        life_.finished = true;
        return End(absl::OkStatus());
      case State::kEnded:
        return;
    }
  }
}

}  // namespace basin::sim
