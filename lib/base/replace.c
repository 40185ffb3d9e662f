/* replace.c: a file that takes another one's place whole or not at all. The new content goes to a file of its own in the
 * same folder, is forced to the disk, and then renamed over the old one; the folder is forced to the disk last. Whatever
 * fails before the rename, a power cut included, leaves the old file as it was. */
#include "base_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 100       /* names that others may have taken */
#define WRITE_MOST (1u << 30)

/* ---- the system's calls ------------------------------------------------------------------------- */

static int sys_open(void *user, const char *path, int flags, uint32_t mode)
{
    (void)user;
    return open(path, flags, (mode_t)mode);
}

static long sys_write(void *user, int fd, const void *data, size_t size)
{
    (void)user;
    return write(fd, data, size);
}

static int sys_fsync(void *user, int fd)
{
    (void)user;
    return fsync(fd);
}

static int sys_close(void *user, int fd)
{
    (void)user;
    return close(fd);
}

static int sys_rename(void *user, const char *from, const char *to)
{
    (void)user;
    return rename(from, to);
}

static int sys_unlink(void *user, const char *path)
{
    (void)user;
    return unlink(path);
}

static const struct replace_calls system_calls = { NULL, sys_open, sys_write, sys_fsync, sys_close, sys_rename,
    sys_unlink };

/* ---- names -------------------------------------------------------------------------------------- */

static size_t folder_size(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* A name of its own length, not the target's: that may be as long as the system allows. */
static void name_temp(struct replacement *r, uint32_t i)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t key[2] = { os_pid(), (uintptr_t)r }, v = checksum64(os_now_ns() + i, key, sizeof key);
    char *at = r->temp + r->folder;

    memcpy(at, ".glm45-0123456789abcdef.tmp", sizeof ".glm45-0123456789abcdef.tmp");
    for (unsigned k = 0; k < 16; k++)
        at[7 + k] = digits[v >> 4 * k & 15];
}

static int32_t failed(const struct replacement *r, const char *doing, int reason, glm_error *err)
{
    const char *text = os_errno_text(reason);
    if (text)
        return err_set(err, GLM_EIO, r->size, r->path, "cannot %s %s: %s", doing, r->path, text);
    return err_set(err, GLM_EIO, r->size, r->path, "cannot %s %s: error %d", doing, r->path, reason);
}

/* ---- begin, write, commit ------------------------------------------------------------------------- */

/* Only a file may be replaced: not a folder, and above all no device. Its access rights go over to the new one. */
static int32_t look_at_old(struct replacement *r, uint32_t *mode, glm_error *err)
{
    struct stat info;
    if (stat(r->path, &info))
        return GLM_OK;
    if (!S_ISREG(info.st_mode))
        return failed(r, "replace", S_ISDIR(info.st_mode) ? EISDIR : ESPIPE, err);
    *mode = (uint32_t)info.st_mode & 0777;
    return GLM_OK;
}

static int32_t open_temp(struct replacement *r, glm_error *err)
{
    uint32_t mode = 0666, old = 0;
    int32_t rc = look_at_old(r, &old, err);

    for (uint32_t i = 0; !rc && r->fd < 0 && i < TRIES; i++) {
        name_temp(r, i);
        r->fd = r->calls->open(r->calls->user, r->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, mode);
        if (r->fd < 0 && errno != EEXIST && errno != EINTR)
            return failed(r, "write beside", errno, err);
    }
    if (!rc && r->fd < 0)
        return failed(r, "write beside", EEXIST, err);
    r->made = r->fd >= 0;
    if (!rc && old)
        (void)fchmod(r->fd, (mode_t)old); /* a file system without rights is no reason not to save */
    return rc;
}

int32_t replace_begin(struct mem *m, const struct replace_calls *calls, const char *path, struct replacement *r,
    glm_error *err)
{
    size_t folder = folder_size(path), size = strlen(path);

    *r = (struct replacement){ .mem = m, .calls = calls ? calls : &system_calls, .fd = -1, .folder = folder };
    if (path[folder] == '\0')
        return err_set(err, GLM_EINVAL, 0, "path", "\"%s\" names no file", path);
    r->path = mem_alloc(m, size + 1);
    r->temp = mem_alloc(m, folder + sizeof ".glm45-0123456789abcdef.tmp");
    if (!r->path || !r->temp) {
        replace_abandon(r);
        return err_nomem(err, "a file's name");
    }
    memcpy(r->path, path, size + 1);
    memcpy(r->temp, path, folder);
    int32_t rc = open_temp(r, err);
    if (rc)
        replace_abandon(r);
    return rc;
}

int32_t replace_write(struct replacement *r, const void *data, size_t size, glm_error *err)
{
    const char *at = data;
    while (size) {
        long n = r->calls->write(r->calls->user, r->fd, at, size < WRITE_MOST ? size : WRITE_MOST);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return failed(r, "write", n ? errno : ENOSPC, err);
        at += n;
        size -= (size_t)n;
        r->size += (size_t)n;
    }
    return GLM_OK;
}

static int sync_file(const struct replacement *r, int fd)
{
    int rc;
    do
        rc = r->calls->fsync(r->calls->user, fd);
    while (rc && errno == EINTR);
    return rc;
}

/* Some file systems cannot sync a folder, and say so with EINVAL: nothing to be done about that. */
static int32_t sync_folder(const struct replacement *r, int folder, glm_error *err)
{
    if (!sync_file(r, folder) || errno == EINVAL)
        return GLM_OK;
    return err_set(err, GLM_EIO, r->size, r->path,
        "%s is replaced, but its folder cannot be synced (%s): a power cut may bring the old file back", r->path,
        os_errno_text(errno) ? os_errno_text(errno) : "no reason given");
}

static int open_folder(const struct replacement *r)
{
    char *name = r->temp; /* its folder is the target's */
    char first = name[r->folder];
    int fd;

    name[r->folder] = '\0';
    do
        fd = r->calls->open(r->calls->user, r->folder ? name : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    while (fd < 0 && errno == EINTR);
    name[r->folder] = first;
    return fd;
}

static int close_file(struct replacement *r)
{
    int fd = r->fd;
    r->fd = -1;
    return r->calls->close(r->calls->user, fd) && errno != EINTR; /* closed all the same then */
}

int32_t replace_commit(struct replacement *r, glm_error *err)
{
    int folder = open_folder(r); /* all that can fail comes before the rename */
    int32_t rc = GLM_OK;

    if (folder < 0)
        rc = failed(r, "open the folder of", errno, err);
    else if (sync_file(r, r->fd))
        rc = failed(r, "sync", errno, err);
    else if (close_file(r))
        rc = failed(r, "close", errno, err);
    else if (r->calls->rename(r->calls->user, r->temp, r->path))
        rc = failed(r, "replace", errno, err);
    else {
        r->made = false;
        rc = sync_folder(r, folder, err);
    }
    if (folder >= 0)
        r->calls->close(r->calls->user, folder);
    replace_abandon(r);
    return rc;
}

void replace_abandon(struct replacement *r)
{
    if (r->fd >= 0)
        close_file(r);
    if (r->made)
        r->calls->unlink(r->calls->user, r->temp);
    mem_free(r->mem, r->path);
    mem_free(r->mem, r->temp);
    r->path = r->temp = NULL;
}
