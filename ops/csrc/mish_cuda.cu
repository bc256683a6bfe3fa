// Mish over dense memory, on a GPU. Includes only the formulas, so that nvcc and NVRTC both compile it.
//
// One kernel per storage type, order (0: mish(x), 1: g mish'(x), 2: g mish''(x)) and access variant. `vector` needs
// pointers aligned to 16 bytes and processes two 16-byte pieces per thread, both loaded before the first is computed;
// `scalar` accepts any alignment. ops/backend.py launches them with 256 threads per block.
#include "cuda_pieces.h"

constexpr int PIECES = 2;

// Arguments of a kernel, as ops/cuda.py packs them: `order` 0 does not read g.
struct Map {
  const void *x, *g;
  void* out;
  long long count;
};

template <int Order, typename S> FN Piece<S> map_piece(const Piece<S>& x, const Piece<S>& g) {
  Piece<S> result;
#pragma unroll
  for (int i = 0; i < int(16 / sizeof(S)); i += 2) {
    const auto low = mish_wide<Order>(x.elements[i], g.elements[i]);
    const auto high = mish_wide<Order>(x.elements[i + 1], g.elements[i + 1]);
    store_pair(result.elements + i, low, high);
  }
  return result;
}

template <int Order, typename S> FN void map_vector(const S* x, const S* g, S* out, long long count) {
  constexpr int WIDTH = 16 / sizeof(S);
  const long long first = (long long)blockIdx.x * (THREADS * PIECES) + threadIdx.x, whole = count / WIDTH;
  Piece<S> a[PIECES], b[PIECES];
#pragma unroll
  for (int piece = 0; piece < PIECES; piece++) {
    const long long at = first + piece * THREADS;
    if (at < whole) {
      a[piece].raw = reinterpret_cast<const uint4*>(x)[at];
      if (Order) b[piece].raw = reinterpret_cast<const uint4*>(g)[at];
      else b[piece] = a[piece];
    }
  }
#pragma unroll
  for (int piece = 0; piece < PIECES; piece++) {
    const long long at = first + piece * THREADS;
    if (at < whole) reinterpret_cast<uint4*>(out)[at] = map_piece<Order>(a[piece], b[piece]).raw;
  }
  const long long i = whole * WIDTH + threadIdx.x;  // the remainder is less than a piece
  if (blockIdx.x == gridDim.x - 1 && i < count) out[i] = mish_element<Order>(x[i], Order ? g[i] : x[i]);
}

template <int Order, typename S> FN void map_scalar(const S* x, const S* g, S* out, long long count) {
  const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (i < count) out[i] = mish_element<Order>(x[i], Order ? g[i] : x[i]);
}

#define KERNEL(ORDER, NAME, S, WAY)                                                                         \
  extern "C" __global__ void __launch_bounds__(THREADS) mish_##ORDER##_##NAME##_##WAY(const Map a) {        \
    map_##WAY<ORDER>(static_cast<const S*>(a.x), static_cast<const S*>(a.g), static_cast<S*>(a.out), a.count); \
  }
#define ORDERS(NAME, S, WAY) KERNEL(0, NAME, S, WAY) KERNEL(1, NAME, S, WAY) KERNEL(2, NAME, S, WAY)
#define KERNELS(NAME, S) ORDERS(NAME, S, vector) ORDERS(NAME, S, scalar)

KERNELS(float32, float)
KERNELS(float64, double)
KERNELS(float16, f16)
KERNELS(bfloat16, bf16)
