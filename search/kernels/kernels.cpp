// Kernels of the supernet for one block of sixteen images.
//
// A tensor of a block is [channels][height][width][16 images]: every vector holds the same pixel of
// sixteen images. So borders, strides, dilations and pools need no shuffles, four channels cost a
// quarter of sixteen, and a sum over the images of a block is a sum over lanes at the very end.
// Absent images of the last block hold finite numbers that no sum counts.
//
// This file is compiled once per instruction set (LATHE_SET); the caller picks a table at start.

#include <cstddef>
#include <cstdint>

namespace {

constexpr int LANES = 16;

template <class T> struct VectorOf;
template <> struct VectorOf<float> { typedef float type __attribute__((vector_size(64), aligned(64))); };
template <> struct VectorOf<double> { typedef double type __attribute__((vector_size(128), aligned(64))); };
template <class T> using Vector = typename VectorOf<T>::type;
typedef Vector<double> Sums;

#define INLINE static inline __attribute__((always_inline))

template <class T> INLINE Vector<T> zero() {
    Vector<T> z = {};
    return z;
}

template <class T> INLINE Vector<T> all(T value) {
    Vector<T> v = {};
    return v + value;
}

template <class T> INLINE Vector<T> positive(Vector<T> x) {
    Vector<T> z = {};
    return x > z ? x : z;
}

template <class T> INLINE Vector<T> larger(Vector<T> a, Vector<T> b) { return a > b ? a : b; }

template <class T> INLINE Sums wide(Vector<T> x) { return __builtin_convertvector(x, Sums); }

// Sum over the first `images` lanes.
INLINE double lanes(const Sums& sums, int images) {
    double total = 0;
    for (int i = 0; i < images; ++i) total += sums[i];
    return total;
}

// 1 in the lanes that hold an image, 0 in the others.
template <class T> INLINE Vector<T> mask(int images) {
    Vector<T> v = {};
    for (int i = 0; i < images; ++i) v[i] = 1;
    return v;
}

// ---- elementwise --------------------------------------------------------------------------------

// out[c][h][pad + w + pad] = max(scale[c]·x[c][h·step][w·step] + shift[c], 0); without scale: max(x, 0).
template <class T>
void pad(const Vector<T>* x, Vector<T>* out, int channels, int height, int width, int padding, int step,
         const T* scale, const T* shift) {
    const int rows = height / step, columns = width / step, pitch = columns + 2 * padding;
    for (int c = 0; c < channels; ++c) {
        const T a = scale ? scale[c] : T(1);
        const Vector<T> b = all<T>(scale ? shift[c] : T(0));
        for (int h = 0; h < rows; ++h) {
            Vector<T>* to = out + (size_t(c) * rows + h) * pitch;
            const Vector<T>* from = x + (size_t(c) * height + size_t(h) * step) * width;
            for (int w = 0; w < padding; ++w) to[w] = to[padding + columns + w] = zero<T>();
            if (step == 1)
                for (int w = 0; w < columns; ++w) to[padding + w] = positive<T>(a * from[w] + b);
            else
                for (int w = 0; w < columns; ++w) to[padding + w] = positive<T>(a * from[w * step] + b);
        }
    }
}

// out = constant + sum over k of factor[k]·source[k], or that added to out.
template <class T>
void combine(Vector<T>* out, int count, const Vector<T>* const* sources, const T* factors, T constant,
             int64_t length, int accumulate) {
    int64_t i = 0;
    for (; i + 4 <= length; i += 4) {
        Vector<T> a = all<T>(constant), b = a, c = a, d = a;
        if (accumulate) a += out[i], b += out[i + 1], c += out[i + 2], d += out[i + 3];
        for (int k = 0; k < count; ++k) {
            const T f = factors[k];
            const Vector<T>* s = sources[k] + i;
            a += f * s[0];
            b += f * s[1];
            c += f * s[2];
            d += f * s[3];
        }
        out[i] = a;
        out[i + 1] = b;
        out[i + 2] = c;
        out[i + 3] = d;
    }
    for (; i < length; ++i) {
        Vector<T> a = all<T>(constant);
        if (accumulate) a += out[i];
        for (int k = 0; k < count; ++k) a += factors[k] * sources[k][i];
        out[i] = a;
    }
}

// d += g where x is positive.
template <class T>
void add_where_positive(Vector<T>* d, const Vector<T>* g, const Vector<T>* x, int64_t length) {
    const Vector<T> none = zero<T>();
    for (int64_t i = 0; i < length; ++i) d[i] += x[i] > none ? g[i] : none;
}

// out[k] = sum over the images of g·source[k]; a null source counts as ones.
template <class T>
void dots(const Vector<T>* g, int count, const Vector<T>* const* sources, int64_t length, int images,
          double* out) {
    constexpr int64_t CHUNK = 32;
    constexpr int MOST = 16;
    for (int first = 0; first < count; first += MOST) {
        const int end = first + MOST < count ? first + MOST : count;
        Sums total[MOST] = {};
        for (int64_t start = 0; start < length; start += CHUNK) {
            const int64_t stop = start + CHUNK < length ? start + CHUNK : length;
            for (int k = first; k < end; ++k) {
                const Vector<T>* s = sources[k];
                Vector<T> a = zero<T>(), b = a;
                int64_t i = start;
                if (s) {
                    for (; i + 2 <= stop; i += 2) a += g[i] * s[i], b += g[i + 1] * s[i + 1];
                    for (; i < stop; ++i) a += g[i] * s[i];
                } else {
                    for (; i + 2 <= stop; i += 2) a += g[i], b += g[i + 1];
                    for (; i < stop; ++i) a += g[i];
                }
                total[k - first] += wide<T>(a + b);
            }
        }
        for (int k = first; k < end; ++k) out[k] = lanes(total[k - first], images);
    }
}

// Sum and sum of squares of each channel.
template <class T> INLINE void add_row(const Vector<T>* row, int width, Sums* sums) {
    Vector<T> s = zero<T>(), q = s;
    for (int w = 0; w < width; ++w) {
        s += row[w];
        q += row[w] * row[w];
    }
    sums[0] += wide<T>(s);
    sums[1] += wide<T>(q);
}

// ---- depthwise and pointwise convolution ---------------------------------------------------------

#ifdef __AVX512F__
constexpr int TILE = 8;
#else
constexpr int TILE = 4;
#endif

template <class T, int K, int S, int D, int W>
INLINE void depthwise_tile(const Vector<T>* plane, int pitch, int rows, int row, int column, const T* weight,
                           Vector<T>* acc) {
    constexpr int P = D * (K - 1) / 2;
#pragma GCC unroll 8
    for (int t = 0; t < W; ++t) acc[t] = zero<T>();
#pragma GCC unroll 5
    for (int kh = 0; kh < K; ++kh) {
        const int y = row * S + kh * D - P;
        if (y < 0 || y >= rows) continue;
        const Vector<T>* from = plane + size_t(y) * pitch + column * S;
#pragma GCC unroll 5
        for (int kw = 0; kw < K; ++kw) {
            const T w = weight[kh * K + kw];
#pragma GCC unroll 8
            for (int t = 0; t < W; ++t) acc[t] += w * from[t * S + kw * D];
        }
    }
}

// One row of a depthwise convolution; `plane` is padded by P on the left and on the right.
template <class T, int K, int S, int D>
INLINE void depthwise_row(const Vector<T>* plane, int pitch, int rows, int row, int columns, const T* weight,
                          Vector<T>* out) {
    int w = 0;
    for (; w + TILE <= columns; w += TILE) {
        Vector<T> acc[TILE];
        depthwise_tile<T, K, S, D, TILE>(plane, pitch, rows, row, w, weight, acc);
#pragma GCC unroll 8
        for (int t = 0; t < TILE; ++t) out[w + t] = acc[t];
    }
    for (; w < columns; ++w) {
        Vector<T> acc[1];
        depthwise_tile<T, K, S, D, 1>(plane, pitch, rows, row, w, weight, acc);
        out[w] = acc[0];
    }
}

// out[o][w] = sum over i of weight[o·os + i·is]·in[i][w].
template <class T, int O, int W>
INLINE void mix_tile(const Vector<T>* in, int in_pitch, int inputs, const T* weight, int os, int is,
                     Vector<T>* out, size_t out_pitch) {
    Vector<T> acc[O][W];
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o)
#pragma GCC unroll 4
        for (int t = 0; t < W; ++t) acc[o][t] = zero<T>();
    for (int i = 0; i < inputs; ++i) {
        const Vector<T>* from = in + size_t(i) * in_pitch;
        Vector<T> x[W];
#pragma GCC unroll 4
        for (int t = 0; t < W; ++t) x[t] = from[t];
#pragma GCC unroll 4
        for (int o = 0; o < O; ++o) {
            const T w = weight[o * os + i * is];
#pragma GCC unroll 4
            for (int t = 0; t < W; ++t) acc[o][t] += w * x[t];
        }
    }
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o)
#pragma GCC unroll 4
        for (int t = 0; t < W; ++t) out[o * out_pitch + t] = acc[o][t];
}

