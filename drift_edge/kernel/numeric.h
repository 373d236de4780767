/* Loops over rows of logits. loops.h includes this file once per instruction set, with these defined:
 *   ISA  its name    FN(name)  a function's name in it    TARGET  the attribute that makes the compiler use it
 * Plain C that compilers vectorise: LANES partial results side by side, blocks of fixed size, no calls inside. */

/* exp(z) for z <= 0, relative error about 1e-7; 0 from -86 on, near the end of float32.
 * 2^n by the bits of a float whose last place counts ones, times 1 + r + r^2 q(r), q fitted at Chebyshev nodes. */
TARGET INLINE float FN(exp)(float z) {
    const float rounder = 12582912.0f; /* 1.5 * 2^23 */
    bool live = z > LOWEST_Z;
    z = live ? z : LOWEST_Z; /* no infinities below */
    float shifted = z * 1.44269504f + rounder;
    float n = shifted - rounder;
    float r = (z - n * 0.693145752f) - n * 1.42860677e-6f; /* ln 2 in two parts: the first times n is exact */
    float q = 0.00139262131f;
    q = q * r + 0.00836320315f;
    q = q * r + 0.0416665561f;
    q = q * r + 0.166665763f;
    q = q * r + 0.5f;
    q = (q * r + 1.0f) * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = live ? (bits << 23) + (127u << 23) : 0;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return q * scale;
}

/* One block of `fuse`; called with a constant len, so that the compiler unrolls it. False: a value is wrong at *where. */
TARGET INLINE bool FN(fuse_block)(float *out, const float *llm, const float *restrict base, const float *const *rows,
                                  const float *weights, size_t n_rows, size_t at, size_t len, size_t *where) {
    float h[GROUP];
    int32_t bad = 0;
    for (size_t i = 0; i < len; i++) h[i] = 0.0f;
    for (size_t r = 0; r < n_rows; r += 4) { /* four rows at a time: that many streams the processor prefetches well */
        const float *restrict x0 = rows[r] + at, *restrict x1 = rows[r + 1] + at;
        const float *restrict x2 = rows[r + 2] + at, *restrict x3 = rows[r + 3] + at;
        float p0 = weights[r], p1 = weights[r + 1], p2 = weights[r + 2], p3 = weights[r + 3];
        for (size_t i = 0; i < len; i++) {
            float b = base[at + i];
            h[i] += (p0 * (x0[i] - b) + p1 * (x1[i] - b)) + (p2 * (x2[i] - b) + p3 * (x3[i] - b));
        }
    }
    for (size_t i = 0; i < len; i++) {
        h[i] += llm[at + i];
        bad |= !(fabsf(h[i]) <= FLT_MAX);
    }
    for (size_t i = 0; bad && i < len; i++) {
        if (fabsf(h[i]) <= FLT_MAX) continue;
        bool barred = llm[at + i] == -INFINITY || base[at + i] == -INFINITY;
        bool wrong = !(llm[at + i] <= FLT_MAX) || !(base[at + i] <= FLT_MAX);
        for (size_t r = 0; r < n_rows; r++) {
            barred |= rows[r][at + i] == -INFINITY;
            wrong |= !(rows[r][at + i] <= FLT_MAX);
        }
        *where = at + i;
        if (wrong || !barred) return false;
        h[i] = -INFINITY;
    }
    memcpy(out + at, h, len * sizeof *h); /* only now, since out may be llm */
    return true;
}

/* h = h_llm + sum_i P_i (h_i - h_base), Eq. 15. rows, weights: n_rows of them, a multiple of four (pad with the base row
 * and 0). Returns n, or the first index whose value is neither finite nor lawfully -inf. */
TARGET static size_t FN(fuse)(float *out, const float *llm, const float *base, const float *const *rows,
                              const float *weights, size_t n_rows, size_t n) {
    size_t at = 0, where;
    for (; at + GROUP <= n; at += GROUP)
        if (!FN(fuse_block)(out, llm, base, rows, weights, n_rows, at, GROUP, &where)) return where;
    return at == n || FN(fuse_block)(out, llm, base, rows, weights, n_rows, at, n - at, &where) ? n : where;
}

/* The GROUP values from `at` on; past the end of the row, a padded copy. */
TARGET INLINE const float *FN(group)(const float *x, size_t at, size_t n, float *padded) {
    if (n - at >= GROUP) return x + at;
    for (size_t i = 0; i < GROUP; i++) padded[i] = i < n - at ? x[at + i] : -INFINITY;
    return padded;
}

TARGET INLINE float FN(larger)(float a, float b) {
    return a > b ? a : b;
}

/* The largest value, NaN if one is NaN or +inf; and lane_max[g], g < ceil(n / GROUP) * LANES: that of every LANES-th
 * value of a GROUP. lane_max may be NULL. */
