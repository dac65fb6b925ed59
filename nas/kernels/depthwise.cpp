// Depthwise convolutions of channels-last tensors: forward, gradient of the input, gradient of the weight.
//
// Tensors are dense: (batch, height, width, channels). `lanes` convolutions of `channels` channels each are
// computed at once: y and its gradient have lanes x channels channels; x has so many too or, if the lanes share
// it, `channels` alone. Weights are (kernel, kernel, lanes x channels). Nothing is summed in an order that
// depends on the number of threads.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "convolution.h"

namespace {

struct Shape {
    int64_t batch, height, width, out_height, out_width, channels, lanes, shared, kernel, stride, padding, dilation;

    int64_t wide() const { return lanes * channels; }
    int64_t in() const { return shared ? channels : lanes * channels; }
};

inline int64_t rounded_up(int64_t a, int64_t b) { return a <= 0 ? 0 : (a + b - 1) / b; }

// The places of the output for which a tap reads inside the input.
inline int64_t first_place(int64_t tap, const Shape& s) {
    return rounded_up(s.padding - tap * s.dilation, s.stride);
}
inline int64_t end_of_places(int64_t tap, int64_t size, int64_t out, const Shape& s) {
    return std::min(out, rounded_up(size + s.padding - tap * s.dilation, s.stride));
}

// Along one side of the image: for each place of one tensor, the taps that meet the other, and where.
struct Line {
    std::vector<int64_t> start, tap, at;
    std::vector<bool> shifted;  // whether a place meets what the place before it meets, `step` further on

    // `up`: places of the output that meet the input; else of the input that meet the output.
    Line(int64_t size, int64_t out, const Shape& s, bool up) : start(1, 0) {
        for (int64_t place = 0; place < (up ? out : size); ++place) {
            for (int64_t k = 0; k < s.kernel; ++k) {
                int64_t met = up ? place * s.stride + k * s.dilation - s.padding : place + s.padding - k * s.dilation;
                if (met < 0 || (!up && met % s.stride)) continue;
                if (!up) met /= s.stride;
                if (met < (up ? size : out)) tap.push_back(k), at.push_back(met);
            }
            start.push_back(tap.size());
        }
        const int64_t step = up ? s.stride : 1;
        for (size_t place = 0; place + 1 < start.size(); ++place) {
            const int64_t before = place ? start[place - 1] : 0, here = start[place], count = start[place + 1] - here;
            bool same = place && here - before == count;
            for (int64_t k = 0; same && k < count; ++k)
                same = tap[here + k] == tap[before + k] && at[here + k] == at[before + k] + step;
            shifted.push_back(same);
        }
    }

