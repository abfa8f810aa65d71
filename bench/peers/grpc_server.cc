// A parameter server as one writes it on gRPC: the synchronous server, a lock a variable, SGD with a learning rate
// of 1. Prints the port that it serves, and ends when its standard input does.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bench/peers/parameter_server.grpc.pb.h"

namespace basin::bench {
namespace {

constexpr size_t kRows = 1'000'000, kDim = 16;

struct Variable {
  std::mutex mutex;
  std::vector<float> values;
};

class Server final : public v1::ParameterServer::Service {
 public:
  Server() { table_.values.resize(kRows * kDim); }

  grpc::Status Push(grpc::ServerContext*, const v1::PushRequest* request, v1::PushReply*) override {
    Variable& variable = Find(request->variable());
    const std::lock_guard lock(variable.mutex);
    const size_t elements = request->gradient_size();
    if (variable.values.size() != elements) return Refused("pull the variable first, with as many elements");
    float* values = variable.values.data();
    const float* gradient = request->gradient().data();
    for (size_t i = 0; i < elements; ++i) values[i] -= gradient[i];
    return grpc::Status::OK;
  }

  grpc::Status Pull(grpc::ServerContext*, const v1::PullRequest* request, v1::PullReply* reply) override {
    Variable& variable = Find(request->variable());
    const std::lock_guard lock(variable.mutex);
    if (variable.values.empty()) variable.values.resize(request->elements());
    reply->mutable_values()->Add(variable.values.begin(), variable.values.end());
    return grpc::Status::OK;
  }

  grpc::Status PushRows(grpc::ServerContext*, const v1::PushRowsRequest* request, v1::PushReply*) override {
    if (static_cast<size_t>(request->gradient_size()) != request->keys_size() * kDim)
      return Refused("rows of 16 floats");
    const std::lock_guard lock(table_.mutex);
    const float* gradient = request->gradient().data();
    for (const uint64_t key : request->keys()) {
      if (key >= kRows) return Refused("keys below 1000000");
      float* row = &table_.values[key * kDim];
      for (size_t i = 0; i < kDim; ++i) row[i] -= gradient[i];
      gradient += kDim;
    }
    return grpc::Status::OK;
  }

  grpc::Status PullRows(grpc::ServerContext*, const v1::PullRowsRequest* request, v1::PullReply* reply) override {
    reply->mutable_values()->Reserve(static_cast<int>(request->keys_size() * kDim));
    const std::lock_guard lock(table_.mutex);
    for (const uint64_t key : request->keys()) {
      if (key >= kRows) return Refused("keys below 1000000");
      const float* row = &table_.values[key * kDim];
      reply->mutable_values()->Add(row, row + kDim);
    }
    return grpc::Status::OK;
  }

 private:
  static grpc::Status Refused(const char* expected) {
    return {grpc::StatusCode::INVALID_ARGUMENT, std::string("expected: ") + expected};
  }
  Variable& Find(uint32_t id) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Variable>& found = variables_[id];
    if (!found) found = std::make_unique<Variable>();
    return *found;
  }

  Variable table_;
  std::mutex mutex_;
  std::map<uint32_t, std::unique_ptr<Variable>> variables_;
};

int Main() {
  Server service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::fprintf(stderr, "peer_grpc_server: cannot listen on 127.0.0.1\n");
    return 1;
  }
  std::printf("%d\n", port);
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  server->Shutdown();
  return 0;
}

}  // namespace
}  // namespace basin::bench

int main() { return basin::bench::Main(); }