template <class T, int O>
INLINE void mix_rows(const Vector<T>* in, int in_pitch, int inputs, int columns, const T* weight, int os,
                     int is, Vector<T>* out, size_t out_pitch) {
    int w = 0;
    for (; w + 4 <= columns; w += 4)
        mix_tile<T, O, 4>(in + w, in_pitch, inputs, weight, os, is, out + w, out_pitch);
    for (; w < columns; ++w) mix_tile<T, O, 1>(in + w, in_pitch, inputs, weight, os, is, out + w, out_pitch);
}

template <class T>
INLINE void mix(const Vector<T>* in, int in_pitch, int inputs, int outputs, int columns, const T* weight,
                int os, int is, Vector<T>* out, size_t out_pitch) {
    int o = 0;
    for (; o + 4 <= outputs; o += 4)
        mix_rows<T, 4>(in, in_pitch, inputs, columns, weight + o * os, os, is, out + o * out_pitch, out_pitch);
    if (outputs - o >= 2) {
        mix_rows<T, 2>(in, in_pitch, inputs, columns, weight + o * os, os, is, out + o * out_pitch, out_pitch);
        o += 2;
    }
    if (outputs - o == 1)
        mix_rows<T, 1>(in, in_pitch, inputs, columns, weight + o * os, os, is, out + o * out_pitch, out_pitch);
}

