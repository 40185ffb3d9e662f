/* safetensors.c: the container's header: u64 length, JSON, then tensor data without holes. Every
 * number in it is checked here against the file's size and against its neighbours, so that the
 * table can be trusted. The header is read twice: once to check and count, which needs no memory
 * but the header's own, and once to fill a table of the right size. Format:
 * https://github.com/huggingface/safetensors, README.md and safetensors/src/tensor.rs.
 */
#include "hf_int.h"

#include <string.h>

#define ST_HEADER_MAX 100000000u
#define ST_DIM_MAX 8u

static const struct {
    const char *name;
    uint32_t bits;
} types[] = {
    [ST_BOOL] = {"BOOL", 8},
    [ST_U8] = {"U8", 8},
    [ST_I8] = {"I8", 8},
    [ST_F8_E5M2] = {"F8_E5M2", 8},
    [ST_F8_E4M3] = {"F8_E4M3", 8},
    [ST_F8_E8M0] = {"F8_E8M0", 8},
    [ST_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [ST_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [ST_I16] = {"I16", 16},
    [ST_U16] = {"U16", 16},
    [ST_F16] = {"F16", 16},
    [ST_BF16] = {"BF16", 16},
    [ST_I32] = {"I32", 32},
    [ST_U32] = {"U32", 32},
    [ST_F32] = {"F32", 32},
    [ST_C64] = {"C64", 64},
    [ST_F64] = {"F64", 64},
    [ST_I64] = {"I64", 64},
    [ST_U64] = {"U64", 64},
    [ST_F4] = {"F4", 4},
    [ST_F6_E2M3] = {"F6_E2M3", 6},
    [ST_F6_E3M2] = {"F6_E3M2", 6},
    [ST_UNKNOWN] = {"unknown", 0},
};

const char *st_type_name(uint32_t type)
{
    return types[type < ARRAY_LEN(types) ? type : ST_UNKNOWN].name;
}

static uint32_t type_of(const struct json *v)
{
    for (uint32_t i = 0; i < ST_UNKNOWN; i++)
        if (json_is_text(v, types[i].name))
            return i;
    return ST_UNKNOWN;
}

/* One pass over a header. */
struct pass {
    struct json_reader in;
    const char *file;
    uint64_t data_size;
    char name[IO_NAME_MAX]; /* of the tensor being read */
    uint64_t offset;        /* of its entry in the file */
    glm_error *err;
};

/* At the reader's place, in the words "tensor NAME ...". */
static int32_t refuse(struct pass *p, const char *why)
{
    return err_set(p->err, GLM_EFORMAT, p->offset, p->file, "tensor %s: %s", io_tail(p->name), why);
}

/* The reader has no status of its own: it filled the error, with an offset in the text. */
static int32_t reader_failed(struct pass *p)
{
    if (p->err == NULL)
        return GLM_EFORMAT;
    p->err->offset += 8;
    return p->err->code;
}

static int32_t next(struct pass *p, enum json_event *ev)
{
    *ev = json_reader_next(&p->in, p->err);
    return *ev == JSON_EV_ERROR ? reader_failed(p) : GLM_OK;
}

/* Only plain digits are a size: not 1.0, 1e3 or "1". */
static bool plain_number(const struct json *v, uint64_t *out)
{
    if (v->type != JSON_NUMBER)
        return false;
    for (uint32_t i = 0; i < v->size; i++)
        if (v->text[i] < '0' || v->text[i] > '9')
            return false;
    return json_u64(v, out);
}

/* An array of up to max numbers, the reader standing before its OPEN. */
static int32_t read_numbers(
    struct pass *p, uint64_t *out, uint32_t max, uint32_t *n, const char *what)
{
    enum json_event ev;
    int32_t rc = next(p, &ev);
    if (rc != GLM_OK)
        return rc;
    if (ev != JSON_EV_OPEN || p->in.value.type != JSON_ARRAY)
        return refuse(p, what);
    for (*n = 0;; (*n)++) {
        rc = next(p, &ev);
        if (rc != GLM_OK || ev == JSON_EV_CLOSE)
            return rc;
        if (ev != JSON_EV_VALUE || *n == max || !plain_number(&p->in.value, &out[*n]))
            return refuse(p, what);
    }
}

enum { HAS_DTYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4, HAS_ALL = 7 };

static int32_t read_member(struct pass *p, struct io_tensor *t, unsigned *has)
{
    const struct json *key = &p->in.value;
    enum json_event ev;
    int32_t rc;
    uint32_t n = 0;
    uint64_t ends[2] = {0, 0};
    unsigned which = json_is_text(key, "dtype")          ? HAS_DTYPE
                     : json_is_text(key, "shape")        ? HAS_SHAPE
                     : json_is_text(key, "data_offsets") ? HAS_OFFSETS
                                                         : 0;
    if (which == 0)
        return refuse(p, "its entry has a member besides dtype, shape and data_offsets");
    if ((*has & which) != 0)
        return refuse(p, "a member of its entry is there twice");
    *has |= which;
    if (which == HAS_DTYPE) {
        rc = next(p, &ev);
        if (rc != GLM_OK)
            return rc;
        if (ev != JSON_EV_VALUE || p->in.value.type != JSON_STRING)
            return refuse(p, "its dtype is not a string");
        t->type = type_of(&p->in.value);
        return GLM_OK;
    }
    if (which == HAS_SHAPE)
        return read_numbers(
            p, t->dim, ST_DIM_MAX, &t->n_dim, "its shape is not an array of up to 8 sizes");
    rc = read_numbers(p, ends, 2, &n, "its data_offsets are not two offsets");
    if (rc != GLM_OK)
        return rc;
    if (n != 2 || ends[0] > ends[1])
        return refuse(p, "its data_offsets are not a begin and an end");
    if (ends[1] > p->data_size)
        return err_set(p->err, GLM_EFORMAT, p->offset, p->file,
            "tensor %s ends at byte %llu of the data, which has %llu: the file is cut short or "
            "damaged",
            io_tail(p->name), (unsigned long long)ends[1], (unsigned long long)p->data_size);
    t->offset = ends[0];
    t->bytes = ends[1] - ends[0];
    return GLM_OK;
}

static int32_t check_length(struct pass *p, const struct io_tensor *t)
{
    uint64_t bits = types[t->type].bits;
    if (t->type == ST_UNKNOWN)
        return GLM_OK;
    for (uint32_t i = 0; i < t->n_dim; i++)
        if (!ck_mul(bits, t->dim[i], &bits))
            return refuse(p, "the product of its shape overflows");
    if (bits % 8 != 0 || bits / 8 != t->bytes)
        return err_set(p->err, GLM_EFORMAT, p->offset, p->file,
            "tensor %s has %llu bytes, but its shape of %s needs %llu", io_tail(p->name),
            (unsigned long long)t->bytes, types[t->type].name, (unsigned long long)(bits / 8));
    return GLM_OK;
}

/* An entry of the header, the reader standing after its key. */
static int32_t read_entry(struct pass *p, struct io_tensor *t)
{
    enum json_event ev;
    unsigned has = 0;
    int32_t rc = next(p, &ev);
    if (rc != GLM_OK)
        return rc;
    if (ev != JSON_EV_OPEN || p->in.value.type != JSON_OBJECT)
        return refuse(p, "its entry is not an object");
    *t = (struct io_tensor){0};
    for (;;) {
        rc = next(p, &ev);
        if (rc != GLM_OK)
            return rc;
        if (ev == JSON_EV_CLOSE)
            break;
        rc = read_member(p, t, &has);
        if (rc != GLM_OK)
            return rc;
    }
    return has == HAS_ALL ? check_length(p, t)
                          : refuse(p, "its entry lacks dtype, shape or data_offsets");
}

/* "__metadata__": a map of strings to strings. */
static int32_t read_metadata(struct pass *p)
{
    enum json_event ev;
    int32_t rc = next(p, &ev);
    if (rc == GLM_OK && (ev != JSON_EV_OPEN || p->in.value.type != JSON_OBJECT))
        return refuse(p, "is not an object");
    while (rc == GLM_OK) {
        rc = next(p, &ev);
        if (rc != GLM_OK || ev == JSON_EV_CLOSE)
            break;
        if (ev == JSON_EV_OPEN || (ev == JSON_EV_VALUE && p->in.value.type != JSON_STRING))
            return refuse(p, "has a value that is not a string");
    }
    return rc;
}

/* Moves to the next tensor; *end after the last. */
static int32_t next_tensor(struct pass *p, struct io_tensor *t, bool *metadata, bool *end)
{
    for (;;) {
        enum json_event ev;
        int32_t rc = next(p, &ev);
        if (rc != GLM_OK)
            return rc;
        *end = ev == JSON_EV_CLOSE;
        if (*end) /* nothing but white space may follow */
            return next(p, &ev);
        const struct json *key = &p->in.value;
        p->offset = 8 + key->offset;
        size_t n = key->size < IO_NAME_MAX ? key->size : IO_NAME_MAX - 1;
        memcpy(p->name, key->text, n);
        p->name[n] = 0;
        if (n < key->size || strlen(p->name) < n || n == 0)
            return refuse(p, "its name is empty, too long or has a zero byte");
        if (strcmp(p->name, "__metadata__") != 0)
            return read_entry(p, t);
        if (*metadata)
            return refuse(p, "is there twice");
        *metadata = true;
        rc = read_metadata(p);
        if (rc != GLM_OK)
            return rc;
    }
}

static int32_t begin_pass(struct pass *p)
{
    enum json_event ev;
    int32_t rc = next(p, &ev);
    if (rc == GLM_OK && (ev != JSON_EV_OPEN || p->in.value.type != JSON_OBJECT))
        return err_set(p->err, GLM_EFORMAT, 8, p->file, "the header is not a JSON object");
    return rc;
}

/* The first pass: everything that can be said of one tensor at a time, and the sum. */
static int32_t check_header(struct pass *p, size_t *n)
{
    bool metadata = false, end = false;
    uint64_t sum = 0;
    int32_t rc = begin_pass(p);
    for (*n = 0; rc == GLM_OK;) {
        struct io_tensor t;
        rc = next_tensor(p, &t, &metadata, &end);
        if (rc != GLM_OK || end)
            break;
        if (++*n > HF_TENSOR_MAX)
            return err_set(
                p->err, GLM_EFORMAT, p->offset, p->file, "more than %u tensors", HF_TENSOR_MAX);
        if (!ck_add(sum, t.bytes, &sum))
            return refuse(p, "the sum of all lengths overflows");
    }
    if (rc == GLM_OK && sum != p->data_size)
        return err_set(p->err, GLM_EFORMAT, 8, p->file,
            "the tensors have %llu bytes in all, the file %llu of data: there is an overlap, a "
            "hole or a rest",
            (unsigned long long)sum, (unsigned long long)p->data_size);
    return rc;
}

static int32_t fill_table(
    struct pass *p, struct ckpt *c, uint32_t i_file, const struct st_filter *filter)
{
    bool metadata = false, end = false;
    int32_t rc = begin_pass(p);
    while (rc == GLM_OK) {
        struct io_tensor t;
        rc = next_tensor(p, &t, &metadata, &end);
        if (rc != GLM_OK || end)
            break;
        if (filter != NULL)
            t.name = filter->keep(filter->user, i_file, p->name, &rc, p->err);
        else if ((t.name = arena_copy(&c->arena, p->name, strlen(p->name))) == NULL)
            rc = err_nomem(p->err, "the names of tensors");
        t.file = i_file;
        if (rc == GLM_OK && t.name != NULL)
            c->tensors[c->n_tensor++] = t;
    }
    return rc;
}

/* ---- order --------------------------------------------------------------------------------- */

static bool before(const struct io_tensor *a, const struct io_tensor *b)
{
    return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes;
}

static void sift(const struct io_tensor *t, uint32_t *heap, size_t n, size_t i)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&t[heap[child]], &t[heap[child + 1]]))
            child++;
        if (!before(&t[heap[i]], &t[heap[child]]))
            return;
        uint32_t swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
    }
}

