// What the tests of plans share: a job from its text, and a planned task's variable.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "estimator/job/job.h"
#include "estimator/job/plan.h"

namespace basin {

inline Job JobOf(const std::string& text) {
  const auto job = ParseJob(text, "job.yaml", {{}, {}, "/home/me", ""});
  EXPECT_TRUE(job.ok()) << job.status();
  return *job;
}

inline std::string Variable(const PlannedTask& task, const std::string& name) {
  for (const auto& [known, value] : task.environment) {
    if (known == name) return value;
  }
  return "(not set)";
}

}  // namespace basin