// acc[o][i] += sum over w of a[o][w]·b[i][w].
template <class T, int O, int I>
INLINE void outer_tile(const Vector<T>* a, int a_pitch, const Vector<T>* b, int b_pitch, int columns,
                       Vector<T>* acc, int acc_pitch) {
    Vector<T> sum[O][I];
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o)
#pragma GCC unroll 4
        for (int i = 0; i < I; ++i) sum[o][i] = acc[o * acc_pitch + i];
    for (int w = 0; w < columns; ++w) {
        Vector<T> y[I];
#pragma GCC unroll 4
        for (int i = 0; i < I; ++i) y[i] = b[i * b_pitch + w];
#pragma GCC unroll 4
        for (int o = 0; o < O; ++o) {
            const Vector<T> x = a[o * a_pitch + w];
#pragma GCC unroll 4
            for (int i = 0; i < I; ++i) sum[o][i] += x * y[i];
        }
    }
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o)
#pragma GCC unroll 4
        for (int i = 0; i < I; ++i) acc[o * acc_pitch + i] = sum[o][i];
}

template <class T>
INLINE void outer(const Vector<T>* a, int a_pitch, int rows, const Vector<T>* b, int b_pitch, int inputs,
                  int columns, Vector<T>* acc) {
    for (int o = 0; o < rows; o += 4) {
        const int os = rows - o < 4 ? rows - o : 4;
        for (int i = 0; i < inputs; i += 4) {
            const int is = inputs - i < 4 ? inputs - i : 4;
            Vector<T>* to = acc + size_t(o) * inputs + i;
            const Vector<T>*x = a + size_t(o) * a_pitch, *y = b + size_t(i) * b_pitch;
            if (os == 4 && is == 4)
                outer_tile<T, 4, 4>(x, a_pitch, y, b_pitch, columns, to, inputs);
            else
                for (int p = 0; p < os; ++p)
                    for (int q = 0; q < is; ++q)
                        outer_tile<T, 1, 1>(x + size_t(p) * a_pitch, a_pitch, y + size_t(q) * b_pitch, b_pitch,
                                            columns, to + p * inputs + q, inputs);
        }
    }
}

template <class T> INLINE void add_lanes(const Vector<T>* acc, int64_t count, double* out) {
    for (int64_t k = 0; k < count; ++k) out[k] += lanes(wide<T>(acc[k]), LANES);
}

} // namespace

// Depthwise then pointwise convolution and the sums that batch norm needs.
template <class T> struct Separable {
    int32_t kind, channels, height, width, images, pitch;
    const Vector<T>* padded; // [C][H][pitch], rectified; starts P before the first pixel
    const T* depthwise;      // [C][K·K]
    const T* pointwise;      // [C][C]
    Vector<T>* z;            // [C][H/S][W/S]
    Vector<T>* scratch;
    double* sums; // [C][2]: sum, sum of squares
};

