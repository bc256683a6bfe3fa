// Launches CUDA kernels one after the other by one call from Python, where a call takes as long as several launches here.
// Independent of CUDA's headers and libraries: the caller passes the addresses of the driver's functions.
#include <cstdint>
#include <cstring>

// As CUlaunchConfig of cuda.h.
struct Config {
  unsigned int grid[3], block[3], shared;
  void* stream;
  void* attributes;
  unsigned int attribute_count;
};

// As ops/launch.py packs them.
struct Kernel {
  void* function;
  const void* constants;  // what follows the addresses in its argument
  int64_t constants_size;
  unsigned int width, height, threads;  // of the grid, and of a block
};

struct Call {
  int (*launch)(const Config*, void* function, void** arguments, void** extra);  // cuLaunchKernelEx
  int (*get_context)(void**);                                                    // cuCtxGetCurrent
  void* context;                                                                 // that of the kernels
  const Kernel* kernels;
  int64_t kernel_count, addresses_size;
  void* stream;
  char addresses[];
};

constexpr int64_t LARGEST = 256;  // bytes of an argument
constexpr int INVALID_CONTEXT = 201, TOO_LARGE = -1;

// Returns 0, or the code of the first launch that failed; INVALID_CONTEXT, and launches nothing, in another context.
extern "C" int launch_all(const Call* call) {
  void* current = nullptr;
  if (const int code = call->get_context(&current)) return code;
  if (current != call->context) return INVALID_CONTEXT;
  alignas(16) char argument[LARGEST];
  void* arguments[] = {argument};
  for (int64_t i = 0; i < call->kernel_count; i++) {
    const Kernel& kernel = call->kernels[i];
    if (call->addresses_size + kernel.constants_size > LARGEST) return TOO_LARGE;
    std::memcpy(argument, call->addresses, call->addresses_size);
    std::memcpy(argument + call->addresses_size, kernel.constants, kernel.constants_size);
    const Config config = {{kernel.width, kernel.height, 1}, {kernel.threads, 1, 1}, 0, call->stream, nullptr, 0};
    if (const int code = call->launch(&config, kernel.function, arguments, nullptr)) return code;
  }
  return 0;
}
