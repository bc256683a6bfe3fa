// Mish and its first two derivatives for one element, for CPU compilers, nvcc and NVRTC; includes no headers.
//
// With e = exp(x), n = e^2 + 2e and r = 1 / (n + 2):
//   mish(x)   = x tanh(ln(1 + e)) = x n r
//   mish'(x)  = n r + 4 x e (e + 1) r^2
//   mish''(x) = 4 e r^2 (2 (e + 1) + x (1 - 2 e + 4 e r))
// n and n + 2 are sums of positive terms, without the cancellation of (u^2 - 1) / (u^2 + 1) or 1 - exp(-softplus(x)).
// x is clamped to the range where e^2 is finite; above it n r rounds to 1, below it e is zero. NaN propagates: the last
// comparison of each function is written so that NaN selects x.
#pragma once

#if defined(__CUDACC__)
#define FN static __device__ __forceinline__
#else
#define FN static inline __attribute__((always_inline))
#endif

// ----------------------------------------------------------------------------------------- how elements are stored
struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };

FN float as_float(unsigned int bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

FN unsigned int as_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  unsigned int bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

FN double as_double(unsigned long long bits) {
#if defined(__CUDA_ARCH__)
  return __longlong_as_double((long long)bits);
#else
  double value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

FN unsigned long long as_bits(double value) {
#if defined(__CUDA_ARCH__)
  return (unsigned long long)__double_as_longlong(value);
#else
  unsigned long long bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

// Binary digits of a type's significand. 16 bits are computed in fp32, with one rounding at the end.
template <typename S> struct Digits;
template <> struct Digits<double> { static constexpr int value = 53; };
template <> struct Digits<float> { static constexpr int value = 24; };
template <> struct Digits<f16> { static constexpr int value = 11; };
template <> struct Digits<bf16> { static constexpr int value = 8; };

FN double widen(double value) { return value; }
FN float widen(float value) { return value; }
FN float widen(bf16 value) { return as_float((unsigned int)value.bits << 16); }

FN float widen(f16 value) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  const unsigned int sign = (value.bits & 0x8000u) << 16, rest = (value.bits & 0x7fffu) << 13;
  const float normal = as_float(rest + 0x38000000u);                              // the exponent bias is larger by 112
  const float subnormal = as_float(rest + 0x38800000u) - as_float(0x38800000u);   // 2^-14 (1 + m) - 2^-14
  const float infinite = as_float(rest + 0x70000000u);                            // and NaN
  const float magnitude = rest < 0x00800000u ? subnormal : rest >= 0x0f800000u ? infinite : normal;
  return as_float(as_bits(magnitude) | sign);
#endif
}

FN void store(double& place, double value) { place = value; }
FN void store(float& place, float value) { place = value; }

FN void store(bf16& place, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(place.bits) : "f"(value));
#else
  // Rounds to nearest, ties to even. NaN needs no special case: NaNs from bf16 or from arithmetic remain NaN.
  const unsigned int bits = as_bits(value);
  place.bits = (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}

FN void store(f16& place, float value) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(place.bits) : "f"(value));
#else
  const unsigned int bits = as_bits(value), magnitude = bits & 0x7fffffffu;
  const unsigned int normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const unsigned int subnormal = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;  // 0.5 has the same ulp, 2^-24
  const unsigned int finite = magnitude < 0x38800000u ? subnormal : normal;
  const unsigned int special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  place.bits = (unsigned short)((magnitude < 0x477ff000u ? finite : special) | ((bits >> 16) & 0x8000u));
#endif
}

// ------------------------------------------------------------------------------------------------- exp and reciprocal
template <typename T> struct Bounds;
template <> struct Bounds<float> {
  static constexpr float lower = -88.0f, upper = 20.0f, logistic = 88.0f;
};
template <> struct Bounds<double> {
  static constexpr double lower = -709.0, upper = 40.0, logistic = 709.0;
};

// exp(c) for c between the bounds, 0 at the lower one, for a result that will be rounded to D digits.
template <int D> FN float exponential(float c) {
  const float log2e = 1.44269504f;
#if defined(__CUDA_ARCH__)
  float e, t = c * log2e;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(t));
  if (D <= 11) return e;
  // Rounding c log2(e) to t alone would cost |c| units in the last place: the lost part is multiplied back.
  const float lost = fmaf(c, 1.92596303e-8f, fmaf(c, log2e, -t));
  return fmaf(e, lost * 0.693147181f, e);
