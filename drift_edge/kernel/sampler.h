/* Choosing a token from a row: penalties, cuts, Gumbel-max. The recipe of a draw is told in reference.py. */

typedef struct {
    float logit, weight; /* weight = exp((logit - max) / temperature) */
    int32_t id;
} Candidate;

typedef struct {
    double temperature, top_p, min_p, repeat, presence, frequency, plausibility;
    size_t top_k;
    uint64_t seed, position;
} Settings;

typedef struct { /* working memory of one draw from a row of n */
    size_t n, groups; /* groups: values of lane_max */
    Candidate *candidates;
    float *lane_max, *heap;
    float *row; /* with penalties; NULL without */
    int32_t *counts;
} Scratch;

typedef struct {
    int64_t token, survivors;
    double probability, entropy_bits;
} Draw;

/* Its memory is one block, which begins with the candidates. */
static bool get_scratch(Scratch *s, size_t n, bool penalties) {
    size_t groups = (n + GROUP - 1) / GROUP * LANES;
    size_t bytes = n * sizeof(Candidate) + (2 * groups + (penalties ? 2 * n : 0)) * sizeof(float);
    *s = (Scratch){n, groups, malloc(bytes), NULL, NULL, NULL, NULL};
    if (!s->candidates) return false;
    s->lane_max = (float *)(s->candidates + n);
    s->heap = s->lane_max + groups;
    if (penalties) {
        s->row = s->heap + groups;
        s->counts = (int32_t *)(s->row + n);
    }
    return true;
}

static double noise(uint64_t bits) {
    return -log(-log(((double)(bits >> 12) + 0.5) * 0x1p-52));
}

static uint64_t noise_key(uint64_t seed, uint64_t position) {
    return mix(mix(seed + GOLDEN) + position);
}

static bool better(Candidate a, Candidate b) {
    return (a.logit > b.logit) | ((a.logit == b.logit) & (a.id < b.id));
}

/* Brings the shortest run of best candidates that has `count` members or the weight `mass` to the front, unordered;
 * returns its length, n where neither is reached. Quickselect; pivots by hash, so that no order of input is slow. */
static size_t best_run(Candidate *c, size_t n, size_t count, double mass) {
    size_t low = 0, high = n; /* the run ends in (low, high]; what stands before low weighs less than mass */
    double before = 0.0;
    while (low < high) {
        size_t at = low + (size_t)(mix((uint64_t)low * GOLDEN + (uint64_t)high) % (high - low)), mid = low;
        Candidate pivot = c[at];
        double weight = 0.0;
        c[at] = c[high - 1];
        for (size_t i = low; i + 1 < high; i++) { /* no branch that a processor could mispredict */
            Candidate moved = c[i];
            bool first = better(moved, pivot);
            c[i] = c[mid];
            c[mid] = moved;
            weight += first ? (double)moved.weight : 0.0;
            mid += first;
        }
        c[high - 1] = c[mid];
        c[mid] = pivot;
        if (mid >= count || before + weight >= mass) {
            high = mid;
        } else {
            before += weight + (double)pivot.weight;
            if (mid + 1 >= count || before >= mass) return mid + 1;
            low = mid + 1;
        }
    }
    return low;
}

/* The k-th largest of n values, by a heap of the k largest whose root is the least; k <= n. */
static float kth_largest(const float *x, size_t n, size_t k, float *heap) {
    float least = -INFINITY;
    for (size_t i = 0; i < k; i++) heap[i] = least;
    for (size_t i = 0; i < n; i++) {
        if (x[i] <= least) continue;
        size_t at = 0, child;
        while ((child = 2 * at + 1) < k) {
            child += child + 1 < k && heap[child + 1] < heap[child];
            if (heap[child] >= x[i]) break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = x[i];
        least = heap[0];
    }
    return least;
}

/* llama.cpp's penalties on a copy of the row, in double, rounded once. Returns n_ids, or where an id is out of range. */
static size_t penalise(const Scratch *s, const float *logits, const int32_t *ids, size_t n_ids, const Settings *p) {
    memcpy(s->row, logits, s->n * sizeof *s->row);
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= s->n) return i;
        s->counts[ids[i]] = 0; /* the others' are never looked at */
    }
    for (size_t i = 0; i < n_ids; i++) s->counts[ids[i]]++;
    for (size_t i = 0; i < n_ids; i++) {
        int32_t id = ids[i];
        if (s->counts[id] == 0) continue;
        double v = (double)s->row[id], times = (double)s->counts[id];
        s->counts[id] = 0;
        if (!(fabs(v) <= (double)FLT_MAX)) continue;
        v = (v > 0.0 ? v / p->repeat : v * p->repeat) - (times * p->frequency + p->presence);
        s->row[id] = v > (double)FLT_MAX ? FLT_MAX : v < -(double)FLT_MAX ? -INFINITY : (float)v;
    }
    return n_ids;
}

