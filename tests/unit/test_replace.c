/* test_replace.c: the replacement of files and the checksum of lib/base. A simulated disk tells what a power cut at any
 * moment may leave: what was not synced may be there or not, in any order. */
#include "failing_alloc.h"
#include "lib/base/base.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

/* ---- a disk --------------------------------------------------------------------------------------------------- */

#define PATH "folder/chat"
enum { N_FILE = 4, N_NAME = 8, FOLDER_FD = 100 };

struct disk_file {
    char data[64];
    size_t size, synced; /* bytes; those that a power cut leaves */
};
struct disk_name {
    char name[64];
    int file;            /* -1: removed */
};
struct disk {
    struct disk_file file[N_FILE];
    int n_file;
    struct disk_name change[N_NAME]; /* of the folder, in order: name now means file */
    int n_change, n_synced;
    uint64_t n_call, fail_at; /* the call that fails with `reason`; 0: none */
    int reason;
    bool half_writes;         /* a write takes half of its bytes */
    int n_open;
    void (*look)(struct disk *d); /* after each call: what a power cut would leave */
};

static bool fails(struct disk *d)
{
    if (++d->n_call != d->fail_at)
        return false;
    errno = d->reason;
    return true;
}

static int done(struct disk *d, int result)
{
    if (d->look)
        d->look(d);
    return result;
}

static void change(struct disk *d, const char *name, int file)
{
    ck_assert_int_lt(d->n_change, N_NAME);
    snprintf(d->change[d->n_change].name, sizeof d->change[0].name, "%s", name);
    d->change[d->n_change++].file = file;
}

/* What a name means after the first n changes, without those whose bit is set in lost. */
static int look_up(const struct disk *d, const char *name, int n, unsigned lost)
{
    int file = -1;
    for (int i = 0; i < n; i++)
        if (strcmp(d->change[i].name, name) == 0 && !(lost >> i & 1))
            file = d->change[i].file;
    return file;
}

static int disk_open(void *user, const char *path, int flags, uint32_t mode)
{
    struct disk *d = user;
    (void)mode;
    if (fails(d))
        return -1;
    d->n_open++;
    if (flags & O_DIRECTORY) {
        ck_assert_str_eq(path, "folder/");
        return FOLDER_FD;
    }
    ck_assert_int_eq(strncmp(path, "folder/", 7), 0); /* rename works within a file system only */
    ck_assert(flags & O_EXCL);
    ck_assert_int_eq(look_up(d, path, d->n_change, 0), -1);
    ck_assert_int_lt(d->n_file, N_FILE);
    change(d, path, d->n_file);
    return done(d, d->n_file++);
}

static long disk_write(void *user, int fd, const void *data, size_t size)
{
    struct disk *d = user;
    struct disk_file *f = &d->file[fd];
    if (fails(d))
        return -1;
    if (d->half_writes && size > 1)
        size /= 2;
    ck_assert_uint_le(f->size + size, sizeof f->data);
    memcpy(f->data + f->size, data, size);
    f->size += size;
    done(d, 0);
    return (long)size;
}

static int disk_fsync(void *user, int fd)
{
    struct disk *d = user;
    if (fails(d))
        return -1;
    if (fd == FOLDER_FD)
        d->n_synced = d->n_change;
    else
        d->file[fd].synced = d->file[fd].size;
    return done(d, 0);
}

static int disk_close(void *user, int fd)
{
    struct disk *d = user;
    (void)fd;
    d->n_open--;
    return fails(d) ? -1 : done(d, 0);
}

static int disk_rename(void *user, const char *from, const char *to)
{
    struct disk *d = user;
    int file = look_up(d, from, d->n_change, 0);
    if (fails(d))
        return -1;
    ck_assert_int_ge(file, 0);
    change(d, to, file); /* one step: a journal knows no half of it */
    change(d, from, -1);
    return done(d, 0);
}

static int disk_unlink(void *user, const char *path)
{
    struct disk *d = user;
    if (fails(d))
        return -1;
    change(d, path, -1);
    return done(d, 0);
}

static const char old_text[] = "the old conversation", new_text[] = "a new conversation, longer";

