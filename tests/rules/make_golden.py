#!/usr/bin/env python3
"""Writes golden_values.h, the values that rules_test compares with: make_golden.py > golden_values.h

Written from the papers, in 60-digit decimals and, where a paper's form differs from the one in rule_math.h, in the
paper's: Nesterov's velocity and parameters apart, Adam with both corrected moments.
"""

from decimal import Decimal, getcontext
import struct

getcontext().prec = 60
STEPS = 6
# Exact in binary, with a zero gradient, changing signs and magnitudes far apart.
START = [Decimal(x) for x in ('0.5', '-1.25', '0', '3', '-0.0078125')]
GRADIENTS = [[Decimal(x) for x in row] for row in (
    ('0.25', '-0.5', '0', '8', '0.0009765625'),
    ('-0.125', '-0.5', '0', '6.5', '-0.001953125'),
    ('1', '0.75', '0', '-3', '0.0009765625'),
    ('0.0625', '-2', '0', '0.5', '0.00390625'),
    ('-1.5', '0.25', '0', '4', '-0.0009765625'),
    ('0.375', '1', '0', '-0.75', '0.001953125'))]


def f32(number):
    """The float that a C++ program holds for this literal."""
    return Decimal(struct.unpack('f', struct.pack('f', number))[0])


def sgd(rate):
    w = list(START)
    for gradient in GRADIENTS:
        w = [wi - rate * g for wi, g in zip(w, gradient)]
        yield [w]


def momentum(rate, mu):
    """Each velocity as the sum of all earlier gradients with their decay; the parameters as the sum of velocities."""
    w = list(START)
    for t in range(STEPS):
        v = [-rate * sum(mu ** (t - s) * GRADIENTS[s][i] for s in range(t + 1)) for i in range(len(w))]
        w = [wi + vi for wi, vi in zip(w, v)]
        yield [w, v]


def nesterov(rate, mu):
    """Sutskever et al. 2013, eq. 3-4: theta and v; what a server stores is the point theta + mu v."""
    theta, v = list(START), [Decimal(0)] * len(START)
    for gradient in GRADIENTS:
        v = [mu * vi - rate * g for vi, g in zip(v, gradient)]
        theta = [ti + vi for ti, vi in zip(theta, v)]
        yield [[ti + mu * vi for ti, vi in zip(theta, v)], v]


def adagrad(rate, epsilon, initial):
    """Duchi et al. 2011: the step is divided by the root of the sum of squares."""
    w = list(START)
    for t in range(STEPS):
        a = [initial + sum(GRADIENTS[s][i] ** 2 for s in range(t + 1)) for i in range(len(w))]
        w = [wi - rate / (ai.sqrt() + epsilon) * g for wi, ai, g in zip(w, a, GRADIENTS[t])]
        yield [w, a]


def adam(rate, beta1, beta2, epsilon_hat):
    """Kingma and Ba 2015, algorithm 1, with epsilon = epsilon_hat / sqrt(1 - beta2^t) as before their section 2.1."""
    w = list(START)
    m, v = [Decimal(0)] * len(w), [Decimal(0)] * len(w)
    for t, gradient in enumerate(GRADIENTS, 1):
        m = [beta1 * mi + (1 - beta1) * g for mi, g in zip(m, gradient)]
        v = [beta2 * vi + (1 - beta2) * g * g for vi, g in zip(v, gradient)]
        epsilon = epsilon_hat / (1 - beta2 ** t).sqrt()
        m_hat = [mi / (1 - beta1 ** t) for mi in m]
        v_hat = [vi / (1 - beta2 ** t) for vi in v]
        w = [wi - rate * mi / (vi.sqrt() + epsilon) for wi, mi, vi in zip(w, m_hat, v_hat)]
        yield [w, m, v]


def ftrl(rate, l1, l2, beta, initial):
    """McMahan et al. 2013, algorithm 1: the parameter from z and n alone; lambda 2 is twice the l2 of TensorFlow."""
    w, n, z = list(START), [initial] * len(START), [Decimal(0)] * len(START)
    for gradient in GRADIENTS:
        for i, g in enumerate(gradient):
            sigma = ((n[i] + g * g).sqrt() - n[i].sqrt()) / rate
            z[i] += g - sigma * w[i]
            n[i] += g * g
            sign = 1 if z[i] > 0 else -1
            w[i] = Decimal(0) if abs(z[i]) <= l1 else -(z[i] - sign * l1) / ((beta + n[i].sqrt()) / rate + 2 * l2)
        yield [list(w), list(n), list(z)]


def adagrad_rowwise(rate, epsilon, initial):
    """One accumulator of the mean of squares; shown once an element."""
    w = list(START)
    for t in range(STEPS):
        a = initial + sum(g ** 2 for s in range(t + 1) for g in GRADIENTS[s]) / len(START)
        w = [wi - rate / (a.sqrt() + epsilon) * g for wi, g in zip(w, GRADIENTS[t])]
        yield [w, [a] * len(w)]


def braces(rows):
    return '{' + ', '.join(f'{float(x):.17g}' for x in rows) + '}'


def emit(name, steps):
    steps = list(steps)
    print(f'// [step][0: parameters, then the slots][element]\n'
          f'inline constexpr double k{name}[{STEPS}][{len(steps[0])}][{len(START)}] = {{')
    for step in steps:
        print('    {' + ',\n     '.join(braces(values) for values in step) + '},')
    print('};\n')


def main():
    print('// Written by make_golden.py; do not edit.\n#pragma once\n\nnamespace basin::golden {\n')
    print(f'inline constexpr int kSteps = {STEPS};\ninline constexpr int kElements = {len(START)};\n')
    print(f'inline constexpr double kStart[kElements] = {braces(START)};')
    print('inline constexpr double kGradients[kSteps][kElements] = {')
    for gradient in GRADIENTS:
        print(f'    {braces(gradient)},')
    print('};\n')
    emit('Sgd', sgd(f32(0.01)))
    emit('Momentum', momentum(f32(0.01), f32(0.9)))
    emit('Nesterov', nesterov(f32(0.01), f32(0.9)))
    emit('Adagrad', adagrad(f32(0.05), f32(1e-7), f32(0.1)))
    emit('Adam', adam(f32(0.001), f32(0.9), f32(0.999), f32(1e-7)))
    emit('Ftrl', ftrl(f32(0.05), f32(0.25), f32(0.01), f32(0.5), f32(0.1)))
    emit('RowwiseAdagrad', adagrad_rowwise(f32(0.05), f32(1e-7), f32(0.1)))
    print('}  // namespace basin::golden')


if __name__ == '__main__':
    main()
