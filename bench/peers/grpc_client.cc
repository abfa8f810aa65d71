// Measures peer_grpc_server: peer_grpc_client PORT SECONDS. One channel, asynchronous calls, 16 MiB in flight. Every
// push adds ones, and the sums are pulled and compared at the end.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/peers/measurement.h"
#include "bench/peers/parameter_server.grpc.pb.h"

namespace basin::bench {
namespace {

void Must(const grpc::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "peer_grpc_client: %s\n", status.error_message().c_str());
  std::exit(1);
}

template <typename Reply>
struct Slot {
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Reply>> reader;
  Reply reply;
  grpc::Status status;
};

// start(context, queue) begins one call; `in_flight` of them are under way for `seconds`, after a tenth of warming up.
// `sent` counts all, warming up included.
template <typename Reply>
Measured Stream(size_t in_flight, double seconds, uint64_t* sent,
                const std::function<std::unique_ptr<grpc::ClientAsyncResponseReader<Reply>>(
                    grpc::ClientContext*, grpc::CompletionQueue*, uint64_t number)>& start) {
  grpc::CompletionQueue queue;
  std::vector<Slot<Reply>> slots(in_flight);
  const auto begin = [&](Slot<Reply>& slot) {
    slot.context = std::make_unique<grpc::ClientContext>();
    slot.reader = start(slot.context.get(), &queue, (*sent)++);
    slot.reader->Finish(&slot.reply, &slot.status, &slot);
  };
  const Stopwatch all;
  for (Slot<Reply>& slot : slots) begin(slot);
  Measured measured;
  double warm = -1;
  for (size_t under_way = in_flight; under_way > 0;) {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    Slot<Reply>& slot = *static_cast<Slot<Reply>*>(tag);
    Must(slot.status);
    const double now = all.seconds();
    if (warm < 0 && now > 0.1 * seconds)
      warm = now;
    else if (warm >= 0 && measured.seconds < seconds)
      measured = {measured.calls + 1, now - warm};
    if (warm < 0 || measured.seconds < seconds)
      begin(slot);
    else
      --under_way;
  }
  return measured;
}

class Client {
 public:
  explicit Client(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ =
        v1::ParameterServer::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }

  Measured Push(uint32_t variable, size_t bytes, double seconds, bool* checked) {
    const std::vector<float> before = Pull(variable, bytes / 4);
    v1::PushRequest request;
    request.set_variable(variable);
    request.mutable_gradient()->Resize(static_cast<int>(bytes / 4), 1.0f);
    uint64_t sent = 0;
    const Measured measured = Stream<v1::PushReply>(
        InFlight(bytes), seconds, &sent, [&](grpc::ClientContext* context, grpc::CompletionQueue* queue, uint64_t) {
          return stub_->AsyncPush(context, request, queue);
        });
    const std::vector<float> after = Pull(variable, bytes / 4);
    *checked = after.size() == before.size() && sent < (1 << 24);
    for (size_t i = 0; i < after.size() && *checked; ++i) *checked = after[i] == before[i] - static_cast<float>(sent);
    return measured;
  }

  Measured Pull(uint32_t variable, size_t bytes, double seconds) {
    (void)Pull(variable, bytes / 4);
    v1::PullRequest request;
    request.set_variable(variable);
    uint64_t sent = 0;
    return Stream<v1::PullReply>(InFlight(bytes), seconds, &sent,
                                 [&](grpc::ClientContext* context, grpc::CompletionQueue* queue, uint64_t) {
                                   return stub_->AsyncPull(context, request, queue);
                                 });
  }

  Measured PushRows(double seconds, bool* checked) {
    std::vector<v1::PushRowsRequest> requests(kTableRows / kTableBatch);
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::vector<uint64_t> keys = Keys(i);
      requests[i].mutable_keys()->Add(keys.begin(), keys.end());
      requests[i].mutable_gradient()->Resize(kTableBatch * kTableDim, 1.0f);
    }
    uint64_t sent = 0;
    const Measured measured =
        Stream<v1::PushReply>(InFlight(kTableBatch * kTableDim * 4), seconds, &sent,
                              [&](grpc::ClientContext* context, grpc::CompletionQueue* queue, uint64_t number) {
                                return stub_->AsyncPushRows(context, requests[number % requests.size()], queue);
                              });
    *checked = true;
    for (size_t i = 0; i < requests.size() && *checked; ++i) {
      const auto pushes = static_cast<float>(sent / requests.size() + (i < sent % requests.size() ? 1 : 0));
      v1::PullRowsRequest request;
      *request.mutable_keys() = requests[i].keys();
      v1::PullReply reply;
      grpc::ClientContext context;
      Must(stub_->PullRows(&context, request, &reply));
      for (const float value : reply.values()) *checked = *checked && value == -pushes;
    }
    return measured;
  }

  Measured PullRows(double seconds) {
    std::vector<v1::PullRowsRequest> requests(kTableRows / kTableBatch);
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::vector<uint64_t> keys = Keys(i);
      requests[i].mutable_keys()->Add(keys.begin(), keys.end());
    }
    uint64_t sent = 0;
    return Stream<v1::PullReply>(InFlight(kTableBatch * kTableDim * 4), seconds, &sent,
                                 [&](grpc::ClientContext* context, grpc::CompletionQueue* queue, uint64_t number) {
                                   return stub_->AsyncPullRows(context, requests[number % requests.size()], queue);
                                 });
  }

 private:
  std::vector<float> Pull(uint32_t variable, size_t elements) {
    v1::PullRequest request;
    request.set_variable(variable);
    request.set_elements(elements);
    v1::PullReply reply;
    grpc::ClientContext context;
    Must(stub_->Pull(&context, request, &reply));
    return {reply.values().begin(), reply.values().end()};
  }

  std::unique_ptr<v1::ParameterServer::Stub> stub_;
};

int Main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: peer_grpc_client PORT SECONDS\n");
    return 2;
  }
  Client client(std::string("127.0.0.1:") + argv[1]);
  const double seconds = std::atof(argv[2]);
  bool checked = false;
  uint32_t variable = 0;
  for (const size_t bytes : kPushBytes) {
    const Measured measured = client.Push(variable++, bytes, seconds, &checked);
    ReportBytes("push", bytes, measured, checked);
  }
  for (const size_t bytes : kPullBytes) ReportBytes("pull", bytes, client.Pull(variable++, bytes, seconds), false);
  const Measured small = client.Push(variable++, kSmallBytes, seconds, &checked);
  Report("push_small_single/floats:16", static_cast<double>(small.calls) / small.seconds, "pushes/s", checked);
  const Measured rows = client.PushRows(seconds, &checked);
  ReportRows("table_push", rows, checked);
  ReportRows("table_pull", client.PullRows(seconds), false);
  return 0;
}

}  // namespace
}  // namespace basin::bench

int main(int argc, char** argv) { return basin::bench::Main(argc, argv); }
