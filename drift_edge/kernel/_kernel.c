/* The kernel in C: Python's view of it. loops.h and numeric.h hold the vector loops of each instruction set;
 * sampler.h the draw; budget.h the share of steering that a budget allows; arguments.h the checks. What the functions
 * mean is told in __init__.py; reference.py is their twin in numpy. Stable ABI, no numpy C API: arrays come in as buffers, and the loops run without the GIL. */

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

#ifdef __STDC_NO_ATOMICS__
typedef volatile bool Flag; /* MSVC: reads and writes of a volatile byte are whole */
#else
#include <stdatomic.h>
typedef atomic_bool Flag;
#endif

#include "arguments.h"
#include "loops.h"
#include "budget.h"
#include "sampler.h"

typedef struct {
    const Loops *loops; /* of the best instruction set here */
} State;

static bool overlap(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    return (uintptr_t)a < (uintptr_t)b + b_bytes && (uintptr_t)b < (uintptr_t)a + a_bytes;
}

static PyObject *fuse_checked(const Loops *loops, Py_buffer *v) {
    float *out = v[0].buf;
    const float *llm = v[1].buf, *base = row_of(&v[2], 0);
    const double *weights = v[3].buf;
    size_t n = (size_t)v[0].shape[0], k = (size_t)v[3].shape[0], used = 0, stop;
    for (Py_ssize_t i = 0; i < v[2].shape[0]; i++)
        if (overlap((char *)out, n * 4, (const char *)row_of(&v[2], i), n * 4)) {
            PyErr_SetString(PyExc_ValueError, "out: must not overlap slm");
            return NULL;
        }
    if (out != llm && overlap((char *)out, n * 4, (const char *)llm, n * 4)) {
        PyErr_SetString(PyExc_ValueError, "out: may be the llm row itself, but must not overlap it in part");
        return NULL;
    }
    const float **rows = malloc((k + 4) * (sizeof *rows + sizeof(float)));
    if (!rows) return PyErr_NoMemory();
    float *p = (float *)(rows + k + 4), max;
    for (size_t i = 0; i < k; i++) {
        if (!(fabs(weights[i]) <= (double)FLT_MAX)) {
            free(rows);
            PyErr_SetString(PyExc_ValueError, "weights: expected finite numbers");
            return NULL;
        }
        if (weights[i] == 0.0) continue;
        rows[used] = row_of(&v[2], (Py_ssize_t)i + 1);
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
        stop = loops->maxima(llm, n, NULL, &max) ? n : 0;
        memmove(out, llm, n * sizeof *out);
    }
    Py_END_ALLOW_THREADS
    free(rows);
    if (stop == n) Py_RETURN_NONE;
    if (is_bad_row(llm, n, "llm row", -1) || is_bad_row(base, n, "base row", -1)) return NULL;
    for (size_t i = 0; i < k; i++)
        if (weights[i] != 0.0 && is_bad_row(row_of(&v[2], (Py_ssize_t)i + 1), n, "attribute row", (Py_ssize_t)i + 1))
            return NULL;
    PyErr_Format(PyExc_ValueError, "the fused row overflows float32 at index %zu", stop);
    return NULL;
}

static bool no_live_token(const char *name, Py_ssize_t number) {
    if (number < 0)
        PyErr_Format(PyExc_ValueError, "%s: every token is -inf, so none can be drawn", name);
    else
        PyErr_Format(PyExc_ValueError, "%s %zd: every token is -inf", name, number);
    return false;
}

static bool check_count(const char *name, Py_ssize_t expected, Py_ssize_t got) {
    if (got != expected) PyErr_Format(PyExc_TypeError, "%s: expected %zd arguments, got %zd", name, expected, got);
    return got == expected;
}

static PyObject *py_fuse(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[4] = {{0}};
    PyObject *result = NULL;
    if (!check_count("fuse", 4, n_args)) return NULL;
    if (get_array(args[0], &v[0], "out", 'f', 1, -1, true) &&
        get_array(args[1], &v[1], "llm", 'f', 1, v[0].shape[0], false) &&
        get_array(args[2], &v[2], "slm", 'f', 2, v[0].shape[0], false) &&
        get_array(args[3], &v[3], "weights", 'd', 1, -1, false)) {
        if (v[2].shape[0] == v[3].shape[0] + 1)
            result = fuse_checked(((State *)PyModule_GetState(module))->loops, v);
        else
            PyErr_Format(PyExc_ValueError, "slm: expected %zd rows (base and weights), got %zd", v[3].shape[0] + 1,
                         v[2].shape[0]);
    }
    release(v, 4);
    return result;
}

