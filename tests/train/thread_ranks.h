// The twin of MpiGroup in one process: each rank is a thread. Sums are made in the order of the ranks.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "worker/train/all_reduce_group.h"

namespace basin {

// What the ranks of one launch share.
class ThreadRanks final {
 public:
  // Called with each sum before its ranks get it: tests spoil them.
  using Spoil = std::function<void(size_t sum, uint32_t rank, std::vector<float>& values)>;

  explicit ThreadRanks(uint32_t size, Spoil spoil = nullptr) : size_(size), spoil_(std::move(spoil)) {}
  uint32_t size() const { return size_; }

  // Runs `rank_main` in a thread a rank, and returns when all have ended. A rank that returns an error has left.
  template <typename Result>
  std::vector<Result> Run(const std::function<Result(AllReduceGroup&)>& rank_main) {
    std::vector<Result> results(size_, absl::UnknownError("it has not run"));
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < size_; ++rank) {
      threads.emplace_back([this, rank, &rank_main, &results] {
        Member member(*this, rank);
        results[rank] = rank_main(member);
        Left();
      });
    }
    for (std::thread& thread : threads) thread.join();
    return results;
  }

  // How many sums were started, by rank 0.
  size_t sums() const { return sums_; }

 private:
  // One call that all ranks make.
  struct Meeting {
    std::vector<std::vector<float>> values;  // by rank
    std::vector<std::string> texts;          // by rank
    uint32_t came = 0;
  };

  class Member final : public AllReduceGroup {
   public:
    Member(ThreadRanks& all, uint32_t rank) : all_(all), rank_(rank) {}
    uint32_t rank() const override { return rank_; }
    uint32_t size() const override { return all_.size_; }

    absl::StatusOr<size_t> StartSum(absl::Span<float> values, std::string what) override {
      lent_[next_] = {values, std::move(what)};
      if (rank_ == 0) ++all_.sums_;
      all_.Come(next_, rank_, {values.begin(), values.end()}, "");
      return next_++;
    }
    void Progress() override {}
    absl::StatusOr<absl::Time> Wait(size_t ticket) override {
      const Meeting* const meeting = all_.Met(ticket);
      if (meeting == nullptr) return absl::UnavailableError("a rank has left");
      const absl::Span<float> into = lent_[ticket].first;
      std::vector<float> sum(into.size());
      for (const std::vector<float>& values : meeting->values) {
        if (values.size() != sum.size()) return absl::InternalError("the ranks' sums are of different lengths");
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
      }
      if (all_.spoil_) all_.spoil_(sums_waited_, rank_, sum);
      ++sums_waited_;
      std::copy(sum.begin(), sum.end(), into.begin());
      return absl::Now();
    }
    absl::Status Broadcast(std::string* text) override {
      all_.Come(next_, rank_, {}, *text);
      const Meeting* const meeting = all_.Met(next_++);
      if (meeting == nullptr) return absl::UnavailableError("a rank has left");
      *text = meeting->texts[0];
      return absl::OkStatus();
    }
    absl::StatusOr<std::vector<std::string>> Gather(absl::string_view text) override {
      all_.Come(next_, rank_, {}, std::string(text));
      const Meeting* const meeting = all_.Met(next_++);
      if (meeting == nullptr) return absl::UnavailableError("a rank has left");
      return rank_ == 0 ? meeting->texts : std::vector<std::string>();
    }

   private:
    ThreadRanks& all_;
    const uint32_t rank_;
    size_t next_ = 0, sums_waited_ = 0;
    std::map<size_t, std::pair<absl::Span<float>, std::string>> lent_;
  };

  void Come(size_t ticket, uint32_t rank, std::vector<float> values, std::string text) {
    const MutexLock lock(mutex_);
    Meeting& meeting = meetings_[ticket];
    meeting.values.resize(size_);
    meeting.texts.resize(size_);
    meeting.values[rank] = std::move(values);
    meeting.texts[rank] = std::move(text);
    ++meeting.came;
    came_.NotifyAll();
  }
  // What nobody changes any more; null where a rank has left without it.
  const Meeting* Met(size_t ticket) {
    const MutexLock lock(mutex_);
    while (meetings_[ticket].came < size_ && left_ == 0) came_.Wait(mutex_);
    return meetings_[ticket].came < size_ ? nullptr : &meetings_[ticket];
  }
  void Left() {
    const MutexLock lock(mutex_);
    ++left_;
    came_.NotifyAll();
  }

  const uint32_t size_;
  const Spoil spoil_;
  size_t sums_ = 0;
  Mutex mutex_;
  CondVar came_;
  std::map<size_t, Meeting> meetings_ ABSL_GUARDED_BY(mutex_);
  uint32_t left_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace basin
