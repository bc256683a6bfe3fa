// Shared by the loops over memory.
#pragma once
#include <cstdint>

#include "mish_math.h"  // FN

// Prefetches the memory that a loop will reach next: the CPU's own prefetching restarts with every page, too late to hide
// the memory latency. Past the end of an array this has no effect.
FN void fetch_ahead(const void* at, int64_t bytes) {
  const char* next = static_cast<const char*>(at) + 2048;
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(next + i);
}

// A loop in pieces of a fixed length and a remainder: calls body(first element, length).
template <int64_t Piece, typename Body> FN void in_pieces(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + Piece <= count; i += Piece) body(i, Piece);
  if (i < count) body(i, count - i);
}

// Runs a lambda on PyTorch's threads; takes the address of torch_parallel_for of its stable C interface.
using ParallelFor = int32_t (*)(
    int64_t begin, int64_t end, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context);

constexpr int64_t GRAIN = 32768;  // elements from which a second thread is worthwhile, as in PyTorch's kernels

template <typename Body>
static int32_t in_parallel(ParallelFor parallel_for, int64_t count, int64_t grain, const Body& body) {
  const auto call = [](int64_t begin, int64_t end, void* context) {
    (*static_cast<const Body*>(context))(begin, end);
  };
  return parallel_for(0, count, grain, call, const_cast<void*>(static_cast<const void*>(&body)));
}
