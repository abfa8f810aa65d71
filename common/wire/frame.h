// A frame is a piece of a message: immutable bytes with shared ownership. Copying a Frame copies a pointer.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace basin::wire {

class Frame {
 public:
  Frame() = default;
  // Bytes that `owner` keeps alive and that nobody changes while a copy of this frame exists.
  Frame(const char* data, size_t size, std::shared_ptr<const void> owner)
      : data_(data), size_(size), owner_(std::move(owner)) {}
  // `fill` writes into the new frame's memory before anyone else sees it.
  template <class Fill>
  static Frame Make(size_t size, Fill fill) {
    auto memory = std::make_shared_for_overwrite<char[]>(size);
    char* data = memory.get();
    fill(data);
    return Frame(data, size, std::move(memory));
  }
  static Frame Copy(absl::string_view bytes);

  const char* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  absl::string_view view() const { return {data_, size_}; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
  std::shared_ptr<const void> owner_;
};

struct Message {
  std::vector<Frame> frames;
  size_t bytes() const {
    size_t sum = 0;
    for (const Frame& frame : frames) sum += frame.size();
    return sum;
  }
};

}  // namespace basin::wire
