// Weighted sums of normalised channels-last tensors, and the norm before a ReLU: forward and backward.
//
// out[p, j, c] = sum over the lanes that go to target j of weight * norm(value)[p, c], for pixels p (of all
// images), targets j and channels c. A term is one tensor: its lanes have channels of their own side by side,
// or share them. A norm is that of a batch, without scale and shift. Pixels are summed in blocks of one size, and
// the blocks in order and in double precision, however many threads there are.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t BLOCK = 256;  // pixels

template <typename T>
struct Term {
    const T* value;           // (pixels, lanes x channels), or (pixels, channels) where shared
    const T* weight;          // (lanes x channels)
    const int64_t* targets;   // (lanes)
    T *mean, *deviation;      // of the batch, by channel of the value: found forward, read backward
    T *running_mean, *running_var;  // (lanes x channels), or null
    T *d_value, *d_weight;    // backward; null if not wanted
    int64_t lanes, shared, normed;
    double momentum, eps;
};

template <typename T>
struct Sum {
    int64_t pixels, channels, targets, terms;
    const Term<T>* term;
    T* out;  // forward: the sum; backward: its gradient
    int64_t wide() const { return targets * channels; }
    int64_t width(const Term<T>& t) const { return t.shared ? channels : t.lanes * channels; }
    int64_t blocks() const { return (pixels + BLOCK - 1) / BLOCK; }
};

// For each block of pixels, `of(block, first, end, to)` adds up to `size` sums; they are summed in order.
template <typename T, typename F>
std::vector<double> summed(int64_t pixels, int64_t size, int threads, F of) {
    const int64_t blocks = (pixels + BLOCK - 1) / BLOCK;
    std::vector<T> parts(blocks * size, T(0));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; ++block)
        of(block * BLOCK, std::min(pixels, (block + 1) * BLOCK), parts.data() + block * size);
    std::vector<double> sum(size, 0.0);
    for (int64_t block = 0; block < blocks; ++block)
        for (int64_t k = 0; k < size; ++k) sum[k] += parts[block * size + k];
    return sum;
}

// Mean and 1 / standard deviation of each channel; moves the running statistics of all lanes.
template <typename T>
void normalise(const Term<T>& t, int64_t pixels, int64_t channels, int64_t width, int threads) {
    const auto sums = summed<T>(pixels, width, threads, [&](int64_t p, int64_t end, T* to) {
        for (; p < end; ++p)
            for (int64_t c = 0; c < width; ++c) to[c] += t.value[p * width + c];
    });
    for (int64_t c = 0; c < width; ++c) t.mean[c] = T(sums[c] / pixels);
    const auto squares = summed<T>(pixels, width, threads, [&](int64_t p, int64_t end, T* to) {
        for (; p < end; ++p) {
            const T* x = t.value + p * width;
            for (int64_t c = 0; c < width; ++c) to[c] += (x[c] - t.mean[c]) * (x[c] - t.mean[c]);
        }
    });
    for (int64_t c = 0; c < width; ++c) {
        const double mean = sums[c] / pixels, var = squares[c] / pixels;
        t.deviation[c] = T(1.0 / std::sqrt(var + t.eps));
        if (!t.running_mean) continue;
        const double unbiased = pixels > 1 ? var * pixels / (pixels - 1) : var;
        for (int64_t at = c; at < t.lanes * channels; at += width) {
            t.running_mean[at] += T(t.momentum * (mean - t.running_mean[at]));
            t.running_var[at] += T(t.momentum * (unbiased - t.running_var[at]));
        }
    }
}

// What a lane adds to its target: scale * value, by channel, from `at` on in a row of `width` channels.
template <typename T>
struct Part {
    const T* value;
    int64_t width, at;
    std::vector<T> scale;
};

template <typename T>
void forward(const Sum<T>& s, int threads) {
    std::vector<std::vector<Part<T>>> parts(s.targets);
    std::vector<T> bias(s.wide(), T(0));
    for (int64_t i = 0; i < s.terms; ++i) {
        const Term<T>& t = s.term[i];
        const int64_t width = s.width(t);
        if (t.normed) normalise(t, s.pixels, s.channels, width, threads);
        for (int64_t lane = 0; lane < t.lanes; ++lane) {
            Part<T> part{t.value, width, t.shared ? 0 : lane * s.channels, std::vector<T>(s.channels)};
            for (int64_t c = 0; c < s.channels; ++c) {
                const T w = t.weight[lane * s.channels + c];
                part.scale[c] = t.normed ? w * t.deviation[part.at + c] : w;
                if (t.normed) bias[t.targets[lane] * s.channels + c] -= part.scale[c] * t.mean[part.at + c];
            }
            parts[t.targets[lane]].push_back(std::move(part));
        }
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < s.pixels; ++p)
        for (int64_t j = 0; j < s.targets; ++j) {
            T* __restrict to = s.out + p * s.wide() + j * s.channels;
            std::copy(bias.begin() + j * s.channels, bias.begin() + (j + 1) * s.channels, to);
            for (const Part<T>& part : parts[j]) {
                const T* from = part.value + p * part.width + part.at;
                const T* scale = part.scale.data();
                for (int64_t c = 0; c < s.channels; ++c) to[c] += scale[c] * from[c];
            }
        }
}

