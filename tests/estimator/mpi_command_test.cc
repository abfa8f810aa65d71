#include "estimator/job/mpi_command.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"

namespace basin {
namespace {

TEST(MpiCommandTest, HostsAreNamedSoThatNoneIsTakenForAnother) {
  const std::string words = absl::StrJoin(MpirunCommand(3, 2), " ");
  EXPECT_TRUE(absl::StrContains(words, "--host localhost:2,basin-node-1:2,basin-node-2:2 -np 6")) << words;
  EXPECT_TRUE(absl::StrContains(words, "--map-by slot")) << words;  // ranks 0 and 1 on the first node
  EXPECT_TRUE(absl::EndsWith(words, " basin mpi-rank")) << words;
}

TEST(MpiCommandTest, AHostLeadsBackToItsNode) {
  for (const int node : {1, 2, 77}) EXPECT_EQ(NodeOfMpiHost(MpiHostName(node)), node);
  for (const char* other : {"localhost", "h1", "basin-node-", "basin-node-0", "basin-node-01", "basin-node--1",
                            "basin-node-1.cluster", " basin-node-1", "basin-node-99999999999"}) {
    EXPECT_EQ(NodeOfMpiHost(other), std::nullopt) << other;
  }
}

TEST(MpiCommandTest, RanksListenOnThePortsOfTheJob) {
  const auto settings = MpirunSettings({21000, 21999});
  const auto value = [&settings](const std::string& name) {
    const auto found =
        std::find_if(settings.begin(), settings.end(), [&](const auto& one) { return one.first == name; });
    return found == settings.end() ? "" : found->second;
  };
  EXPECT_EQ(value("OMPI_MCA_btl_tcp_port_min_v4"), "21000");
  EXPECT_EQ(value("OMPI_MCA_btl_tcp_port_range_v4"), "1000");
}

TEST(MpiCommandTest, VariablesOfMpirunAreTold) {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_SERVER_URI41", "OMPI_MCA_btl", "ORTE_X"}) {
    EXPECT_TRUE(IsMpiVariable(name)) << name;
  }
  for (const char* name : {"PATH", "RANK", "BASIN_RANK", "XPMIX_A"}) EXPECT_FALSE(IsMpiVariable(name)) << name;
}

TEST(MpirunTest, OpenMpi4IsTaken) {
  std::string version;
  EXPECT_TRUE(
      CheckMpirun("mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n", 0, &version)
          .ok());
  EXPECT_EQ(version, "Open MPI 4.1.4");
  // Lines of a `setup` come before.
  EXPECT_TRUE(CheckMpirun("Loading openmpi\nmpirun (Open MPI) 4.0.0\n", 0, &version).ok());
}

TEST(MpirunTest, WhatIsNoOpenMpi4IsNamed) {
  struct Case {
    const char* printed;
    int code;
    const char* named;
  };
  const Case cases[] = {
      {"mpirun (Open MPI) 5.0.3\n", 0, "mpirun is of Open MPI 5.0.3, whose flags differ"},
      {"HYDRA build details:\n    Version:                                 4.0.2\n", 0,
       "mpirun --version prints \"HYDRA build details: Version:                                 4.0.2\""},
      {"Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 20231005\n", 0,
       "prints \"Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 20231005\""},
      {"", 9, "mpirun --version ends with 9 and prints nothing"},
      {"program mpirun is not on this node's PATH (/bin)", 127, "mpirun is not there: program mpirun is not on"},
      {"bash: line 2: exec: mpirun: not found\n", 127, "mpirun is not there: bash: line 2"},
  };
  for (const Case& one : cases) {
    std::string version;
    const absl::Status status = CheckMpirun(one.printed, one.code, &version);
    EXPECT_TRUE(absl::IsFailedPrecondition(status));
    EXPECT_TRUE(absl::StrContains(status.message(), one.named)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "needs Open MPI 4; install it there")) << status;
  }
}

}  // namespace
}  // namespace basin
