// bf16 on a CPU with AVX-512 or, in the fused pair, AVX2, in groups of 32 or 16 elements: the formulas of mish_math.h with
// the precision that bf16 needs. The plain loops, vectorised by the compiler, take about 1.5 times as long, which is
// noticeable in a training step where the CPU has bf16 matrix instructions, and everywhere on one thread.
#pragma once
#include <cstdint>
#include <cstring>

#include "activations.h"

#if defined(__AVX512BW__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#define BF16_IN_GROUPS 1
#endif

#if defined(__AVX512BW__)
using V = __m512;
constexpr int LANES_OF_V = 16;
constexpr float LOWEST = -110.0f;  // exponential(LOWEST) is 0

FN V all(float value) { return _mm512_set1_ps(value); }

// 32 elements widened, even indices first: each 32-bit word holds two, extracted by one instruction each.
struct Group { V half[2]; };

// Loads `count` elements, zero for the rest.
FN Group load(const bf16* at, int count) {
  const __m512i pairs = count == 32 ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi16((1u << count) - 1, at);
  const __m512i odd = _mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000u)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), _mm512_castsi512_ps(odd)};
}

// Rounds to nearest, ties away from zero, which takes one addition each. NaN and infinity are preserved.
FN void store(bf16* at, const Group& values, int count) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i even = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(values.half[0]), half), 16);
  const __m512i odd = _mm512_add_epi32(_mm512_castps_si512(values.half[1]), half);
  const __m512i pairs = _mm512_mask_blend_epi16(0xaaaaaaaau, even, odd);
  if (count == 32) _mm512_storeu_si512(at, pairs);
  else _mm512_mask_storeu_epi16(at, (1u << count) - 1, pairs);
}

// 2^(j / 32), each 2.9e-5 too large, which halves the error of the short form of `exponential`.
alignas(64) constexpr float POWERS[32] = {
    1.00002932f, 1.02192712f, 1.04430441f, 1.06717169f, 1.09053971f, 1.11441942f, 1.13882203f, 1.16375898f,
    1.18924199f, 1.21528300f, 1.24189423f, 1.26908817f, 1.29687758f, 1.32527551f, 1.35429526f, 1.38395046f,
    1.41425503f, 1.44522319f, 1.47686945f, 1.50920868f, 1.54225605f, 1.57602706f, 1.61053756f, 1.64580374f,
    1.68184215f, 1.71866970f, 1.75630366f, 1.79476170f, 1.83406187f, 1.87422259f, 1.91526272f, 1.95720152f,
};

// exp(c) for c in [-110, 88], 0 at -110: 2^k 2^(j / 32) exp(f), |f| <= ln(2) / 64; error 3e-7, in the short form 3e-5.
template <bool Short> FN V exponential(V c) {
  const V magic = all(393216.0f);  // 1.5 * 2^18: adding it rounds to 32nds, counted in the low bits
  const V shifted = c * all(1.44269504f) + magic, k = shifted - magic, f = c - k * all(0.693147181f);
  const V low = _mm512_load_ps(POWERS), high = _mm512_load_ps(POWERS + 16);
  const V power = _mm512_permutex2var_ps(low, _mm512_castps_si512(shifted), high);
  const V p = Short ? power * f + power : power * ((all(0.5f) * f + all(1.0f)) * f + all(1.0f - 2.93e-5f));
  return _mm512_scalef_ps(p, k);
}

template <bool Short> FN V reciprocal(V value) {
  const V r = _mm512_rcp14_ps(value);  // relative error 2^-14
  return Short ? r : r * (all(2.0f) - value * r);
}

// Adds `value` to the first `lanes` of the values at `to`.
FN void add_to(float* to, V value, int lanes) {
  const V sum = _mm512_loadu_ps(to);
  _mm512_storeu_ps(to, _mm512_mask_add_ps(sum, (1u << lanes) - 1, sum, value));
}

FN V at(const float* values, int64_t i) { return _mm512_loadu_ps(values + i); }
FN V larger(V a, V b) { return _mm512_max_ps(a, b); }
FN V smaller(V a, V b) { return _mm512_min_ps(a, b); }
// Where z > 0 or NaN: a, elsewhere b.
FN V where_positive(V z, V a, V b) { return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(z, all(0.0f), _CMP_NLE_UQ), a); }

#elif defined(BF16_IN_GROUPS)
using V = __m256;
constexpr int LANES_OF_V = 8;
constexpr float LOWEST = -88.0f;

FN V all(float value) { return _mm256_set1_ps(value); }

// 16 elements widened, as above.
struct Group { V half[2]; };

