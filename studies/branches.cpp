// y[i] = f(x[i]) where f is one of two formulas on the two sides of a bound, in the same loop in three forms: without a
// condition (FREE), with an if that the compiler may turn into a selection (IF), and with a jump per element (JUMP).
#include "mish_math.h"

enum Form { FREE, IF, JUMP };

struct Relu {
  static constexpr float bound = 0.0f;
  FN float above(float x) { return x; }
  FN float below(float) { return 0.0f; }
  FN float free(float x) { return 0.5f * (x + __builtin_fabsf(x)); }
};

struct LeakyRelu {
  static constexpr float bound = 0.0f, slope = 0.1f;
  FN float above(float x) { return x; }
  FN float below(float x) { return slope * x; }
  FN float free(float x) { return 0.5f * (1 + slope) * x + 0.5f * (1 - slope) * __builtin_fabsf(x); }
};

struct Mish {  // x tanh(softplus(x)), which is x to within rounding above the bound
  static constexpr float bound = 20.0f;
  FN float above(float x) { return x; }
  FN float below(float x) { return formula(x, x); }
  FN float free(float x) { return formula(x, 0.5f * (x + bound - __builtin_fabsf(x - bound))); }  // of the lesser one
  FN float formula(float x, float c) {
    const float e = exponential<24>(c), n = e * (e + 2);
    return x * (n / (n + 2));
  }
};

template <class F, Form form> void loop(const float* __restrict x, float* __restrict y, long count, int repeats) {
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (long i = 0; i < count; ++i) {
      if (form == FREE) {
        y[i] = F::free(x[i]);
      } else if (x[i] > F::bound) {
        if (form == JUMP) __asm__ volatile("");  // keeps the compiler from executing both sides
        y[i] = F::above(x[i]);
      } else {
        y[i] = F::below(x[i]);
      }
    }
    __asm__ volatile("" ::: "memory");  // each repeat is computed
  }
}

#define FORMS(NAME, TYPE)                                                                                       \
  void NAME##_free(const float* x, float* y, long count, int repeats) { loop<TYPE, FREE>(x, y, count, repeats); } \
  void NAME##_if(const float* x, float* y, long count, int repeats) { loop<TYPE, IF>(x, y, count, repeats); }     \
  void NAME##_jump(const float* x, float* y, long count, int repeats) { loop<TYPE, JUMP>(x, y, count, repeats); }

extern "C" {
FORMS(relu, Relu)
FORMS(leaky_relu, LeakyRelu)
FORMS(mish, Mish)
}