    // Whether `n` places from one on meet the same taps, each a step further on.
    bool alike(int64_t place, int64_t n) const {
        if (place + n > int64_t(shifted.size())) return false;
        for (int64_t k = 1; k < n; ++k)
            if (!shifted[place + k]) return false;
        return true;
    }
};

// Weights with the channels last: (kernel, kernel, lanes x channels).
template <typename T>
std::vector<T> channels_last(const T* w, const Shape& s) {
    const int64_t taps = s.kernel * s.kernel;
    std::vector<T> last(taps * s.wide());
    for (int64_t c = 0; c < s.wide(); ++c)
        for (int64_t k = 0; k < taps; ++k) last[k * s.wide() + c] = w[c * taps + k];
    return last;
}

// A pixel's sum over the taps that meet an image of `width` pixels a row; `step`: between neighbours there.
struct Pixel {
    const Line &rows, &columns;
    int64_t row, column, width, kernel, period, wide, step;
};

// `R` vectors of the sums of `P` neighbours; those of `x` repeat after `period` channels.
template <typename T, int R, int P>
inline void sums(const T* x, const T* w, T* y, const Pixel& p, int64_t at) {
    Vector<T> sum[P][R] = {};
    int64_t from[R];
    for (int r = 0; r < R; ++r) from[r] = (at + r * WIDTH<T>) % p.period;
    for (int64_t i = p.rows.start[p.row]; i < p.rows.start[p.row + 1]; ++i)
        for (int64_t j = p.columns.start[p.column]; j < p.columns.start[p.column + 1]; ++j) {
            const T* a = x + (p.rows.at[i] * p.width + p.columns.at[j]) * p.period;
            const T* b = w + (p.rows.tap[i] * p.kernel + p.columns.tap[j]) * p.wide + at;
            for (int r = 0; r < R; ++r) {
                const Vector<T> by = load(b + r * WIDTH<T>);
                for (int q = 0; q < P; ++q) sum[q][r] += load(a + q * p.step + from[r]) * by;
            }
        }
    for (int q = 0; q < P; ++q)
        for (int r = 0; r < R; ++r) store(y + q * p.wide + at + r * WIDTH<T>, sum[q][r]);
}

template <typename T, int P>
void all_sums(const T* x, const T* w, T* y, const Pixel& p) {
    int64_t at = 0;
    if (p.period % WIDTH<T> == 0) {
        for (; at + 2 * WIDTH<T> <= p.wide; at += 2 * WIDTH<T>) sums<T, 2, P>(x, w, y, p, at);
        for (; at + WIDTH<T> <= p.wide; at += WIDTH<T>) sums<T, 1, P>(x, w, y, p, at);
    }
    for (int q = 0; q < P && at < p.wide; ++q)
        for (int64_t c = at; c < p.wide; ++c) {
            T sum = 0;
            for (int64_t i = p.rows.start[p.row]; i < p.rows.start[p.row + 1]; ++i)
                for (int64_t j = p.columns.start[p.column]; j < p.columns.start[p.column + 1]; ++j)
                    sum += x[(p.rows.at[i] * p.width + p.columns.at[j]) * p.period + q * p.step + c % p.period] *
                           w[(p.rows.tap[i] * p.kernel + p.columns.tap[j]) * p.wide + c];
            y[q * p.wide + c] = sum;
        }
}

// A row of sums, four neighbours at a time where they are alike.
template <typename T>
void row_of_sums(const T* x, const T* w, T* y, Pixel p, int64_t size) {
    for (p.column = 0; p.column < size;) {
        T* to = y + p.column * p.wide;
        if (p.columns.alike(p.column, 4)) {
            all_sums<T, 4>(x, w, to, p);
            p.column += 4;
        } else {
            all_sums<T, 1>(x, w, to, p);
            p.column += 1;
        }
    }
}

template <typename T>
void forward(const T* x, const T* weight, T* y, const Shape& s, int threads) {
    const Line rows(s.height, s.out_height, s, true), columns(s.width, s.out_width, s, true);
    const std::vector<T> w = channels_last(weight, s);
#pragma omp parallel for num_threads(threads) collapse(2) schedule(static)
    for (int64_t n = 0; n < s.batch; ++n)
        for (int64_t h = 0; h < s.out_height; ++h) {
            const Pixel first{rows, columns, h, 0, s.width, s.kernel, s.in(), s.wide(), s.stride * s.in()};
            T* to = y + (n * s.out_height + h) * s.out_width * s.wide();
            row_of_sums(x + n * s.height * s.width * s.in(), w.data(), to, first, s.out_width);
        }
}

template <typename T>
void input_gradient(const T* weight, const T* g, T* dx, const Shape& s, int threads) {
    const Line rows(s.height, s.out_height, s, false), columns(s.width, s.out_width, s, false);
    const std::vector<T> w = channels_last(weight, s);
#pragma omp parallel num_threads(threads)
    {
        std::vector<T> lanes(s.shared ? s.width * s.wide() : 0);
#pragma omp for collapse(2) schedule(static)
        for (int64_t n = 0; n < s.batch; ++n)
            for (int64_t h = 0; h < s.height; ++h) {
                const Pixel first{rows, columns, h, 0, s.out_width, s.kernel, s.wide(), s.wide(), s.wide()};
                T* to = dx + (n * s.height + h) * s.width * s.in();
                T* sum = s.shared ? lanes.data() : to;
                row_of_sums(g + n * s.out_height * s.out_width * s.wide(), w.data(), sum, first, s.width);
                for (int64_t v = 0; s.shared && v < s.width; ++v) {
                    const T* of = sum + v * s.wide();
                    T* into = to + v * s.channels;
                    std::copy(of, of + s.channels, into);
                    for (int64_t lane = 1; lane < s.lanes; ++lane)
                        for (int64_t c = 0; c < s.channels; ++c) into[c] += of[lane * s.channels + c];
                }
            }
    }
}

// `R` vectors of the products of a row of x and a row of g, a tap apart, added to `to`.
template <typename T, int R>
inline void products(const T* x, const T* g, T* to, const Shape& s, int64_t places, int64_t at) {
    Vector<T> sum[R] = {};
    int64_t from[R];
    for (int r = 0; r < R; ++r) from[r] = (at + r * WIDTH<T>) % s.in();
    for (int64_t v = 0; v < places; ++v) {
        const T *a = x + v * s.stride * s.in(), *b = g + v * s.wide() + at;
        for (int r = 0; r < R; ++r) sum[r] += load(a + from[r]) * load(b + r * WIDTH<T>);
    }
    for (int r = 0; r < R; ++r) store(to + at + r * WIDTH<T>, load(to + at + r * WIDTH<T>) + sum[r]);
}

template <typename T>
void weight_gradient(const T* x, const T* g, T* dw, const Shape& s, int threads) {
    const int64_t wide = s.wide(), in = s.in(), size = s.kernel * s.kernel * wide;
    std::vector<T> parts(s.batch * size, T(0));  // an image each, so that the order of sums is one
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < s.batch; ++n)
        for (int64_t i = 0; i < s.kernel; ++i)
            for (int64_t h = first_place(i, s); h < end_of_places(i, s.height, s.out_height, s); ++h)
                for (int64_t j = 0; j < s.kernel; ++j) {
                    const int64_t v = first_place(j, s), places = end_of_places(j, s.width, s.out_width, s) - v;
                    const int64_t row = h * s.stride + i * s.dilation - s.padding;
                    const int64_t column = v * s.stride + j * s.dilation - s.padding;
                    if (places <= 0) continue;
                    const T* a = x + ((n * s.height + row) * s.width + column) * in;
                    const T* b = g + ((n * s.out_height + h) * s.out_width + v) * wide;
                    T* to = parts.data() + n * size + (i * s.kernel + j) * wide;
                    int64_t at = 0;
                    if (in % WIDTH<T> == 0) {
                        for (; at + 4 * WIDTH<T> <= wide; at += 4 * WIDTH<T>) products<T, 4>(a, b, to, s, places, at);
                        for (; at + WIDTH<T> <= wide; at += WIDTH<T>) products<T, 1>(a, b, to, s, places, at);
                    }
                    for (; at < wide; ++at)
                        for (int64_t p = 0; p < places; ++p) to[at] += a[p * s.stride * in + at % in] * b[p * wide + at];
                }
    for (int64_t n = 1; n < s.batch; ++n)
        for (int64_t k = 0; k < size; ++k) parts[k] += parts[n * size + k];
    const int64_t taps = s.kernel * s.kernel;
    for (int64_t c = 0; c < wide; ++c)
        for (int64_t k = 0; k < taps; ++k) dw[c * taps + k] = parts[k * wide + c];
}

}  // namespace

EXPORTED(float, float32)
EXPORTED(double, float64)
