// Shared by the CUDA kernels: 256 threads per block, and memory access in pieces of 16 bytes.
#pragma once
#include "mish_math.h"

constexpr int THREADS = 256;

template <int Bytes> struct Raw;
template <> struct Raw<2> { using type = unsigned short; };
template <> struct Raw<4> { using type = unsigned int; };
template <> struct Raw<16> { using type = uint4; };

// Elements that are loaded and stored together: 16 bytes, or one element.
template <typename S, int Width = 16 / sizeof(S)> union Piece {
  typename Raw<Width * sizeof(S)>::type raw;
  S elements[Width];
};

template <typename R> FN R load_raw(const R* from) { return *from; }
template <typename R> FN void store_raw(R* to, R raw) { *to = raw; }

#if defined(__CUDA_ARCH__)
// Compilers make four stores of an assignment before sm_100, and from there on loads that do not know their address space.
FN uint4 load_raw(const uint4* from) {
  uint4 raw;
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w) : "l"(__cvta_generic_to_global(from)));
  return raw;
}

FN void store_raw(uint4* to, uint4 raw) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               :: "l"(__cvta_generic_to_global(to)), "r"(raw.x), "r"(raw.y), "r"(raw.z), "r"(raw.w) : "memory");
}
#endif

template <typename S, typename T> FN void store_pair(S* place, T low, T high) {
  store(place[0], low);
  store(place[1], high);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // these round two values at once
FN void store_pair(bf16* place, float low, float high) {
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(*reinterpret_cast<unsigned int*>(place)) : "f"(high), "f"(low));
}

FN void store_pair(f16* place, float low, float high) {
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(*reinterpret_cast<unsigned int*>(place)) : "f"(high), "f"(low));
}
#endif
