// Fused batch norm and activation on the CPU, one pass over memory each; plain C functions as in mish_cpu.cpp.
//
//   y  = act(z),  z = (x - mean) scale + bias,  scale = weight inverse,  inverse = 1 / sqrt(variance + eps)
//   g  = dy act'(z),  dbias = sum of g,  dweight = inverse times the sum of g (x - mean)
//   dx = scale (g - k1 - (x - mean) k2),  k1 = dbias / count,  k2 = dweight inverse / count
//
// The pass that sums g also stores it in the memory of dx, so that act' is computed once.
//
// x is either contiguous, treated as planes [outer][channels][inner], or channels_last, treated as rows
// [outer][channels] with inner = 1. The order of additions depends on the shape alone, not on the number of threads.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include "x86_16bit.h"
#include "parallel.h"

namespace {

struct Shape { int64_t outer, channels, inner; };
struct Affine { const float *mean, *scale, *shift; };  // one value per channel
template <typename T> struct Pair { T first, second, kept; };

struct Same {  // used in place of an array whose values are all equal
  float value;
  float operator[](int64_t) const { return value; }
};

#if BF16_IN_GROUPS
using ::at;
FN V at(Same values, int64_t) { return all(values.value); }
#endif

// Index of element i of an array in the arrays that are read along with it.
template <typename S> int64_t place(int64_t i) {
#if BF16_IN_GROUPS
  constexpr int64_t group = 2 * LANES_OF_V;
  if constexpr (std::is_same_v<S, bf16>) return i / group * group + i % 2 * LANES_OF_V + i % group / 2;
#endif
  return i;
}

// The arrays that the loops read, from the parameters of a norm; weight and bias may be null.
struct Folded {
  std::vector<float> inverse, scale, shift;
  Folded(int64_t channels, const float* variance, const float* weight, const float* bias, float eps)
      : inverse(channels), scale(channels), shift(channels) {
    for (int64_t c = 0; c < channels; c++) {
      inverse[c] = 1 / std::sqrt(variance[c] + eps);
      scale[c] = weight ? weight[c] * inverse[c] : inverse[c];
      shift[c] = bias ? bias[c] : 0;
    }
  }
};

// ---------------------------------------------------------------------------------------------------- elementwise
// Values per channel, repeated so that rows of few channels still make long loops. The distance of the arrays is not a
// power of two, which would make them evict one another from the cache.
template <typename S> struct Repeated {
  int64_t length, apart;
  std::vector<float> values;
  Repeated(Shape shape, const std::vector<const float*>& arrays)
      : length(shape.channels * std::min(times(shape.channels), shape.outer)),
        apart((length + 31) / 32 * 32 + 48),
        values(arrays.size() * apart) {
    float* to = values.data();
    for (const float* array : arrays) {
      for (int64_t start = 0; start < length; start += shape.channels)
        for (int64_t c = 0; c < shape.channels; c++) to[place<S>(start + c)] = array[c];
      to += apart;
    }
  }
  const float* operator[](int64_t array) const { return values.data() + array * apart; }

  // Repeated up to about 256 values, if possible to a multiple of 32.
  static int64_t times(int64_t channels) {
    const int64_t most = std::max<int64_t>(1, 256 / channels), step = 32 / std::gcd<int64_t>(32, channels);
    return most >= step ? most / step * step : most;
  }
};

// Calls body(first element, number of elements, their N values: arrays or Same) over a whole tensor.
template <typename S, size_t N, typename Body>
int32_t each_piece(Shape shape, const float* const (&arrays)[N], ParallelFor parallel_for, const Body& body) {
  if (shape.inner == 1) {
    const Repeated<S> r(shape, {arrays, arrays + N});
    std::array<const float*, N> values;
    for (size_t k = 0; k < N; k++) values[k] = r[k];
    const int64_t total = shape.outer * shape.channels, tiles = (total + r.length - 1) / r.length;
    return in_parallel(parallel_for, tiles, std::max<int64_t>(1, GRAIN / r.length), [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; tile++)
        body(tile * r.length, std::min(r.length, total - tile * r.length), values);
    });
  }
  const int64_t planes = shape.outer * shape.channels;
  return in_parallel(parallel_for, planes, std::max<int64_t>(1, GRAIN / shape.inner), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; plane++) {
      std::array<Same, N> values;
      for (size_t k = 0; k < N; k++) values[k] = {arrays[k][plane % shape.channels]};
      in_pieces<512 / sizeof(S)>(shape.inner, [&](int64_t i, int64_t length) __attribute__((always_inline)) {
        body(plane * shape.inner + i, length, values);
      });
    }
  });
}

