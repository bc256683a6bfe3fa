// Fused batch norm and activation on a GPU, one pass over memory each: the formulas and passes of norm_act_cpu.cpp.
//
// A block processes a strip of channels and a part of their values, so that the parameters of a channel are read once per
// block. Values of a channel are at `positions` on each of `outer` planes. The threads of a block are arranged as
// `columns` across the strip, `lanes` along the positions and `rows` on consecutive planes, in this order:
//
//   contiguous      [outer][channels][inner]: a strip is one channel; pieces of 16 bytes are along the positions
//   channels_last   [positions][channels]: one plane; pieces of 16 bytes are across channels
//
// Kernels have three variants: `along` and `across` access pieces, `scalar` single elements in either layout.
// ops/grid.py chooses variant and grid (strips, splits), that of sums by the shape alone, and fills in the Call.
//
// Sums do not depend on scheduling: each thread adds its values in fp32, a block its threads in a fixed tree, and an
// `end` kernel, with one block per channel, the splits in fp64, also in a fixed tree.
#include "activations.h"
#include "cuda_pieces.h"

// Pieces that a thread loads before computing: 64 bytes. The blocks of an SM, three or more, then have 48 KiB of loads in
// flight. An H200 needs about 40 for its full bandwidth (computed: 4.3 TB/s for 1.2 us, over 132 SMs).
constexpr int ONE_INPUT = 4, TWO_INPUTS = 2;
constexpr int BLOCKS = 3;          // of an SM, for which the compiler limits the registers
constexpr int STRIP = 128;         // maximum number of channels of a block
constexpr int MOST_CHANNELS = 8;   // of a piece
constexpr int VALUES = 4;          // numbers per channel in a kernel

struct alignas(8) Sums { float first, second; };

// Arguments of all kernels, in the order of ops/grid.py; each kernel reads the part it needs.
struct Call {
  const void *x, *dy;
  void* out;                                           // y, or g, which becomes dx
  float *mean, *variance;                              // one value per channel, like all down to `partial`
  const float *weight, *bias;                          // may be null
  float *running_mean, *running_var;                   // may be null
  float *by_weight, *by_bias;
  Sums* partial;                                       // [splits][channels], then the estimates of the means
  long long outer, outer_span, outer_step, positions;  // span: planes of a block; step: elements between two
  long long channel_step, count;                       // count: values per channel, 0 for fixed statistics
  int channels, step;                                  // step: elements between two positions
  int columns, lanes, rows;
  int parts, span, splits;                             // parts of `span` positions each; parts on all planes
  float eps, slope, factor;
};
static_assert(sizeof(Call) == 192, "ops/grid.py packs as many bytes");

struct Shared {
  float values[VALUES][STRIP];
  float sums[2 * MOST_CHANNELS][THREADS / 2];
};

// ----------------------------------------------------------------------------------------------------------- geometry
// Memory access of a kernel: pieces of Width elements, of one channel or of as many.
template <typename Element, int W, int C> struct Way {
  using S = Element;
  using Moved = Piece<Element, W>;
  static constexpr int width = W, channels = C;  // of a piece
};

template <typename S> using Along = Way<S, 16 / sizeof(S), 1>;
template <typename S> using Across = Way<S, 16 / sizeof(S), 16 / sizeof(S)>;
template <typename S> using Scalar = Way<S, 1, 1>;

FN int column_of(const Call& a) { return threadIdx.x % unsigned(a.columns); }

FN long long least(long long a, long long b) { return a < b ? a : b; }

// Calls body(offset, there): the first elements of the N pieces that a thread loads together, and which of them exist.
template <typename W, int N, typename Body> FN void each_tile(const Call& a, const Body& body) {
  const unsigned beside = threadIdx.x / unsigned(a.columns);
  const int lane = beside % unsigned(a.lanes), row = beside / unsigned(a.lanes);
  const int channel = (int(blockIdx.x) * a.columns + column_of(a)) * W::channels;
  if (channel >= a.channels || row >= a.rows) return;  // the strip is too wide, or threads are left over
  const long long part = blockIdx.y % unsigned(a.parts), on_planes = blockIdx.y / unsigned(a.parts);
  const int here = int(least(a.span, a.positions - part * a.span));
  const long long start = channel * a.channel_step + part * a.span * a.step;
  // Known to the compiler for channels_last, with one plane: without the outer loop, `reduce` needs fewer registers.
  const long long first = W::channels > 1 ? 0 : on_planes * a.outer_span + row;
  const long long end = W::channels > 1 ? 1 : least(a.outer, (on_planes + 1) * a.outer_span);
#pragma unroll 1
  for (long long o = first; o < end; o += W::channels > 1 ? 1 : a.rows) {
#pragma unroll 1
    for (int p = lane; p < here; p += N * a.lanes) {
      long long offset[N];
      bool there[N];
#pragma unroll
      for (int j = 0; j < N; j++) {
        offset[j] = start + o * a.outer_step + (long long)(p + j * a.lanes) * a.step;
        there[j] = p + j * a.lanes < here;
      }
      body(offset, there);
    }
  }
}

