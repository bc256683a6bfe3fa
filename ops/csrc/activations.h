// The activations that can be fused with a batch norm, for one element, on the CPU and on GPUs.
#pragma once
#include "mish_math.h"

enum { MISH, RELU, SILU, LEAKY_RELU };  // same as in ops/norm_act.py

template <int D> FN float sigmoid(float z) { return reciprocal(1 + exponential<D>(-clamped(z, -88.0f, 88.0f))); }

// `D`: binary digits of the type in which the result is stored.
template <int Act, int D> FN float activate(float z, float slope) {
  if constexpr (Act == MISH) return mish<D>(z);
  else if constexpr (Act == RELU) return z < 0 ? 0 : z;
  else if constexpr (Act == SILU) return z * sigmoid<D>(z);
  else return z * (z < 0 ? slope : 1);
}

template <int Act, int D> FN float through(float dy, float z, float slope) {
  if constexpr (Act == MISH) return dy * mish_first<D>(z);
  else if constexpr (Act == RELU) return z <= 0 ? 0 : dy;
  else if constexpr (Act == SILU) {
    const float s = sigmoid<D>(z);
    return dy * (s * (1 + z * (1 - s)));
  } else return z > 0 ? dy : dy * slope;
}