/* The lowest id with the largest logit. */
static size_t argmax(const Scratch *s, const float *x, float max) {
    size_t g = 0, i;
    while (g + 1 < s->groups && s->lane_max[g] != max) g++;
    for (i = g / LANES * GROUP; i + 1 < s->n && x[i] != max; i++) continue;
    return i;
}

/* Candidates with logit >= floor (and, where llm is given, llm >= llm_floor); whole groups are skipped by lane_max. */
static size_t gather(const Scratch *s, const float *x, float floor, const float *llm, double llm_floor) {
    const float *lane_max = s->lane_max;
    const size_t groups = s->groups;
    size_t count = 0;
    for (size_t g = 0; g < groups; g++) {
        if (lane_max[g] < floor) continue;
        size_t first = g / LANES * GROUP, end = first + GROUP < s->n ? first + GROUP : s->n;
        for (size_t i = first + g % LANES; i < end; i += LANES)
            if (x[i] >= floor && (!llm || (double)llm[i] >= llm_floor))
                s->candidates[count++] = (Candidate){x[i], 0.0f, (int32_t)i};
    }
    return count;
}

static double entropy_bits(double w, double wz) { /* of weights exp(z) that sum to w, and to wz when multiplied by z */
    double bits = log2(w) - wz / w / LN2;
    return bits > 0.0 ? bits : 0.0;
}

static float floor_of(double logit) { /* a float that is surely not above */
    return logit > -(double)FLT_MAX ? nextafterf((float)logit, -INFINITY) : -FLT_MAX;
}

/* One draw over the whole row. A group is passed over if even its largest logit with its largest noise would lose. */
static Draw draw_uncut(const Loops *loops, const Scratch *s, const float *x, float max, const Settings *p) {
    double scale = 1.0 / p->temperature;
    Sums sums = loops->exp_sums(x, s->n, max, (float)(scale < 1e30 ? scale : 1e30));
    uint64_t key = noise_key(p->seed, p->position);
    size_t token = argmax(s, x, max);
    double best = noise(noise_bits(key, token)), most = noise(UINT64_MAX) + 1e-9, z = 0.0;
    for (size_t at = 0; at < s->n; at += GROUP) {
        size_t len = s->n - at < GROUP ? s->n - at : GROUP;
        float top = -INFINITY;
        for (size_t j = 0; j < LANES; j++) {
            float m = s->lane_max[at / GROUP * LANES + j];
            top = m > top ? m : top;
        }
        double lead = ((double)top - (double)max) / p->temperature;
        if (lead + most < best) continue;
        double bound = noise(loops->most_bits(key, at)) + 1e-9; /* ids past the end only loosen it */
        if (lead + bound < best) continue;
        for (size_t i = at; i < at + len; i++) {
            double zi = ((double)x[i] - (double)max) / p->temperature;
            if (zi + bound < best) continue;
            double score = zi + noise(noise_bits(key, i));
            if (score > best || (score == best && i <= token)) {
                best = score;
                token = i;
                z = zi;
            }
        }
    }
    return (Draw){(int64_t)token, sums.live, exp(z) / sums.w, entropy_bits(sums.w, sums.wz)};
}