template <typename W> FN typename W::Moved fetched(const void* from, long long offset) {
  typename W::Moved piece;
  piece.raw = load_raw(reinterpret_cast<const decltype(piece.raw)*>(static_cast<const typename W::S*>(from) + offset));
  return piece;
}

// Computes the elements of a piece by of(index) and stores it.
template <typename W, typename Of> FN void put(void* to, long long offset, const Of& of) {
  typename W::Moved piece;
  if constexpr (W::width == 1) store(piece.elements[0], of(0));
  else {
#pragma unroll
    for (int i = 0; i < W::width; i += 2) store_pair(piece.elements + i, of(i), of(i + 1));
  }
  store_raw(reinterpret_cast<decltype(piece.raw)*>(static_cast<typename W::S*>(to) + offset), piece.raw);
}

// --------------------------------------------------------------------------------------------- what a channel has
// Calls make(channel, its index in the arrays) for each channel of the strip, once per block.
template <typename W, typename Make> FN void each_channel(const Call& a, const Make& make) {
  const int strip = a.columns * W::channels, i = threadIdx.x, channel = int(blockIdx.x) * strip + i;
  if (i < strip && channel < a.channels) make(channel, i);
  __syncthreads();
}

FN float inverse_of(const Call& a, int channel) { return 1 / sqrtf(a.variance[channel] + a.eps); }

FN float scale_of(const Call& a, int channel, float inverse) {
  return a.weight ? a.weight[channel] * inverse : inverse;
}

// Mean, scale and shift of each channel, which turn x into z.
template <typename W> FN void each_affine(const Call& a, Shared& shared) {
  each_channel<W>(a, [&](int channel, int i) {
    shared.values[0][i] = a.mean[channel];
    shared.values[1][i] = scale_of(a, channel, inverse_of(a, channel));
    shared.values[2][i] = a.bias ? a.bias[channel] : 0;
  });
}

// The numbers of the thread's channels: (i) is that of element i of a piece.
template <typename W> struct Own {
  float values[W::channels];
  __device__ __forceinline__ Own(const Call& a, const float* array) {
#pragma unroll
    for (int c = 0; c < W::channels; c++) values[c] = array[column_of(a) * W::channels + c];
  }
  __device__ __forceinline__ float operator()(int i) const { return values[W::channels == 1 ? 0 : i]; }
};

// ------------------------------------------------------------------------------------------------------- elementwise
template <int Act, typename W> FN void forward(const Call& a, Shared& shared) {
  constexpr int N = ONE_INPUT;
  constexpr int D = Digits<typename W::S>::value;
  each_affine<W>(a, shared);
  const Own<W> mean(a, shared.values[0]), scale(a, shared.values[1]), shift(a, shared.values[2]);
  each_tile<W, N>(a, [&](const long long* offset, const bool* there) {
    typename W::Moved x[N];
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) x[j] = fetched<W>(a.x, offset[j]);
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) put<W>(a.out, offset[j], [&](int i) {
        return activate<Act, D>((widen(x[j].elements[i]) - mean(i)) * scale(i) + shift(i), a.slope);
      });
  });
}