/* fuse_within(out, llm, slm, weights, budget) -> (share, kl) */
static PyObject *py_fuse_within(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    const Loops *loops = ((State *)PyModule_GetState(module))->loops;
    Py_buffer v[2] = {{0}};
    PyObject *result = NULL, *fused;
    double budget;
    if (!check_count("fuse_within", 5, n_args)) return NULL;
    if (get_number(args[4], "budget", 0, 1e30, "0 to 1e30", &budget) &&
        get_array(args[0], &v[0], "out", 'f', 1, -1, true) &&
        get_array(args[1], &v[1], "llm", 'f', 1, v[0].shape[0], false)) {
        size_t n = (size_t)v[0].shape[0];
        float *out = v[0].buf;
        const float *llm = v[1].buf;
        if (overlap((char *)out, n * 4, (const char *)llm, n * 4)) {
            PyErr_SetString(PyExc_ValueError, "out: must not overlap llm");
        } else if ((fused = py_fuse(module, args, 4))) {
            Py_DECREF(fused);
            Spent spent = {0};
            bool fine;
            Py_BEGIN_ALLOW_THREADS
            fine = spend(loops, out, llm, n, budget, &spent);
            Py_END_ALLOW_THREADS
            if (fine)
                result = Py_BuildValue("dd", (double)spent.share, spent.kl);
            else if (!is_bad_row(llm, n, "llm row", -1))
                no_live_token("llm row", -1);
        }
    }
    release(v, 2);
    return result;
}

static PyObject *py_gumbel(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[2] = {{0}};
    uint64_t seed, position;
    PyObject *result = NULL;
    if (!check_count("gumbel", 4, n_args)) return NULL;
    if (get_u64(args[0], "seed", &seed) && get_u64(args[1], "position", &position) &&
        get_array(args[2], &v[0], "ids", 'i', 1, -1, false) &&
        get_array(args[3], &v[1], "out", 'd', 1, v[0].shape[0], true)) {
        const int32_t *ids = v[0].buf;
        double *out = v[1].buf;
        uint64_t key = noise_key(seed, position);
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < v[0].shape[0]; i++) out[i] = noise(noise_bits(key, (uint64_t)(int64_t)ids[i]));
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    release(v, 2);
    return result;
}

static PyObject *py_logprobs(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[3] = {{0}};
    PyObject *result = NULL;
    const Loops *loops = ((State *)PyModule_GetState(module))->loops;
    if (!check_count("logprobs", 3, n_args)) return NULL;
    if (get_array(args[0], &v[0], "logits", 'f', 2, -1, false) &&
        get_array(args[1], &v[1], "targets", 'i', 1, v[0].shape[0], false) &&
        get_array(args[2], &v[2], "out", 'd', 1, v[0].shape[0], true)) {
        size_t rows = (size_t)v[0].shape[0], n = (size_t)v[0].shape[1], i = 0;
        const int32_t *targets = v[1].buf;
        double *out = v[2].buf;
        int32_t target = 0;
        float max = 0.0f;
        enum { FINE, OUT_OF_RANGE, BAD_ROW } outcome = FINE;
        Py_BEGIN_ALLOW_THREADS
        for (; i < rows; i++) {
            const float *x = row_of(&v[0], (Py_ssize_t)i);
            target = targets[i];
            if (target < 0 || (size_t)target >= n) outcome = OUT_OF_RANGE;
            if (!loops->maxima(x, n, NULL, &max) || max == -INFINITY) outcome = BAD_ROW;
            if (outcome != FINE) break;
            out[i] = (double)x[target] - (double)max - log(loops->exp_sums(x, n, max, 1.0f).w);
        }
        Py_END_ALLOW_THREADS
        if (outcome == FINE)
            result = Py_NewRef(Py_None);
        else if (outcome == OUT_OF_RANGE)
            PyErr_Format(PyExc_ValueError, "targets: expected ids from 0 to %zu, got %d", n - 1, target);
        else if (!is_bad_row(row_of(&v[0], (Py_ssize_t)i), n, "logits row", (Py_ssize_t)i))
            no_live_token("logits row", (Py_ssize_t)i);
    }
    release(v, 3);
    return result;
}

