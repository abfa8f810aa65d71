// Measures a Redis server: peer_redis_client PORT SECONDS. SET and GET of whole values stand for push and pull, MSET
// and MGET of 64 B for rows; nothing is applied. One connection, pipelined, 16 MiB in flight.
#include <hiredis/hiredis.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "bench/peers/measurement.h"

namespace basin::bench {
namespace {

using Words = std::vector<std::string>;

void Fail(const char* what) {
  std::fprintf(stderr, "peer_redis_client: %s\n", what);
  std::exit(1);
}

class Client {
 public:
  explicit Client(int port) : redis_(redisConnect("127.0.0.1", port)) {
    if (!redis_ || redis_->err != 0) Fail(redis_ ? redis_->errstr : "no memory");
  }
  ~Client() { redisFree(redis_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Commands from `commands`, one after another and again, `in_flight` at a time; each reply is shown to `check`.
  Measured Stream(const std::vector<Words>& commands, size_t in_flight, double seconds,
                  const std::function<bool(const redisReply&)>& check) {
    uint64_t sent = 0, answered = 0;
    Measured measured;
    double warm = -1;
    const Stopwatch all;
    while (true) {
      const double now = all.seconds();
      if (warm < 0 && now > 0.1 * seconds) {
        warm = now;
        answered = 0;
      }
      if (warm >= 0) measured = {answered, now - warm};
      if (measured.seconds >= seconds) break;
      // Half of what may be in flight at a time: fewer writes than one a command, and never an empty pipe.
      while (under_way_ < in_flight) Send(commands[sent++ % commands.size()]);
      while (under_way_ > in_flight / 2) answered += Answer(check);
    }
    while (under_way_ > 0) Answer(check);
    return measured;
  }

 private:
  void Send(const Words& words) {
    texts_.clear();
    sizes_.clear();
    for (const std::string& word : words) {
      texts_.push_back(word.data());
      sizes_.push_back(word.size());
    }
    if (redisAppendCommandArgv(redis_, static_cast<int>(words.size()), texts_.data(), sizes_.data()) != REDIS_OK)
      Fail(redis_->errstr);
    ++under_way_;
  }
  uint64_t Answer(const std::function<bool(const redisReply&)>& check) {
    void* reply = nullptr;
    if (redisGetReply(redis_, &reply) != REDIS_OK) Fail(redis_->errstr);
    if (!check(*static_cast<redisReply*>(reply))) Fail("an answer of another shape than asked for");
    freeReplyObject(reply);
    --under_way_;
    return 1;
  }

  redisContext* const redis_;
  size_t under_way_ = 0;
  std::vector<const char*> texts_;
  std::vector<size_t> sizes_;
};

bool IsOk(const redisReply& reply) { return reply.type == REDIS_REPLY_STATUS; }

int Main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: peer_redis_client PORT SECONDS\n");
    return 2;
  }
  Client client(std::atoi(argv[1]));
  const double seconds = std::atof(argv[2]);
  for (const size_t bytes : kPushBytes) {
    const std::vector<Words> set = {{"SET", "variable" + std::to_string(bytes), std::string(bytes, 'x')}};
    ReportBytes("push", bytes, client.Stream(set, InFlight(bytes), seconds, IsOk), false);
  }
  for (const size_t bytes : kPullBytes) {
    const std::vector<Words> get = {{"GET", "variable" + std::to_string(bytes)}};
    const auto whole = [&](const redisReply& reply) {
      return reply.type == REDIS_REPLY_STRING && static_cast<size_t>(reply.len) == bytes;
    };
    ReportBytes("pull", bytes, client.Stream(get, InFlight(bytes), seconds, whole), true);
  }
  const std::vector<Words> small = {{"SET", "small", std::string(kSmallBytes, 'x')}};
  const Measured sets = client.Stream(small, InFlight(kSmallBytes), seconds, IsOk);
  Report("push_small_single/floats:16", static_cast<double>(sets.calls) / sets.seconds, "pushes/s", false);

  std::vector<Words> push, pull;
  for (uint64_t batch = 0; batch < kTableRows / kTableBatch; ++batch) {
    push.push_back({"MSET"});
    pull.push_back({"MGET"});
    for (const uint64_t key : Keys(batch)) {
      push.back().push_back(std::string(reinterpret_cast<const char*>(&key), sizeof key));
      pull.back().push_back(push.back().back());
      push.back().push_back(std::string(kTableDim * sizeof(float), 'x'));
    }
  }
  const size_t in_flight = InFlight(kTableBatch * kTableDim * sizeof(float));
  ReportRows("table_push", client.Stream(push, in_flight, seconds, IsOk), false);
  // Every row is there before it is asked for.
  for (const Words& rows : push) client.Stream({rows}, 1, 0, IsOk);
  const auto all_rows = [](const redisReply& reply) {
    return reply.type == REDIS_REPLY_ARRAY && reply.elements == kTableBatch &&
           reply.element[0]->type == REDIS_REPLY_STRING;
  };
  ReportRows("table_pull", client.Stream(pull, in_flight, seconds, all_rows), true);
  return 0;
}

}  // namespace
}  // namespace basin::bench

int main(int argc, char** argv) { return basin::bench::Main(argc, argv); }
