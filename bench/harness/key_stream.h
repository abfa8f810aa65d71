// Keys of embedding rows, synthetic: evenly over a table, or Zipf-like with the sizes that a public data set has.
// Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/random.h"

namespace basin::bench {

// The number of distinct values in the 26 categorical columns of the Criteo Kaggle display advertising data set, as
// published. Only these numbers are from there: keys drawn with them are synthetic.
inline constexpr uint64_t kCriteoCardinalities[] = {1460,  583,  10131227, 2202608, 305, 24,     12517,   633,   3,
                                                    93145, 5683, 8351593,  3194,    27,  14992,  5461306, 10,    5652,
                                                    2173,  4,    7046547,  18,      15,  286181, 105,     142572};

// A rank in [0, count), low ones more often: the inverse of the distribution function of a bounded Pareto with density
// rank^-exponent, of `unit` in [0, 1). REQUIRES: count >= 1, exponent > 0 and not 1.
uint64_t ZipfRank(uint64_t count, double exponent, double unit);

// `count` keys of a table of `rows` rows, all different, any as likely as another; the key of row i is i.
// REQUIRES: count <= rows.
std::vector<uint64_t> DifferentKeys(Random& random, uint64_t rows, size_t count);
// `count` keys of the columns in turn, Zipf-like in each; column c's rank r has the key c << 40 | r.
std::vector<uint64_t> CriteoKeys(Random& random, size_t count);

}  // namespace basin::bench