static PyObject *py_divergence(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer v[2] = {{0}};
    PyObject *result = NULL;
    const Loops *loops = ((State *)PyModule_GetState(module))->loops;
    if (!check_count("divergence", 2, n_args)) return NULL;
    if (get_array(args[0], &v[0], "fused", 'f', 1, -1, false) &&
        get_array(args[1], &v[1], "llm", 'f', 1, v[0].shape[0], false)) {
        size_t n = (size_t)v[0].shape[0];
        const float *rows[2] = {v[0].buf, v[1].buf};
        const char *names[2] = {"fused", "llm"};
        float max[2];
        double entropy[2], kl = 0.0;
        Sums sums[2];
        int wrong = -1;
        Py_BEGIN_ALLOW_THREADS
        for (int i = 0; i < 2 && wrong < 0; i++) {
            if (!loops->maxima(rows[i], n, NULL, &max[i]) || max[i] == -INFINITY) {
                wrong = i;
                break;
            }
            sums[i] = loops->exp_sums(rows[i], n, max[i], 1.0f);
            entropy[i] = log2(sums[i].w) - sums[i].wz / sums[i].w / LN2;
            entropy[i] = entropy[i] > 0.0 ? entropy[i] : 0.0;
        }
        if (wrong < 0)
            kl = loops->cross(rows[0], max[0], rows[1], max[1], n) / sums[0].w + log(sums[1].w) - log(sums[0].w);
        Py_END_ALLOW_THREADS
        if (wrong < 0)
            result = Py_BuildValue("ddd", entropy[0], entropy[1], kl > 0.0 ? kl : 0.0);
        else if (!is_bad_row(rows[wrong], n, names[wrong], -1))
            no_live_token(names[wrong], -1);
    }
    release(v, 2);
    return result;
}

static PyObject *py_isa(PyObject *module, PyObject *Py_UNUSED(none)) {
    return PyUnicode_FromString(((State *)PyModule_GetState(module))->loops->isa);
}

static PyObject *py_use_isa(PyObject *module, PyObject *arg) {
    char name[16] = "";
    PyObject *bytes = PyUnicode_Check(arg) ? PyUnicode_AsUTF8String(arg) : NULL;
    if (bytes) PyOS_snprintf(name, sizeof name, "%s", PyBytes_AsString(bytes));
    Py_XDECREF(bytes);
    PyErr_Clear();
    const Loops *loops = choose_loops(name);
    if (loops) {
        ((State *)PyModule_GetState(module))->loops = loops;
        Py_RETURN_NONE;
    }
    PyErr_Format(PyExc_ValueError, "isa: expected one that this machine has, got %R", arg);
    return NULL;
}

static PyObject *py_read_bytes(PyObject *module, PyObject *arg) {
    Py_buffer view = {0};
    uint64_t sum;
    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0) return NULL;
    const Loops *loops = ((State *)PyModule_GetState(module))->loops;
    if ((uintptr_t)view.buf % 8) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "buffer: expected one aligned to 8 bytes");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    sum = loops->read(view.buf, (size_t)view.len / 8);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(sum);
}

/* ---- Sampler ---- */

typedef struct {
    PyObject_HEAD
    Scratch *scratch;
    bool busy; /* a second thread in the same sampler works in memory of its own; guarded by the GIL */
} Sampler;

static void scratch_free(Scratch *s) {
    if (!s) return;
    free(s->row);
    free(s->lane_max);
    free(s->heap);
    free(s->counts);
    free(s->candidates);
    free(s);
}

static Scratch *scratch_new(size_t n) {
    size_t groups = (n + GROUP - 1) / GROUP * LANES;
    Scratch *s = calloc(1, sizeof *s);
    if (s) {
        s->n = n;
        s->row = malloc(n * sizeof *s->row);
        s->lane_max = malloc(groups * sizeof *s->lane_max);
        s->heap = malloc(groups * sizeof *s->heap);
        s->counts = calloc(n, sizeof *s->counts);
        s->candidates = malloc(n * sizeof *s->candidates);
        if (s->row && s->lane_max && s->heap && s->counts && s->candidates) return s;
    }
    scratch_free(s);
    PyErr_NoMemory();
    return NULL;
}

