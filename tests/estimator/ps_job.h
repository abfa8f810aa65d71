// A job of the ps backend on four nodes, and what a test adds to it.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "estimator/job/job.h"

namespace basin {

inline constexpr char kPsJob[] =
    "{experiment: ctr, entry_script: train.py, distributed_backend: ps, node_count: 4, parameter_server_count: 2, "
    "worker_count: 6";

inline absl::StatusOr<Job> JobWith(const std::string& more) {
  return ParseJob(absl::StrCat(kPsJob, more, "}"), "j.yaml");
}

inline Job GoodJob(const std::string& more) {
  absl::StatusOr<Job> job = JobWith(more);
  EXPECT_TRUE(job.ok()) << job.status();
  return job.value_or(Job());
}

}  // namespace basin
