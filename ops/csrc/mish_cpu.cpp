// Mish over dense memory, on the CPU. Plain C functions on pointers, independent of PyTorch and Python, so that one build
// works with all versions of both. Threads are PyTorch's, through the C function torch_parallel_for of its stable
// interface, whose address the caller passes.
//
// The loops are plain ones, vectorised by the compiler, but for bf16 with AVX-512 and the conversions of fp16; this file is
// compiled once per instruction set.
#include <cfenv>
#include <cstdint>
#include <type_traits>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "parallel.h"
#include "x86_16bit.h"

// A 16-bit type has 65,536 values, of which a tensor mostly contains some thousands: looking the result up, in memory that
// then stays in the first cache, takes less time than 8 or fewer lanes take to compute it. The backward pass looks up
// the derivative in fp32 and rounds once, after multiplying.
template <int Order, typename S> struct Table {
  std::conditional_t<Order == 0, S, float> values[1 << 16];

  Table() {  // not in the caller's mode, which may flush small values to zero
    std::fenv_t mode;
    std::fegetenv(&mode);
    std::fesetenv(FE_DFL_ENV);
    fill();
    std::fesetenv(&mode);
  }

  __attribute__((noinline)) void fill() {
    for (unsigned int bits = 0; bits < 1 << 16; bits++) {
      const float x = widen(S{(unsigned short)bits});
      if constexpr (Order == 0) store(values[bits], mish<24>(x));
      else values[bits] = mish_first<24>(x);
    }
  }
};

// out = g by, rounded to S.
template <typename S> FN void multiply(int64_t count, const S* __restrict g, const float* __restrict by, S* __restrict out) {
  int64_t i = 0;
#if defined(__F16C__)
  if constexpr (std::is_same_v<S, f16>)  // by the CPU's conversions, which compilers do not find in mish_math.h
    for (; i + 8 <= count; i += 8) {
      const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(g + i)));
      const __m128i rounded = _mm256_cvtps_ph(wide * _mm256_loadu_ps(by + i), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), rounded);
    }
#endif
  for (; i < count; i++) store(out[i], widen(g[i]) * by[i]);
}

template <int Order, typename S>
static void look_up(int64_t count, const S* __restrict x, const S* __restrict g, S* __restrict out) {
  static const Table<Order, S> table;
  if constexpr (Order == 0) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < count; i++) out[i] = table.values[x[i].bits];
  } else {
    constexpr int64_t PIECE = 256;
    float derivative[PIECE];
    in_pieces<PIECE>(count, [&](int64_t start, int64_t length) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int64_t i = 0; i < length; i++) derivative[i] = table.values[x[start + i].bits];
      multiply(length, g + start, derivative, out + start);
    });
  }
}

template <int Order, typename S>
static void map(int64_t count, const S* __restrict x, const S* __restrict g, S* __restrict out) {
#if defined(__AVX512BW__)
  if constexpr (std::is_same_v<S, bf16> && Order < 2)
    return in_groups(count, [&](int64_t i, int length) __attribute__((always_inline)) {
      Group values = load(x + i, length);
      const Group by = Order ? load(g + i, length) : values;
      for (int h = 0; h < 2; h++)
        values.half[h] = Order ? by.half[h] * mish_first<false>(values.half[h]) : mish<false>(values.half[h]);
      store(out + i, values, length);
    });
#endif
  if constexpr (sizeof(S) == 2 && Order < 2) return look_up<Order>(count, x, g, out);
  for (int64_t i = 0; i < count; i++) out[i] = mish_element<Order>(x[i], Order ? g[i] : x[i]);
}

template <int Order, typename S>
static int32_t map_in_parallel(int64_t count, const void* x, const void* g, void* out, ParallelFor parallel_for) {
  return in_parallel(parallel_for, count, GRAIN, [&](int64_t begin, int64_t end) {
    const S *from = static_cast<const S*>(x) + begin, *by = static_cast<const S*>(g) + begin;
    S* to = static_cast<S*>(out) + begin;
    in_pieces<512 / sizeof(S)>(end - begin, [&](int64_t i, int64_t length) __attribute__((always_inline)) {
      fetch_ahead(from + i, 512);
      if (Order) fetch_ahead(by + i, 512);
      fetch_ahead(to + i, 512);
      map<Order>(length, from + i, by + i, to + i);
    });
  });
}

template <typename S>
static int32_t map_order(int order, int64_t count, const void* x, const void* g, void* out, ParallelFor parallel_for) {
  switch (order) {
    case 0: return map_in_parallel<0, S>(count, x, g, out, parallel_for);
    case 1: return map_in_parallel<1, S>(count, x, g, out, parallel_for);
    case 2: return map_in_parallel<2, S>(count, x, g, out, parallel_for);
    default: return -1;
  }
}

// Arguments of mish_map, as ops/backend.py packs them. `type`: as in ops/kernels.py.
struct Map {
  int type, order;
  int64_t count;
  const void *x, *g;
  void* out;
  ParallelFor parallel_for;
};

// out = mish(x), g mish'(x) or g mish''(x), for `order` 0, 1 or 2 (0 does not read g).
// Returns 0, the error code of torch_parallel_for, or -1 for an unsupported type or order.
extern "C" int32_t mish_map(const Map* call) {
  const Map& a = *call;
  switch (a.type) {
    case 0: return map_order<float>(a.order, a.count, a.x, a.g, a.out, a.parallel_for);
    case 1: return map_order<double>(a.order, a.count, a.x, a.g, a.out, a.parallel_for);
    case 2: return map_order<f16>(a.order, a.count, a.x, a.g, a.out, a.parallel_for);
    case 3: return map_order<bf16>(a.order, a.count, a.x, a.g, a.out, a.parallel_for);
    default: return -1;
  }
}
