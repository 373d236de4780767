/* The vector loops of every instruction set, and the choice among them at run time. */

enum { LANES = 16, GROUP = 256 }; /* LANES: of the widest vector; GROUP: values that are worked on at once */
#define LOWEST_Z (-86.0f) /* exp of it is near the end of float32 */
#define SLACK 0x1p-20
#define LN2 0.69314718055994530942
#define GOLDEN 0x9E3779B97F4A7C15u

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline
#endif

typedef struct {
    double w, wz;
    int64_t live;
} Sums;

typedef struct {
    double w, wu, wuu;
} Tilt;

typedef struct {
    const char *isa;
    size_t (*fuse)(float *, const float *, const float *, const float *const *, const float *, size_t, size_t);
    float (*maxima)(const float *, size_t, float *);
    Sums (*exp_sums)(const float *, size_t, float, float);
    Tilt (*tilt)(const float *, const float *, float, float, size_t, float *);
    void (*blend)(float *, const float *, float, size_t);
    uint64_t (*most_bits)(uint64_t, size_t);
} Loops;

INLINE uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

INLINE uint64_t noise_bits(uint64_t key, uint64_t id) {
    return mix(key + (id + 1) * GOLDEN);
}

#if defined(__ARM_NEON) || defined(_M_ARM64)
#define ISA "neon"
#else
#define ISA "baseline"
#endif
#define TARGET
#define FN(name) baseline_##name
#include "numeric.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define ISA "avx2"
#define TARGET __attribute__((target("avx2,fma")))
#define FN(name) avx2_##name
#include "numeric.h"

#define ISA "avx512"
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define FN(name) avx512_##name
#include "numeric.h"
#endif

/* By name, or with NULL the best that this processor has; NULL if it lacks the one named. */
static const Loops *choose_loops(const char *name) {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (avx512 && (!name || !strcmp(name, "avx512"))) return &avx512_loops;
    if (avx2 && (!name || !strcmp(name, "avx2"))) return &avx2_loops;
#endif
    return !name || !strcmp(name, baseline_loops.isa) ? &baseline_loops : NULL;
}
