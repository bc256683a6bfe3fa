// PyTorch's threads for a lambda: torch_parallel_for of its stable C interface, as its address.
#pragma once
#include <cstdint>

using ParallelFor = int32_t (*)(
    int64_t begin, int64_t end, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context);

constexpr int64_t GRAIN = 32768;  // elements from which a second thread pays, as in PyTorch's own kernels

template <typename Body>
static int32_t in_parallel(ParallelFor parallel_for, int64_t count, int64_t grain, const Body& body) {
  const auto call = [](int64_t begin, int64_t end, void* context) {
    (*static_cast<const Body*>(context))(begin, end);
  };
  return parallel_for(0, count, grain, call, const_cast<void*>(static_cast<const void*>(&body)));
}
