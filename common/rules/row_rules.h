// What each rule does to one row of a table, element by element, for the host's loops (rows.cc) and a device's kernels
// (cuda_rows.cu) alike: the twins differ in who takes which element.
//
// A rule has Begin, the steps of a row that are the same for all of its elements, then Element for each. A View is a
// row and the gradient that is applied to it:
//   float Gradient(i), Value(i), Slot(slot, i); void SetValue(i, w), SetSlot(slot, i, value)
//   float RowSlot(), void SetRowSlot(value)     the one number of row-wise Adagrad
//   float SumOfSquares()                        of the gradient: 16 sums, element i in sum i % 16 in ascending order,
//                                               then sum k takes sum k + 8 on, k + 4, k + 2, k + 1
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/rules/row_storage.h"
#include "common/rules/rows.h"
#include "common/rules/rule_math.h"

namespace basin::row_rules {

struct Sgd {
  static constexpr bool kSteps = false;
  static constexpr int kSlots = 0;  // of dim floats
  struct Numbers {
    float learning_rate;
  };
  template <class View>
  BASIN_INLINE static Numbers Begin(const RowNumbers& numbers, const View&, uint64_t) {
    return {numbers.learning_rate};
  }
  template <class View>
  BASIN_INLINE static void Element(const Numbers& numbers, const View& view, size_t i) {
    view.SetValue(i, SgdStep(numbers.learning_rate, view.Gradient(i), view.Value(i)));
  }
};

template <bool nesterov>
struct Momentum {
  static constexpr bool kSteps = false;
  static constexpr int kSlots = 1;
  struct Numbers {
    float learning_rate;
    float momentum;
  };
  template <class View>
  BASIN_INLINE static Numbers Begin(const RowNumbers& numbers, const View&, uint64_t) {
    return {numbers.learning_rate, numbers.momentum};
  }
  template <class View>
  BASIN_INLINE static void Element(const Numbers& numbers, const View& view, size_t i) {
    const MomentumState state{view.Value(i), view.Slot(0, i)};
    const MomentumState next = nesterov
                                   ? NesterovStep(numbers.learning_rate, numbers.momentum, view.Gradient(i), state)
                                   : MomentumStep(numbers.learning_rate, numbers.momentum, view.Gradient(i), state);
    view.SetValue(i, next.w);
    view.SetSlot(0, i, next.v);
  }
};

struct Adagrad {
  static constexpr bool kSteps = false;
  static constexpr int kSlots = 1;
  struct Numbers {
    float learning_rate;
    float epsilon;
  };
  template <class View>
  BASIN_INLINE static Numbers Begin(const RowNumbers& numbers, const View&, uint64_t) {
    return {numbers.learning_rate, numbers.epsilon};
  }
  template <class View>
  BASIN_INLINE static void Element(const Numbers& numbers, const View& view, size_t i) {
    const AdagradState next =
        AdagradStep(numbers.learning_rate, numbers.epsilon, view.Gradient(i), {view.Value(i), view.Slot(0, i)});
    view.SetValue(i, next.w);
    view.SetSlot(0, i, next.a);
  }
};

struct RowwiseAdagrad : Sgd {
  template <class View>
  BASIN_INLINE static Numbers Begin(const RowNumbers& numbers, const View& view, uint64_t) {
    const float a = view.RowSlot() + view.SumOfSquares() / static_cast<float>(numbers.dim);
    view.SetRowSlot(a);
    return {RowwiseAdagradRate(numbers.learning_rate, numbers.epsilon, a)};
  }
};

struct Adam {
  static constexpr bool kSteps = true;
  static constexpr int kSlots = 2;
  using Numbers = AdamNumbers;
  template <class View>
  BASIN_INLINE static Numbers Begin(const RowNumbers& numbers, const View&, uint64_t step) {
    if (step > numbers.correction_count) [[unlikely]]
      return AdamNumbersAt(numbers.learning_rate, numbers.beta1, numbers.beta2, numbers.epsilon, step);
    return {numbers.learning_rate * numbers.corrections[step - 1],
            numbers.beta1,
            1.0f - numbers.beta1,
            numbers.beta2,
            1.0f - numbers.beta2,
            numbers.epsilon};
  }
  template <class View>
  BASIN_INLINE static void Element(const Numbers& numbers, const View& view, size_t i) {
    const AdamState next = AdamStep(numbers, view.Gradient(i), {view.Value(i), view.Slot(0, i), view.Slot(1, i)});
    view.SetValue(i, next.w);
    view.SetSlot(0, i, next.m);
    view.SetSlot(1, i, next.v);
  }
};

struct Ftrl {
  static constexpr bool kSteps = false;
  static constexpr int kSlots = 2;
  using Numbers = FtrlNumbers;
  template <class View>
  BASIN_INLINE static Numbers Begin(const RowNumbers& numbers, const View&, uint64_t) {
    return {numbers.inverse_rate, numbers.l1, numbers.two_l2, numbers.beta};
  }
  template <class View>
  BASIN_INLINE static void Element(const Numbers& numbers, const View& view, size_t i) {
    const FtrlState next = FtrlStep(numbers, view.Gradient(i), {view.Value(i), view.Slot(0, i), view.Slot(1, i)});
    view.SetValue(i, next.w);
    view.SetSlot(0, i, next.n);
    view.SetSlot(1, i, next.z);
  }
};

}  // namespace basin::row_rules