template <int Act, typename S, typename Values>
FN void forward_piece(int64_t length, const S* __restrict x, const Values& values, float slope, S* __restrict y) {
  const auto mean = values[0], scale = values[1], shift = values[2];
  fetch_ahead(x, length * sizeof(S));
  fetch_ahead(y, length * sizeof(S));
#if BF16_IN_GROUPS
  if constexpr (std::is_same_v<S, bf16>)
    return in_groups(length, [&](int64_t i, int count) {
      Group z = load(x + i, count);
      for (int h = 0; h < 2; h++) {
        const int64_t j = i + LANES_OF_V * h;
        z.half[h] = activate<Act, 8>((z.half[h] - at(mean, j)) * at(scale, j) + at(shift, j), slope);
      }
      store(y + i, z, count);
    });
#endif
  for (int64_t i = 0; i < length; i++)
    store(y[i], activate<Act, Digits<S>::value>((widen(x[i]) - mean[i]) * scale[i] + shift[i], slope));
}

template <int Act, typename S>
int32_t forward(Shape shape, const S* x, Affine a, float slope, S* y, ParallelFor parallel_for) {
  return each_piece<S>(
      shape, {a.mean, a.scale, a.shift}, parallel_for,
      [&](int64_t start, int64_t length, const auto& values) __attribute__((always_inline)) {
        forward_piece<Act>(length, x + start, values, slope, y + start);
      });
}

template <typename T> FN T input_gradient(T g, T x, T mean, T scale, T k1, T k2) {
  return scale * (g - k1 - (x - mean) * k2);
}

template <typename S, typename Values>
FN void backward_piece(int64_t length, const S* __restrict x, const Values& values, S* __restrict g) {
  const auto mean = values[0], scale = values[1], k1 = values[2], k2 = values[3];
  fetch_ahead(x, length * sizeof(S));
  fetch_ahead(g, length * sizeof(S));
#if BF16_IN_GROUPS
  if constexpr (std::is_same_v<S, bf16>)
    return in_groups(length, [&](int64_t i, int count) {
      const Group from = load(x + i, count);
      Group to = load(g + i, count);
      for (int h = 0; h < 2; h++) {
        const int64_t j = i + LANES_OF_V * h;
        to.half[h] = input_gradient(to.half[h], from.half[h], at(mean, j), at(scale, j), at(k1, j), at(k2, j));
      }
      store(g + i, to, count);
    });
#endif
  for (int64_t i = 0; i < length; i++)
    store(g[i], input_gradient(widen(g[i]), widen(x[i]), mean[i], scale[i], k1[i], k2[i]));
}

// Overwrites g with dx.
template <typename S>
int32_t backward(
    Shape shape, const S* x, const float* mean, const float* scale, const float* k1, const float* k2, S* g,
    ParallelFor parallel_for) {
  return each_piece<S>(
      shape, {mean, scale, k1, k2}, parallel_for,
      [&](int64_t start, int64_t length, const auto& values) __attribute__((always_inline)) {
        backward_piece(length, x + start, values, g + start);
      });
}

// ----------------------------------------------------------------------------------------------------------- sums
// The contribution of an element to the two sums of its channel, and the value that is stored for it.
struct Moments {
  static constexpr bool keeps = false;
  template <typename T> FN Pair<T> of(T x, T, T mean, T, T, float) {
    const T d = x - mean;
    return {d, d * d, d};
  }
};

template <int Act, int D> struct Gradients {
  static constexpr bool keeps = true;
  template <typename T> FN Pair<T> of(T x, T dy, T mean, T scale, T shift, float slope) {
    const T d = x - mean, g = through<Act, D>(dy, d * scale + shift, slope);
    return {g, g * d, g};
  }
};

