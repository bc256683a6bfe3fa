// All CUDA kernels in one image.
#include "mish_cuda.cu"
#include "norm_act_cuda.cu"
