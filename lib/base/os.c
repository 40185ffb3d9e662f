/* os.c: the operating system's clock, processor count and process id, and the default hooks that
 * read a model's files. An open file's handle is its descriptor plus one, so that opening allocates
 * nothing; it lives until close. */
#include "base_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t os_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t os_n_cpu(void)
{
    long n;
#if defined(__linux__)
    cpu_set_t set;

    if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
#endif
    n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}

uint64_t os_pid(void)
{
    return (uint64_t)getpid();
}

/* ---- the default file hooks; a failure leaves its reason in errno ---------------------------- */

static int descriptor(void *file)
{
    return (int)((intptr_t)file - 1);
}

/* O_NONBLOCK: a FIFO given for a model must be refused, not waited for; regular files know no
 * difference. */
static int32_t open_file(const char *name, int flags, void **file, uint64_t *size)
{
    struct stat info;
    int fd, reason;

    do
        fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return GLM_EIO;
    if (fstat(fd, &info)) {
        reason = errno;
        goto fail;
    }
    if (!S_ISREG(info.st_mode)) {
        reason = S_ISDIR(info.st_mode) ? EISDIR : ESPIPE;
        goto fail;
    }
    *file = (void *)((intptr_t)fd + 1);
    *size = (uint64_t)info.st_size;
    return GLM_OK;
fail:
    close(fd);
    errno = reason;
    return GLM_EIO;
}

static int32_t GLM_CALL default_open(void *user, const char *name, void **file, uint64_t *size)
{
    (void)user;
    return open_file(name, 0, file, size);
}

static int32_t GLM_CALL default_read(
    void *user, void *file, uint64_t offset, void *to, uint64_t size)
{
    const uint64_t most = 1u << 30; /* Linux moves at most 2 GiB a call */
    char *at = to;

    (void)user;
    while (size) {
        ssize_t n = pread(descriptor(file), at, (size_t)(size < most ? size : most), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (!n)
                errno = 0; /* the file has become shorter */
            return GLM_EIO;
        }
        at += n;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return GLM_OK;
}

static uint64_t page_mask(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE) - 1;
}

static int32_t GLM_CALL default_map(
    void *user, void *file, uint64_t offset, uint64_t size, const void **at)
{
    uint64_t before = offset & page_mask(), total;
    size_t bytes;
    void *base;

    (void)user;
    if (!ck_add(size, before, &total) || !ck_size(total, &bytes)) {
        errno = ENOMEM;
        return GLM_EIO;
    }
    base = mmap(NULL, bytes, PROT_READ, MAP_SHARED, descriptor(file), (off_t)(offset - before));
    if (base == MAP_FAILED)
        return GLM_EIO;
    *at = (const char *)base + before;
    return GLM_OK;
}

static void GLM_CALL default_unmap(void *user, void *file, const void *at, uint64_t size)
{
    uintptr_t before = (uintptr_t)at & (uintptr_t)page_mask();

    (void)user;
    (void)file;
    munmap((void *)((uintptr_t)at - before), (size_t)(size + before));
}

static void GLM_CALL default_close(void *user, void *file)
{
    (void)user;
    close(descriptor(file));
}

static bool is_default(const struct fs *fs)
{
    return fs->hook.open == default_open;
}

/* ---- files ----------------------------------------------------------------------------------- */

void fs_init(struct fs *fs, const glm_files *hook)
{
    static const glm_files standard = {(uint32_t)sizeof(glm_files), 0, NULL, default_open,
        default_read, default_map, default_unmap, default_close};

    fs->hook = hook ? *hook : standard;
}

const char *os_errno_text(int reason)
{
    if (reason == 0)
        return "the file ended early: it was cut short while in use";
    if (reason == ESPIPE)
        return "not a regular file";
    if (reason == EISDIR)
        return "is a directory";
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 32)
    return strerrordesc_np(reason);
#else
    return NULL;
#endif
}

/* What went wrong in a hook: the system's reason where the hook is ours, its status where it is the
 * host's. */
static int32_t hook_failed(const struct fs *fs, int32_t status, int reason, uint64_t offset,
    const char *doing, const char *name, glm_error *err)
{
    const char *text;

    if (!is_default(fs)) {
        int32_t code = status == GLM_ENOMEM ? GLM_ENOMEM : GLM_EIO;
        return err_set(err, code, offset, name, "cannot %s %s: the host's file hook returned %d",
            doing, name, (int)status);
    }
    text = os_errno_text(reason);
    if (text)
        return err_set(err, GLM_EIO, offset, name, "cannot %s %s: %s", doing, name, text);
    return err_set(err, GLM_EIO, offset, name, "cannot %s %s: error %d", doing, name, reason);
}

int32_t fs_open(const struct fs *fs, const char *name, struct file *out, glm_error *err)
{
    struct file f = {fs, NULL, 0};
    int32_t status = fs->hook.open(fs->hook.user, name, &f.handle, &f.size);

    if (status)
        return hook_failed(fs, status, errno, 0, "open", name, err);
    *out = f;
    return GLM_OK;
}

bool fs_exists(const struct fs *fs, const char *name)
{
    struct file f = {0};
    int reason;

    errno = 0;
    if (!fs_open(fs, name, &f, NULL)) {
        fs_close(&f);
        return true;
    }
    reason = errno;
    return is_default(fs) && reason != ENOENT && reason != ENOTDIR && reason != EISDIR &&
           reason != ESPIPE;
}