// Overwrites g with dx.
template <typename W> FN void backward(const Call& a, Shared& shared) {
  constexpr int N = TWO_INPUTS;
  each_channel<W>(a, [&](int channel, int i) {
    const float inverse = inverse_of(a, channel);
    shared.values[0][i] = a.mean[channel];
    shared.values[1][i] = scale_of(a, channel, inverse);
    shared.values[2][i] = a.count ? a.by_bias[channel] / a.count : 0;
    shared.values[3][i] = a.count ? a.by_weight[channel] * inverse / a.count : 0;
  });
  const Own<W> mean(a, shared.values[0]), scale(a, shared.values[1]);
  const Own<W> first(a, shared.values[2]), second(a, shared.values[3]);
  each_tile<W, N>(a, [&](const long long* offset, const bool* there) {
    typename W::Moved x[N], g[N];
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) {
        x[j] = fetched<W>(a.x, offset[j]);
        g[j] = fetched<W>(a.out, offset[j]);
      }
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) put<W>(a.out, offset[j], [&](int i) {
        const float d = widen(x[j].elements[i]) - mean(i);
        return scale(i) * (widen(g[j].elements[i]) - first(i) - d * second(i));
      });
  });
}

// --------------------------------------------------------------------------------------------------------------- sums
template <typename W> struct Pairs {
  float first[W::channels] = {}, second[W::channels] = {};
  __device__ __forceinline__ void add(int i, float one, float other) {
    first[W::channels == 1 ? 0 : i] += one;
    second[W::channels == 1 ? 0 : i] += other;
  }
};

// Adds the sums of the threads of a column by halving, and writes the result of the block.
template <typename W> FN void write_sums(const Call& a, Shared& shared, Pairs<W>& own) {
  const int beside = threadIdx.x / unsigned(a.columns), column = column_of(a);
#pragma unroll 1
  for (int left = a.lanes * a.rows; left > 1;) {
    const int half = (left + 1) / 2;
    if (beside >= half && beside < left) {
#pragma unroll
      for (int c = 0; c < W::channels; c++) {
        shared.sums[2 * c][(beside - half) * a.columns + column] = own.first[c];
        shared.sums[2 * c + 1][(beside - half) * a.columns + column] = own.second[c];
      }
    }
    __syncthreads();
    if (beside < left - half) {
#pragma unroll
      for (int c = 0; c < W::channels; c++) {
        own.first[c] += shared.sums[2 * c][beside * a.columns + column];
        own.second[c] += shared.sums[2 * c + 1][beside * a.columns + column];
      }
    }
    __syncthreads();
    left = half;
  }
  const int channel = (int(blockIdx.x) * a.columns + column) * W::channels;
  if (beside != 0 || channel >= a.channels) return;
#pragma unroll
  for (int c = 0; c < W::channels; c++)
    a.partial[(long long)blockIdx.y * a.channels + channel + c] = Sums{own.first[c], own.second[c]};
}

FN float* guesses(const Call& a) { return reinterpret_cast<float*>(a.partial + (long long)a.splits * a.channels); }

// Sums of x and its square, both after subtracting an estimate of the mean, which keeps the squares small.
template <typename W> FN void statistics(const Call& a, Shared& shared) {
  constexpr int N = ONE_INPUT;
  each_channel<W>(a, [&](int channel, int i) {
    const typename W::S* x = static_cast<const typename W::S*>(a.x) + channel * a.channel_step;
    float guess = 0;
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++) guess += widen(x[quarter * (a.positions / 4) * a.step]) / 4;
    shared.values[0][i] = guess;
    if (blockIdx.y == 0) guesses(a)[channel] = guess;
  });
  const Own<W> guess(a, shared.values[0]);
  Pairs<W> own;
  each_tile<W, N>(a, [&](const long long* offset, const bool* there) {
    typename W::Moved x[N];
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) x[j] = fetched<W>(a.x, offset[j]);
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) {
#pragma unroll
        for (int i = 0; i < W::width; i++) {
          const float d = widen(x[j].elements[i]) - guess(i);
          own.add(i, d, d * d);
        }
      }
  });
  write_sums<W>(a, shared, own);
}

// Sums of g and of g (x - mean), and g itself.
template <int Act, typename W> FN void reduce(const Call& a, Shared& shared) {
  constexpr int N = TWO_INPUTS;
  constexpr int D = Digits<typename W::S>::value;
  each_affine<W>(a, shared);
  const Own<W> mean(a, shared.values[0]), scale(a, shared.values[1]), shift(a, shared.values[2]);
  Pairs<W> own;
  each_tile<W, N>(a, [&](const long long* offset, const bool* there) {
    typename W::Moved x[N], dy[N];
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) {
        x[j] = fetched<W>(a.x, offset[j]);
        dy[j] = fetched<W>(a.dy, offset[j]);
      }
#pragma unroll
    for (int j = 0; j < N; j++)
      if (there[j]) put<W>(a.out, offset[j], [&](int i) {
        const float d = widen(x[j].elements[i]) - mean(i);
        const float g = through<Act, D>(widen(dy[j].elements[i]), d * scale(i) + shift(i), a.slope);
        own.add(i, g, g * d);
        return g;
      });
  });
  write_sums<W>(a, shared, own);
}

