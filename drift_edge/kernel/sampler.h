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

typedef struct { /* working memory for rows of n */
    size_t n;
    float *row, *lane_max, *heap;
    int32_t *counts; /* all zero between draws */
    Candidate *candidates;
} Scratch;

typedef struct {
    int64_t token, survivors;
    double probability, entropy_bits;
} Draw;

typedef enum { DRAWN, BAD_LOGITS, BAD_LLM } Outcome; /* bad: NaN, +inf, or nothing but -inf */

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
    for (size_t i = 0; i < k; i++) heap[i] = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (x[i] <= heap[0]) continue;
        size_t at = 0, child;
        while ((child = 2 * at + 1) < k) {
            child += child + 1 < k && heap[child + 1] < heap[child];
            if (heap[child] >= x[i]) break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = x[i];
    }
    return heap[0];
}

/* llama.cpp's penalties on a copy of the row, in double, rounded once. Returns n_ids, or where an id is out of range. */
static size_t penalise(Scratch *s, const float *logits, const int32_t *ids, size_t n_ids, const Settings *p) {
    size_t done = 0;
    memcpy(s->row, logits, s->n * sizeof *s->row);
    for (; done < n_ids; done++) {
        int32_t id = ids[done];
        if (id < 0 || (size_t)id >= s->n) break;
        s->counts[id]++;
    }
    for (size_t i = 0; i < done; i++) {
        int32_t id = ids[i];
        if (id < 0 || (size_t)id >= s->n || s->counts[id] == 0) continue;
        double v = (double)s->row[id], times = (double)s->counts[id];
        s->counts[id] = 0;
        if (!(fabs(v) <= (double)FLT_MAX)) continue;
        v = (v > 0.0 ? v / p->repeat : v * p->repeat) - (times * p->frequency + p->presence);
        s->row[id] = v > (double)FLT_MAX ? FLT_MAX : v < -(double)FLT_MAX ? -INFINITY : (float)v;
    }
    return done;
}

/* The lowest id with the largest logit. */
static size_t argmax(const Scratch *s, const float *x, float max) {
    size_t g = 0, groups = (s->n + GROUP - 1) / GROUP * LANES, i;
    while (g + 1 < groups && s->lane_max[g] != max) g++;
    for (i = g / LANES * GROUP; i + 1 < s->n && x[i] != max; i++) continue;
    return i;
}

/* Candidates with logit >= floor (and, where llm is given, llm >= llm_floor); whole groups are skipped by lane_max. */
static size_t gather(const Scratch *s, const float *x, float floor, const float *llm, double llm_floor) {
    size_t count = 0, groups = (s->n + GROUP - 1) / GROUP * LANES;
    for (size_t g = 0; g < groups; g++) {
        if (s->lane_max[g] < floor) continue;
        size_t first = g / LANES * GROUP, end = first + GROUP < s->n ? first + GROUP : s->n;
        for (size_t i = first + g % LANES; i < end; i += LANES)
            if (x[i] >= floor && (!llm || (double)llm[i] >= llm_floor))
                s->candidates[count++] = (Candidate){x[i], 0.0f, (int32_t)i};
    }
    return count;
}

static float floor_of(double logit) { /* a float that is surely not above */
    return logit > -(double)FLT_MAX ? nextafterf((float)logit, -INFINITY) : -FLT_MAX;
}

/* One draw over the whole row. A group is passed over if even its largest logit with its largest noise would lose. */
static void draw_uncut(const Loops *loops, const Scratch *s, const float *x, float max, const Settings *p, Draw *draw) {
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
    draw->token = (int64_t)token;
    draw->survivors = sums.live;
    draw->probability = exp(z) / sums.w;
    draw->entropy_bits = log2(sums.w) - sums.wz / sums.w / LN2;
}

/* One draw after the cuts. llm_floor: the least logit of a plausible token, where llm is not NULL. */
static void draw_cut(const Loops *loops, const Scratch *s, const float *x, float max, const float *llm,
                     double llm_floor, const Settings *p, Draw *draw) {
    bool by_k = p->top_k > 0 && p->top_k < s->n, by_p = p->top_p < 1.0, by_min = p->min_p > 0.0;
    size_t groups = (s->n + GROUP - 1) / GROUP * LANES;
    double scale = 1.0 / p->temperature, min_z = by_min ? log(p->min_p) - SLACK : -INFINITY, mass = 0.0;
    float fscale = (float)(scale < 1e30 ? scale : 1e30), floor = -FLT_MAX;
    if (by_k && p->top_k <= groups) { /* k groups hold a value that large, so the k best are not below it */
        floor = kth_largest(s->lane_max, groups, p->top_k, s->heap);
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
    draw->token = c[drawn].id;
    draw->survivors = (int64_t)kept;
    draw->probability = (double)c[drawn].weight / total;
    draw->entropy_bits = log2(total) - wz / total / LN2;
}

/* One draw. x is the row after penalties, llm NULL unless the plausibility mask is on. */
static Outcome draw_token(const Loops *loops, const Scratch *s, const float *x, const float *llm, const Settings *p,
                          Draw *draw) {
    float max, llm_max;
    double llm_floor = 0.0;
    if (!loops->maxima(x, s->n, s->lane_max, &max) || max == -INFINITY) return BAD_LOGITS;
    if (llm) {
        if (!loops->maxima(llm, s->n, NULL, &llm_max) || llm_max == -INFINITY) return BAD_LLM;
        llm_floor = (double)llm_max + log(p->plausibility) - SLACK;
    }
    if (p->temperature == 0.0) {
        size_t token = argmax(s, x, max), plausible = s->n;
        for (size_t i = 0; llm && i < s->n; i++)
            if (x[i] > -INFINITY && (double)llm[i] >= llm_floor && (plausible == s->n || x[i] > x[plausible]))
                plausible = i;
        *draw = (Draw){(int64_t)(plausible < s->n ? plausible : token), 1, 1.0, 0.0};
        return DRAWN;
    }
    bool cut = (p->top_k > 0 && p->top_k < s->n) || p->top_p < 1.0 || p->min_p > 0.0 || llm;
    if (cut)
        draw_cut(loops, s, x, max, llm, llm_floor, p, draw);
    else
        draw_uncut(loops, s, x, max, p, draw);
    if (!(draw->entropy_bits > 0.0)) draw->entropy_bits = 0.0;
    return DRAWN;
}