#else
  // exp(c) = 2^k exp(r), |r| <= ln(2) / 2, by a Taylor series to r^7 (error 5e-9), for bf16 to r^5 (error 2e-6).
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float shifted = c * log2e + magic, k = shifted - magic;
  // ln(2) in two parts, the first exact in 10 bits; bf16 does not need it.
  const float r = D <= 8 ? c - k * 0.693147181f : (c - k * 0.693359375f) + k * 2.12194440e-4f;
  float p = D <= 8 ? 1.0f / 120 : (r * (1.0f / 5040) + 1.0f / 720) * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * as_float((as_bits(shifted) << 23) + 0x3f800000u);  // k = -127 gives the bits of zero
#endif
}

template <int D> FN double exponential(double c) {
#if defined(__CUDA_ARCH__)
  return c > Bounds<double>::lower ? exp(c) : c == c ? 0.0 : c;
#else
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  const double shifted = c * 1.4426950408889634 + magic, k = shifted - magic;
  const double r = (c - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return p * as_double((as_bits(shifted) << 52) + 0x3ff0000000000000ull);
#endif
}

FN float reciprocal(float value) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
#else
  return 1.0f / value;
#endif
}

FN double reciprocal(double value) { return 1.0 / value; }

// x clamped between a negative and a positive bound. The CPU version loses NaN, which the caller must restore.
FN double clamped(double x, double lower, double upper) {
  const double raised = x < lower ? lower : x;
  return raised > upper ? upper : raised;
}

FN float clamped(float x, float lower, float upper) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float raised, result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(raised) : "f"(x), "f"(lower));
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(raised), "f"(upper));
  return result;
#elif defined(__CUDA_ARCH__)
  const float raised = x < lower ? lower : x;
  return raised > upper ? upper : raised;
#else
  // Two instructions on the bits: as unsigned integers, negative floats are above all others in reverse order; as
  // signed integers, positive floats are in order and above negative ones.
  const unsigned int bits = as_bits(x), low = as_bits(lower);
  const int raised = (int)(bits > low ? low : bits), high = (int)as_bits(upper);
  return as_float((unsigned int)(raised > high ? high : raised));
#endif
}

// y, or NaN if x is NaN, which the CPU version of `clamped` loses.
template <typename T> FN T keep_nan(T x, T y) {
#if defined(__CUDA_ARCH__)
  return y;
#else
  return x == x ? y : x;
#endif
}

// --------------------------------------------------------------------------------------------------------------- Mish
template <typename T> struct Terms { T c, e, n, r; };

template <int D, typename T> FN Terms<T> terms(T x) {
  Terms<T> t;
  t.c = clamped(x, Bounds<T>::lower, Bounds<T>::upper);
  t.e = exponential<D>(t.c);
  t.n = t.e * t.e + 2 * t.e;
  t.r = reciprocal(t.n + 2);
  return t;
}

template <int D, typename T> FN T mish(T x) {
  const Terms<T> t = terms<D>(x);
  const T y = t.c * (t.n * t.r);
  return x <= Bounds<T>::upper ? y : x;  // NaN selects x
}

template <int D, typename T> FN T mish_first(T x) {
  const Terms<T> t = terms<D>(x);
  const T y = t.r * (4 * t.c * ((t.e * t.e + t.e) * t.r) + t.n);
  return keep_nan(x, y);
}

template <int D, typename T> FN T mish_second(T x) {
  const Terms<T> t = terms<D>(x);
  const T y = 4 * t.e * t.r * t.r * (2 * (t.e + 1) + t.c * (1 - 2 * t.e + 4 * t.e * t.r));
  return keep_nan(x, y);
}

// The operator for one element, not yet rounded to its storage type: mish(x), g mish'(x) or g mish''(x).
template <int Order, typename S> FN auto mish_wide(S x, S g) {
  constexpr int D = Digits<S>::value;
  if constexpr (Order == 0) return mish<D>(widen(x));
  else if constexpr (Order == 1) return widen(g) * mish_first<D>(widen(x));
  else return widen(g) * mish_second<D>(widen(x));
}

template <int Order, typename S> FN S mish_element(S x, S g) {
  S result;
  store(result, mish_wide<Order>(x, g));
  return result;
}
