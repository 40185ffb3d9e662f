/* base.h: what every layer stands on. Errors, memory, bytes, checked arithmetic, JSON, UTF-8, files, threads, CPU
 * features, hashing. Depends on nothing of ours but the public types of <glm45/glm45.h>.
 *
 * Rules: nothing here keeps global state; all memory comes from a `struct mem`; all functions that can fail return a
 * GLM_* status and fill the glm_error (which may be NULL) with a place and a remedy.
 */
#ifndef GLM_BASE_BASE_H
#define GLM_BASE_BASE_H

#include <glm45/glm45.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* ---- errors (err.c) ------------------------------------------------------------------------------------------- */

/* Fills err (if not NULL) and returns code. `where` is a file, tensor, key or JSON pointer, or NULL; long ones keep
 * their end. fmt knows %s %.*s %d %u %x %zu %lld %llu (PRIu64) only: no floating point, so no locale. The message is
 * cut at a UTF-8 boundary; ill-formed bytes of an argument show as '?'. Arguments may point into err itself. */
#if defined(__GNUC__)
__attribute__((format(printf, 5, 6)))
#endif
int32_t err_set(glm_error *err, int32_t code, uint64_t offset, const char *where, const char *fmt, ...);
int32_t err_nomem(glm_error *err, const char *what); /* GLM_ENOMEM, "out of memory for WHAT" */
void err_clear(glm_error *err);

/* ---- memory (mem.c) -------------------------------------------------------------------------------------------- */

/* One per model, shared by its sessions; the hook may be called from several threads at once. */
struct mem {
    glm_allocator hook;            /* alloc and release are never NULL after mem_init */
    _Atomic uint64_t used, peak;   /* bytes asked of the hook */
};

void mem_init(struct mem *m, const glm_allocator *hook); /* NULL: aligned malloc and free */
void *mem_alloc(struct mem *m, size_t size);             /* 64-byte aligned, content undefined; NULL: out of memory */
void *mem_zalloc(struct mem *m, size_t size);            /* zero-filled: touches every page */
void *mem_array(struct mem *m, size_t n, size_t size);   /* n * size checked for overflow; content undefined */
void *mem_zarray(struct mem *m, size_t n, size_t size);
void *mem_resize(struct mem *m, void *ptr, size_t size); /* content kept up to the smaller size; NULL: ptr is as it was */
void mem_free(struct mem *m, void *ptr);                 /* NULL is fine */
size_t mem_size(const void *ptr);                        /* as asked for */

/* Many small objects that die together. */
struct arena {
    struct mem *mem;
    struct arena_chunk *top;
};
void arena_init(struct arena *a, struct mem *m);
void *arena_alloc(struct arena *a, size_t size, size_t align);
char *arena_copy(struct arena *a, const void *bytes, size_t size); /* and a NUL behind */
void arena_free(struct arena *a);                                  /* everything; usable again */

/* A growing byte string with a sticky failure, so that callers test once at the end. data is NUL-terminated whenever
 * it is not NULL. What is put may not lie in the buffer itself. */
struct buf {
    struct mem *mem;
    char *data;
    size_t size, capacity;
    bool failed;
};
void buf_init(struct buf *b, struct mem *m);
void buf_put(struct buf *b, const void *bytes, size_t size);
void buf_str(struct buf *b, const char *text);
void buf_char(struct buf *b, char c);
void buf_u64(struct buf *b, uint64_t v);
void buf_i64(struct buf *b, int64_t v);
void buf_clear(struct buf *b);                     /* size 0, memory kept, failure forgotten */
bool buf_reserve(struct buf *b, size_t extra);     /* false: out of memory, failed set */
void buf_free(struct buf *b);

/* ---- checked arithmetic --------------------------------------------------------------------------------------- */

