// Changes of hue, saturation and value of RGB images, for data augmentation on the CPU.
//
// Plain loops over pieces of three planes, vectorised by the compiler.
#include <cstdint>

#include "mish_math.h"  // FN
#include "parallel.h"

constexpr int64_t PIXELS = 256;  // of a piece, whose planes stay in the first cache

FN float least(float a, float b) { return a < b ? a : b; }
FN float most(float a, float b) { return a > b ? a : b; }

// A channel of a colour, rounded. `hue`: in sixths of the circle, 0 to 6. `start`: where this channel begins to fall: 5, 3
// and 1 for red, green and blue.
FN uint8_t channel(float start, float hue, float value, float chroma) {
  float k = start + hue;
  k = k >= 6.0f ? k - 6.0f : k;
  const float below = most(least(least(k, 4.0f - k), 1.0f), 0.0f);
  return static_cast<uint8_t>(static_cast<int>(value - chroma * below + 0.5f));
}

struct Planes {
  uint8_t red[PIXELS], green[PIXELS], blue[PIXELS];
};

FN void shift(int64_t count, const Planes& from, float hue_gain, float saturation_gain, float value_gain, Planes& to) {
  for (int64_t i = 0; i < count; i++) {
    const float r = static_cast<int>(from.red[i]), g = static_cast<int>(from.green[i]), b = static_cast<int>(from.blue[i]);
    const float high = most(most(r, g), b), range = high - least(least(r, g), b);
    const float some_high = most(high, 1.0f), some_range = most(range, 1.0f);  // black and greys have no hue: 0
    const float inverse = 1.0f / (some_high * some_range);  // one division for two
    const float offset = high == r ? g - b : high == g ? b - r : r - g;
    const float sector = high == r ? (offset < 0.0f ? 6.0f : 0.0f) : high == g ? 2.0f : 4.0f;
    float hue = (offset * (some_high * inverse) + sector) * hue_gain;
    hue = hue >= 6.0f ? hue - 6.0f : hue;
    const float value = least(high * value_gain, 255.0f);
    // Saturation is range / high, at most 1, so that this is saturation times value.
    const float chroma = least(range * saturation_gain, high) * least(value_gain, 255.0f * some_range * inverse);
    to.red[i] = channel(5.0f, hue, value, chroma);
    to.green[i] = channel(3.0f, hue, value, chroma);
    to.blue[i] = channel(1.0f, hue, value, chroma);
  }
}

template <int64_t Channels>
static void shift_all(int64_t pixels, const uint8_t* in, float hue_gain, float saturation_gain, float value_gain, uint8_t* out) {
  Planes from, to;
  in_pieces<PIXELS>(pixels, [&](int64_t start, int64_t count) __attribute__((always_inline)) {
    const uint8_t* __restrict x = in + Channels * start;
    uint8_t* __restrict y = out + 3 * start;
    for (int64_t i = 0; i < count; i++) {
      from.red[i] = x[Channels * i];
      from.green[i] = x[Channels * i + 1];
      from.blue[i] = x[Channels * i + 2];
    }
    shift(count, from, hue_gain, saturation_gain, value_gain, to);
    for (int64_t i = 0; i < count; i++) {
      y[3 * i] = to.red[i];
      y[3 * i + 1] = to.green[i];
      y[3 * i + 2] = to.blue[i];
    }
  });
}

// out (pixels, 3) = in (pixels, channels), RGB or RGB and a channel that is left out, with hue, saturation and value
// multiplied by gains of 0 to 2.
extern "C" void shift_hsv(
    int64_t pixels, int64_t channels, const uint8_t* in, float hue_gain, float saturation_gain, float value_gain,
    uint8_t* out) {
  const auto run = channels == 4 ? shift_all<4> : shift_all<3>;
  run(pixels, in, hue_gain, saturation_gain, value_gain, out);
}