// The sums of all splits of the block's channel; complete in the first thread only.
struct Total { double first, second; };

FN Total total_of(const Call& a, Total (&shared)[THREADS / 2]) {
  const int thread = threadIdx.x;
  Total own = {0, 0};
  for (int split = thread; split < a.splits; split += THREADS) {
    const Sums sums = a.partial[(long long)split * a.channels + blockIdx.x];
    own.first += sums.first;
    own.second += sums.second;
  }
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (thread >= half && thread < 2 * half) shared[thread - half] = own;
    __syncthreads();
    if (thread < half) {
      own.first += shared[thread].first;
      own.second += shared[thread].second;
    }
    __syncthreads();
  }
  return own;
}

// ------------------------------------------------------------------------------------------------------------ kernels
extern "C" __global__ void __launch_bounds__(THREADS) norm_statistics_end(const Call a) {
  __shared__ Total shared[THREADS / 2];
  const Total total = total_of(a, shared);
  if (threadIdx.x != 0) return;
  const int c = blockIdx.x;
  const double shifted = total.first / a.count, variance = total.second / a.count - shifted * shifted;
  const float mean = float(guesses(a)[c] + shifted), biased = float(variance < 0 ? 0 : variance);
  a.mean[c] = mean;
  a.variance[c] = biased;
  if (!a.running_mean) return;
  const float unbiased = float(biased * (double(a.count) / (a.count - 1)));
  a.running_mean[c] += a.factor * (mean - a.running_mean[c]);
  a.running_var[c] += a.factor * (unbiased - a.running_var[c]);
}

extern "C" __global__ void __launch_bounds__(THREADS) norm_act_reduce_end(const Call a) {
  __shared__ Total shared[THREADS / 2];
  const Total total = total_of(a, shared);
  if (threadIdx.x != 0) return;
  const int c = blockIdx.x;
  a.by_bias[c] = float(total.first);
  a.by_weight[c] = float(total.second * inverse_of(a, c));
}

#define PASS(NAME, BODY)                                                       \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const Call a) {   \
    __shared__ Shared shared;                                                  \
    BODY(a, shared);                                                           \
  }
#define OF_ACT(ACT, TYPE, VARIANT, ...)                                            \
  PASS(norm_act_forward_##ACT##_##TYPE##_##VARIANT, (forward<ACT, __VA_ARGS__>)) \
  PASS(norm_act_reduce_##ACT##_##TYPE##_##VARIANT, (reduce<ACT, __VA_ARGS__>))
#define OF_EVERY(TYPE, VARIANT, ...)                                               \
  PASS(norm_statistics_##TYPE##_##VARIANT, (statistics<__VA_ARGS__>))            \
  PASS(norm_act_backward_##TYPE##_##VARIANT, (backward<__VA_ARGS__>))

#if defined(ONLY_TYPE)
#define EXPANDED(MACRO, ...) MACRO(__VA_ARGS__)
EXPANDED(OF_EVERY, ONLY_TYPE, ONLY_VARIANT, ONLY_WAY)
EXPANDED(OF_ACT, ONLY_ACT, ONLY_TYPE, ONLY_VARIANT, ONLY_WAY)
#else
#define OF_VARIANT(TYPE, VARIANT, ...)                                             \
  OF_EVERY(TYPE, VARIANT, __VA_ARGS__)                                               \
  OF_ACT(0, TYPE, VARIANT, __VA_ARGS__)                                            \
  OF_ACT(1, TYPE, VARIANT, __VA_ARGS__)                                            \
  OF_ACT(2, TYPE, VARIANT, __VA_ARGS__)                                            \
  OF_ACT(3, TYPE, VARIANT, __VA_ARGS__)
#define OF_TYPE(TYPE, S)                                                           \
  OF_VARIANT(TYPE, along, Along<S>)                                                \
  OF_VARIANT(TYPE, across, Across<S>)                                              \
  OF_VARIANT(TYPE, scalar, Scalar<S>)

OF_TYPE(float32, float)
OF_TYPE(float16, f16)
OF_TYPE(bfloat16, bf16)
#endif