// Adds elements to their lanes. The three values of a channel are arrays, or equal for all elements.
template <typename Term, typename S, typename Values>
void add(
    int64_t length, const S* __restrict x, const S* __restrict dy, Values mean, Values scale, Values shift, float slope,
    S* __restrict kept, float* __restrict p, float* __restrict q) {
  fetch_ahead(x, length * sizeof(S));
  if constexpr (Term::keeps) {
    fetch_ahead(dy, length * sizeof(S));
    fetch_ahead(kept, length * sizeof(S));
  }
#if BF16_IN_GROUPS
  if constexpr (std::is_same_v<S, bf16>)
    return in_groups(length, [&](int64_t i, int count) {
      const Group from = load(x + i, count), by = Term::keeps ? load(dy + i, count) : from;
      Group keep;
      for (int h = 0; h < 2; h++) {
        const int64_t j = i + LANES_OF_V * h;
        const int there = (count + 1 - h) / 2;
        const auto pair = Term::of(from.half[h], by.half[h], at(mean, j), at(scale, j), at(shift, j), slope);
        add_to(p + j, pair.first, there);
        add_to(q + j, pair.second, there);
        keep.half[h] = pair.kept;
      }
      if constexpr (Term::keeps) store(kept + i, keep, count);
    });
#endif
  for (int64_t i = 0; i < length; i++) {
    const auto pair = Term::of(widen(x[i]), widen(dy[i]), float(mean[i]), float(scale[i]), float(shift[i]), slope);
    p[i] += pair.first;
    q[i] += pair.second;
    if constexpr (Term::keeps) store(kept[i], pair.kept);
  }
}

// Planes: each channel in parts of whole planes, of a length set by the shape, so that few channels occupy all threads.
// Within a part, blocks of 4096 or slightly more elements are summed by lane in fp32; blocks and parts in fp64, in order.
template <typename Term, typename S>
int32_t sum_planes(
    Shape shape, const S* x, const S* dy, Affine a, float slope, S* kept, double* sums, ParallelFor parallel_for) {
  constexpr int64_t LANES = 128;
  const int64_t used = std::min(LANES, (shape.inner + 31) / 32 * 32);  // bf16 in groups: up to 32 that `place` permutes
  const int64_t in_part = std::max<int64_t>(1, GRAIN / shape.inner), parts = (shape.outer + in_part - 1) / in_part;
  std::vector<Pair<double>> partial(parts * shape.channels);
  const int64_t grain = std::max<int64_t>(1, GRAIN / (in_part * shape.inner));
  const int32_t failed = in_parallel(parallel_for, parts * shape.channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t c = task / parts, start = task % parts * in_part, stop = std::min(shape.outer, start + in_part);
      const Same mean{a.mean[c]}, scale{a.scale[c]}, shift{a.shift[c]};
      double first = 0, second = 0;
      float p[LANES] = {}, q[LANES] = {};
      int64_t in_lanes = 0;
      for (int64_t o = start; o < stop; o++) {
        const int64_t plane = (o * shape.channels + c) * shape.inner;
        for (int64_t i = 0; i < shape.inner; i += LANES) {
          const int64_t at = plane + i, length = std::min(LANES, shape.inner - i);
          add<Term>(length, x + at, dy + at, mean, scale, shift, slope, kept + at, p, q);
          in_lanes += length;
          if (in_lanes < 4096 && (o + 1 < stop || i + LANES < shape.inner)) continue;
          for (int64_t lane = 0; lane < used; lane++) first += p[lane], second += q[lane];
          std::fill_n(p, used, 0.0f);
          std::fill_n(q, used, 0.0f);
          in_lanes = 0;
        }
      }
      partial[task] = {first, second, 0};
    }
  });
  for (int64_t c = 0; c < shape.channels; c++) {
    Pair<double> total{};
    for (int64_t part = 0; part < parts; part++) {
      total.first += partial[c * parts + part].first;
      total.second += partial[c * parts + part].second;
    }
    sums[c] = total.first;
    sums[shape.channels + c] = total.second;
  }
  return failed;
}

