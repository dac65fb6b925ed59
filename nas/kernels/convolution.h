// What the kinds of convolution share: numbers of 64 bytes at a time, of which a compiler makes what the
// processor has, and the names of what they export.

#pragma once

#include <cstdint>

template <typename T>
struct Vectors {
    typedef T aligned __attribute__((vector_size(64)));
    typedef T anywhere __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
};
template <typename T>
using Vector = typename Vectors<T>::aligned;
template <typename T>
constexpr int64_t WIDTH = 64 / sizeof(T);

template <typename T>
inline Vector<T> load(const T* from) {
    return *reinterpret_cast<const typename Vectors<T>::anywhere*>(from);
}
template <typename T>
inline void store(T* to, const typename Vectors<T>::aligned& value) {
    *reinterpret_cast<typename Vectors<T>::anywhere*>(to) = value;
}

// Of a type: y of x and w, the gradient of x of w and that of y, the gradient of w of x and that of y.
#define EXPORTED(T, NAME)                                                                                  \
    extern "C" void forward_##NAME(const T* x, const T* w, T* y, const Shape* s, int threads) {            \
        forward<T>(x, w, y, *s, threads);                                                                  \
    }                                                                                                      \
    extern "C" void input_gradient_##NAME(const T* w, const T* g, T* dx, const Shape* s, int threads) {    \
        input_gradient<T>(w, g, dx, *s, threads);                                                          \
    }                                                                                                      \
    extern "C" void weight_gradient_##NAME(const T* x, const T* g, T* dw, const Shape* s, int threads) {   \
        weight_gradient<T>(x, g, dw, *s, threads);                                                         \
    }