static struct replace_calls calls_of(struct disk *d)
{
    memset(d, 0, sizeof *d);
    memcpy(d->file[0].data, old_text, sizeof old_text);
    d->file[0].size = d->file[0].synced = sizeof old_text;
    d->n_file = 1;
    change(d, PATH, 0);
    d->n_synced = 1;
    d->reason = ENOSPC;
    return (struct replace_calls){ d, disk_open, disk_write, disk_fsync, disk_close, disk_rename, disk_unlink };
}

static int32_t replace(struct disk *d, const struct replace_calls *calls, glm_error *err)
{
    struct mem m;
    struct replacement r;
    int32_t rc;

    mem_init(&m, NULL);
    rc = replace_begin(&m, calls, PATH, &r, err);
    if (!rc) {
        rc = replace_write(&r, new_text, 10, err);
        if (!rc)
            rc = replace_write(&r, new_text + 10, sizeof new_text - 10, err);
        if (!rc)
            rc = replace_commit(&r, err);
        else
            replace_abandon(&r);
    }
    ck_assert_uint_eq(m.used, 0);
    ck_assert_int_eq(d->n_open, 0);
    return rc;
}

static bool holds(const struct disk *d, int file, const char *text, size_t size, size_t known)
{
    return file >= 0 && known == size && memcmp(d->file[file].data, text, size) == 0;
}

/* ---- power cuts ------------------------------------------------------------------------------------------------- */

static unsigned n_cut;

/* Any changes of the folder behind the synced ones may be lost, and any bytes of a file behind its synced ones. */
static void old_or_new(struct disk *d)
{
    unsigned n_free = (unsigned)(d->n_change - d->n_synced);
    for (unsigned lost = 0; lost < 1u << n_free; lost++) {
        int file = look_up(d, PATH, d->n_change, lost << d->n_synced);
        ck_assert_int_ge(file, 0);
        for (size_t known = d->file[file].synced; known <= d->file[file].size; known++) {
            ck_assert(holds(d, file, old_text, sizeof old_text, known) || holds(d, file, new_text, sizeof new_text, known));
            n_cut++;
        }
    }
}

START_TEST(power_cuts)
{
    struct disk d;
    struct replace_calls calls = calls_of(&d);
    d.look = old_or_new;
    d.half_writes = true;
    ck_assert_int_eq(replace(&d, &calls, NULL), GLM_OK);
    ck_assert_uint_gt(n_cut, 20);
    ck_assert_int_eq(d.n_synced, d.n_change); /* once it is said to be saved, it is */
    ck_assert(holds(&d, look_up(&d, PATH, d.n_change, 0), new_text, sizeof new_text, sizeof new_text));
    printf("%u states after a power cut\n", n_cut);
}
END_TEST

/* The check can fail: without its syncs the same replacement leaves half a file. */
static unsigned n_bad;

static void count_bad(struct disk *d)
{
    for (unsigned lost = 0; lost < 1u << (d->n_change - d->n_synced); lost++) {
        int file = look_up(d, PATH, d->n_change, lost << d->n_synced);
        size_t known = file >= 0 ? d->file[file].synced : 0;
        n_bad += !holds(d, file, old_text, sizeof old_text, known) && !holds(d, file, new_text, sizeof new_text, known);
    }
}

static int no_fsync(void *user, int fd)
{
    (void)user, (void)fd;
    return 0;
}

START_TEST(power_cuts_without_sync)
{
    struct disk d;
    struct replace_calls calls = calls_of(&d);
    d.look = count_bad;
    calls.fsync = no_fsync;
    ck_assert_int_eq(replace(&d, &calls, NULL), GLM_OK);
    ck_assert_uint_gt(n_bad, 0);
}
END_TEST

/* ---- failures ------------------------------------------------------------------------------------------------------ */