// Rows: blocks of rows are summed by lane in fp32, then reduced to channels and added in fp64, in order.
template <typename Term, typename S>
int32_t sum_rows(
    Shape shape, const S* x, const S* dy, Affine a, float slope, S* kept, double* sums, ParallelFor parallel_for) {
  const Repeated<S> r(shape, {a.mean, a.scale, a.shift});
  const int64_t total = shape.outer * shape.channels, tiles = (total + r.length - 1) / r.length;
  const int64_t in_block = std::clamp<int64_t>(tiles / 64, 64, 256), blocks = (tiles + in_block - 1) / in_block;
  std::vector<double> partial(blocks * 2 * shape.channels, 0.0);
  const int64_t grain = std::max<int64_t>(1, GRAIN / (in_block * r.length));
  const int32_t failed = in_parallel(parallel_for, blocks, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> lanes(2 * r.apart);
    float *p = lanes.data(), *q = lanes.data() + r.apart;
    for (int64_t block = begin; block < end; block++) {
      std::fill(lanes.begin(), lanes.end(), 0.0f);
      for (int64_t tile = block * in_block; tile < std::min(tiles, (block + 1) * in_block); tile++) {
        const int64_t at = tile * r.length, length = std::min(r.length, total - at);
        add<Term>(length, x + at, dy + at, r[0], r[1], r[2], slope, kept + at, p, q);
      }
      double *first = partial.data() + block * 2 * shape.channels, *second = first + shape.channels;
      for (int64_t start = 0; start < r.length; start += shape.channels) {
        for (int64_t c = 0; c < shape.channels; c++) first[c] += p[place<S>(start + c)];
        for (int64_t c = 0; c < shape.channels; c++) second[c] += q[place<S>(start + c)];
      }
    }
  });
  std::fill(sums, sums + 2 * shape.channels, 0.0);
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t c = 0; c < 2 * shape.channels; c++) sums[c] += partial[block * 2 * shape.channels + c];
  return failed;
}

template <typename Term, typename S>
int32_t sum(
    Shape shape, const S* x, const S* dy, Affine a, float slope, S* kept, double* sums, ParallelFor parallel_for) {
  return shape.inner == 1 ? sum_rows<Term>(shape, x, dy, a, slope, kept, sums, parallel_for)
                          : sum_planes<Term>(shape, x, dy, a, slope, kept, sums, parallel_for);
}

// An estimate of each channel's mean from some of its first values: subtracting it keeps the squares small.
template <typename S> std::vector<float> guessed_means(Shape shape, const S* x) {
  std::vector<float> means(shape.channels);
  const int64_t there = shape.inner == 1 ? shape.outer : shape.inner, sample = std::min<int64_t>(16, there);
  for (int64_t i = 0; i < sample; i++)
    for (int64_t c = 0; c < shape.channels; c++)
      means[c] += widen(shape.inner == 1 ? x[i * shape.channels + c] : x[c * shape.inner + i]) / sample;
  return means;
}

template <typename S>
int32_t statistics(
    Shape shape, const S* x, float* mean, float* variance, float* running_mean, float* running_var, float factor,
    ParallelFor parallel_for) {
  const std::vector<float> guess = guessed_means(shape, x);
  const Affine a{guess.data(), guess.data(), guess.data()};
  std::vector<double> sums(2 * shape.channels);
  const int32_t failed = sum<Moments, S>(shape, x, x, a, 0, nullptr, sums.data(), parallel_for);
  const double count = double(shape.outer) * shape.inner;
  for (int64_t c = 0; c < shape.channels; c++) {
    const double shifted = sums[c] / count;
    mean[c] = float(guess[c] + shifted);
    const double biased = sums[shape.channels + c] / count - shifted * shifted;
    variance[c] = float(biased < 0 ? 0 : biased);  // NaN is preserved
    if (running_mean) {
      running_mean[c] += factor * (mean[c] - running_mean[c]);
      running_var[c] += factor * (float(variance[c] * (count / (count - 1))) - running_var[c]);
    }
  }
  return failed;
}

// ------------------------------------------------------------------------------------------------- choice of types
template <typename Body> int32_t with_type(int type, const Body& body) {
  return type == 0 ? body(float{}) : type == 3 ? body(bf16{}) : -1;
}

