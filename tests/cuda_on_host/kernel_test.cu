// What kernels do: blocks, barriers, warps, atomics. And what is told of kernels that are wrong.
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <vector>

#include "common/device/cuda_launch.h"
#include "tests/cuda_on_host/sanitizers.h"

namespace basin {
namespace {

constexpr unsigned kAll = 0xffffffffu;

// Runs the kernel on `values` in device memory, and returns what it leaves.
template <typename T, typename Kernel, typename... Arguments>
std::vector<T> RunOn(std::vector<T> values, Kernel kernel, dim3 grid, dim3 block, Arguments... arguments) {
  T* memory = nullptr;
  const size_t bytes = values.size() * sizeof(T);
  EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&memory), bytes), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(memory, values.data(), bytes, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(Launch(kernel, grid, block, nullptr, memory, arguments...), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(values.data(), memory, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
  return values;
}

__global__ void WritePosition(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + block * 1000 + thread;
}

TEST(KernelTest, EachThreadOfEachBlockRunsOnceWithItsPosition) {
  const auto found = RunOn(std::vector<unsigned>(2 * 3 * 2 * 4 * 2 * 3), WritePosition, dim3(2, 3, 2), dim3(4, 2, 3));
  for (unsigned i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], 1 + i / 24 * 1000 + i % 24);
}

__global__ void Reverse(int* values, int rounds) {
  __shared__ int shared[96];
  for (int i = 0; i < rounds; ++i) {
    shared[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
    __syncthreads();
  }
}

TEST(KernelTest, ThreadsMeetAtBarriers) {
  std::vector<int> values(96);
  std::iota(values.begin(), values.end(), 0);
  EXPECT_EQ(RunOn(values, Reverse, 1, 96, 2), values);
  const auto reversed = RunOn(values, Reverse, 1, 96, 3);
  EXPECT_EQ(reversed, std::vector<int>(values.rbegin(), values.rend()));
}

__global__ void VoteInBlock(int* out) {
  const int count = __syncthreads_count(threadIdx.x % 3 == 0);
  const int any = __syncthreads_or(threadIdx.x == 69), none = __syncthreads_or(0);
  const int all = __syncthreads_and(1), most = __syncthreads_and(threadIdx.x != 5);
  if (threadIdx.x != 7) return;
  out[0] = count;
  out[1] = any * 8 + none * 4 + all * 2 + most;
}

TEST(KernelTest, BarriersCountVotes) {
  EXPECT_EQ(RunOn(std::vector<int>(2), VoteInBlock, 1, 70), (std::vector<int>{24, 10}));
}

__global__ void Warps(int* out) {
  const int me = static_cast<int>(threadIdx.x), lane = me % 32;
  int* const mine = out + 8 * me;
  mine[0] = __shfl_sync(kAll, me, 3);
  mine[1] = __shfl_xor_sync(kAll, me, 1);
  mine[2] = __shfl_up_sync(kAll, me, 1);
  mine[3] = __shfl_down_sync(kAll, me, 2, 8);
  mine[4] = static_cast<int>(__ballot_sync(kAll, lane < 4));
  mine[5] = __any_sync(kAll, lane == 9) * 2 + __all_sync(kAll, lane != 9);
  mine[6] = static_cast<int>(__match_any_sync(kAll, lane / 16));
  // Halves of a warp that go different ways.
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  if (lane < 16) {
    mine[7] = __shfl_sync(half, me, 5);
  } else {
    mine[7] = __shfl_sync(half, -me, 20);
  }
}

TEST(KernelTest, LanesOfAWarpExchange) {
  const auto out = RunOn(std::vector<int>(64 * 8), Warps, 1, 64);
  for (int me = 0; me < 64; ++me) {
    const int lane = me % 32, first = me - lane;
    const int expected[] = {first + 3,
                            me ^ 1,
                            lane == 0 ? me : me - 1,
                            lane % 8 < 6 ? me + 2 : me,
                            0xf,
                            2,
                            static_cast<int>(lane < 16 ? 0xffffu : 0xffff0000u),
                            lane < 16 ? first + 5 : -(first + 20)};
    for (int i = 0; i < 8; ++i) EXPECT_EQ(out[8 * me + i], expected[i]) << "thread " << me << ", value " << i;
  }
}

__global__ void Count(unsigned long long* out) {
  atomicAdd(out, 1ull);
  atomicMax(out + 1, static_cast<unsigned long long>(threadIdx.x));
  atomicMin(out + 2, static_cast<unsigned long long>(100 + threadIdx.x));
  atomicOr(out + 3, 1ull << threadIdx.x);
  unsigned long long seen = out == nullptr ? 1 : 0;
  for (unsigned long long found; (found = atomicCAS(out + 4, seen, seen + 2)) != seen; seen = found) {
  }
  atomicAdd(reinterpret_cast<float*>(out + 5), 0.5f);
}

TEST(KernelTest, AtomicsOfAllBlocksCount) {
  const auto out = RunOn(std::vector<unsigned long long>{0, 0, 1000, 0, 0, 0}, Count, 10, 64);
  EXPECT_EQ(out[0], 640u);
  EXPECT_EQ(out[1], 63u);
  EXPECT_EQ(out[2], 100u);
  EXPECT_EQ(out[3], ~0ull);
  EXPECT_EQ(out[4], 1280u);
  float sum = 0;
  std::memcpy(&sum, &out[5], sizeof sum);
  EXPECT_EQ(sum, 320.0f);
}

TEST(KernelTest, AnImpossibleLaunchIsRefusedAndHarmsNothing) {
  EXPECT_EQ(Launch(VoteInBlock, 1, 1025, nullptr, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(Launch(VoteInBlock, 0, 32, nullptr, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

__global__ void HalfOfABarrier(int* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void TwoBarriers(int* out) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}
__global__ void LaneThatDoesNotCome(int* out) {
  if (threadIdx.x != 9) out[threadIdx.x] = __shfl_sync(kAll, 1, 0);
}
__global__ void LaneThatIsNotNamed(int* out) { out[threadIdx.x] = __shfl_sync(1u, 1, 0); }

template <typename Kernel>
void LaunchAndExit(Kernel kernel, dim3 grid, dim3 block, size_t bytes) {
  int* memory = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&memory), bytes);
  cudaMemset(memory, 0, bytes);
  Launch(kernel, grid, block, nullptr, memory);
  cudaDeviceSynchronize();
  std::exit(0);
}

class WrongKernelTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(WrongKernelTest, ABarrierThatNotAllReachIsTold) {
  EXPECT_DEATH(LaunchAndExit(HalfOfABarrier, 1, 64, 256),
               "divergence: .*HalfOfABarrier.*block \\(0, 0, 0\\)(.|\n)*thread \\(0, 0, 0\\) waits at the barrier "
               ".*kernel_test.cu(.|\n)*thread \\(40, 0, 0\\) has returned");
  EXPECT_DEATH(LaunchAndExit(TwoBarriers, 1, 64, 256), "TwoBarriers.*at two barriers at once");
}

TEST_F(WrongKernelTest, ALaneThatDoesNotComeIsTold) {
  EXPECT_DEATH(LaunchAndExit(LaneThatDoesNotCome, 1, 32, 256),
               "LaneThatDoesNotCome(.|\n)*thread \\(0, 0, 0\\) waits in a shuffle for lanes 0xffffffff(.|\n)*"
               "thread \\(9, 0, 0\\) has returned");
  EXPECT_DEATH(LaunchAndExit(LaneThatIsNotNamed, 1, 32, 256), "whose mask does not name it");
}

__global__ void BehindTheEnd(int* out) { out[1024 * 1024] = 1; }
__global__ void JustBehindTheEnd(int* out) { out[25] = 1; }

TEST_F(WrongKernelTest, WritingBehindAnAllocationIsTold) {
  EXPECT_DEATH(LaunchAndExit(BehindTheEnd, 1, 1, size_t{4} << 20), "BehindTheEnd.*touches .*byte 4194304 of a device");
  const auto free_it = [] {
    int* memory = nullptr;
    cudaMalloc(reinterpret_cast<void**>(&memory), 100);
    Launch(JustBehindTheEnd, 1, 1, nullptr, memory);
    cudaFree(memory);
    std::exit(0);
  };
  EXPECT_DEATH(free_it(), "byte 100 of a device memory of 100 bytes has been written");
}

__global__ void NoBarrier(int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = 1;
  out[threadIdx.x] = shared[63 - threadIdx.x];
}
__global__ void WarpWithoutSync(int* out) {
  out[threadIdx.x] = 1;
  if (threadIdx.x == 0) out[32] = out[31];
}
__global__ void BlocksOnOneElement(int* out) {
  if (threadIdx.x == 0) out[0] += 1;
}
__global__ void WithSync(int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = 1;
  __syncthreads();
  atomicAdd(out + 1, shared[63 - threadIdx.x]);
  if (threadIdx.x < 32) {
    out[blockIdx.x * 64 + 64 + threadIdx.x] = 1;
    __syncwarp();
    if (threadIdx.x == 0) out[blockIdx.x * 64 + 64] = out[blockIdx.x * 64 + 64 + 31];
  }
}

// The code with which a program ends after the thread sanitizer has told of something.
int CodeAfterARace() { return cuda_on_host::WatchesRaces() ? 66 : 0; }
const char* WordsOfARace() { return cuda_on_host::WatchesRaces() ? "data race" : ""; }

TEST_F(WrongKernelTest, ARaceIsToldWhereTheThreadSanitizerWatches) {
  const auto code = testing::ExitedWithCode(CodeAfterARace());
  EXPECT_EXIT(LaunchAndExit(NoBarrier, 1, 64, 4096), code, WordsOfARace());
  EXPECT_EXIT(LaunchAndExit(WarpWithoutSync, 1, 32, 4096), code, WordsOfARace());
  EXPECT_EXIT(LaunchAndExit(BlocksOnOneElement, 2, 32, 4096), code, WordsOfARace());
  EXPECT_EXIT(LaunchAndExit(WithSync, 8, 64, 4096), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace basin