/* Heap sort: no recursion, no memory, no bad case. qsort of the C library may call malloc. */
static void sort_by_offset(const struct io_tensor *t, uint32_t *order, size_t n)
{
    bool sorted = true;
    for (size_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
        sorted = sorted && (i == 0 || !before(&t[i], &t[i - 1]));
    }
    if (sorted)
        return;
    for (size_t i = n / 2; i-- > 0;)
        sift(t, order, n, i);
    for (size_t i = n; i-- > 1;) {
        uint32_t swap = order[0];
        order[0] = order[i];
        order[i] = swap;
        sift(t, order, i, 0);
    }
}

/* No two tensors share a byte; where all of a file's are in the table, none lies between two
 * either. */
static int32_t check_order(struct ckpt *c, size_t first, bool complete, glm_error *err)
{
    size_t n = c->n_tensor - first;
    const struct io_tensor *t = c->tensors + first;
    if (n == 0)
        return GLM_OK;
    uint32_t *order = mem_array(c->mem, n, sizeof(*order));
    if (order == NULL)
        return err_nomem(err, "the order of tensors");
    sort_by_offset(t, order, n);
    int32_t rc = GLM_OK;
    uint64_t end = 0;
    for (size_t i = 0; i < n && rc == GLM_OK; i++) {
        const struct io_tensor *x = &t[order[i]];
        if (x->offset < end || (complete && x->offset > end))
            rc = err_set(err, GLM_EFORMAT, io_file_offset(c, x), c->files[x->file].name,
                "tensor %s begins at byte %llu of the data, the one before it ends at %llu: %s",
                io_tail(x->name), (unsigned long long)x->offset, (unsigned long long)end,
                x->offset < end ? "they overlap" : "there is a hole");
        end = x->offset + x->bytes; /* both checked against the file's size */
    }
    mem_free(c->mem, order);
    return rc;
}