/* One draw after the cuts. llm_floor: the least logit of a plausible token, where llm is not NULL. */
static Draw draw_cut(const Loops *loops, const Scratch *s, const float *x, float max, const float *llm,
                     double llm_floor, const Settings *p) {
    bool by_k = p->top_k > 0 && p->top_k < s->n, by_p = p->top_p < 1.0, by_min = p->min_p > 0.0;
    double scale = 1.0 / p->temperature, min_z = by_min ? log(p->min_p) - SLACK : -INFINITY, mass = 0.0;
    float fscale = (float)(scale < 1e30 ? scale : 1e30), floor = -FLT_MAX;
    if (by_k && p->top_k <= s->groups) { /* k groups hold a value that large, so the k best are not below it */
        floor = kth_largest(s->lane_max, s->groups, p->top_k, s->heap);
        floor = floor < -FLT_MAX ? -FLT_MAX : floor;
    }
    if (by_p && !by_k) { /* tokens below the mean of the mass that may go cannot add up to it */
        mass = loops->exp_sums(x, s->n, max, fscale).w;
        double least = log(0.99 * (1.0 - p->top_p) * mass / (double)s->n);
        floor = floor_of((double)max + p->temperature * least);
    }
    if (by_min && !(by_k && by_p)) { /* with both, top-p needs the mass of all k */
        float least = floor_of((double)max + p->temperature * (min_z - SLACK));
        floor = least > floor ? least : floor;
    }
    Candidate *c = s->candidates;
    size_t n = gather(s, x, floor, by_k || by_p ? NULL : llm, llm_floor), kept = 0;
    if (by_k) n = best_run(c, n, p->top_k, INFINITY);
    for (size_t i = 0; i < n; i++) {
        c[i].weight = baseline_exp((c[i].logit - max) * fscale);
        if (by_k) mass += (double)c[i].weight;
    }
    if (by_p) n = best_run(c, n, n, p->top_p * mass * (1.0 - SLACK));
    for (size_t i = 0; i < n; i++) {
        bool likely = ((double)c[i].logit - (double)max) / p->temperature >= min_z;
        if (likely && (!llm || (double)llm[c[i].id] >= llm_floor)) c[kept++] = c[i];
    }
    if (kept == 0) c[kept++] = (Candidate){max, 1.0f, (int32_t)argmax(s, x, max)};

    /* The largest z + noise is the least -log(u) / weight; as -log(u) > 1 - u, most tokens lose without a logarithm. */
    uint64_t key = noise_key(p->seed, p->position);
    double total = 0.0, wz = 0.0, best = -INFINITY, lead = INFINITY;
    size_t drawn = 0;
    for (size_t i = 0; i < kept; i++) {
        double z = ((double)c[i].logit - (double)max) / p->temperature, w = (double)c[i].weight;
        uint64_t bits = noise_bits(key, (uint64_t)c[i].id);
        total += w;
        wz += w * (z > -800.0 ? z : -800.0);
        if (((double)(~bits >> 12) + 0.5) * 0x1p-52 > lead * w) continue;
        double score = z + noise(bits);
        if (i == 0 || score > best || (score == best && c[i].id < c[drawn].id)) {
            best = score;
            lead = exp(-best) * 1.0001;
            drawn = i;
        }
    }
    return (Draw){c[drawn].id, (int64_t)kept, (double)c[drawn].weight / total, entropy_bits(total, wz)};
}

/* One draw. x is the row after penalties, llm NULL unless the plausibility mask is on. Returns NULL, or whichever of the
 * two rows has NaN, +inf, or nothing but -inf. */
static const float *draw_token(const Loops *loops, const Scratch *s, const float *x, const float *llm,
                               const Settings *p, Draw *draw) {
    float max = loops->maxima(x, s->n, s->lane_max), llm_max = llm ? loops->maxima(llm, s->n, NULL) : 0.0f;
    double llm_floor = llm ? (double)llm_max + log(p->plausibility) - SLACK : 0.0;
    if (!(max > -INFINITY)) return x;
    if (!(llm_max > -INFINITY)) return llm;
    if (p->temperature == 0.0) {
        size_t token = argmax(s, x, max), plausible = s->n;
        for (size_t i = 0; llm && i < s->n; i++)
            if (x[i] > -INFINITY && (double)llm[i] >= llm_floor && (plausible == s->n || x[i] > x[plausible]))
                plausible = i;
        *draw = (Draw){(int64_t)(plausible < s->n ? plausible : token), 1, 1.0, 0.0};
    } else if ((p->top_k > 0 && p->top_k < s->n) || p->top_p < 1.0 || p->min_p > 0.0 || llm) {
        *draw = draw_cut(loops, s, x, max, llm, llm_floor, p);
    } else {
        *draw = draw_uncut(loops, s, x, max, p);
    }
    return NULL;
}