static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *sampler_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"n_vocab", NULL};
    PyObject *n_vocab;
    uint64_t n;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Sampler", names, &n_vocab)) return NULL;
    if (!get_u64(n_vocab, "n_vocab", &n)) return NULL;
    if (n < 1 || n > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "n_vocab: expected 1 to 2^31 - 1, got %R", n_vocab);
        return NULL;
    }
    Sampler *self = (Sampler *)PyType_GenericAlloc(type, 0);
    if (self && !(self->scratch = scratch_new((size_t)n))) Py_CLEAR(self);
    return (PyObject *)self;
}

static void sampler_dealloc(PyObject *self) {
    scratch_free(((Sampler *)self)->scratch);
    free_object(self);
}

/* sample(logits, temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, history,
 * plausibility, llm, seed, position) -> (token, probability, survivors, entropy_bits) */
static PyObject *sampler_sample(PyObject *object, PyObject *const *args, Py_ssize_t n_args) {
    Sampler *self = (Sampler *)object;
    const Loops *loops = ((State *)PyType_GetModuleState(Py_TYPE(object)))->loops;
    Py_ssize_t n = (Py_ssize_t)self->scratch->n;
    Py_buffer v[3] = {{0}}, *history = &v[1];
    Settings p;
    uint64_t top_k;
    PyObject *result = NULL;
    if (!check_count("sample", 13, n_args)) return NULL;
    if (get_array(args[0], &v[0], "logits", 'f', 1, n, false) &&
        get_number(args[1], "temperature", 0, 1e30, "0 to 1e30", &p.temperature) &&
        get_number(args[3], "top_p", 0, 1, "over 0 to 1", &p.top_p) &&
        get_number(args[4], "min_p", 0, 1, "0 to 1", &p.min_p) &&
        get_number(args[5], "repeat_penalty", 0, 1e30, "over 0 to 1e30", &p.repeat) &&
        get_number(args[6], "presence_penalty", -1e30, 1e30, "-1e30 to 1e30", &p.presence) &&
        get_number(args[7], "frequency_penalty", -1e30, 1e30, "-1e30 to 1e30", &p.frequency) &&
        get_number(args[9], "plausibility", 0, 1, "0 to 1", &p.plausibility) && get_u64(args[2], "top_k", &top_k) &&
        get_u64(args[11], "seed", &p.seed) && get_u64(args[12], "position", &p.position) &&
        (args[8] == Py_None || get_array(args[8], history, "history", 'i', 1, -1, false)) &&
        (p.plausibility == 0.0 || get_array(args[10], &v[2], "llm", 'f', 1, n, false))) {
        Scratch *s = self->busy ? scratch_new((size_t)n) : self->scratch;
        bool penalties = history->buf && (p.repeat != 1.0 || p.presence != 0.0 || p.frequency != 0.0);
        size_t n_ids = history->buf ? (size_t)history->shape[0] : 0, valid = n_ids;
        const float *x = v[0].buf, *llm = v[2].buf;
        Outcome outcome = DRAWN;
        Draw draw = {0};
        p.top_k = top_k > (uint64_t)n ? (size_t)n : (size_t)top_k;
        if (s) {
            bool mine = s == self->scratch;
            if (mine) self->busy = true;
            Py_BEGIN_ALLOW_THREADS
            if (penalties) {
                valid = penalise(s, x, history->buf, n_ids, &p);
                x = s->row;
            }
            if (valid == n_ids) outcome = draw_token(loops, s, x, llm, &p, &draw);
            Py_END_ALLOW_THREADS
            if (mine)
                self->busy = false;
            else
                scratch_free(s);
            if (valid < n_ids)
                PyErr_Format(PyExc_ValueError, "history: expected ids from 0 to %zd, got %d", n - 1,
                             ((int32_t *)history->buf)[valid]);
            else if (outcome == DRAWN)
                result = Py_BuildValue("LdLd", (long long)draw.token, draw.probability, (long long)draw.survivors,
                                       draw.entropy_bits);
            else if (outcome == BAD_LLM && !is_bad_row(llm, (size_t)n, "llm", -1))
                no_live_token("llm", -1);
            else if (outcome == BAD_LOGITS && !is_bad_row(v[0].buf, (size_t)n, "logits", -1))
                no_live_token("logits", -1);
        }
    }
    release(v, 3);
    return result;
}