/* ---- the file ------------------------------------------------------------------------------ */

static int32_t read_header(
    struct ckpt *c, struct io_file *f, char **header, size_t *size, glm_error *err)
{
    uint8_t b[8];
    uint64_t n = 0;
    if (f->file.size < 10)
        return err_set(err, GLM_EFORMAT, 0, f->name, "%llu bytes cannot be a safetensors file",
            (unsigned long long)f->file.size);
    int32_t rc = fs_read(&f->file, 0, b, sizeof(b), f->name, err);
    if (rc != GLM_OK)
        return rc;
    for (unsigned i = 0; i < 8; i++)
        n |= (uint64_t)b[i] << 8 * i;
    if (n < 2 || n > ST_HEADER_MAX || n > f->file.size - 8)
        return err_set(err, GLM_EFORMAT, 0, f->name,
            "a header of %llu bytes in a file of %llu: not a safetensors file, or cut short",
            (unsigned long long)n, (unsigned long long)f->file.size);
    char *text = mem_alloc(c->mem, (size_t)n);
    if (text == NULL)
        return err_nomem(err, "the header of a safetensors file");
    rc = fs_read(&f->file, 8, text, n, f->name, err);
    if (rc == GLM_OK && text[0] != '{')
        rc = err_set(err, GLM_EFORMAT, 8, f->name, "the header does not begin with '{'");
    if (rc != GLM_OK) {
        mem_free(c->mem, text);
        return rc;
    }
    f->data_offset = 8 + n;
    f->data_size = f->file.size - f->data_offset;
    *header = text;
    *size = (size_t)n;
    return GLM_OK;
}

