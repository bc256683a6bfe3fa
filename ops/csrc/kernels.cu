// The CUDA kernels: all of them, or one group (ops/cuda_images.py): those of Mish (ONLY_MISH), or those of the pair for an
// element type, an access variant and an activation (ONLY_TYPE, ONLY_VARIANT, ONLY_WAY, ONLY_ACT).
#if !defined(ONLY_TYPE)
#include "mish_cuda.cu"
#endif
#if !defined(ONLY_MISH)
#include "norm_act_cuda.cu"
#endif