/* ---- AbortFlag ---- */

typedef struct {
    PyObject_HEAD
    Flag flag;
} AbortFlag;

static bool abort_callback(void *data) {
    return *(Flag *)data;
}

static PyObject *abort_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {NULL};
    return PyArg_ParseTupleAndKeywords(args, kwargs, ":AbortFlag", names) ? PyType_GenericAlloc(type, 0) : NULL;
}

static PyObject *abort_set(PyObject *self, PyObject *Py_UNUSED(none)) {
    ((AbortFlag *)self)->flag = true;
    Py_RETURN_NONE;
}

static PyObject *abort_clear(PyObject *self, PyObject *Py_UNUSED(none)) {
    ((AbortFlag *)self)->flag = false;
    Py_RETURN_NONE;
}

static PyObject *abort_is_set(PyObject *self, PyObject *Py_UNUSED(none)) {
    return PyBool_FromLong(((AbortFlag *)self)->flag);
}

static PyObject *abort_address(PyObject *self, void *which) {
    return PyLong_FromSize_t(which ? (uintptr_t)&((AbortFlag *)self)->flag : (uintptr_t)abort_callback);
}

/* ---- the module ---- */

#define FAST(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef sampler_methods[] = {{"sample", FAST(sampler_sample), METH_FASTCALL, NULL}, {0}};
static PyType_Slot sampler_slots[] = {{Py_tp_new, sampler_new},
                                      {Py_tp_dealloc, sampler_dealloc},
                                      {Py_tp_methods, sampler_methods},
                                      {0, NULL}};
static PyType_Spec sampler_spec = {"drift_edge.kernel._kernel.Sampler", sizeof(Sampler), 0,
                                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, sampler_slots};

static PyMethodDef abort_methods[] = {{"set", abort_set, METH_NOARGS, NULL},
                                      {"clear", abort_clear, METH_NOARGS, NULL},
                                      {"is_set", abort_is_set, METH_NOARGS, NULL},
                                      {0}};
static PyGetSetDef abort_getset[] = {{"callback", abort_address, NULL, "address of bool (*)(void *data)", NULL},
                                     {"data", abort_address, NULL, "address to hand to the callback", ""},
                                     {0}};
static PyType_Slot abort_slots[] = {{Py_tp_new, abort_new},
                                    {Py_tp_dealloc, free_object},
                                    {Py_tp_methods, abort_methods},
                                    {Py_tp_getset, abort_getset},
                                    {0, NULL}};
static PyType_Spec abort_spec = {"drift_edge.kernel._kernel.AbortFlag", sizeof(AbortFlag), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, abort_slots};

static PyMethodDef functions[] = {{"fuse", FAST(py_fuse), METH_FASTCALL, NULL},
                                  {"fuse_within", FAST(py_fuse_within), METH_FASTCALL, NULL},
                                  {"gumbel", FAST(py_gumbel), METH_FASTCALL, NULL},
                                  {"logprobs", FAST(py_logprobs), METH_FASTCALL, NULL},
                                  {"divergence", FAST(py_divergence), METH_FASTCALL, NULL},
                                  {"isa", py_isa, METH_NOARGS, "The instruction set in use."},
                                  {"_use_isa", py_use_isa, METH_O, "Use another one that this machine has; for tests."},
                                  {"_read_bytes", py_read_bytes, METH_O, "Read a buffer once; for benchmarks."},
                                  {0}};

static int add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int failed = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    return failed;
}

static int exec_module(PyObject *module) {
    ((State *)PyModule_GetState(module))->loops = choose_loops(NULL);
    return add_type(module, &sampler_spec) < 0 || add_type(module, &abort_spec) < 0 ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, exec_module}, {0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "drift-edge's loops in C; see drift_edge.kernel.",
                                 sizeof(State),         functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) {
    return PyModuleDef_Init(&definition);
}
