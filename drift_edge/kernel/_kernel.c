/* The kernel in C: Python's view of it. loops.h and numeric.h hold the vector loops of each instruction set;
 * sampler.h the draw; budget.h the share of steering that a budget allows; arguments.h the checks. What the functions
 * mean is told in __init__.py; reference.py is their twin in numpy. Stable ABI, no numpy C API: arrays come in as
 * buffers, and the loops run without the GIL. Nothing is kept between calls. */

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "loops.h"
#include "budget.h"
#include "sampler.h"

typedef struct {
    const Loops *loops; /* of the best instruction set here */
} State;

static const Loops *loops_of(PyObject *module) {
    return ((State *)PyModule_GetState(module))->loops;
}

static bool overlap(const float *a, const float *b, size_t n) {
    return (uintptr_t)a < (uintptr_t)(b + n) && (uintptr_t)b < (uintptr_t)(a + n);
}

static PyObject *value_error(const char *message) {
    PyErr_SetString(PyExc_ValueError, message);
    return NULL;
}

static PyObject *fuse_checked(const Loops *loops, Py_buffer *v) {
    float *out = v[0].buf;
    const float *llm = v[1].buf, *base = row_of(&v[2], 0);
    const double *weights = v[3].buf;
    Py_ssize_t k = v[3].shape[0];
    size_t n = (size_t)v[0].shape[0], used = 0, stop;
    if (out != llm && overlap(out, llm, n))
        return value_error("out: may be the llm row itself, but must not overlap it in part");
    for (Py_ssize_t i = 0; i <= k; i++)
        if (overlap(out, row_of(&v[2], i), n)) return value_error("out: must not overlap slm");
    for (Py_ssize_t i = 0; i < k; i++)
        if (!(fabs(weights[i]) <= (double)FLT_MAX)) return value_error("weights: expected finite numbers");
    const float **rows = malloc(((size_t)k + 4) * (sizeof *rows + sizeof(float)));
    if (!rows) return PyErr_NoMemory();
    float *p = (float *)(rows + k + 4);
    for (Py_ssize_t i = 0; i < k; i++) {
        if (weights[i] == 0.0) continue;
        rows[used] = row_of(&v[2], i + 1);
        p[used++] = (float)weights[i];
    }
    size_t padded = used;
    for (; padded % 4; padded++) {
        rows[padded] = base;
        p[padded] = 0.0f;
    }
    Py_BEGIN_ALLOW_THREADS
    if (used) {
        stop = loops->fuse(out, llm, base, rows, p, padded, n);
    } else {
        stop = isnan(loops->maxima(llm, n, NULL)) ? 0 : n;
        memmove(out, llm, n * sizeof *out);
    }
    Py_END_ALLOW_THREADS
    free(rows);
    if (stop == n) Py_RETURN_NONE;
    if (is_bad_row(llm, n, "llm row") || is_bad_row(base, n, "base row")) return NULL;
    for (Py_ssize_t i = 0; i < k; i++) {
        char name[40];
        PyOS_snprintf(name, sizeof name, "attribute row %zd", i + 1);
        if (weights[i] != 0.0 && is_bad_row(row_of(&v[2], i + 1), n, name)) return NULL;
    }
    return PyErr_Format(PyExc_ValueError, "the fused row overflows float32 at index %zu", stop);
}

/* fuse(out, llm, slm, weights) */
static PyObject *py_fuse(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[4] = {{0}};
    PyObject *result = NULL;
    if (check_count("fuse", 4, n_args) && get_array(args[0], &v[0], "out", 'f', 1, -1, true) &&
        get_array(args[1], &v[1], "llm", 'f', 1, v[0].shape[0], false) &&
        get_array(args[2], &v[2], "slm", 'f', 2, v[0].shape[0], false) &&
        get_array(args[3], &v[3], "weights", 'd', 1, -1, false)) {
        if (v[2].shape[0] == v[3].shape[0] + 1)
            result = fuse_checked(loops_of(module), v);
        else
            PyErr_Format(PyExc_ValueError, "slm: expected %zd rows (base and weights), got %zd", v[3].shape[0] + 1,
                         v[2].shape[0]);
    }
    release(v, 4);
    return result;
}

/* fuse_within(out, llm, slm, weights, budget) -> (share, kl) */
static PyObject *py_fuse_within(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[2] = {{0}};
    PyObject *result = NULL, *fused;
    double budget;
    if (check_count("fuse_within", 5, n_args) && get_number(args[4], "budget", 0, 1e30, "0 to 1e30", &budget) &&
        get_array(args[0], &v[0], "out", 'f', 1, -1, true) &&
        get_array(args[1], &v[1], "llm", 'f', 1, v[0].shape[0], false)) {
        size_t n = (size_t)v[0].shape[0];
        const float *llm = v[1].buf;
        if (overlap(v[0].buf, llm, n)) {
            value_error("out: must not overlap llm");
        } else if ((fused = py_fuse(module, args, 4))) {
            const Loops *loops = loops_of(module);
            Spent spent = {0};
            bool fine;
            Py_DECREF(fused);
            Py_BEGIN_ALLOW_THREADS
            fine = spend(loops, v[0].buf, llm, n, budget, &spent);
            Py_END_ALLOW_THREADS
            if (fine)
                result = Py_BuildValue("dd", (double)spent.share, spent.kl);
            else
                refuse_row(llm, n, "llm row");
        }
    }
    release(v, 2);
    return result;
}

