/* synth_out.c: files that appear under their name only when they are whole, filled chunk by chunk,
 * with a progress line on a terminal. A failed write removes what was begun.
 */
#include "synth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CHUNK (4u << 20)

int32_t synth_room(const char *path, uint64_t bytes, glm_error *err)
{
    struct statvfs v;
    char *dir = strdup(path);
    char *slash = dir ? strrchr(dir, '/') : NULL;
    if (dir == NULL)
        return err_nomem(err, "a path");
    if (slash != NULL)
        slash[slash == dir] = '\0';
    int rc = statvfs(slash ? dir : ".", &v);
    int32_t status = GLM_OK;
    if (rc != 0)
        status =
            err_set(err, GLM_EIO, 0, dir, "this folder cannot be written to: %s", strerror(errno));
    else if ((uint64_t)v.f_bavail * v.f_frsize < bytes)
        status = err_set(err, GLM_EIO, 0, path,
            "%llu MB are needed and %llu MB are free: choose another disk, fewer "
            "--layers or a smaller --type",
            (unsigned long long)(bytes / 1000000),
            (unsigned long long)((uint64_t)v.f_bavail * v.f_frsize / 1000000));
    free(dir);
    return status;
}

int32_t synth_file_open(struct synth_file *f, const char *path, glm_error *err)
{
    size_t size = strlen(path) + 32;
    *f = (struct synth_file){.fd = -1, .path = strdup(path), .temp = malloc(size)};
    if (f->path == NULL || f->temp == NULL)
        return err_nomem(err, "a path");
    snprintf(f->temp, size, "%s.tmp-%ld", path, (long)getpid());
    f->fd = open(f->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0)
        return err_set(err, GLM_EIO, 0, path, "cannot be written: %s", strerror(errno));
    return GLM_OK;
}

int32_t synth_file_write(struct synth_file *f, const void *bytes, size_t size, glm_error *err)
{
    const char *p = bytes;
    while (size > 0) {
        ssize_t n = write(f->fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, GLM_EIO, f->size, f->path, "writing failed: %s",
                strerror(n < 0 ? errno : ENOSPC));
        p += n, size -= (size_t)n, f->size += (uint64_t)n;
    }
    return GLM_OK;
}

int32_t synth_file_pad(struct synth_file *f, uint64_t align, glm_error *err)
{
    static const char zeros[64];
    uint64_t n = (align - f->size % align) % align;
    return n ? synth_file_write(f, zeros, (size_t)n, err) : GLM_OK; /* align is at most 64 */
}

int32_t synth_file_tensor(
    struct synth_file *f, struct synth_out *o, const struct synth_tensor *t, glm_error *err)
{
    struct synth_unit unit = synth_units(t);
    uint64_t key = synth_key(o->s->seed, t->name), step = (CHUNK - 64) / unit.bytes;
    if (o->chunk == NULL && (o->chunk = malloc(CHUNK)) == NULL)
        return err_nomem(err, "a buffer");
    for (uint64_t u = 0; u < unit.n_unit; u += step) {
        uint64_t n = unit.n_unit - u < step ? unit.n_unit - u : step;
        size_t size = synth_fill(t, key, u, n, o->chunk);
        int32_t status = synth_file_write(f, o->chunk, size, err);
        if (status)
            return status;
        o->done += size;
        synth_progress(o, false);
    }
    return GLM_OK;
}

int32_t synth_file_finish(struct synth_file *f, glm_error *err)
{
    int rc = close(f->fd);
    int saved = errno;
    f->fd = -1;
    if (rc == 0 && rename(f->temp, f->path) != 0)
        rc = -1, saved = errno;
    if (rc != 0)
        return err_set(err, GLM_EIO, f->size, f->path, "writing failed: %s", strerror(saved));
    free(f->temp);
    f->temp = NULL; /* nothing to remove any more */
    return GLM_OK;
}

void synth_file_drop(struct synth_file *f)
{
    if (f->path == NULL) /* never opened */
        return;
    if (f->fd >= 0)
        close(f->fd);
    if (f->temp != NULL)
        unlink(f->temp);
    free(f->temp);
    free(f->path);
    *f = (struct synth_file){.fd = -1};
}

void synth_progress(struct synth_out *o, bool last)
{
    uint64_t now = os_now_ns();
    if (!o->tty || (!last && now - o->drawn < 100000000u))
        return;
    o->drawn = now;
    char bar[31];
    uint64_t full = o->total ? o->done * 30 / o->total : 30;
    for (uint32_t i = 0; i < 30; i++)
        bar[i] = i < full ? '#' : '.';
    bar[30] = '\0';
    double seconds = (double)(now - o->started) * 1e-9 + 1e-9;
    fprintf(stderr, "\r[%s] %3.0f %%  %.2f of %.2f GB  %.0f MB/s ", bar,
        o->total ? 100.0 * (double)o->done / (double)o->total : 100.0, (double)o->done * 1e-9,
        (double)o->total * 1e-9, (double)o->done * 1e-6 / seconds);
    if (last)
        fputc('\n', stderr);
}
