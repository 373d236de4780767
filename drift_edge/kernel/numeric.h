/* Loops over rows of logits. _kernel.c includes this file once per instruction set, with these defined:
 *   FN(name)  a function's name in that set      TARGET  the attribute that makes the compiler use it
 * Plain C that compilers vectorise: LANES partial results side by side, blocks of fixed size, no calls inside. */

/* exp(z) for z <= 0, relative error about 1e-7; 0 below -87, near the end of float32.
 * 2^n by the bits of a float whose last place counts ones, times 1 + r + r^2 q(r), q fitted at Chebyshev nodes. */
TARGET static inline float FN(exp)(float z) {
    const float rounder = 12582912.0f; /* 1.5 * 2^23 */
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
    bits = (bits << 23) + (127u << 23);
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return z < -87.0f ? 0.0f : q * scale;
}

/* Sum of the lanes. */
TARGET static inline double FN(sum)(const float *lanes) {
    double total = 0.0;
    for (int j = 0; j < LANES; j++) total += (double)lanes[j];
    return total;
}

/* h = h_llm + sum_i P_i (h_i - h_base), Eq. 15. Four rows at a time, because that many sums stay in registers.
 * rows and weights: n_rows of them, a multiple of four (pad with the base row and 0). Returns n, or the first index of a
 * block in which a value is neither finite nor lawfully -inf. */
TARGET static size_t FN(fuse)(float *out, const float *llm, const float *base, const float *const *rows,
                              const float *weights, size_t n_rows, size_t n) {
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t len = n - at < BLOCK ? n - at : BLOCK;
        float h[BLOCK];
        const float *restrict b = base + at;
        for (size_t i = 0; i < len; i++) h[i] = 0.0f;
        for (size_t r = 0; r < n_rows; r += 4) {
            const float *restrict x0 = rows[r] + at, *restrict x1 = rows[r + 1] + at;
            const float *restrict x2 = rows[r + 2] + at, *restrict x3 = rows[r + 3] + at;
            float p0 = weights[r], p1 = weights[r + 1], p2 = weights[r + 2], p3 = weights[r + 3];
            for (size_t i = 0; i < len; i++)
                h[i] += (p0 * (x0[i] - b[i]) + p1 * (x1[i] - b[i])) + (p2 * (x2[i] - b[i]) + p3 * (x3[i] - b[i]));
        }
        int32_t bad = 0;
        for (size_t i = 0; i < len; i++) {
            h[i] += llm[at + i];
            bad |= !(fabsf(h[i]) <= FLT_MAX);
        }
        if (bad)
            for (size_t i = 0; i < len; i++) {
                if (fabsf(h[i]) <= FLT_MAX) continue;
                bool barred = llm[at + i] == -INFINITY || b[i] == -INFINITY;
                bool wrong = !(llm[at + i] <= FLT_MAX) || !(b[i] <= FLT_MAX);
                for (size_t r = 0; r < n_rows; r++) {
                    barred |= rows[r][at + i] == -INFINITY;
                    wrong |= !(rows[r][at + i] <= FLT_MAX);
                }
                if (wrong || !barred) return at + i;
                h[i] = -INFINITY;
            }
        memcpy(out + at, h, len * sizeof *h); /* only now, since out may be llm */
    }
    return n;
}

/* The largest value, and lane_max[g], g < ceil(n / GROUP) * LANES: that of each group, which is every LANES-th value of
 * GROUP. Returns false if a value is NaN or +inf. lane_max may be NULL. */
TARGET static bool FN(maxima)(const float *restrict x, size_t n, float *restrict lane_max, float *max) {
    float best[LANES];
    int32_t bad[LANES] = {0}, any = 0;
    for (int j = 0; j < LANES; j++) best[j] = -INFINITY;
    for (size_t at = 0; at < n; at += GROUP) {
        size_t end = at + GROUP <= n ? at + GROUP : n, i = at;
        float m[LANES];
        for (int j = 0; j < LANES; j++) m[j] = -INFINITY;
        for (; i + LANES <= end; i += LANES)
            for (size_t j = 0; j < LANES; j++) {
                m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
                bad[j] |= !(x[i + j] <= FLT_MAX);
            }
        for (size_t j = 0; i < end; i++, j++) {
            m[j] = x[i] > m[j] ? x[i] : m[j];
            bad[j] |= !(x[i] <= FLT_MAX);
        }
        for (int j = 0; j < LANES; j++) best[j] = m[j] > best[j] ? m[j] : best[j];
        if (lane_max) memcpy(lane_max + at / GROUP * LANES, m, sizeof m);
    }
    *max = -INFINITY;
    for (int j = 0; j < LANES; j++) {
        *max = best[j] > *max ? best[j] : *max;
        any |= bad[j];
    }
    return !any;
}