static bool in_file(const struct file *f, uint64_t offset, uint64_t size)
{
    return offset <= f->size && size <= f->size - offset;
}

static int32_t past_the_end(
    const struct file *f, uint64_t offset, uint64_t size, const char *name, glm_error *err)
{
    return err_set(err, GLM_EFORMAT, offset, name,
        "%llu bytes at offset %llu lie past the end of the file, which has %llu: it is cut short "
        "or corrupt",
        (unsigned long long)size, (unsigned long long)offset, (unsigned long long)f->size);
}

int32_t fs_read(const struct file *f, uint64_t offset, void *to, uint64_t size, const char *name,
    glm_error *err)
{
    int32_t status;

    if (!in_file(f, offset, size))
        return past_the_end(f, offset, size, name, err);
    if (!size)
        return GLM_OK;
    status = f->fs->hook.read(f->fs->hook.user, f->handle, offset, to, size);
    return status ? hook_failed(f->fs, status, errno, offset, "read", name ? name : "the file", err)
                  : GLM_OK;
}

int32_t fs_map(
    const struct file *f, uint64_t offset, uint64_t size, const void **at, glm_error *err)
{
    const void *place = NULL;
    int32_t status;

    if (!f->fs->hook.map)
        return err_set(err, GLM_ENOTSUP, offset, NULL,
            "the host's file hooks cannot map: read the file instead");
    if (!in_file(f, offset, size))
        return past_the_end(f, offset, size, NULL, err);
    if (!size)
        return err_set(err, GLM_EINVAL, offset, NULL, "cannot map 0 bytes");
    status = f->fs->hook.map(f->fs->hook.user, f->handle, offset, size, &place);
    if (status || !place)
        return hook_failed(f->fs, status, errno, offset, "map", "the file", err);
    *at = place;
    return GLM_OK;
}

void fs_unmap(const struct file *f, const void *at, uint64_t size)
{
    if (at && f->fs->hook.unmap)
        f->fs->hook.unmap(f->fs->hook.user, f->handle, at, size);
}

bool fs_is_hosted(const struct fs *fs)
{
    return !is_default(fs);
}

#if defined(O_DIRECT)
int32_t fs_open_direct(const struct fs *fs, const char *name, struct file *out, glm_error *err)
{
    struct file f = {fs, NULL, 0};

    if (!is_default(fs))
        return err_set(err, GLM_ENOTSUP, 0, name, "the host's file hooks know no direct reading");
    if (open_file(name, O_DIRECT, &f.handle, &f.size))
        return err_set(err, GLM_ENOTSUP, 0, name, "cannot open %s for direct reading", name);
    *out = f;
    return GLM_OK;
}
#else
int32_t fs_open_direct(const struct fs *fs, const char *name, struct file *out, glm_error *err)
{
    (void)fs, (void)out;
    return err_set(err, GLM_ENOTSUP, 0, name, "this system knows no direct reading");
}
#endif

/* A read may end early anywhere that is a multiple of the alignment, and at the end of the file. */
int32_t fs_read_direct(const struct file *f, uint64_t offset, void *to, uint64_t size,
    uint64_t need, const char *name, glm_error *err)
{
    uint64_t done = 0;

    if (!in_file(f, offset, need))
        return past_the_end(f, offset, need, name, err);
    while (done < need) {
        ssize_t n = pread(descriptor(f->handle), (char *)to + done, (size_t)(size - done),
            (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hook_failed(f->fs, GLM_EIO, n ? errno : 0, offset + done, "read", name, err);
        done += (uint64_t)n;
        if (done < need && done % FS_DIRECT_ALIGN)
            return hook_failed(f->fs, GLM_EIO, 0, offset + done, "read", name, err);
    }
    return GLM_OK;
}

void fs_forget(const struct file *f, uint64_t offset, uint64_t size)
{
    if (is_default(f->fs))
        posix_fadvise(descriptor(f->handle), (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
}

void fs_will_need(const struct file *f, const void *at, uint64_t size)
{
    uintptr_t before = (uintptr_t)at & (uintptr_t)page_mask();

    if (is_default(f->fs) && f->fs->hook.map == default_map)
        posix_madvise((void *)((uintptr_t)at - before), (size_t)(size + before), POSIX_MADV_WILLNEED);
}

void fs_close(struct file *f)
{
    if (f->fs && f->fs->hook.close)
        f->fs->hook.close(f->fs->hook.user, f->handle);
    f->fs = NULL;
    f->handle = NULL;
    f->size = 0;
}

int32_t fs_load(struct mem *m, const struct fs *fs, const char *name, uint64_t limit, char **data,
    size_t *size, glm_error *err)
{
    struct file f = {0};
    char *text = NULL;
    size_t bytes;
    int32_t status = fs_open(fs, name, &f, err);

    if (status)
        return status;
    if (f.size > limit) {
        status = err_set(err, GLM_EFORMAT, 0, name, "%s has %llu bytes; at most %llu are read",
            name, (unsigned long long)f.size, (unsigned long long)limit);
        goto fail;
    }
    text = ck_size(f.size, &bytes) && bytes < SIZE_MAX ? mem_alloc(m, bytes + 1) : NULL;
    if (!text) {
        status = err_nomem(err, name);
        goto fail;
    }
    status = fs_read(&f, 0, text, bytes, name, err);
    if (status)
        goto fail;
    fs_close(&f);
    text[bytes] = 0;
    *data = text;
    *size = bytes;
    return GLM_OK;
fail:
    mem_free(m, text);
    fs_close(&f);
    return status;
}