FN Group load(const bf16* at, int count) {
  __m256i pairs = _mm256_setzero_si256();
  if (count == 16) pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  else std::memcpy(&pairs, at, count * sizeof(bf16));
  const __m256i odd = _mm256_and_si256(pairs, _mm256_set1_epi32(int(0xffff0000u)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(odd)};
}

FN void store(bf16* at, const Group& values, int count) {
  const __m256i half = _mm256_set1_epi32(0x8000);
  const __m256i even = _mm256_srli_epi32(_mm256_add_epi32(_mm256_castps_si256(values.half[0]), half), 16);
  const __m256i odd = _mm256_add_epi32(_mm256_castps_si256(values.half[1]), half);
  const __m256i pairs = _mm256_blend_epi16(even, odd, 0xaa);
  if (count == 16) _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), pairs);
  else std::memcpy(at, &pairs, count * sizeof(bf16));
}

// exp(c) for c in [-88, 88], 0 at -88: 2^k exp(r), |r| <= ln(2) / 2, by Taylor's polynomial of degree 4, which has the error
// 4e-5 and is exact at 0. Only the short form is needed.
template <bool> FN V exponential(V c) {
  const V magic = all(12582912.0f);  // as in mish_math.h
  const V shifted = c * all(1.44269504f) + magic, k = shifted - magic, r = c - k * all(0.693147181f);
  V p = all(1.0f / 24) * r + all(1.0f / 6);
  p = p * r + all(0.5f);
  p = p * r + all(1.0f);
  p = p * r + all(1.0f);
  const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  return p * _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(0x3f800000)));  // k = -127 gives 0
}

template <bool> FN V reciprocal(V value) {
  const V r = _mm256_rcp_ps(value);  // relative error 1.5 * 2^-12
  return r * (all(2.0f) - value * r);
}

FN void add_to(float* to, V value, int lanes) {
  const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  _mm256_storeu_ps(to, _mm256_loadu_ps(to) + _mm256_and_ps(value, _mm256_castsi256_ps(there)));
}

FN V at(const float* values, int64_t i) { return _mm256_loadu_ps(values + i); }
FN V larger(V a, V b) { return _mm256_max_ps(a, b); }
FN V smaller(V a, V b) { return _mm256_min_ps(a, b); }
FN V where_positive(V z, V a, V b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(z, all(0.0f), _CMP_NLE_UQ)); }
#endif

#if defined(BF16_IN_GROUPS)
// Calls body(first element, number of elements) for each group of an array.
template <typename Body> FN void in_groups(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + 2 * LANES_OF_V <= count; i += 2 * LANES_OF_V) body(i, 2 * LANES_OF_V);
  if (i < count) body(i, int(count - i));
}

FN V at_least(V x, float bound) { return larger(all(bound), x); }  // both propagate NaN
FN V at_most(V x, float bound) { return smaller(all(bound), x); }

// The operator, which computes with AVX-512 only, rounds correctly and needs the long forms. After a batch norm, whose
// input was rounded to bf16, the short ones suffice: their error is 1e-4 of the values, and of the derivative's largest
// value.
template <bool Short> FN V mish(V x) {
  const V c = at_least(x, LOWEST), e = exponential<Short>(at_most(c, 20.0f)), n = e * (e + all(2.0f));
  return c * (n * reciprocal<Short>(n + all(2.0f)));
}

template <bool Short> FN V mish_first(V x) {
  const V c = at_most(at_least(x, LOWEST), 20.0f), e = exponential<Short>(c), m = e * e + e, n = m + e;
  const V r = reciprocal<Short>(n + all(2.0f));
  return r * (all(4.0f) * c * (m * r) + n);
}

FN V sigmoid(V x) {
  return reciprocal<true>(all(1.0f) + exponential<true>(at_most(at_least(all(0.0f) - x, -88.0f), 88.0f)));
}

// As in activations.h.
template <int Act, int D> FN V activate(V z, float slope) {
  if constexpr (Act == MISH) return mish<true>(z);
  else if constexpr (Act == RELU) return at_least(z, 0.0f);
  else if constexpr (Act == SILU) return z * sigmoid(z);
  else return where_positive(z, z, z * all(slope));
}

template <int Act, int D> FN V through(V dy, V z, float slope) {
  if constexpr (Act == MISH) return dy * mish_first<true>(z);
  else if constexpr (Act == RELU) return where_positive(z, dy, all(0.0f));
  else if constexpr (Act == SILU) {
    const V s = sigmoid(z);
    return dy * (s * (all(1.0f) + z * (all(1.0f) - s)));
  } else return where_positive(z, dy, dy * all(slope));
}
#endif
