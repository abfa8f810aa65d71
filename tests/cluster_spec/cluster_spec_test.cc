#include "cluster_spec/cluster_spec.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "cluster_spec/cluster_spec.pb.h"

namespace basin {
namespace {

using Indices = std::vector<int64_t>;

ClusterSpec ReadSpec(absl::string_view json) {
  auto spec = ClusterSpec::FromJson(json);
  EXPECT_TRUE(spec.ok()) << json << ": " << spec.status();
  return spec.ok() ? *std::move(spec) : ClusterSpec();
}

std::string ErrorOfSpec(absl::string_view json) {
  const auto spec = ClusterSpec::FromJson(json);
  return spec.ok() ? "no error" : std::string(spec.status().message());
}

// Through text, JSON, protobuf (also its bytes) and map.
void ExpectRoundTrips(const ClusterSpec& spec) {
  EXPECT_EQ(ReadSpec(spec.ToText()), spec);
  const ClusterSpec json = ReadSpec(spec.ToJson());
  EXPECT_EQ(json, spec);
  EXPECT_EQ(json.ToJson(), spec.ToJson());
  cluster_spec::v1::ClusterDef proto, copy;
  spec.ToProto(proto);
  ASSERT_TRUE(copy.ParseFromString(proto.SerializeAsString()));
  const auto from_proto = ClusterSpec::FromProto(copy);
  ASSERT_TRUE(from_proto.ok()) << from_proto.status();
  EXPECT_EQ(*from_proto, spec);
  const auto from_map = ClusterSpec::Make(spec.jobs());
  ASSERT_TRUE(from_map.ok()) << from_map.status();
  EXPECT_EQ(*from_map, spec);
}

constexpr char kBase[] =
    R"({"ps": ["ps0:2222", "ps1:2222"], "worker": ["worker0:2222", "worker1:2222", "worker2:2222"]})";

TEST(ClusterSpecTest, BaseClusterRoundTrips) {
  const ClusterSpec spec = ReadSpec(kBase);
  ExpectRoundTrips(spec);
  EXPECT_EQ(spec.ToJson(), kBase);
  EXPECT_EQ(spec.total_tasks(), 5u);
  EXPECT_EQ(*spec.num_tasks("worker"), 3u);
  EXPECT_EQ(*spec.task_indices("ps"), (Indices{0, 1}));
  EXPECT_EQ(*spec.task_address("worker", 1), "worker1:2222");
}

TEST(ClusterSpecTest, DenseClusterWithOtherPortsRoundTrips) {
  const ClusterSpec spec = ReadSpec(R"({"ps": ["ps0:1111"], "worker": ["worker0:3333", "worker1:4444"]})");
  ExpectRoundTrips(spec);
  EXPECT_EQ(spec.ToText(), R"({"ps": ["ps0:1111"], "worker": ["worker0:3333", "worker1:4444"]})");
}

TEST(ClusterSpecTest, SparseWorkersKeepTheirIndices) {
  const ClusterSpec spec = ReadSpec(R"({"ps": ["ps0:1111"], "worker": {"0": "worker0:3333", "2": "worker2:4444"}})");
  ExpectRoundTrips(spec);
  EXPECT_EQ(*spec.task_indices("worker"), (Indices{0, 2}));
  EXPECT_EQ(spec.ToJson(), R"({"ps": ["ps0:1111"], "worker": {"0": "worker0:3333", "2": "worker2:4444"}})");
}

TEST(ClusterSpecTest, AnEmptyJobIsKeptAndRoundTrips) {
  for (const char* json : {R"({"worker": []})", R"({"worker": {}})"}) {
    const ClusterSpec spec = ReadSpec(json);
    ExpectRoundTrips(spec);
    EXPECT_FALSE(spec.empty());
    EXPECT_EQ(*spec.num_tasks("worker"), 0u);
    EXPECT_TRUE(spec.job_tasks("worker")->empty());
    EXPECT_NE(spec, ClusterSpec());
  }
}

TEST(ClusterSpecTest, AnEmptySpecHasNoJobs) {
  EXPECT_TRUE(ReadSpec("{}").empty());
  EXPECT_EQ(ReadSpec("{}"), ClusterSpec());
  ExpectRoundTrips(ClusterSpec());
}

TEST(ClusterSpecTest, GapsArePaddedAndHaveNoAddress) {
  const ClusterSpec spec = ReadSpec(R"({"worker": {"3": "b:1", "0": "a:1"}})");
  EXPECT_EQ(*spec.num_tasks("worker"), 2u);
  EXPECT_EQ(*spec.task_indices("worker"), (Indices{0, 3}));
  EXPECT_EQ(*spec.job_tasks("worker"),
            (std::vector<std::optional<std::string>>{"a:1", std::nullopt, std::nullopt, "b:1"}));
  const auto address = spec.task_address("worker", 2);
  EXPECT_EQ(address.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(address.status().message(), "job \"worker\" has no task with index 2; its indices: 0, 3");
  EXPECT_FALSE(spec.task_address("worker", -1).ok());
  ExpectRoundTrips(spec);
}

TEST(ClusterSpecTest, AnUnknownJobIsAnErrorInAllFourAccessors) {
  const ClusterSpec spec = ReadSpec(kBase);
  for (const absl::Status& status : {spec.num_tasks("pss").status(), spec.task_indices("pss").status(),
                                     spec.job_tasks("pss").status(), spec.task_address("pss", 0).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(status.message(), "job \"pss\" is not in the cluster; its jobs: ps, worker");
  }
}

TEST(ClusterSpecTest, EqualityComparesIndexMaps) {
  EXPECT_EQ(ReadSpec(R"({"j": {"0": "h:1"}})"), ReadSpec(R"({"j": ["h:1"]})"));
  EXPECT_EQ(ReadSpec(R"({"a": ["h:1"], "b": ["h:2"]})"), ReadSpec(R"({"b": ["h:2"], "a": ["h:1"]})"));
  EXPECT_NE(ReadSpec(R"({"j": ["h:1"]})"), ReadSpec(R"({"k": ["h:1"]})"));
  EXPECT_NE(ReadSpec(R"({"j": ["h:1"]})"), ReadSpec(R"({"j": ["h:2"]})"));
  EXPECT_NE(ReadSpec(R"({"j": ["h:1", "h:2"]})"), ReadSpec(R"({"j": ["h:2", "h:1"]})"));
  EXPECT_NE(ReadSpec(R"({"j": ["h:1"]})"), ReadSpec(R"({"j": {"1": "h:1"}})"));
}

TEST(ClusterSpecTest, JobsKeepInsertionOrderButTextAndProtoAreSorted) {
  const ClusterSpec spec = ReadSpec(R"({"worker": ["w:1"], "chief": ["c:1"]})");
  EXPECT_EQ(spec.jobs()[0].name, "worker");
  EXPECT_EQ(spec.ToJson(), R"({"worker": ["w:1"], "chief": ["c:1"]})");
  EXPECT_EQ(spec.ToText(), R"({"chief": ["c:1"], "worker": ["w:1"]})");
  cluster_spec::v1::ClusterDef proto;
  spec.ToProto(proto);
  EXPECT_EQ(proto.job(0).name(), "chief");
}

TEST(ClusterSpecTest, ProtoHasTheBytesOfTensorFlowsClusterDef) {
  cluster_spec::v1::ClusterDef proto;
  ReadSpec(R"({"ps": {"1": "a:1"}})").ToProto(proto);
  // job { name: "ps" tasks { key: 1 value: "a:1" } }
  EXPECT_EQ(proto.SerializeAsString(), std::string("\x0a\x0d\x0a\x02ps\x12\x07\x08\x01\x12\x03"
                                                   "a:1"));
}

TEST(ClusterSpecTest, IndexKeysAreIntegers) {
  EXPECT_EQ(*ReadSpec(R"({"j": {"1": "h:1"}})").task_indices("j"), (Indices{1}));
  EXPECT_EQ(ErrorOfSpec(R"({"j": {"1.0": "h:1"}})"),
            "cluster line 1 column 8: job \"j\" index \"1.0\": expected an integer as the key; write it such as \"0\"");
  EXPECT_NE(ErrorOfSpec(R"({"j": {"": "h:1"}})"), "no error");
  EXPECT_NE(ErrorOfSpec(R"({"j": {"99999999999999999999": "h:1"}})"), "no error");
}

TEST(ClusterSpecTest, BadTasksAreRefusedWithJobIndexAndAddress) {
  EXPECT_EQ(ErrorOfSpec("{\"ps\": [\"ps0:1\",\n \"ps1\"]}"),
            "cluster line 2 column 2: job \"ps\" index 1 address \"ps1\": expected host:port, found no port; add one, "
            "such as ps1:2222");
  EXPECT_EQ(ErrorOfSpec(R"({"ps": ["a:1"], "worker": ["b:1", "A:1"]})"),
            "cluster job \"worker\" index 1 address \"A:1\": expected an address of its own, but job \"ps\" index 0 "
            "has it too; give one of "
            "them another port or host");
  EXPECT_EQ(ErrorOfSpec(R"({"ps": {"-1": "a:1"}})"),
            "cluster job \"ps\" index -1 address \"a:1\": expected an index of 0 or more; count from 0");
  EXPECT_EQ(ErrorOfSpec(R"({"ps": {"1": "a:1", "01": "b:1"}})"),
            "cluster line 1 column 27: job \"ps\" index 1 address \"b:1\": expected each index once, but index 1 has "
            "\"a:1\" already; remove one");
  EXPECT_EQ(ErrorOfSpec(R"({"ps": {"65536": "a:1"}})"),
            "cluster job \"ps\" index 65536 address \"a:1\": expected an index below 65536; count from 0");
  EXPECT_EQ(ErrorOfSpec(R"({"ps": [1]})"),
            "cluster line 1 column 9: job \"ps\" index 0: expected an address as a string, found a number; write "
            "\"host:port\"");
  EXPECT_NE(ErrorOfSpec(R"({"ps": "a:1"})"), "no error");
  EXPECT_NE(ErrorOfSpec(R"({"": ["a:1"]})"), "no error");
  EXPECT_NE(ErrorOfSpec(R"(["a:1"])"), "no error");
}

TEST(ClusterSpecTest, AJobGivenTwiceIsRefused) {
  const auto spec = ClusterSpec::Make({{"ps", {{0, "a:1"}}}, {"ps", {{0, "b:1"}}}});
  ASSERT_FALSE(spec.ok());
  EXPECT_EQ(spec.status().message(), "job \"ps\": expected each job once, found it twice; merge the two");
}

TEST(TaskIdTest, NamesReadBack) {
  const TaskId task{Role::kWorker, 1};
  EXPECT_EQ(task.Name(), "worker/1");
  EXPECT_EQ(task.Sentence(), "worker 1");
  EXPECT_EQ(*ParseTaskId("worker/1"), task);
  EXPECT_EQ(*ParseTaskId("worker 1"), task);
  EXPECT_EQ(*ParseTaskId("master/0"), (TaskId{Role::kChief, 0}));
  for (const char* text : {"", "worker", "worker/", "worker/-1", "boss/0", "worker/65536", "/1"})
    EXPECT_FALSE(ParseTaskId(text).ok()) << text;
}

}  // namespace
}  // namespace basin