template <typename Body> int32_t with_type_and_act(int type, int act, const Body& body) {
  return with_type(type, [&](auto element) {
    switch (act) {
      case MISH: return body(element, std::integral_constant<int, MISH>{});
      case RELU: return body(element, std::integral_constant<int, RELU>{});
      case SILU: return body(element, std::integral_constant<int, SILU>{});
      case LEAKY_RELU: return body(element, std::integral_constant<int, LEAKY_RELU>{});
      default: return int32_t(-1);
    }
  });
}

}  // namespace

// Arguments of the functions below, as ops/backend.py packs them; each reads the part it needs.
struct Call {
  const void *x, *dy;
  void* out;                                 // y, or g, which becomes dx
  float *mean, *variance;                    // one value per channel, like all down to `by_bias`
  const float *weight, *bias;                // may be null
  float *running_mean, *running_var;         // may be null
  float *by_weight, *by_bias;
  ParallelFor parallel_for;
  int64_t outer, channels, inner, count;     // count: values per channel, 0 for fixed statistics
  int type, act;                             // type: 0 for fp32, 3 for bf16, as in ops/kernels.py
  float eps, slope, factor;
};
static_assert(sizeof(Call) == 152, "ops/backend.py packs as many bytes");

// All return 0, the error code of torch_parallel_for, or -1 for an unsupported type or activation.

// Mean and biased variance; running statistics are updated with momentum `factor`, the variance with the unbiased one.
extern "C" int32_t norm_statistics(const Call* call) {
  const Call& a = *call;
  return with_type(a.type, [&](auto element) {
    using S = decltype(element);
    return statistics(
        Shape{a.outer, a.channels, a.inner}, static_cast<const S*>(a.x), a.mean, a.variance, a.running_mean,
        a.running_var, a.factor, a.parallel_for);
  });
}

extern "C" int32_t norm_act_forward(const Call* call) {
  const Call& a = *call;
  const Folded f(a.channels, a.variance, a.weight, a.bias, a.eps);
  return with_type_and_act(a.type, a.act, [&](auto element, auto chosen) {
    using S = decltype(element);
    return forward<chosen.value>(
        Shape{a.outer, a.channels, a.inner}, static_cast<const S*>(a.x),
        Affine{a.mean, f.scale.data(), f.shift.data()}, a.slope, static_cast<S*>(a.out), a.parallel_for);
  });
}

// g, dweight and dbias.
extern "C" int32_t norm_act_reduce(const Call* call) {
  const Call& a = *call;
  const Folded f(a.channels, a.variance, a.weight, a.bias, a.eps);
  std::vector<double> sums(2 * a.channels);
  const int32_t failed = with_type_and_act(a.type, a.act, [&](auto element, auto chosen) {
    using S = decltype(element);
    return sum<Gradients<chosen.value, Digits<S>::value>>(
        Shape{a.outer, a.channels, a.inner}, static_cast<const S*>(a.x), static_cast<const S*>(a.dy),
        Affine{a.mean, f.scale.data(), f.shift.data()}, a.slope, static_cast<S*>(a.out), sums.data(), a.parallel_for);
  });
  for (int64_t c = 0; c < a.channels; c++) {
    a.by_bias[c] = float(sums[c]);
    a.by_weight[c] = float(sums[a.channels + c] * f.inverse[c]);
  }
  return failed;
}

// Turns g into dx.
extern "C" int32_t norm_act_backward(const Call* call) {
  const Call& a = *call;
  const Folded f(a.channels, a.variance, a.weight, nullptr, a.eps);
  std::vector<float> k1(a.channels), k2(a.channels);
  for (int64_t c = 0; c < a.channels && a.count; c++) {
    k1[c] = a.by_bias[c] / a.count;
    k2[c] = a.by_weight[c] * f.inverse[c] / a.count;
  }
  return with_type(a.type, [&](auto element) {
    using S = decltype(element);
    return backward(
        Shape{a.outer, a.channels, a.inner}, static_cast<const S*>(a.x), a.mean, f.scale.data(), k1.data(), k2.data(),
        static_cast<S*>(a.out), a.parallel_for);
  });
}
