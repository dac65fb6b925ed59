// Convolutions of 1x1 of channels-last tensors: forward, gradient of the input, gradient of the weight.
//
// `lanes` convolutions of `in` to `out` channels each are computed at once: x has lanes x in channels a pixel, y
// lanes x out. Weights are (lanes x out, in). Both numbers of channels are multiples of what 64 bytes hold.
// Nothing is summed in an order that depends on the number of threads.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "convolution.h"

namespace {

struct Shape {
    int64_t pixels, lanes, in, out;
};

constexpr int64_t NEAR = 1 << 12;  // numbers that the nearest cache holds beside others
constexpr int64_t BLOCK = 64;      // pixels at a time if the weights are more; else 8: memory is read in its order
constexpr int64_t PART = 1024;     // pixels, at least, whose products are summed before they meet those of others
constexpr int64_t PARTS = 64;      // of all pixels, at most

// `R` vectors of what `P` pixels come to: to[q] = sum over k of from[q][k] * w[k].
template <typename T, int R, int P>
inline void sums(const T* from, int64_t from_step, const T* w, int64_t w_step, T* to, int64_t to_step,
                 int64_t size) {
    Vector<T> sum[P][R] = {};
    for (int64_t k = 0; k < size; ++k)
        for (int r = 0; r < R; ++r) {
            const Vector<T> by = load(w + k * w_step + r * WIDTH<T>);
            for (int q = 0; q < P; ++q) sum[q][r] += from[q * from_step + k] * by;
        }
    for (int q = 0; q < P; ++q)
        for (int r = 0; r < R; ++r) store(to + q * to_step + r * WIDTH<T>, sum[q][r]);
}

template <typename T, int R>
inline void column(const T* from, int64_t from_step, const T* w, int64_t w_step, T* to, int64_t to_step, int64_t size,
                   int64_t pixels) {
    int64_t p = 0;
    for (; p + 8 <= pixels; p += 8)
        sums<T, R, 8>(from + p * from_step, from_step, w, w_step, to + p * to_step, to_step, size);
    for (; p < pixels; ++p)
        sums<T, R, 1>(from + p * from_step, from_step, w, w_step, to + p * to_step, to_step, size);
}

// Of each lane, to (pixels, wide) = from (pixels, size) by w (size, wide).
template <typename T>
void products(const T* from, const T* w, T* to, int64_t pixels, int64_t lanes, int64_t size, int64_t wide,
              int threads) {
    const int64_t from_step = lanes * size, to_step = lanes * wide;
    const int64_t most = lanes * size * wide <= NEAR ? 8 : BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < (pixels + most - 1) / most; ++block) {
        const int64_t p = block * most, n = std::min(most, pixels - p);
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const T *a = from + p * from_step + lane * size, *b = w + lane * size * wide;
            T* c = to + p * to_step + lane * wide;
            int64_t at = 0;
            for (; at + 2 * WIDTH<T> <= wide; at += 2 * WIDTH<T>)
                column<T, 2>(a, from_step, b + at, wide, c + at, to_step, size, n);
            for (; at < wide; at += WIDTH<T>) column<T, 1>(a, from_step, b + at, wide, c + at, to_step, size, n);
        }
    }
}

template <typename T>
void forward(const T* x, const T* w, T* y, const Shape& s, int threads) {
    std::vector<T> turned(s.lanes * s.in * s.out);  // (lanes, in, out)
    for (int64_t lane = 0; lane < s.lanes; ++lane)
        for (int64_t o = 0; o < s.out; ++o)
            for (int64_t i = 0; i < s.in; ++i)
                turned[(lane * s.in + i) * s.out + o] = w[(lane * s.out + o) * s.in + i];
    products(x, turned.data(), y, s.pixels, s.lanes, s.in, s.out, threads);
}

template <typename T>
void input_gradient(const T* w, const T* g, T* dx, const Shape& s, int threads) {
    products(g, w, dx, s.pixels, s.lanes, s.out, s.in, threads);
}

// `R` rows of the gradient of one lane's weight, `C` vectors of each, over `n` pixels: added to `to`.
template <typename T, int R, int C>
inline void rows(const T* x, int64_t x_step, const T* g, int64_t g_step, T* to, int64_t in, int64_t n) {
    Vector<T> sum[R][C];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) sum[r][c] = load(to + r * in + c * WIDTH<T>);
    for (int64_t p = 0; p < n; ++p)
        for (int c = 0; c < C; ++c) {
            const Vector<T> value = load(x + p * x_step + c * WIDTH<T>);
            for (int r = 0; r < R; ++r) sum[r][c] += g[p * g_step + r] * value;
        }
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) store(to + r * in + c * WIDTH<T>, sum[r][c]);
}

template <typename T>
void weight_gradient(const T* x, const T* g, T* dw, const Shape& s, int threads) {
    const int64_t x_step = s.lanes * s.in, g_step = s.lanes * s.out, size = s.lanes * s.out * s.in;
    const int64_t most = std::max(PART, (s.pixels + PARTS - 1) / PARTS), count = (s.pixels + most - 1) / most;
    std::vector<T> parts(count * size, T(0));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < count; ++part)
        for (int64_t p = part * most, end = std::min(s.pixels, p + most); p < end; p += 32) {
            const int64_t n = std::min(int64_t(32), end - p);
            for (int64_t lane = 0; lane < s.lanes; ++lane) {
                const T *a = x + p * x_step + lane * s.in, *b = g + p * g_step + lane * s.out;
                T* to = parts.data() + part * size + lane * s.out * s.in;
                for (int64_t o = 0; o < s.out; o += 8) {
                    int64_t i = 0;
                    for (; i + 2 * WIDTH<T> <= s.in; i += 2 * WIDTH<T>)
                        rows<T, 8, 2>(a + i, x_step, b + o, g_step, to + o * s.in + i, s.in, n);
                    for (; i < s.in; i += WIDTH<T>)
                        rows<T, 8, 1>(a + i, x_step, b + o, g_step, to + o * s.in + i, s.in, n);
                }
            }
        }
    std::copy(parts.begin(), parts.begin() + size, dw);
    for (int64_t part = 1; part < count; ++part)
        for (int64_t k = 0; k < size; ++k) dw[k] += parts[part * size + k];
}

}  // namespace

EXPORTED(float, float32)
EXPORTED(double, float64)