// Gradients of the same; the gradient of z is factors[0]·g + factors[1]·z + factors[2].
template <class T> struct SeparableBack {
    int32_t kind, channels, height, width, images, pitch;
    const Vector<T>* padded;
    const T* depthwise;
    const T* pointwise;
    const Vector<T>* z;
    const Vector<T>* g; // [C] planes of H/S·W/S, g_pitch apart
    int64_t g_pitch;
    const T* factors; // [3][C]
    Vector<T>* input; // [C][H·step][W·step]: gradient of the rectified input
    int32_t accumulate, step;
    Vector<T>* scratch;
    double* depthwise_gradient; // [C][K·K] or null
    double* pointwise_gradient; // [C][C] or null
};

namespace {

template <class T, int K, int S, int D> void separable(const Separable<T>& a) {
    const int rows = a.height / S, columns = a.width / S, pitch = a.pitch;
    const size_t plane = size_t(rows) * columns;
    Vector<T>* d = a.scratch;
    Sums* sums = reinterpret_cast<Sums*>(a.scratch + size_t(a.channels) * columns);
    for (int c = 0; c < 2 * a.channels; ++c) sums[c] = Sums{};
    for (int h = 0; h < rows; ++h) {
        for (int c = 0; c < a.channels; ++c)
            depthwise_row<T, K, S, D>(a.padded + size_t(c) * a.height * pitch, pitch, a.height, h, columns,
                                      a.depthwise + c * K * K, d + size_t(c) * columns);
        Vector<T>* z = a.z + size_t(h) * columns;
        mix<T>(d, columns, a.channels, a.channels, columns, a.pointwise, a.channels, 1, z, plane);
        for (int c = 0; c < a.channels; ++c) add_row<T>(z + c * plane, columns, sums + 2 * c);
    }
    for (int c = 0; c < 2 * a.channels; ++c) a.sums[c] = lanes(sums[c], a.images);
}

template <class T, int K, int S, int D> void separable_back(const SeparableBack<T>& a) {
    constexpr int P = D * (K - 1) / 2;
    const int rows = a.height / S, columns = a.width / S, pitch = a.pitch, C = a.channels;
    const int dpitch = columns + 2 * P;
    const size_t plane = size_t(rows) * columns;
    Vector<T>* dd = a.scratch;                          // [C][rows][dpitch]
    Vector<T>* dz = dd + size_t(C) * rows * dpitch;     // [C][columns]
    Vector<T>* d = dz + size_t(C) * columns;            // [C][columns]
    Vector<T>* dp = d + size_t(C) * columns;            // [C][C]
    const Vector<T> present = mask<T>(a.images);
    const bool weights = a.depthwise_gradient != nullptr;
    if (weights)
        for (int k = 0; k < C * C; ++k) dp[k] = zero<T>();
    for (int h = 0; h < rows; ++h) {
        for (int c = 0; c < C; ++c) {
            const Vector<T>*g = a.g + c * a.g_pitch + size_t(h) * columns, *z = a.z + c * plane + size_t(h) * columns;
            const Vector<T> fg = a.factors[c] * present, fz = a.factors[C + c] * present,
                            f1 = a.factors[2 * C + c] * present;
            Vector<T>* to = dz + size_t(c) * columns;
            for (int w = 0; w < columns; ++w) to[w] = fg * g[w] + (fz * z[w] + f1);
            Vector<T>* edge = dd + (size_t(c) * rows + h) * dpitch;
            for (int w = 0; w < P; ++w) edge[w] = edge[P + columns + w] = zero<T>();
        }
        mix<T>(dz, columns, C, C, columns, a.pointwise, 1, C, dd + size_t(h) * dpitch + P, size_t(rows) * dpitch);
        if (weights) {
            for (int c = 0; c < C; ++c)
                depthwise_row<T, K, S, D>(a.padded + size_t(c) * a.height * pitch, pitch, a.height, h, columns,
                                          a.depthwise + c * K * K, d + size_t(c) * columns);
            outer<T>(dz, columns, C, d, columns, C, columns, dp);
        }
    }
    if (weights) {
        add_lanes<T>(dp, int64_t(C) * C, a.pointwise_gradient);
        for (int c = 0; c < C; ++c) {
            for (int kh = 0; kh < K; ++kh) {
                Vector<T> even[K], odd[K];
#pragma GCC unroll 5
                for (int kw = 0; kw < K; ++kw) even[kw] = odd[kw] = zero<T>();
                for (int h = 0; h < rows; ++h) {
                    const int y = h * S + kh * D - P;
                    if (y < 0 || y >= a.height) continue;
                    const Vector<T>* r = a.padded + (size_t(c) * a.height + y) * pitch;
                    const Vector<T>* g = dd + (size_t(c) * rows + h) * dpitch + P;
                    int w = 0;
                    for (; w + 4 <= columns; w += 4) {
                        const Vector<T> g0 = g[w], g1 = g[w + 1], g2 = g[w + 2], g3 = g[w + 3];
                        const Vector<T>* from = r + w * S;
#pragma GCC unroll 5
                        for (int kw = 0; kw < K; ++kw) {
                            even[kw] += g0 * from[kw * D];
                            odd[kw] += g1 * from[S + kw * D];
                            even[kw] += g2 * from[2 * S + kw * D];
                            odd[kw] += g3 * from[3 * S + kw * D];
                        }
                    }
                    for (; w < columns; ++w)
#pragma GCC unroll 5
                        for (int kw = 0; kw < K; ++kw) even[kw] += g[w] * r[w * S + kw * D];
                }
#pragma GCC unroll 5
                for (int kw = 0; kw < K; ++kw)
                    a.depthwise_gradient[(c * K + kh) * K + kw] += lanes(wide<T>(even[kw] + odd[kw]), LANES);
            }
        }
    }
    // Gradient of the input: for stride 1 a convolution with the flipped kernel.
    Vector<T>* line = dz;
    const int out_width = a.width * a.step;
    for (int c = 0; c < C; ++c) {
        T flipped[K * K];
        for (int k = 0; k < K * K; ++k) flipped[k] = a.depthwise[c * K * K + K * K - 1 - k];
        const Vector<T>* from = dd + size_t(c) * rows * dpitch;
        for (int y = 0; y < a.height; ++y) {
            Vector<T>* to = a.input + (size_t(c) * a.height * a.step + size_t(y) * a.step) * out_width;
            if (S == 1) {
                if (!a.accumulate && a.step == 1) {
                    depthwise_row<T, K, 1, D>(from, dpitch, rows, y, columns, flipped, to);
                    const Vector<T>* r = a.padded + (size_t(c) * a.height + y) * pitch + P;
                    const Vector<T> none = zero<T>();
                    for (int w = 0; w < columns; ++w) to[w] = r[w] > none ? to[w] : none;
                } else {
                    depthwise_row<T, K, 1, D>(from, dpitch, rows, y, columns, flipped, line);
                    for (int w = 0; w < columns; ++w) to[w * a.step] += line[w];
                }
            } else {
                // Only every other tap meets a pixel.
                for (int parity = 0; parity < 2; ++parity) {
                    for (int j = 0; 2 * j + parity < a.width; ++j) {
                        Vector<T> acc = zero<T>();
                        for (int kh = (y + P) & 1; kh < K; kh += 2) {
                            const int row = (y + P - kh) / 2;
                            if (y + P - kh < 0 || row >= rows) continue;
                            const Vector<T>* g = from + size_t(row) * dpitch + P + j;
                            for (int kw = (parity + P) & 1; kw < K; kw += 2)
                                acc += a.depthwise[(c * K + kh) * K + kw] * g[(parity + P - kw) / 2];
                        }
                        to[2 * j + parity] += acc;
                    }
                }
            }
        }
    }
}

template <class T> void separable_any(const Separable<T>* a) {
    switch (a->kind) {
    case 0: return separable<T, 3, 1, 1>(*a);
    case 1: return separable<T, 5, 1, 1>(*a);
    case 2: return separable<T, 3, 1, 2>(*a);
    case 3: return separable<T, 5, 1, 2>(*a);
    case 4: return separable<T, 3, 2, 1>(*a);
    case 5: return separable<T, 5, 2, 1>(*a);
    }
}

template <class T> void separable_back_any(const SeparableBack<T>* a) {
    switch (a->kind) {
    case 0: return separable_back<T, 3, 1, 1>(*a);
    case 1: return separable_back<T, 5, 1, 1>(*a);
    case 2: return separable_back<T, 3, 1, 2>(*a);
    case 3: return separable_back<T, 5, 1, 2>(*a);
    case 4: return separable_back<T, 3, 2, 1>(*a);
    case 5: return separable_back<T, 5, 2, 1>(*a);
    }
}

// ---- pools ---------------------------------------------------------------------------------------

INLINE int clip_low(int v) { return v < 0 ? 0 : v; }
INLINE int clip_high(int v, int end) { return v > end ? end : v; }

// 3×3 maximum and mean (padding left out) with stride S; sums [C][4]: of both, sum and sum of squares.
template <class T>
void pools(const Vector<T>* x, Vector<T>* maximum, Vector<T>* mean, int channels, int height, int width,
           int stride, int images, double* out) {
    const int rows = (height - 1) / stride + 1, columns = (width - 1) / stride + 1;
    for (int c = 0; c < channels; ++c) {
        Sums sums[4] = {};
        const Vector<T>* plane = x + size_t(c) * height * width;
        for (int h = 0; h < rows; ++h) {
            const int y0 = clip_low(h * stride - 1), y1 = clip_high(h * stride + 2, height);
            Vector<T>* m = maximum + (size_t(c) * rows + h) * columns;
            Vector<T>* a = mean + (size_t(c) * rows + h) * columns;
            for (int w = 0; w < columns; ++w) {
                const int x0 = clip_low(w * stride - 1), x1 = clip_high(w * stride + 2, width);
                Vector<T> best = plane[size_t(y0) * width + x0], total = zero<T>();
                for (int y = y0; y < y1; ++y)
                    for (int i = x0; i < x1; ++i) {
                        const Vector<T> v = plane[size_t(y) * width + i];
                        best = larger<T>(v, best);
                        total += v;
                    }
                m[w] = best;
                a[w] = total * (T(1) / T((y1 - y0) * (x1 - x0)));
            }
            add_row<T>(m, columns, sums);
            add_row<T>(a, columns, sums + 2);
        }
        for (int k = 0; k < 4; ++k) out[4 * c + k] = lanes(sums[k], images);
    }
}

// Adds to d the gradients of both pools; the first of equal pixels gets the maximum's.
template <class T>
void pools_back(const Vector<T>* x, const Vector<T>* maximum, const Vector<T>* gmax, const Vector<T>* gmean,
                Vector<T>* d, int channels, int height, int width, int stride) {
    const int rows = (height - 1) / stride + 1, columns = (width - 1) / stride + 1;
    for (int c = 0; c < channels; ++c) {
        const Vector<T>* plane = x + size_t(c) * height * width;
        Vector<T>* to = d + size_t(c) * height * width;
        for (int h = 0; h < rows; ++h) {
            const int y0 = clip_low(h * stride - 1), y1 = clip_high(h * stride + 2, height);
            const size_t at = (size_t(c) * rows + h) * columns;
            for (int w = 0; w < columns; ++w) {
                const int x0 = clip_low(w * stride - 1), x1 = clip_high(w * stride + 2, width);
                const Vector<T> best = maximum[at + w];
                Vector<T> left = gmax[at + w];
                const Vector<T> share = gmean[at + w] * (T(1) / T((y1 - y0) * (x1 - x0)));
                const Vector<T> none = zero<T>();
                for (int y = y0; y < y1; ++y)
                    for (int i = x0; i < x1; ++i) {
                        const size_t p = size_t(y) * width + i;
                        const auto hit = plane[p] == best;
                        to[p] += share + (hit ? left : none);
                        left = hit ? none : left;
                    }
            }
        }
    }
}

// 2×2 maximum with stride 2.
template <class T>
void halve(const Vector<T>* x, Vector<T>* out, int channels, int height, int width) {
    const int rows = height / 2, columns = width / 2;
    for (int c = 0; c < channels; ++c)
        for (int h = 0; h < rows; ++h) {
            const Vector<T>*a = x + (size_t(c) * height + 2 * h) * width, *b = a + width;
            Vector<T>* to = out + (size_t(c) * rows + h) * columns;
            for (int w = 0; w < columns; ++w)
                to[w] = larger<T>(larger<T>(a[2 * w], a[2 * w + 1]), larger<T>(b[2 * w], b[2 * w + 1]));
        }
}

// Adds to d the gradient g of that maximum; the first of equal pixels gets it.
template <class T>
void halve_back(const Vector<T>* x, const Vector<T>* maximum, const Vector<T>* g, Vector<T>* d, int channels,
                int height, int width) {
    const int rows = height / 2, columns = width / 2;
    const Vector<T> none = zero<T>();
    for (int c = 0; c < channels; ++c)
        for (int h = 0; h < rows; ++h)
            for (int w = 0; w < columns; ++w) {
                const size_t at = (size_t(c) * rows + h) * columns + w;
                Vector<T> left = g[at];
                const Vector<T> best = maximum[at];
                for (int k = 0; k < 4; ++k) {
                    const size_t p = (size_t(c) * height + 2 * h + k / 2) * width + 2 * w + k % 2;
                    const auto hit = x[p] == best;
                    d[p] += hit ? left : none;
                    left = hit ? none : left;
                }
            }
}

} // namespace

