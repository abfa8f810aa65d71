#include "ps/input_queue.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "ps/mutants.h"

namespace basin {

// A Feistel network over the next even number of bits, walked until it lands within n again.
uint64_t Permute(uint64_t i, uint64_t n, uint64_t seed) {
  if (seed == 0 || n < 2) return i;
  const int half = std::max(1, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half) - 1;
  do {
    uint64_t left = i >> half, right = i & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t mixed = RandomAt(seed, round << 60 ^ right) & mask;
      left = std::exchange(right, left ^ mixed);
    }
    i = left << half | right;
  } while (i >= n);
  return i;
}

InputQueue::InputQueue(const wire::v1::Input& input)
    : input_(input),
      per_epoch_(input.items() / input.piece_items() + (input.items() % input.piece_items() != 0)),
      total_(per_epoch_ * input.epochs()) {}

uint32_t InputQueue::epoch() const {
  if (per_epoch_ == 0) return input_.epochs();
  const uint64_t piece = returned_.empty() ? next_ : *returned_.begin();
  return static_cast<uint32_t>(piece / per_epoch_);
}

wire::v1::InputPiece InputQueue::Describe(uint64_t piece) const {
  const auto epoch = static_cast<uint32_t>(piece / per_epoch_);
  const uint64_t seed = input_.shuffle_seed() == 0 ? 0 : RandomAt(input_.shuffle_seed(), epoch) | 1;
  const uint64_t place = Permute(piece % per_epoch_, per_epoch_, seed);
  wire::v1::InputPiece out;
  out.set_piece(piece);
  out.set_epoch(epoch);
  out.set_begin(place * input_.piece_items());
  out.set_end_item(std::min(input_.items(), (place + 1) * input_.piece_items()));
  return out;
}

absl::Status InputQueue::CheckNumber(const Holder& holder, uint64_t number) const {
  if (number == 0 || number > holder.last + 1) {
    return absl::OutOfRangeError(
        absl::StrCat("input \"", input_.name(), "\": request number ", number, ", expected ", holder.last + 1));
  }
  if (number <= holder.last && !holder.given.contains(number)) {
    return absl::OutOfRangeError(absl::StrCat("input \"", input_.name(), "\": request number ", number,
                                              " was answered long ago; the last is ", holder.last));
  }
  return absl::OkStatus();
}

void InputQueue::Remember(Holder& holder, uint64_t number, const wire::v1::InputPiece& piece) {
  holder.last = number;
  holder.given[number] = piece;
  if (holder.given.size() > kRemembered) holder.given.erase(holder.given.begin());
}

absl::StatusOr<std::optional<wire::v1::InputPiece>> InputQueue::Next(Incarnation client, uint64_t number) {
  Holder& holder = holders_[client];
  if (absl::Status status = CheckNumber(holder, number); !status.ok()) return status;
  if (number <= holder.last) return std::optional(holder.given.at(number));
  wire::v1::InputPiece answer;
  if (all_done()) {
    answer.set_end(true);
  } else {
    if (holder.leases >= kMaxLeases) {
      return absl::ResourceExhaustedError(absl::StrCat("input \"", input_.name(), "\": this client holds ",
                                                       holder.leases,
                                                       " pieces that it has not reported done; call Done for each"));
    }
    if (BASIN_MUTANT(kHandOutPieceTwice) && !leased_.empty()) {
      answer = Describe(leased_.begin()->first);
      leased_.begin()->second = client;
      ++holder.leases;
      Remember(holder, number, answer);
      return std::optional(answer);
    }
    uint64_t piece;
    if (!returned_.empty()) {
      piece = *returned_.begin();
      returned_.erase(returned_.begin());
    } else if (next_ < total_) {
      piece = next_++;
    } else {
      return std::optional<wire::v1::InputPiece>();
    }
    leased_[piece] = client;
    ++holder.leases;
    answer = Describe(piece);
  }
  Remember(holder, number, answer);
  return std::optional(answer);
}

absl::StatusOr<wire::v1::InputPiece> InputQueue::End(Incarnation client, uint64_t number) {
  Holder& holder = holders_[client];
  if (absl::Status status = CheckNumber(holder, number); !status.ok()) return status;
  if (number <= holder.last) return holder.given.at(number);
  wire::v1::InputPiece end;
  end.set_end(true);
  Remember(holder, number, end);
  return end;
}

absl::Status InputQueue::Done(Incarnation client, uint64_t piece) {
  Holder& holder = holders_[client];
  const auto lease = leased_.find(piece);
  if (lease != leased_.end() && lease->second == client) {
    leased_.erase(lease);
    --holder.leases;
    ++done_;
    holder.done.push_back(piece);
    if (holder.done.size() > kRemembered) holder.done.pop_front();
    return absl::OkStatus();
  }
  if (std::find(holder.done.rbegin(), holder.done.rend(), piece) != holder.done.rend()) return absl::OkStatus();
  if (BASIN_MUTANT(kCountLostLeaseAsDone) && piece < next_ && done_ < total_) {
    ++done_;
    return absl::OkStatus();
  }
  if (piece >= total_) {
    return absl::AbortedError(absl::StrCat("input \"", input_.name(), "\" has no piece ", piece, "; it has ", total_));
  }
  return absl::AbortedError(absl::StrCat("input \"", input_.name(), "\" piece ", piece,
                                         ": the lease went back, because this client was counted dead; ",
                                         "the piece is not counted for it, go on with NextInput"));
}

void InputQueue::Return(Incarnation client) {
  const auto holder = holders_.find(client);
  if (holder == holders_.end()) return;
  for (auto lease = leased_.begin(); lease != leased_.end();) {
    if (lease->second == client) {
      returned_.insert(lease->first);
      lease = leased_.erase(lease);
    } else {
      ++lease;
    }
  }
  holder->second.leases = 0;
}

void InputQueue::Forget(Incarnation client) { holders_.erase(client); }

}  // namespace basin
