// BASIN_RETURN_IF_ERROR, BASIN_ASSIGN_OR_RETURN for absl::Status, and BASIN_CHECK for our own bugs. A peer, a disk or a
// user never fails a CHECK: they get a Status.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define BASIN_RETURN_IF_ERROR(expr)                                                     \
  do {                                                                                  \
    if (absl::Status basin_status_ = (expr); !basin_status_.ok()) return basin_status_; \
  } while (0)

#define BASIN_CONCAT_INNER_(a, b) a##b
#define BASIN_CONCAT_(a, b) BASIN_CONCAT_INNER_(a, b)
#define BASIN_ASSIGN_OR_RETURN(lhs, expr) BASIN_ASSIGN_OR_RETURN_(BASIN_CONCAT_(basin_or_, __LINE__), lhs, expr)
#define BASIN_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                            \
  if (!tmp.ok()) return tmp.status();           \
  lhs = *std::move(tmp)

#define BASIN_CHECK(condition)                                                               \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (0)