// A dense convolution: K×K with this stride; K = 1 may start at (offset, offset).
template <class T> struct Dense {
    int32_t kernel, stride, offset, rectify;
    int32_t inputs, outputs, height, width; // of the input
    int32_t rows, columns, images, first;   // of the output; first: first output (back: input) channel to do
    int32_t count, reserved;                // how many of them
    const Vector<T>* x;
    const T* weight;                        // [O][I·K·K]
    Vector<T>* z;                           // forward: [count][rows][columns]; back: whole, read
    Vector<T>* scratch;
    double* sums;                           // forward: [count][2]
    const Vector<T>* g;                     // back: [O] planes of rows·columns, g_pitch apart
    int64_t g_pitch;
    const T* factors;                       // back: [3][O]
    Vector<T>* input;                       // back: [count][H][W], added to; or null
    double* gradient;                       // back: [O][I·K·K], only columns of the channels done; or null
};

namespace {

constexpr int BLOCK = 32;

// panel[k][p] for the taps k of channels first.. and positions start..start+count.
template <class T>
INLINE void gather(const Dense<T>& a, int first, int channels, int start, int count, Vector<T>* panel) {
    const int taps = a.kernel * a.kernel, reach = a.kernel / 2;
    for (int c = 0; c < channels; ++c) {
        const Vector<T>* plane = a.x + size_t(first + c) * a.height * a.width;
        for (int k = 0; k < taps; ++k) {
            Vector<T>* to = panel + size_t(c * taps + k) * BLOCK;
            const int dy = a.offset + k / a.kernel - reach, dx = a.offset + k % a.kernel - reach;
            if (a.kernel == 1 && a.stride == 1 && a.offset == 0) {
                const Vector<T>* from = plane + start;
                if (a.rectify)
                    for (int p = 0; p < count; ++p) to[p] = positive<T>(from[p]);
                else
                    for (int p = 0; p < count; ++p) to[p] = from[p];
                continue;
            }
            int h = start / a.columns, w = start % a.columns;
            for (int p = 0; p < count; ++p) {
                const int y = h * a.stride + dy, x = w * a.stride + dx;
                Vector<T> v = zero<T>();
                if (y >= 0 && y < a.height && x >= 0 && x < a.width) v = plane[size_t(y) * a.width + x];
                to[p] = a.rectify ? positive<T>(v) : v;
                if (++w == a.columns) w = 0, ++h;
            }
        }
    }
}

template <class T> void dense(const Dense<T>* arguments) {
    const Dense<T>& a = *arguments;
    const int terms = a.inputs * a.kernel * a.kernel, positions = a.rows * a.columns;
    Vector<T>* panel = a.scratch;
    Sums* sums = reinterpret_cast<Sums*>(a.scratch + size_t(terms) * BLOCK);
    for (int c = 0; c < 2 * a.count; ++c) sums[c] = Sums{};
    for (int start = 0; start < positions; start += BLOCK) {
        const int count = positions - start < BLOCK ? positions - start : BLOCK;
        gather<T>(a, 0, a.inputs, start, count, panel);
        mix<T>(panel, BLOCK, terms, a.count, count, a.weight + size_t(a.first) * terms, terms, 1, a.z + start,
               positions);
        for (int c = 0; c < a.count; ++c)
            add_row<T>(a.z + size_t(c) * positions + start, count, sums + 2 * c);
    }
    for (int c = 0; c < 2 * a.count; ++c) a.sums[c] = lanes(sums[c], a.images);
}

template <class T> void dense_back(const Dense<T>* arguments) {
    const Dense<T>& a = *arguments;
    const int taps = a.kernel * a.kernel, reach = a.kernel / 2, terms = a.inputs * taps;
    const int mine = a.count * taps, positions = a.rows * a.columns, O = a.outputs;
    Vector<T>* dz = a.scratch;                    // [O][BLOCK]
    Vector<T>* panel = dz + size_t(O) * BLOCK;    // [mine][BLOCK]
    Vector<T>* back = panel + size_t(mine) * BLOCK;
    Vector<T>* acc = back + size_t(mine) * BLOCK; // [O][mine]
    const Vector<T> present = mask<T>(a.images);
    if (a.gradient)
        for (int64_t k = 0; k < int64_t(O) * mine; ++k) acc[k] = zero<T>();
    for (int start = 0; start < positions; start += BLOCK) {
        const int count = positions - start < BLOCK ? positions - start : BLOCK;
        for (int o = 0; o < O; ++o) {
            const Vector<T>*g = a.g + size_t(o) * a.g_pitch + start, *z = a.z + size_t(o) * positions + start;
            const Vector<T> fg = a.factors[o] * present, fz = a.factors[O + o] * present,
                            f1 = a.factors[2 * O + o] * present;
            Vector<T>* to = dz + size_t(o) * BLOCK;
            for (int p = 0; p < count; ++p) to[p] = fg * g[p] + (fz * z[p] + f1);
        }
        if (a.gradient) {
            gather<T>(a, a.first, a.count, start, count, panel);
            outer<T>(dz, BLOCK, O, panel, BLOCK, mine, count, acc);
        }
        if (!a.input) continue;
        mix<T>(dz, BLOCK, O, mine, count, a.weight + size_t(a.first) * taps, 1, terms, back, BLOCK);
        for (int c = 0; c < a.count; ++c) {
            const Vector<T>* plane = a.x + size_t(a.first + c) * a.height * a.width;
            Vector<T>* to = a.input + size_t(c) * a.height * a.width;
            const Vector<T> none = zero<T>();
            for (int k = 0; k < taps; ++k) {
                const Vector<T>* from = back + size_t(c * taps + k) * BLOCK;
                const int dy = a.offset + k / a.kernel - reach, dx = a.offset + k % a.kernel - reach;
                if (a.kernel == 1 && a.stride == 1 && a.offset == 0) {
                    for (int p = 0; p < count; ++p) {
                        const Vector<T> v = a.rectify ? (plane[start + p] > none ? from[p] : none) : from[p];
                        to[start + p] += v;
                    }
                    continue;
                }
                int h = start / a.columns, w = start % a.columns;
                for (int p = 0; p < count; ++p) {
                    const int y = h * a.stride + dy, x = w * a.stride + dx;
                    if (y >= 0 && y < a.height && x >= 0 && x < a.width) {
                        const size_t at = size_t(y) * a.width + x;
                        to[at] += a.rectify ? (plane[at] > none ? from[p] : none) : from[p];
                    }
                    if (++w == a.columns) w = 0, ++h;
                }
            }
        }
    }
    if (a.gradient)
        for (int o = 0; o < O; ++o)
            for (int k = 0; k < mine; ++k)
                a.gradient[size_t(o) * mine + k] += lanes(wide<T>(acc[size_t(o) * mine + k]), LANES);
}

} // namespace