START_TEST(every_call_fails)
{
    static const int reasons[] = { ENOSPC, EIO, EDQUOT, EROFS };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        for (uint64_t k = 1;; k++) {
            struct disk d;
            struct replace_calls calls = calls_of(&d);
            glm_error err = GLM_ERROR_INIT;
            d.fail_at = k;
            d.reason = reasons[i];
            int32_t rc = replace(&d, &calls, &err);
            int file = look_up(&d, PATH, d.n_change, 0), left = 0;
            for (int n = 0; n < d.n_change; n++)
                left += strcmp(d.change[n].name, PATH) != 0 && look_up(&d, d.change[n].name, d.n_change, 0) >= 0;
            ck_assert_int_eq(left, 0); /* nothing else lies in the folder */
            if (d.n_call < k)
                break;
            if (rc == GLM_OK) { /* closing the folder is not worth a word */
                ck_assert(holds(&d, file, new_text, sizeof new_text, d.file[file].size));
                continue;
            }
            ck_assert_int_eq(rc, GLM_EIO);
            ck_assert_str_eq(err.where, PATH);
            ck_assert(strstr(err.message, PATH));
            if (strstr(err.message, "may bring the old file back")) /* renamed, but perhaps not for good */
                ck_assert(holds(&d, file, new_text, sizeof new_text, d.file[file].size));
            else
                ck_assert(holds(&d, file, old_text, sizeof old_text, d.file[file].size));
        }
}
END_TEST

START_TEST(interrupted_calls_go_on)
{
    struct disk d;
    struct replace_calls calls = calls_of(&d);
    uint64_t n = 0;
    for (uint64_t k = 1; n == 0 || k <= n; k++) {
        calls = calls_of(&d);
        d.fail_at = k;
        d.reason = EINTR;
        int32_t rc = replace(&d, &calls, NULL);
        n = d.n_call;
        if (rc) /* rename is the only one that is not begun again */
            ck_assert(holds(&d, look_up(&d, PATH, d.n_change, 0), old_text, sizeof old_text, sizeof old_text));
        else
            ck_assert(holds(&d, look_up(&d, PATH, d.n_change, 0), new_text, sizeof new_text, sizeof new_text));
    }
    ck_assert_uint_ge(n, 8);
}
END_TEST

START_TEST(allocations_fail)
{
    for (uint64_t k = 1;; k++) {
        struct failing_alloc f;
        struct mem m;
        struct disk d;
        struct replace_calls calls = calls_of(&d);
        struct replacement r;
        failing_init(&f, k, FAIL_ONCE);
        const glm_allocator hook = failing_hook(&f);
        mem_init(&m, &hook);
        int32_t rc = replace_begin(&m, &calls, PATH, &r, NULL);
        if (!rc)
            replace_abandon(&r);
        ck_assert_uint_eq(f.bytes, 0);
        if (!failing_hit(&f))
            break;
        ck_assert_int_eq(rc, GLM_ENOMEM);
        ck_assert_int_eq(d.n_change, 1);
    }
}
END_TEST

/* ---- checksums ------------------------------------------------------------------------------------------------------ */

START_TEST(checksums)
{
    unsigned char data[200];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 37);
    for (size_t size = 0; size <= sizeof data; size++) {
        uint64_t sum = checksum64(7, data, size);
        ck_assert_uint_ne(sum, checksum64(8, data, size));
        ck_assert(size == 0 || sum != checksum64(7, data, size - 1));
        for (size_t bit = 0; bit < 8 * size; bit++) {
            data[bit / 8] ^= (unsigned char)(1 << bit % 8);
            ck_assert_uint_ne(sum, checksum64(7, data, size));
            data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
    }
    ck_assert_uint_eq(checksum64(7, data + 1, 150), checksum64(7, memmove(data + 3, data + 1, 150), 150)); /* any address */
    for (size_t i = 0; i < 77; i++)
        data[i] = (unsigned char)i;
    /* From docs/SNAPSHOT.md's definition, computed elsewhere. */
    ck_assert_uint_eq(checksum64(0, "", 0), UINT64_C(0x17e81819ba1eadbb));
    ck_assert_uint_eq(checksum64(1, "abc", 3), UINT64_C(0xc58a657f8604024f));
    ck_assert_uint_eq(checksum64(UINT64_C(0x123456789abcdef), data, 77), UINT64_C(0xfba148f8908376ea));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replace");
    TCase *tc = tcase_create("replace");
    SRunner *runner;
    int n_failed;

    tcase_add_test(tc, power_cuts);
    tcase_add_test(tc, power_cuts_without_sync);
    tcase_add_test(tc, every_call_fails);
    tcase_add_test(tc, interrupted_calls_go_on);
    tcase_add_test(tc, allocations_fail);
    tcase_add_test(tc, checksums);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed != 0;
}
