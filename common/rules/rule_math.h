// What each rule does to one element, for the host's loops (apply.cc) and a device's kernels alike: the twins differ in
// the loop only. g is the gradient, w the parameter; a step takes the element's state and returns the next one.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define BASIN_HOST_DEVICE __host__ __device__
#else
#define BASIN_HOST_DEVICE
#endif

namespace basin {

// Robbins, Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22 (1951).
BASIN_HOST_DEVICE inline float SgdStep(float learning_rate, float g, float w) { return w - learning_rate * g; }

struct MomentumState {
  float w;
  float v;  // velocity
};

// Polyak's heavy ball, written as TensorFlow and Keras write it: the learning rate is inside the velocity.
BASIN_HOST_DEVICE inline MomentumState MomentumStep(float learning_rate, float momentum, float g, MomentumState s) {
  const float v = momentum * s.v - learning_rate * g;
  return {s.w + v, v};
}

// Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013,
// eq. 3-4, as TensorFlow and Keras write it: w is the looked-ahead point, where the next gradient is taken.
BASIN_HOST_DEVICE inline MomentumState NesterovStep(float learning_rate, float momentum, float g, MomentumState s) {
  const float scaled = learning_rate * g;
  const float v = momentum * s.v - scaled;
  return {s.w + (momentum * v - scaled), v};
}

struct AdagradState {
  float w;
  float a;  // sum of squared gradients, on top of the initial accumulator
};

// Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 12 (2011),
// the diagonal form. Epsilon is outside the root.
BASIN_HOST_DEVICE inline AdagradState AdagradStep(float learning_rate, float epsilon, float g, AdagradState s) {
  const float a = s.a + g * g;
  return {s.w - learning_rate * g / (std::sqrt(a) + epsilon), a};
}

// One accumulator for a whole row, of the mean of its squared gradients: Mudigere et al., "Software-hardware co-design
// for fast and scalable training of deep learning recommendation models", ISCA 2022. `a` is the row's accumulator after
// this application.
BASIN_HOST_DEVICE inline float RowwiseAdagradRate(float learning_rate, float epsilon, float a) {
  return learning_rate / (std::sqrt(a) + epsilon);
}

struct FtrlState {
  float w;
  float n;  // sum of squared gradients, on top of the initial accumulator
  float z;  // linear
};

// What is the same for all elements of one application.
struct FtrlNumbers {
  float inverse_rate;
  float l1;
  float two_l2;
  float beta;
};

// McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013, algorithm 1, with the numbers as
// TensorFlow's and Keras' Ftrl take them (learning_rate_power -0.5): l2 there is half of the paper's lambda 2.
// REQUIRES: learning_rate > 0.
inline FtrlNumbers FtrlNumbersAt(float learning_rate, float l1, float l2, float beta) {
  return {1.0f / learning_rate, l1, 2 * l2, beta};
}

BASIN_HOST_DEVICE inline FtrlState FtrlStep(const FtrlNumbers& c, float g, FtrlState s) {
  const float n = s.n + g * g;
  const float root = std::sqrt(n);
  const float z = s.z + (g - (root - std::sqrt(s.n)) * c.inverse_rate * s.w);
  const float shrunk = std::fabs(z) - c.l1;  // how far z is outside of [-l1, l1], inside of which the parameter is 0
  const float w = std::copysign(shrunk, z) / ((root + c.beta) * c.inverse_rate + c.two_l2);
  return {shrunk > 0 ? -w : 0.0f, n, z};
}

struct AdamState {
  float w;
  float m;  // first moment
  float v;  // second moment
};

// What is the same for all elements of one application.
struct AdamNumbers {
  float rate;  // the learning rate with both bias corrections
  float beta1;
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float epsilon;
};

// Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, the form before section 2.1, whose epsilon is
// the "epsilon hat" that TensorFlow and Keras have. In double: beta2^t is near 1, so 1 - beta2^t loses half of a
// float's bits. REQUIRES: step >= 1, counting this application.
BASIN_HOST_DEVICE inline AdamNumbers AdamNumbersAt(float learning_rate, float beta1, float beta2, float epsilon,
                                                   uint64_t step) {
  const double t = static_cast<double>(step);
  const double correction1 = 1.0 - std::pow(static_cast<double>(beta1), t);
  const double correction2 = 1.0 - std::pow(static_cast<double>(beta2), t);
  return {static_cast<float>(learning_rate * std::sqrt(correction2) / correction1),
          beta1,
          1.0f - beta1,
          beta2,
          1.0f - beta2,
          epsilon};
}

BASIN_HOST_DEVICE inline AdamState AdamStep(const AdamNumbers& n, float g, AdamState s) {
  const float m = n.beta1 * s.m + n.one_minus_beta1 * g;
  const float v = n.beta2 * s.v + n.one_minus_beta2 * g * g;
  return {s.w - n.rate * m / (std::sqrt(v) + n.epsilon), m, v};
}

// The running mean after `count` values, the last of which is x: Welford's update (Technometrics 4, 1962), which does
// not lose small values beside a large sum.
BASIN_HOST_DEVICE inline float RunningMean(float inverse_count, float x, float mean) {
  return mean + (x - mean) * inverse_count;
}

}  // namespace basin