/* logprobs(logits, targets, out) */
static PyObject *py_logprobs(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[3] = {{0}};
    PyObject *result = NULL;
    if (check_count("logprobs", 3, n_args) && get_array(args[0], &v[0], "logits", 'f', 2, -1, false) &&
        get_array(args[1], &v[1], "targets", 'i', 1, v[0].shape[0], false) &&
        get_array(args[2], &v[2], "out", 'd', 1, v[0].shape[0], true)) {
        const Loops *loops = loops_of(module);
        const int32_t *targets = v[1].buf;
        double *out = v[2].buf;
        Py_ssize_t n = v[0].shape[1], rows = v[0].shape[0], i;
        Py_BEGIN_ALLOW_THREADS
        for (i = 0; i < rows; i++) {
            const float *x = row_of(&v[0], i);
            float max = loops->maxima(x, (size_t)n, NULL);
            if (!(max > -INFINITY) || targets[i] < 0 || targets[i] >= n) break;
            out[i] = (double)x[targets[i]] - (double)max - log(loops->exp_sums(x, (size_t)n, max, 1.0f).w);
        }
        Py_END_ALLOW_THREADS
        if (i == rows) {
            result = Py_NewRef(Py_None);
        } else if (targets[i] < 0 || targets[i] >= n) {
            PyErr_Format(PyExc_ValueError, "targets: expected ids from 0 to %zd, got %d", n - 1, targets[i]);
        } else {
            char name[40];
            PyOS_snprintf(name, sizeof name, "logits row %zd", i);
            refuse_row(row_of(&v[0], i), (size_t)n, name);
        }
    }
    release(v, 3);
    return result;
}

/* divergence(fused, llm) -> (entropy of fused in bits, of llm, KL in nats) */
static PyObject *py_divergence(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[2] = {{0}};
    PyObject *result = NULL;
    if (check_count("divergence", 2, n_args) && get_array(args[0], &v[0], "fused", 'f', 1, -1, false) &&
        get_array(args[1], &v[1], "llm", 'f', 1, v[0].shape[0], false)) {
        const Loops *loops = loops_of(module);
        size_t n = (size_t)v[0].shape[0];
        const float *fused = v[0].buf, *llm = v[1].buf;
        float max, llm_max;
        Sums sums = {0}, llm_sums = {0};
        double kl = 0.0, slope;
        Py_BEGIN_ALLOW_THREADS
        max = loops->maxima(fused, n, NULL);
        llm_max = loops->maxima(llm, n, NULL);
        if (max > -INFINITY && llm_max > -INFINITY) {
            sums = loops->exp_sums(fused, n, max, 1.0f);
            llm_sums = loops->exp_sums(llm, n, llm_max, 1.0f);
            kl = divergence_at(&(Steered){loops, fused, llm, n, llm_max, llm_sums.w}, 1.0f, &slope);
        }
        Py_END_ALLOW_THREADS
        if (!(max > -INFINITY))
            refuse_row(fused, n, "fused");
        else if (!(llm_max > -INFINITY))
            refuse_row(llm, n, "llm");
        else
            result = Py_BuildValue("ddd", entropy_bits(sums.w, sums.wz), entropy_bits(llm_sums.w, llm_sums.wz), kl);
    }
    release(v, 2);
    return result;
}

/* sample(n_vocab, logits, temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty,
 * history, plausibility, llm, seed, position) -> (token, probability, survivors, entropy_bits) */