/* true: the result is exact. Every size, offset or count that comes from a file goes through these. */
static inline bool ck_add(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool ck_mul(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool ck_size(uint64_t a, size_t *out)
{
    *out = (size_t)a;
    return *out == a;
}

/* ---- UTF-8 (utf8.c) -------------------------------------------------------------------------------------------- */

size_t utf8_valid_prefix(const char *text, size_t size); /* bytes up to the first ill-formed or unfinished sequence */
bool utf8_is_valid(const char *text, size_t size, size_t *bad); /* *bad: offset of the first bad byte */
/* Decodes one code point at text (size > 0); returns its length, or 0 where the sequence is ill-formed or cut. */
uint32_t utf8_decode(const char *text, size_t size, uint32_t *code_point);
uint32_t utf8_encode(uint32_t code_point, char out[4]); /* length; 0: a surrogate or above U+10FFFF */
/* Resolves GLM_NTS, checks the text; GLM_EINVAL for NULL with a size, GLM_EUTF8 with the offset. */
int32_t utf8_argument(const char *text, size_t *size, const char *what, glm_error *err);

/* ---- JSON (json.c reader, json_dom.c tree, json_write.c) ------------------------------------------------------------ */

#define JSON_DEPTH_MAX 256

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* A value in a parsed document. Children follow their parent in one flat array, in document order; in an object each
 * member is its key (a JSON_STRING) followed by its value. Numbers keep their spelling. */
struct json {
    uint8_t type;       /* enum json_type */
    uint32_t span;      /* values from this one to its last descendant, this one included */
    uint32_t count;     /* elements of an array, members of an object */
    uint32_t size;      /* bytes of text */
    const char *text;   /* JSON_STRING: decoded, valid UTF-8; JSON_NUMBER: as spelled. In a document NUL-terminated;
                         * a reader's text is mostly a view into the source: go by size, there is no NUL */
    uint64_t offset;    /* of the value's first byte in the document */
};

struct json_doc {
    struct arena arena;
    const struct json *root;
    size_t n_value;
};

#define JSON_REFUSE_DUPLICATES 1u /* of keys in one object: GLM_EFORMAT at the second (default: the last one wins) */

/* Parses a whole document (RFC 8259, UTF-8, lone surrogates refused). GLM_EFORMAT with the byte's offset; GLM_ELIMIT
 * where it is nested deeper than JSON_DEPTH_MAX. Iterative: stack use does not grow with depth.
 * The document is independent of `text` afterwards. `where` names the file in errors. */
int32_t json_parse(struct mem *m, const char *text, size_t size, uint32_t flags, const char *where,
    struct json_doc *doc, glm_error *err);
void json_free(struct json_doc *doc); /* a zeroed or failed doc is fine */

const struct json *json_get(const struct json *object, const char *key); /* NULL: not an object, or no such member */
/* Iteration: for (v = json_first(a); v; v = json_next(a, v)). In an object v is the key and v + 1 the value. */
const struct json *json_first(const struct json *container);
const struct json *json_next(const struct json *container, const struct json *v);
bool json_is_text(const struct json *v, const char *text); /* a string equal to text */
bool json_u64(const struct json *v, uint64_t *out);        /* an integral number in range; 1.0 and 1e3 count */
bool json_i64(const struct json *v, int64_t *out);
bool json_f64(const struct json *v, double *out);          /* correctly rounded in any rounding mode, no locale;
                                                            * 1e999: false, *out is infinite */
bool json_bool(const struct json *v, bool *out);
/* Nodes equal as JSON values (numbers by value, object members in any order). */
bool json_equal(const struct json *a, const struct json *b);

/* For documents too large for a tree (a tokenizer has a million values): one event per call. */
enum json_event { JSON_EV_VALUE, JSON_EV_KEY, JSON_EV_OPEN, JSON_EV_CLOSE, JSON_EV_END, JSON_EV_ERROR };
struct json_reader {
    const char *text, *where;
    size_t size, pos;
    uint32_t depth;
    uint8_t open[JSON_DEPTH_MAX]; /* JSON_ARRAY or JSON_OBJECT */
    uint8_t state;
    struct buf scratch;           /* holds decoded strings that had escapes */
    struct json value;            /* of the last VALUE, KEY or OPEN; text lives until the next call */
};
void json_reader_init(struct json_reader *r, struct mem *m, const char *text, size_t size, const char *where);
enum json_event json_reader_next(struct json_reader *r, glm_error *err);
bool json_reader_skip(struct json_reader *r, glm_error *err); /* after OPEN: past its CLOSE; after KEY: past its value */
void json_reader_free(struct json_reader *r);

/* Writing. A string with its quotes, escaped as Python's json.dumps(ensure_ascii=False) does. */
void json_put_string(struct buf *b, const char *text, size_t size);
/* A value in the style of json.dumps(ensure_ascii=False): separators ", " and ": ", key order kept, numbers as Python
 * prints them after reading (1.0 -> 1.0, 1e-07 -> 1e-07, 10000000000000000000000 kept, 1E5 -> 100000.0, -0 -> 0); a
 * number that no double holds (1e999) keeps its spelling. For values of a document, not of a reader. */
void json_put_value(struct buf *b, const struct json *v);
void json_put_f64(struct buf *b, double v); /* shortest round-trip digits, Python's repr; NaN, Infinity, -Infinity */

/* ---- the machine (os.c, cpu.c, pool.c, thread.c, fpenv.c) ------------------------------------------------------------------ */

uint64_t os_now_ns(void); /* monotonic */
uint32_t os_n_cpu(void);  /* that this process may run on; at least 1 */
uint64_t os_pid(void);

/* Files of a model: the host's hook, or the operating system's. */
struct fs {
    glm_files hook; /* open and read are never NULL after fs_init; map may be NULL */
};
struct file {
    const struct fs *fs;
    void *handle;
    uint64_t size;
};
void fs_init(struct fs *fs, const glm_files *hook); /* NULL: pread and mmap */
int32_t fs_open(const struct fs *fs, const char *name, struct file *out, glm_error *err); /* GLM_EIO with errno's text */
/* Whether a file is there. One that the system cannot open for another reason than that counts as there: fs_open says
 * why. A host's hook has no reasons: what it does not open is not there. */
bool fs_exists(const struct fs *fs, const char *name);
/* Past the end of the file: GLM_EFORMAT; unreadable: GLM_EIO. A map of 0 bytes is GLM_EINVAL, one without a hook for
 * it GLM_ENOTSUP. */
int32_t fs_read(const struct file *f, uint64_t offset, void *to, uint64_t size, const char *name, glm_error *err);
int32_t fs_map(const struct file *f, uint64_t offset, uint64_t size, const void **at, glm_error *err); /* read-only */
void fs_unmap(const struct file *f, const void *at, uint64_t size);
/* The same file once more for reading past the system's page cache, so that what a cache of ours holds is not there twice.
 * GLM_ENOTSUP where the system, its file system or a host's hooks know no such thing. */
#define FS_DIRECT_ALIGN 4096u
int32_t fs_open_direct(const struct fs *fs, const char *name, struct file *out, glm_error *err);
/* From such a file: offset, size and `to` are multiples of FS_DIRECT_ALIGN. The file may end behind `need` bytes. */
int32_t fs_read_direct(const struct file *f, uint64_t offset, void *to, uint64_t size, uint64_t need, const char *name,
    glm_error *err);
/* Hints to the system; nothing where the hooks are a host's. */
void fs_forget(const struct file *f, uint64_t offset, uint64_t size);  /* what was read stays in no page cache */
void fs_will_need(const struct file *f, const void *at, uint64_t size); /* part of a map */
bool fs_is_hosted(const struct fs *fs);
void fs_close(struct file *f); /* a zeroed file is fine */
/* A whole file into memory (NUL-terminated, size without it); larger than `limit`: GLM_EFORMAT. */
int32_t fs_load(struct mem *m, const struct fs *fs, const char *name, uint64_t limit, char **data, size_t *size,
    glm_error *err);

/* A file written beside another one that it then replaces, whole or not at all (replace.c). Between begin and commit or
 * abandon, one of which must follow, the old file is there; after a failure of any of them the new one is gone. Errors:
 * GLM_EIO with the file and the system's reason; GLM_ENOMEM; GLM_EINVAL for a path that names no file. `calls` is for
 * tests; NULL: the system's, which set errno. */
struct replace_calls {
    void *user;
    int (*open)(void *user, const char *path, int flags, uint32_t mode);
    long (*write)(void *user, int fd, const void *data, size_t size);
    int (*fsync)(void *user, int fd);
    int (*close)(void *user, int fd);
    int (*rename)(void *user, const char *from, const char *to);
    int (*unlink)(void *user, const char *path);
};
struct replacement {
    struct mem *mem;
    const struct replace_calls *calls;
    char *path, *temp;
    size_t folder;       /* bytes of path up to the file's own name */
    int fd;
    bool made;           /* temp exists */
    uint64_t size;       /* written so far */
};
int32_t replace_begin(struct mem *m, const struct replace_calls *calls, const char *path, struct replacement *r,
    glm_error *err);
int32_t replace_write(struct replacement *r, const void *data, size_t size, glm_error *err);
int32_t replace_commit(struct replacement *r, glm_error *err);
void replace_abandon(struct replacement *r);

#define CPU_AVX2 1u      /* with FMA, F16C, BMI2 */
#define CPU_AVX512 2u    /* F, BW, DQ, VL */
#define CPU_VNNI 4u      /* AVX512_VNNI */
#define CPU_BF16 8u      /* AVX512_BF16 */
uint32_t cpu_detect(void); /* the bits that CPU and operating system support; asked once per model, never cached */

/* Parking threads, or the host's runner. pool_run may be called from any number of threads: on our own threads calls
 * take turns; a host's runner gets them as they come, since its caller may work on other jobs while it waits, and a
 * lock held there could wait for itself. n_threads counts the caller; 0: os_n_cpu, at most 8. Tasks call no pool_run. */
struct pool;
int32_t pool_open(struct mem *m, uint32_t n_threads, const glm_runner *runner, struct pool **out, glm_error *err);
void pool_close(struct pool *p);
uint32_t pool_width(const struct pool *p);
/* Calls fn(task, i) once for each i < count, in any order, on up to pool_width threads, the caller among them; returns
 * when all are done. Each task runs with the default floating-point mode. */
void pool_run(struct pool *p, glm_task_fn fn, void *task, uint32_t count);

/* A lock with a condition: whoever changes what others wait for wakes them all, and each looks again. */
struct monitor;
int32_t monitor_open(struct mem *m, struct monitor **out, glm_error *err);
void monitor_close(struct monitor *k); /* NULL is fine */
void monitor_enter(struct monitor *k);
void monitor_leave(struct monitor *k);
void monitor_wait(struct monitor *k);  /* inside; it may wake for nothing */
void monitor_wait_for(struct monitor *k, uint64_t ns); /* the same, at most about that long */
void monitor_wake(struct monitor *k);  /* inside */

/* A thread of our own, with all signals blocked. */
struct thread;
int32_t thread_open(struct mem *m, void (*run)(void *arg), void *arg, struct thread **out, glm_error *err);
void thread_join(struct thread *t);    /* waits for its end and frees it; NULL is fine */

/* A descriptor that is readable while the bell rings, for select, poll and the like. One thread at a time. */
struct bell {
    int32_t read_fd, write_fd;
    bool ringing;
};
int32_t bell_open(struct bell *b, glm_error *err);
void bell_close(struct bell *b);
void bell_set(struct bell *b, bool ringing);

/* The default floating-point mode for our computing, the host's put back after. */
struct fp_mode {
    uint32_t saved;
};
struct fp_mode fp_enter(void);
void fp_leave(struct fp_mode mode);

/* ---- SHA-256 (sha256.c), for fingerprints ------------------------------------------------------------------------- */

struct sha256 {
    uint32_t state[8];
    uint64_t size;
    uint8_t block[64];
};
void sha256_init(struct sha256 *h);
void sha256_put(struct sha256 *h, const void *bytes, size_t size);
void sha256_end(struct sha256 *h, uint8_t digest[32]);

/* ---- checksum (checksum.c), for data at rest ---------------------------------------------------------------------- */

/* Of at least 10 GB/s. Inputs of one length that differ in one aligned 8-byte word only never have the same. */
uint64_t checksum64(uint64_t seed, const void *bytes, size_t size);

/* ---- log -------------------------------------------------------------------------------------------------------- */

enum { LOG_ERROR = 1, LOG_WARN = 2, LOG_INFO = 3, LOG_DEBUG = 4 };
/* Silent where the hook is NULL or its level is lower. Same fmt rules as err_set. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void log_put(const glm_logger *log, uint32_t level, const char *fmt, ...);

#endif
