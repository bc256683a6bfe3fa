// mish_cuda.cu as C++: what CUDA gives a kernel is given here, and a launch runs all its threads one after the other.
struct uint4 { unsigned int x, y, z, w; };
struct Index { unsigned int x; };
static Index blockIdx, threadIdx, gridDim;
#define __global__
#define __launch_bounds__(threads)

#include "mish_cuda.cu"

#define LAUNCH(NAME, S)                                                                                \
  extern "C" void launch_##NAME(int blocks, const S* x, const S* g, S* out, long long count) {          \
    gridDim.x = unsigned(blocks);                                                                       \
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)                                          \
      for (threadIdx.x = 0; threadIdx.x < THREADS; threadIdx.x++) NAME(x, g, out, count);               \
  }
#define ORDERS(NAME, WAY, S) LAUNCH(mish_0_##NAME##_##WAY, S) LAUNCH(mish_1_##NAME##_##WAY, S) LAUNCH(mish_2_##NAME##_##WAY, S)
#define BOTH(NAME, S) ORDERS(NAME, vector, S) ORDERS(NAME, scalar, S)

BOTH(float32, float)
BOTH(float64, double)
BOTH(float16, f16)
BOTH(bfloat16, bf16)