static PyObject *py_sample(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[3] = {{0}};
    PyObject *result = NULL;
    Settings p;
    uint64_t size, top_k;
    if (check_count("sample", 14, n_args) && get_u64(args[0], "n_vocab", &size) &&
        get_array(args[1], &v[0], "logits", 'f', 1, size <= INT32_MAX ? (Py_ssize_t)size : 0, false) &&
        get_number(args[2], "temperature", 0, 1e30, "0 to 1e30", &p.temperature) &&
        get_u64(args[3], "top_k", &top_k) && get_number(args[4], "top_p", 0, 1, "over 0 to 1", &p.top_p) &&
        get_number(args[5], "min_p", 0, 1, "0 to 1", &p.min_p) &&
        get_number(args[6], "repeat_penalty", 0, 1e30, "over 0 to 1e30", &p.repeat) &&
        get_number(args[7], "presence_penalty", -1e30, 1e30, "-1e30 to 1e30", &p.presence) &&
        get_number(args[8], "frequency_penalty", -1e30, 1e30, "-1e30 to 1e30", &p.frequency) &&
        (args[9] == Py_None || get_array(args[9], &v[1], "history", 'i', 1, -1, false)) &&
        get_number(args[10], "plausibility", 0, 1, "0 to 1", &p.plausibility) &&
        (p.plausibility == 0.0 || get_array(args[11], &v[2], "llm", 'f', 1, v[0].shape[0], false)) &&
        get_u64(args[12], "seed", &p.seed) && get_u64(args[13], "position", &p.position)) {
        const Loops *loops = loops_of(module);
        size_t n = (size_t)v[0].shape[0], n_ids = v[1].buf ? (size_t)v[1].shape[0] : 0, valid = n_ids;
        const float *x = v[0].buf, *llm = v[2].buf, *bad = NULL;
        const int32_t *ids = v[1].buf;
        bool penalties = n_ids && (p.repeat != 1.0 || p.presence != 0.0 || p.frequency != 0.0);
        Scratch s;
        Draw draw = {0};
        p.top_k = top_k > n ? n : (size_t)top_k;
        if (get_scratch(&s, n, penalties)) {
            Py_BEGIN_ALLOW_THREADS
            if (penalties) {
                valid = penalise(&s, x, ids, n_ids, &p);
                x = s.row;
            }
            if (valid == n_ids) bad = draw_token(loops, &s, x, llm, &p, &draw);
            Py_END_ALLOW_THREADS
            if (valid < n_ids)
                PyErr_Format(PyExc_ValueError, "history: expected ids from 0 to %zu, got %d", n - 1, ids[valid]);
            else if (bad)
                refuse_row(bad, n, bad == x ? "logits" : "llm");
            else
                result = Py_BuildValue("LdLd", (long long)draw.token, draw.probability, (long long)draw.survivors,
                                       draw.entropy_bits);
            free(s.candidates);
        } else {
            PyErr_NoMemory();
        }
    }
    release(v, 3);
    return result;
}

static PyObject *py_isa(PyObject *module, PyObject *Py_UNUSED(none)) {
    return PyUnicode_FromString(loops_of(module)->isa);
}

static PyObject *py_use_isa(PyObject *module, PyObject *arg) {
    const char *name = PyUnicode_AsUTF8AndSize(arg, NULL);
    const Loops *loops = name ? choose_loops(name) : NULL;
    if (!name) return NULL;
    if (!loops) return PyErr_Format(PyExc_ValueError, "isa: expected one that this machine has, got %R", arg);
    ((State *)PyModule_GetState(module))->loops = loops;
    Py_RETURN_NONE;
}

/* ---- what llama.cpp calls back ---- */

static bool is_set(void *flag) {
    return *(volatile bool *)flag;
}

static PyObject *py_abort_callback(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return PyLong_FromSize_t((uintptr_t)is_set);
}

/* Python handles signals when a function of its own begins, so Ctrl-C is raised in here; but nobody above could catch it.
 * It is asked for again, and comes where llama.cpp was called; lines until then are lost. */
static void log_line(int level, const char *text, void *function) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *done = PyObject_CallFunction(function, "iy", level, text ? text : "");
    if (!done && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear();
        PyErr_SetInterrupt();
    } else if (!done) {
        PyErr_WriteUnraisable(function);
    }
    Py_XDECREF(done);
    PyGILState_Release(state);
}

static PyObject *py_log_callback(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return PyLong_FromSize_t((uintptr_t)log_line);
}

/* ---- the module ---- */

#define FAST(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef functions[] = {{"fuse", FAST(py_fuse), METH_FASTCALL, NULL},
                                  {"fuse_within", FAST(py_fuse_within), METH_FASTCALL, NULL},
                                  {"logprobs", FAST(py_logprobs), METH_FASTCALL, NULL},
                                  {"divergence", FAST(py_divergence), METH_FASTCALL, NULL},
                                  {"sample", FAST(py_sample), METH_FASTCALL, NULL},
                                  {"isa", py_isa, METH_NOARGS, "The instruction set in use."},
                                  {"_use_isa", py_use_isa, METH_O, "Use another one that this machine has; for tests."},
                                  {"abort_callback", py_abort_callback, METH_NOARGS, "Address of bool (*)(void *flag)."},
                                  {"log_callback", py_log_callback, METH_NOARGS,
                                   "Address of void (*)(int level, const char *text, void *function)."},
                                  {0}};

static int exec_module(PyObject *module) {
    ((State *)PyModule_GetState(module))->loops = choose_loops(NULL);
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, exec_module}, {0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "drift-edge's loops in C; see drift_edge.kernel.",
                                 sizeof(State),         functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) {
    return PyModuleDef_Init(&definition);
}
