// The threads of a CUDA block, in turn on the thread of the CPU that runs the block.
#pragma once

#include <vector_types.h>

#include <cstdint>
#include <functional>
#include <string>

namespace basin::cuda_on_host {

// What a kernel reads of itself: threadIdx, blockIdx, blockDim, gridDim.
struct Position {
  uint3 thread;
  uint3 block;
  uint3 block_size;
  uint3 grid_size;
};
extern constinit thread_local Position position;

// A place in a kernel's source.
struct Site {
  const char* file;
  int line;
  const char* function;
};
// As a default argument: of the call.
constexpr Site Here(const char* file = __builtin_FILE(), int line = __builtin_LINE(),
                    const char* function = __builtin_FUNCTION()) {
  return {file, line, function};
}

// Of the predicates of all threads of a block that met at a barrier.
struct Votes {
  int all;
  int any;
  int count;
};
Votes MeetBlock(int predicate, Site site);

enum class WarpOperation { kSync, kShuffle, kBallot, kMatch };
// Waits for the lanes in `mask`. kShuffle: the value of lane `source`; kBallot: the lanes whose value is not 0;
// kMatch: the lanes with this one's value.
uint64_t MeetWarp(WarpOperation operation, unsigned mask, uint64_t value, unsigned source, Site site);
// Of the calling thread in its warp.
unsigned Lane();

// Orders as the CPU does, for all that calls it.
void Fence();

// Runs every block of the grid, one by one. Aborts with a report where threads that should meet do not.
void RunGrid(const void* kernel, dim3 grid, dim3 block, const std::function<void()>& thread);
// "ColumnSums, block (1, 0, 0), thread (31, 2, 0)" where a kernel runs on this thread of the CPU, else "".
std::string WhatRuns();

}  // namespace basin::cuda_on_host
