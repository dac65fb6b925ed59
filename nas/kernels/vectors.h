// Numbers of 64 bytes at a time: a compiler makes of them what the processor has.

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
