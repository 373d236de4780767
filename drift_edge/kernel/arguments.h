/* What Python hands over, checked: arrays as buffers, numbers, integers. Each function sets the exception and returns
 * false where something is wrong; messages name the argument, what was expected and what was found. */

static bool wrong_type(const char *name, const char *expected, PyObject *got) {
    PyObject *type = PyType_GetName(Py_TYPE(got));
    if (type) PyErr_Format(PyExc_TypeError, "%s: expected %s, got %U", name, expected, type);
    Py_XDECREF(type);
    return false;
}

/* Bytes from one value or row to the next along `dim`; a buffer without strides (ctypes') is in C order. */
static Py_ssize_t stride_of(const Py_buffer *view, int dim) {
    if (view->strides) return view->strides[dim];
    return dim == view->ndim - 1 ? view->itemsize : view->shape[view->ndim - 1] * view->itemsize;
}

/* A contiguous, aligned buffer of 'f'loat32, 'd'ouble or 'i'nt32 with `size` values (any if negative) a row; the rows of
 * a matrix may be strided. The caller releases the view, whatever happens. */
static bool get_array(PyObject *object, Py_buffer *view, const char *name, char kind, int ndim, Py_ssize_t size,
                      bool writable) {
    const char *dtype = kind == 'f' ? "float32" : kind == 'd' ? "float64" : "int32";
    Py_ssize_t itemsize = kind == 'd' ? 8 : 4;
    if (!PyObject_CheckBuffer(object)) {
        char expected[32];
        PyOS_snprintf(expected, sizeof expected, "a %s array", dtype);
        return wrong_type(name, expected, object);
    }
    if (PyObject_GetBuffer(object, view, PyBUF_RECORDS_RO) < 0) return false;
    const char *format = view->format ? view->format : "B";
    const char *code = strchr("@=<", *format) ? format + 1 : format; /* big-endian machines are not supported */
    bool fits = kind == 'i' ? strchr("ilq", *code) != NULL : *code == kind;
    if (!fits || !*code || code[1] || view->itemsize != itemsize) {
        PyErr_Format(PyExc_TypeError, "%s: expected %s, got format '%s'", name, dtype, format);
        return false;
    }
    if (view->ndim != ndim) {
        PyErr_Format(PyExc_ValueError, "%s: expected %d dimension(s), got %d", name, ndim, view->ndim);
        return false;
    }
    Py_ssize_t n = view->shape[ndim - 1];
    if (size >= 0 && n != size) {
        PyErr_Format(PyExc_ValueError, "%s: expected length %zd, got %zd", name, size, n);
        return false;
    }
    if (ndim == 2 && n == 0) {
        PyErr_Format(PyExc_ValueError, "%s: expected rows that are not empty", name);
        return false;
    }
    Py_ssize_t stride = stride_of(view, ndim - 1);
    if ((n > 1 && stride != itemsize) || (ndim == 2 && stride_of(view, 0) % itemsize) ||
        (uintptr_t)view->buf % (uintptr_t)itemsize) {
        PyErr_Format(PyExc_ValueError, "%s: expected contiguous, aligned values, got a stride of %zd bytes", name,
                     stride);
        return false;
    }
    if (writable && view->readonly) {
        PyErr_Format(PyExc_ValueError, "%s: expected a writable array, got a read-only one", name);
        return false;
    }
    return true;
}

static void release(Py_buffer *views, int n) {
    for (int i = 0; i < n; i++) PyBuffer_Release(&views[i]);
}

static const float *row_of(const Py_buffer *matrix, Py_ssize_t i) {
    return (const float *)(const void *)((const char *)matrix->buf + i * stride_of(matrix, 0));
}

static bool get_u64(PyObject *object, const char *name, uint64_t *value) {
    PyObject *whole = PyNumber_Index(object);
    if (!whole) {
        PyErr_Clear();
        return wrong_type(name, "an integer", object);
    }
    *value = PyLong_AsUnsignedLongLong(whole);
    Py_DECREF(whole);
    if (!PyErr_Occurred()) return true;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s: expected an integer from 0 to 2^64 - 1, got %R", name, object);
    return false;
}

static bool get_number(PyObject *object, const char *name, double low, double high, const char *range, double *value) {
    *value = PyFloat_AsDouble(object);
    if (*value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return wrong_type(name, "a number", object);
    }
    if (*value >= low && *value <= high && !(*range == 'o' && *value == low)) return true;
    PyErr_Format(PyExc_ValueError, "%s: expected %s, got %R", name, range, object);
    return false;
}

static bool check_count(const char *name, Py_ssize_t expected, Py_ssize_t got) {
    if (got != expected) PyErr_Format(PyExc_TypeError, "%s: expected %zd arguments, got %zd", name, expected, got);
    return got == expected;
}

/* Raises the ValueError that names the row if it holds NaN or +inf, and returns true then. */
static bool is_bad_row(const float *x, size_t n, const char *name) {
    size_t i = 0;
    while (i < n && x[i] <= FLT_MAX) i++;
    if (i == n) return false;
    PyErr_Format(PyExc_ValueError, "%s: %s at index %zu", name, isnan(x[i]) ? "NaN" : "+inf", i);
    return true;
}

/* The same, of a row that holds one of them or nothing but -inf. */
static void refuse_row(const float *x, size_t n, const char *name) {
    if (!is_bad_row(x, n, name)) PyErr_Format(PyExc_ValueError, "%s: every token is -inf", name);
}