template <class T> struct Kernels {
    void (*pad)(const Vector<T>*, Vector<T>*, int, int, int, int, int, const T*, const T*);
    void (*combine)(Vector<T>*, int, const Vector<T>* const*, const T*, T, int64_t, int);
    void (*add_where_positive)(Vector<T>*, const Vector<T>*, const Vector<T>*, int64_t);
    void (*dots)(const Vector<T>*, int, const Vector<T>* const*, int64_t, int, double*);
    void (*separable)(const Separable<T>*);
    void (*separable_back)(const SeparableBack<T>*);
    void (*pools)(const Vector<T>*, Vector<T>*, Vector<T>*, int, int, int, int, int, double*);
    void (*pools_back)(const Vector<T>*, const Vector<T>*, const Vector<T>*, const Vector<T>*, Vector<T>*, int,
                       int, int, int);
    void (*halve)(const Vector<T>*, Vector<T>*, int, int, int);
    void (*halve_back)(const Vector<T>*, const Vector<T>*, const Vector<T>*, Vector<T>*, int, int, int);
    void (*dense)(const Dense<T>*);
    void (*dense_back)(const Dense<T>*);
};

#define TABLE(T)                                                                                              \
    {pad<T>,   combine<T>,    add_where_positive<T>, dots<T>,       separable_any<T>, separable_back_any<T>,       \
     pools<T>, pools_back<T>, halve<T>,              halve_back<T>, dense<T>,         dense_back<T>}
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

extern "C" const Kernels<float> JOIN(lathe_kernels_f32_, LATHE_SET);
extern "C" const Kernels<float> JOIN(lathe_kernels_f32_, LATHE_SET) = TABLE(float);
extern "C" const Kernels<double> JOIN(lathe_kernels_f64_, LATHE_SET);
extern "C" const Kernels<double> JOIN(lathe_kernels_f64_, LATHE_SET) = TABLE(double);
