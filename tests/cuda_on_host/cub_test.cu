// The algorithms that stand in for CUB's.
#include <gtest/gtest.h>

#include <cstdint>
#include <cub/cub.cuh>
#include <vector>

namespace basin {
namespace {

template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : count_(values.size()) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), count_ * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~OnDevice() { EXPECT_EQ(cudaFree(data_), cudaSuccess); }
  T* data() const { return data_; }
  std::vector<T> Copy() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// call(storage, bytes): both calls of CUB's convention.
template <typename Call>
void RunTwice(Call call) {
  size_t bytes = 0;
  ASSERT_EQ(call(nullptr, bytes), cudaSuccess);
  ASSERT_GT(bytes, 0u);
  const OnDevice<char> storage{std::vector<char>(bytes)};
  ASSERT_EQ(call(storage.data(), bytes), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

using Numbers = std::vector<uint32_t>;

TEST(CubTest, SortIsStableByTheBitsThatAreAskedFor) {
  const OnDevice<uint32_t> keys(Numbers{0x13, 0x21, 0x32, 0x43, 0x51}), values(Numbers{0, 1, 2, 3, 4});
  const OnDevice<uint32_t> keys_out(Numbers(5)), values_out(Numbers(5));
  RunTwice([&](void* storage, size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(storage, bytes, keys.data(), keys_out.data(), values.data(),
                                           values_out.data(), 5, 0, 4);
  });
  EXPECT_EQ(keys_out.Copy(), (Numbers{0x21, 0x51, 0x32, 0x13, 0x43}));
  EXPECT_EQ(values_out.Copy(), (Numbers{1, 4, 2, 0, 3}));
  RunTwice([&](void* storage, size_t& bytes) {
    return cub::DeviceRadixSort::SortKeys(storage, bytes, keys_out.data(), values_out.data(), 5);
  });
  EXPECT_EQ(values_out.Copy(), (Numbers{0x13, 0x21, 0x32, 0x43, 0x51}));
}

TEST(CubTest, SumsMayBeInPlace) {
  const OnDevice<uint32_t> numbers(Numbers{3, 1, 4, 1, 5}), sum(Numbers(1));
  RunTwice([&](void* storage, size_t& bytes) {
    return cub::DeviceReduce::Sum(storage, bytes, numbers.data(), sum.data(), 5);
  });
  EXPECT_EQ(sum.Copy(), Numbers{14});
  RunTwice([&](void* storage, size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(storage, bytes, numbers.data(), numbers.data(), 5);
  });
  EXPECT_EQ(numbers.Copy(), (Numbers{0, 3, 4, 8, 9}));
  RunTwice([&](void* storage, size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(storage, bytes, numbers.data(), numbers.data(), 5);
  });
  EXPECT_EQ(numbers.Copy(), (Numbers{0, 3, 7, 15, 24}));
}

TEST(CubTest, WhatIsFlaggedAndWhatRepeatsIsFound) {
  const OnDevice<uint32_t> numbers(Numbers{7, 7, 8, 7, 9, 9}), out(Numbers(6)), lengths(Numbers(6)), count(Numbers(1));
  const OnDevice<uint8_t> flags(std::vector<uint8_t>{0, 1, 1, 0, 0, 1});
  RunTwice([&](void* storage, size_t& bytes) {
    return cub::DeviceSelect::Flagged(storage, bytes, numbers.data(), flags.data(), out.data(), count.data(), 6);
  });
  EXPECT_EQ(count.Copy(), Numbers{3});
  EXPECT_EQ(out.Copy(), (Numbers{7, 8, 9, 0, 0, 0}));
  RunTwice([&](void* storage, size_t& bytes) {
    return cub::DeviceRunLengthEncode::Encode(storage, bytes, numbers.data(), out.data(), lengths.data(), count.data(),
                                              6);
  });
  EXPECT_EQ(count.Copy(), Numbers{4});
  EXPECT_EQ(out.Copy(), (Numbers{7, 8, 7, 9, 0, 0}));
  EXPECT_EQ(lengths.Copy(), (Numbers{2, 1, 1, 2, 0, 0}));
}

}  // namespace
}  // namespace basin