/* Of z = (x - max) * scale: sum of exp(z), sum of exp(z) z, and how many are not -inf. */
TARGET static Sums FN(exp_sums)(const float *restrict x, size_t n, float max, float scale) {
    Sums total = {0.0, 0.0, 0};
    for (size_t at = 0; at < n; at += GROUP) {
        size_t end = at + GROUP <= n ? at + GROUP : n, i = at;
        float w[LANES] = {0}, wz[LANES] = {0};
        int32_t live[LANES] = {0};
        for (; i + LANES <= end; i += LANES)
            for (size_t j = 0; j < LANES; j++) {
                float z = (x[i + j] - max) * scale, e = FN(exp)(z);
                w[j] += e;
                wz[j] += e > 0.0f ? e * z : 0.0f;
                live[j] += x[i + j] > -INFINITY;
            }
        for (size_t j = 0; i < end; i++, j++) {
            float z = (x[i] - max) * scale, e = FN(exp)(z);
            w[j] += e;
            wz[j] += e > 0.0f ? e * z : 0.0f;
            live[j] += x[i] > -INFINITY;
        }
        total.w += FN(sum)(w);
        total.wz += FN(sum)(wz);
        for (int j = 0; j < LANES; j++) total.live += live[j];
    }
    return total;
}

/* Sum of exp(z_x) (z_x - z_y), z being a row less its maximum. */
TARGET static double FN(cross)(const float *restrict x, float x_max, const float *restrict y, float y_max, size_t n) {
    double total = 0.0;
    for (size_t at = 0; at < n; at += GROUP) {
        size_t end = at + GROUP <= n ? at + GROUP : n, i = at;
        float s[LANES] = {0};
        for (; i + LANES <= end; i += LANES)
            for (size_t j = 0; j < LANES; j++) {
                float z = x[i + j] - x_max, e = FN(exp)(z);
                s[j] += e > 0.0f ? e * (z - (y[i + j] - y_max)) : 0.0f;
            }
        for (size_t j = 0; i < end; i++, j++) {
            float z = x[i] - x_max, e = FN(exp)(z);
            s[j] += e > 0.0f ? e * (z - (y[i] - y_max)) : 0.0f;
        }
        total += FN(sum)(s);
    }
    return total;
}

/* The largest noise bits among ids first .. first + n. */
TARGET static uint64_t FN(most_bits)(uint64_t key, size_t first, size_t n) {
    uint64_t most[LANES / 2] = {0}, best = 0;
    for (size_t i = 0; i < n; i += LANES / 2) /* a few ids past the end only loosen what is an upper bound */
        for (size_t j = 0; j < LANES / 2; j++) {
            uint64_t bits = noise_bits(key, (uint64_t)(first + i + j));
            most[j] = bits > most[j] ? bits : most[j];
        }
    for (size_t j = 0; j < LANES / 2; j++) best = most[j] > best ? most[j] : best;
    return best;
}

/* Reads n words of 8 bytes and does nothing else: the memory's speed, for benchmarks. */
TARGET static uint64_t FN(read)(const uint64_t *restrict x, size_t n) {
    uint64_t sums[4 * LANES] = {0}, total = 0;
    size_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (size_t j = 0; j < 4 * LANES; j++) sums[j] += x[i + j];
    for (; i < n; i++) total += x[i];
    for (size_t j = 0; j < 4 * LANES; j++) total += sums[j];
    return total;
}

static const Loops FN(loops) = {FN(fuse), FN(maxima), FN(exp_sums), FN(cross), FN(most_bits), FN(read), FN(exp)};