static int32_t run_pass(struct ckpt *c, uint32_t i_file, const char *header, size_t size, bool fill,
    size_t *n, const struct st_filter *filter, glm_error *err)
{
    struct io_file *f = &c->files[i_file];
    glm_error own = GLM_ERROR_INIT; /* so that the reader's status is known */
    struct pass p = {
        .file = f->name, .data_size = f->data_size, .err = err != NULL ? err : &own, .offset = 8};
    json_reader_init(&p.in, c->mem, header, size, f->name);
    int32_t rc = fill ? fill_table(&p, c, i_file, filter) : check_header(&p, n);
    json_reader_free(&p.in);
    return rc;
}

int32_t st_open(struct ckpt *c, uint32_t i_file, const struct st_filter *filter, glm_error *err)
{
    struct io_file *f = &c->files[i_file];
    char *header = NULL;
    size_t size = 0, n = 0, first = c->n_tensor;
    int32_t rc = fs_open(c->opt.fs, f->name, &f->file, err);
    if (rc == GLM_OK)
        rc = read_header(c, f, &header, &size, err);
    if (rc == GLM_OK)
        rc = run_pass(c, i_file, header, size, false, &n, filter, err);
    if (rc == GLM_OK && filter == NULL) {
        c->tensors =
            arena_alloc(&c->arena, (n + 1) * sizeof(*c->tensors), _Alignof(struct io_tensor));
        if (c->tensors == NULL)
            rc = err_nomem(err, "the table of tensors");
    }
    if (rc == GLM_OK)
        rc = run_pass(c, i_file, header, size, true, &n, filter, err);
    mem_free(c->mem, header);
    return rc == GLM_OK ? check_order(c, first, c->n_tensor - first == n, err) : rc;
}
