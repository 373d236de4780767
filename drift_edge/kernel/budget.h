/* How much of the steering term a budget of nats allows. With q_t = softmax(h_llm + t s), KL(q_t || q_0) grows with t,
 * by t times the variance of s under q_t; so the share t that spends the budget is bracketed and bisected. */

#define MOST_STEPS 128 /* every fourth halves the bracket, whatever Newton's steps do */
#define CLOSE_ENOUGH 2.5e-7 /* nats, of a budget up to 1: what float32 can resolve */

typedef struct {
    const Loops *loops;
    const float *fused, *llm;
    size_t n;
    float llm_max;
    double llm_weight; /* sum of exp(h_llm - llm_max) */
} Steered;

typedef struct {
    float share;
    double kl;
} Spent;

/* KL(q_t || q_0), and its slope in t; infinite where no token is left, or one that the LLM bars. */
static double divergence_at(const Steered *s, float t, double *slope) {
    float max;
    Tilt sums = s->loops->tilt(s->fused, s->llm, s->llm_max, t, s->n, &max);
    if (!(sums.w > 0.0)) return INFINITY;
    double mean = sums.wu / sums.w, variance = sums.wuu / sums.w - mean * mean;
    double kl = mean - ((double)max + log(sums.w / s->llm_weight));
    *slope = variance / (double)t; /* u = t s */
    return isnan(kl) ? INFINITY : kl > 0.0 ? kl : 0.0;
}

/* The largest share whose KL is within the budget. */
static Spent most_within(const Steered *s, double budget) {
    const double close = CLOSE_ENOUGH * (budget > 1.0 ? budget : 1.0);
    Spent best = {0.0f, 0.0};
    float low = 0.0f, high = 1.0f;
    if (budget == 0.0) return best;
    double slope = 0.0, kl = divergence_at(s, high, &slope);
    if (kl <= budget) return (Spent){high, kl};
    /* sqrt(KL) is nearly linear in t: Newton's step on it lands close. Where it leaves the bracket, halve that. */
    float t = (float)sqrt(budget / kl);
    for (int i = 1; i <= MOST_STEPS; i++) {
        if (!(t > low && t < high) || i % 4 == 0) t = low + (high - low) / 2.0f;
        if (!(t > low && t < high)) break; /* neighbours in float32 */
        kl = divergence_at(s, t, &slope);
        if (kl <= budget + close) best = (Spent){t, kl};
        if (fabs(kl - budget) <= close) break;
        if (kl > budget)
            high = t;
        else
            low = t;
        double step = 2.0 * (sqrt(kl * budget) - kl) / slope;
        t = fabs(step) < 1.0 ? t + (float)step : 0.0f;
    }
    return best;
}

/* Takes the fused row back to what the budget allows. False: the LLM's row has NaN, +inf, or no live token. */
static bool spend(const Loops *loops, float *fused, const float *llm, size_t n, double budget, Spent *spent) {
    Steered s = {loops, fused, llm, n, loops->maxima(llm, n, NULL), 0.0};
    if (!(s.llm_max > -INFINITY)) return false;
    s.llm_weight = loops->exp_sums(llm, n, s.llm_max, 1.0f).w;
    *spent = most_within(&s, budget);
    if (spent->share == 0.0f)
        memcpy(fused, llm, n * sizeof *fused);
    else if (spent->share < 1.0f)
        loops->blend(fused, llm, spent->share, n);
    return true;
}
