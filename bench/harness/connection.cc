#include "bench/harness/connection.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace basin::bench {

absl::StatusOr<Client> ConnectAsTold(const Json& spec) {
  Options options = Options::FromEnvironment();
  options.transport = spec.value("transport", "tcp");  // as the figure is named, whatever the environment says
  options.gradient_dtype = spec.value("gradient_dtype", "float32");
  options.start_timeout = std::chrono::duration<double>(spec.value("start_timeout_s", 30.0));
  options.unreachable_timeout = std::chrono::duration<double>(spec.value("unreachable_timeout_s", 30.0));
  options.max_bytes_in_flight = spec.value("in_flight_bytes", uint64_t{256} << 20);
  options.spin = std::chrono::microseconds(spec.value("spin_us", options.spin.count()));
  Result<Client> client = Client::Connect(options);
  if (!client.ok()) return FromLibrary(client.status());
  return std::move(*client);
}

Rule ToLibrary(const RuleSpec& rule) {
  switch (rule.kind) {
    case RuleKind::kMomentum:
      return Momentum{rule.learning_rate, rule.momentum, rule.nesterov};
    case RuleKind::kAdagrad:
      return Adagrad{rule.learning_rate, rule.initial_accumulator, rule.epsilon};
    case RuleKind::kAdam:
      return Adam{rule.learning_rate, rule.beta1, rule.beta2, rule.epsilon};
    default:
      return Sgd{rule.learning_rate};
  }
}

absl::StatusOr<ServerCounts> CountsOf(Client& client) {
  Result<std::string> text = client.Stats();
  if (!text.ok()) return FromLibrary(text.status());
  return CountsOf(*text);
}

absl::StatusOr<Floats> Floats::Make(size_t count) {
  Floats floats;
  floats.data_ = static_cast<float*>(basin_allocate(count * sizeof(float)));
  floats.count_ = count;
  if (floats.data_ == nullptr)
    return absl::ResourceExhaustedError(absl::StrCat("no memory for buffers of ", count * sizeof(float), " bytes"));
  return floats;
}

}  // namespace basin::bench
