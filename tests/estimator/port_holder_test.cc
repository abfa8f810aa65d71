#include "estimator/agent/port_holder.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace basin {
namespace {

PortRequest Want(uint32_t count) {
  PortRequest request;
  request.count = count;
  request.first = 25'000;
  request.last = 26'000;
  request.bind_address = "127.0.0.1";
  return request;
}

bool Has(const std::vector<uint32_t>& ports, uint32_t port) {
  return std::find(ports.begin(), ports.end(), port) != ports.end();
}

TEST(PortHolderTest, TwoHoldersNeverHaveTheSamePortAlsoOnceAListenerIsClosed) {
  PortHolder one, other;
  const std::vector<uint32_t> ports = one.Hold(Want(4)).value();
  std::vector<UniqueFd> names;
  for (const uint32_t port : ports) {
    HeldPort taken = one.Take(port).value();
    names.push_back(std::move(taken.name));
    taken.listener.Close();  // as for a script, which has not bound it yet
    EXPECT_FALSE(one.IsTaken(port));
    const std::vector<uint32_t> others = other.Hold(Want(4)).value();
    for (const uint32_t held : ports) EXPECT_FALSE(Has(others, held)) << held;
  }
}

TEST(PortHolderTest, APortIsFreeAgainOnceItsNameIs) {
  PortHolder one, other;
  PortRequest request = Want(1);
  const uint32_t port = one.Hold(request).value().at(0);
  HeldPort taken = one.Take(port).value();
  taken.listener.Close();
  request.first = request.last = port;
  for (uint32_t custom = 2222; custom < 2222 + 8; ++custom) {
    if (custom != port) request.avoid.push_back(custom);
  }
  const absl::Status none = other.Hold(request).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(none.message().find("is of another Basin run"), absl::string_view::npos) << none;
  taken.name.Close();
  EXPECT_EQ(other.Hold(request).value(), std::vector<uint32_t>{port});
}

TEST(PortHolderTest, APortIsGivenAwayOnce) {
  PortHolder holder;
  const uint32_t port = holder.Hold(Want(1)).value().at(0);
  EXPECT_TRUE(holder.IsTaken(port));
  const HeldPort taken = holder.Take(port).value();
  EXPECT_GE(taken.listener.get(), 0);
  EXPECT_EQ(holder.Take(port).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(holder.Take(1).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace basin