TARGET static float FN(maxima)(const float *x, size_t n, float *lane_max) {
    float padded[GROUP], best[LANES], max = -INFINITY;
    int32_t bad = 0;
    for (size_t j = 0; j < LANES; j++) best[j] = -INFINITY;
    for (size_t at = 0; at < n; at += GROUP) {
        const float *restrict v = FN(group)(x, at, n, padded);
        float m[GROUP / 2]; /* halved until LANES are left: compilers make vectors of such loops */
        for (size_t i = 0; i < GROUP; i++) bad |= !(v[i] <= FLT_MAX);
        for (size_t i = 0; i < GROUP / 2; i++) m[i] = FN(larger)(v[i], v[i + GROUP / 2]);
        for (size_t i = 0; i < GROUP / 4; i++) m[i] = FN(larger)(m[i], m[i + GROUP / 4]);
        for (size_t i = 0; i < GROUP / 8; i++) m[i] = FN(larger)(m[i], m[i + GROUP / 8]);
        for (size_t i = 0; i < GROUP / 16; i++) m[i] = FN(larger)(m[i], m[i + GROUP / 16]);
        for (size_t j = 0; j < LANES; j++) best[j] = FN(larger)(m[j], best[j]);
        if (lane_max) memcpy(lane_max + at / GROUP * LANES, m, LANES * sizeof *m);
    }
    for (size_t j = 0; j < LANES; j++) max = FN(larger)(best[j], max);
    return bad ? NAN : max;
}

/* Of z = (x - max) * scale: sum of exp(z), sum of exp(z) z, both added up in double, and how many are not -inf. */
TARGET static Sums FN(exp_sums)(const float *x, size_t n, float max, float scale) {
    float padded[GROUP];
    double w[LANES] = {0}, wz[LANES] = {0};
    Sums total = {0.0, 0.0, 0};
    for (size_t at = 0; at < n; at += GROUP) {
        const float *restrict v = FN(group)(x, at, n, padded);
        int32_t live = 0;
        for (size_t i = 0; i < GROUP; i += LANES)
            for (size_t j = 0; j < LANES; j++) {
                float z = (v[i + j] - max) * scale, e = FN(exp)(z);
                w[j] += (double)e;
                wz[j] += (double)(e * (z > LOWEST_Z ? z : LOWEST_Z));
            }
        for (size_t i = 0; i < GROUP; i++) live += v[i] > -INFINITY;
        total.live += live;
    }
    for (size_t j = 0; j < LANES; j++) {
        total.w += w[j];
        total.wz += wz[j];
    }
    return total;
}

/* Of z = h_llm - llm_max + u, u = t (h - h_llm) being the share t of what steering added to h: exp(z - max) summed up,
 * its products with u and u^2 too, all in double; *max is the largest z. NaN where a token is -inf in llm alone. */
TARGET static Tilt FN(tilt)(const float *fused, const float *llm, float llm_max, float t, size_t n, float *max) {
    float z[GROUP], u[GROUP], f_padded[GROUP], l_padded[GROUP];
    double w[LANES] = {0}, wu[LANES] = {0}, wuu[LANES] = {0};
    Tilt total = {0.0, 0.0, 0.0};
    float top = -INFINITY;
    for (size_t at = 0; at < n; at += GROUP) {
        const float *restrict f = FN(group)(fused, at, n, f_padded), *restrict l = FN(group)(llm, at, n, l_padded);
        float m[LANES], larger = top;
        for (size_t j = 0; j < LANES; j++) m[j] = -INFINITY;
        for (size_t i = 0; i < GROUP; i += LANES)
            for (size_t j = 0; j < LANES; j++) {
                bool live = f[i + j] > -INFINITY;
                u[i + j] = live ? t * (f[i + j] - l[i + j]) : 0.0f;
                z[i + j] = live ? (l[i + j] - llm_max) + u[i + j] : -INFINITY;
                m[j] = FN(larger)(z[i + j], m[j]);
            }
        for (size_t j = 0; j < LANES; j++) larger = FN(larger)(m[j], larger);
        if (larger > top) { /* rare after the first few blocks */
            double shrink = exp((double)top - (double)larger);
            for (size_t j = 0; j < LANES; j++) {
                w[j] *= shrink;
                wu[j] *= shrink;
                wuu[j] *= shrink;
            }
            top = larger;
        }
        if (top == -INFINITY) continue;
        for (size_t i = 0; i < GROUP; i += LANES)
            for (size_t j = 0; j < LANES; j++) {
                float e = FN(exp)(z[i + j] - top), eu = e * u[i + j];
                w[j] += (double)e;
                wu[j] += (double)eu;
                wuu[j] += (double)(eu * u[i + j]);
            }
    }
    for (size_t j = 0; j < LANES; j++) {
        total.w += w[j];
        total.wu += wu[j];
        total.wuu += wuu[j];
    }
    *max = top;
    return total;
}

/* h_llm and the share t of what steering added to it, in place of the fused row. */
TARGET static void FN(blend)(float *restrict fused, const float *restrict llm, float t, size_t n) {
    for (size_t i = 0; i < n; i++) fused[i] = fused[i] > -INFINITY ? llm[i] + t * (fused[i] - llm[i]) : -INFINITY;
}

/* The largest noise bits of GROUP ids from `first` on. */
TARGET static uint64_t FN(most_bits)(uint64_t key, size_t first) {
    uint64_t most[LANES] = {0}, best = 0;
    for (size_t i = 0; i < GROUP; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            uint64_t bits = noise_bits(key, (uint64_t)(first + i + j));
            most[j] = bits > most[j] ? bits : most[j];
        }
    for (size_t j = 0; j < LANES; j++) best = most[j] > best ? most[j] : best;
    return best;
}

static const Loops FN(loops) = {ISA, FN(fuse), FN(maxima), FN(exp_sums), FN(tilt), FN(blend), FN(most_bits)};

#undef ISA
#undef TARGET
#undef FN