template <typename T>
void backward_of(const Sum<T>& s, const Term<T>& t, const std::vector<double>& whole, int threads) {
    const int64_t width = s.width(t), all = t.lanes * s.channels;
    // Of each lane, the products of its value with the gradient of its target.
    const auto products = summed<T>(s.pixels, all, threads, [&](int64_t p, int64_t end, T* to) {
        for (; p < end; ++p)
            for (int64_t lane = 0; lane < t.lanes; ++lane) {
                const T* __restrict g = s.out + p * s.wide() + t.targets[lane] * s.channels;
                const T* __restrict x = t.value + p * width + (t.shared ? 0 : lane * s.channels);
                T* __restrict sum = to + lane * s.channels;
                for (int64_t c = 0; c < s.channels; ++c) sum[c] += g[c] * x[c];
            }
    });
    std::vector<T> slope(width, T(0)), offset(width, T(0)), scale(all);
    for (int64_t k = 0; k < all; ++k) {
        const int64_t lane = k / s.channels, c = k % s.channels, at = t.shared ? c : k;
        const double total = whole[t.targets[lane] * s.channels + c], n = double(s.pixels);
        const double r = t.normed ? t.deviation[at] : 1.0, mean = t.normed ? t.mean[at] : 0.0;
        const double along = r * (products[k] - mean * total), w = t.weight[k];  // with the normed value
        if (t.d_weight) t.d_weight[k] = T(along);
        scale[k] = T(w * r);
        if (!t.normed) continue;
        slope[at] -= T(w * r * r * along / n);
        offset[at] -= T(w * r * (total / n - r * mean * along / n));
    }
    if (!t.d_value) return;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < s.pixels; ++p) {
        T* __restrict to = t.d_value + p * width;
        const T* __restrict x = t.value + p * width;
        if (t.normed)
            for (int64_t c = 0; c < width; ++c) to[c] = offset[c] + slope[c] * x[c];
        else
            std::fill(to, to + width, T(0));
        for (int64_t lane = 0; lane < t.lanes; ++lane) {
            const T* __restrict g = s.out + p * s.wide() + t.targets[lane] * s.channels;
            const T* __restrict by = scale.data() + lane * s.channels;
            T* __restrict sum = to + (t.shared ? 0 : lane * s.channels);
            for (int64_t c = 0; c < s.channels; ++c) sum[c] += by[c] * g[c];
        }
    }
}

template <typename T>
void backward(const Sum<T>& s, int threads) {
    const int64_t wide = s.wide();
    const auto whole = summed<T>(s.pixels, wide, threads, [&](int64_t p, int64_t end, T* to) {
        for (; p < end; ++p)
            for (int64_t c = 0; c < wide; ++c) to[c] += s.out[p * wide + c];
    });
    for (int64_t i = 0; i < s.terms; ++i) backward_of(s, s.term[i], whole, threads);
}

// y = relu(norm(x)); a term of one lane of `channels` without weights.
template <typename T>
void rectified(const Term<T>& t, int64_t pixels, int64_t channels, T* y, int threads) {
    normalise(t, pixels, channels, channels, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < channels; ++c) {
            const T off = (t.value[p * channels + c] - t.mean[c]) * t.deviation[c];
            y[p * channels + c] = off < 0 ? T(0) : off;  // what is no number stays so
        }
}

template <typename T>
void rectified_backward(const Term<T>& t, int64_t pixels, int64_t channels, const T* g, int threads) {
    const auto sums = summed<T>(pixels, 2 * channels, threads, [&](int64_t p, int64_t end, T* to) {
        for (; p < end; ++p) {
            const T *x = t.value + p * channels, *dy = g + p * channels;
            for (int64_t c = 0; c < channels; ++c) {
                const T open = x[c] > t.mean[c] ? dy[c] : T(0);
                to[c] += open;
                to[channels + c] += open * (x[c] - t.mean[c]);
            }
        }
    });
    std::vector<T> slope(channels), offset(channels);
    for (int64_t c = 0; c < channels; ++c) {
        const double r = t.deviation[c];
        slope[c] = T(-r * r * r * sums[channels + c] / pixels);
        offset[c] = T(-r * sums[c] / pixels);
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < pixels; ++p) {
        const T *x = t.value + p * channels, *dy = g + p * channels;
        T* to = t.d_value + p * channels;
        for (int64_t c = 0; c < channels; ++c) {
            const T off = x[c] - t.mean[c];
            to[c] = offset[c] + slope[c] * off + t.deviation[c] * (off > 0 ? dy[c] : T(0));
        }
    }
}

}  // namespace

#define EXPORTED(T, NAME)                                                                                    \
    extern "C" void forward_##NAME(const Sum<T>* s, int threads) { forward<T>(*s, threads); }                \
    extern "C" void backward_##NAME(const Sum<T>* s, int threads) { backward<T>(*s, threads); }              \
    extern "C" void rectified_##NAME(const Sum<T>* s, int threads) {                                         \
        rectified<T>(*s->term, s->pixels, s->channels, s->out, threads);                                     \
    }                                                                                                        \
    extern "C" void rectified_backward_##NAME(const Sum<T>* s, int threads) {                                \
        rectified_backward<T>(*s->term, s->pixels, s->channels, s->out, threads);                            \
    }

EXPORTED(float, float32)
EXPORTED(double, float64)
