/* test_os.c: clock, files (the system's and a host's), processor features and the floating-point
 * mode of lib/base. */
#include "failing_alloc.h"
#include "lib/base/base.h"

#include <check.h>

#include <fcntl.h>
#include <fenv.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/glm45-test-os-XXXXXX";
static char path[64];

static void setup(void)
{
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
}

static void teardown(void)
{
    unlink(path);
    rmdir(folder);
}

static void write_file(const void *bytes, size_t size, off_t offset)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, size, offset), (ssize_t)size);
    close(fd);
}

static int count_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

START_TEST(machine)
{
    uint64_t a = os_now_ns(), b;
    uint32_t cpu = cpu_detect();

    usleep(2000);
    b = os_now_ns();
    ck_assert_uint_ge(b - a, 2000000);
    ck_assert_uint_lt(b - a, 10000000000);
    ck_assert_uint_ge(os_n_cpu(), 1);
    ck_assert_uint_eq(os_pid(), (uint64_t)getpid());
    ck_assert_uint_eq(cpu, cpu_detect());
    if (cpu & (CPU_VNNI | CPU_BF16)) /* each set stands on the one before */
        ck_assert(cpu & CPU_AVX512);
    if (cpu & CPU_AVX512)
        ck_assert(cpu & CPU_AVX2);
#if defined(__x86_64__)
    ck_assert_int_eq(
        !!(cpu & CPU_AVX2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    ck_assert_int_eq(!!(cpu & CPU_VNNI), !!__builtin_cpu_supports("avx512vnni"));
    ck_assert_int_eq(!!(cpu & CPU_BF16), !!__builtin_cpu_supports("avx512bf16"));
#endif
}
END_TEST

START_TEST(floating_point_mode)
{
    volatile float tiny = 1e-38f, one = 1, three = 3, outside, inside, after;
    struct fp_mode mode;

    fesetround(FE_DOWNWARD);
    outside = one / three;
    feclearexcept(FE_ALL_EXCEPT);
    mode = fp_enter();
    inside = one / three;
    tiny = tiny / 100; /* inexact and subnormal: not flushed, and not seen in the host's flags */
    fp_leave(mode);
#if defined(__SSE__)
    ck_assert_int_eq(fetestexcept(FE_ALL_EXCEPT), 0);
#endif
    after = one / three;
    fesetround(FE_TONEAREST);
    ck_assert(inside == 1.0f / 3.0f);
    ck_assert(outside < inside);
    ck_assert(after == outside);
    ck_assert(tiny > 0);
}
END_TEST

#if defined(__SSE__)
START_TEST(flushing_is_undone)
{
    const uint32_t flush = 0x8040; /* FTZ and DAZ */
    uint32_t before = __builtin_ia32_stmxcsr();
    volatile float tiny = 1e-40f;
    struct fp_mode mode;

    __builtin_ia32_ldmxcsr(before | flush);
    mode = fp_enter();
    ck_assert(tiny * 0.5f > 0);
    fp_leave(mode);
    ck_assert_uint_eq(__builtin_ia32_stmxcsr() & flush, flush);
    __builtin_ia32_ldmxcsr(before);
}
END_TEST
#endif

START_TEST(files_read_and_map)
{
    static char bytes[100000];
    char part[1000];
    struct fs fs;
    struct file f;
    glm_error err = GLM_ERROR_INIT;
    const size_t offsets[] = {0, 1, 4095, 4096, 4097, 65536, 99000};
    int before = count_descriptors();

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 2654435761u >> 7);
    write_file(bytes, sizeof bytes, 0);
    fs_init(&fs, NULL);
    ck_assert(fs_exists(&fs, path));
    ck_assert_int_eq(fs_open(&fs, path, &f, &err), GLM_OK);
    ck_assert_uint_eq(f.size, sizeof bytes);
    for (size_t i = 0; i < ARRAY_LEN(offsets); i++) {
        const void *at;
        ck_assert_int_eq(fs_read(&f, offsets[i], part, sizeof part, path, &err), GLM_OK);
        ck_assert(!memcmp(part, bytes + offsets[i], sizeof part));
        ck_assert_int_eq(fs_map(&f, offsets[i], sizeof part, &at, &err), GLM_OK);
        ck_assert(!memcmp(at, bytes + offsets[i], sizeof part));
        fs_unmap(&f, at, sizeof part);
    }
    ck_assert_int_eq(fs_read(&f, sizeof bytes, part, 0, path, &err), GLM_OK);
    fs_close(&f);
    fs_close(&f);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

START_TEST(files_bounds)
{
    char part[16];
    struct fs fs;
    struct file f;
    glm_error err = GLM_ERROR_INIT;
    const void *at = part;

    write_file("0123456789", 10, 0);
    fs_init(&fs, NULL);
    ck_assert_int_eq(fs_open(&fs, path, &f, &err), GLM_OK);
    ck_assert_int_eq(fs_read(&f, 5, part, 6, path, &err), GLM_EFORMAT);
    ck_assert_uint_eq(err.offset, 5);
    ck_assert_str_eq(err.where, path);
    ck_assert_int_eq(fs_read(&f, 11, part, 0, path, &err), GLM_EFORMAT);
    ck_assert_int_eq(fs_read(&f, UINT64_MAX, part, 2, path, &err), GLM_EFORMAT);
    ck_assert_int_eq(fs_map(&f, 4, UINT64_MAX, &at, &err), GLM_EFORMAT);
    ck_assert_int_eq(fs_map(&f, 4, 0, &at, &err), GLM_EINVAL);
    ck_assert_ptr_eq(at, part);
    ck_assert_int_eq(truncate(path, 5), 0);
    ck_assert_int_eq(fs_read(&f, 0, part, 10, path, &err), GLM_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "cut short"));
    fs_close(&f);
}
END_TEST

START_TEST(files_beyond_4_gib)
{
    const uint64_t far = (UINT64_C(5) << 30) + 123;
    char part[4];
    struct fs fs;
    struct file f;
    glm_error err = GLM_ERROR_INIT;
    const void *at;

    write_file("far!", 4, (off_t)far); /* a hole, which takes no room */
    fs_init(&fs, NULL);
    ck_assert_int_eq(fs_open(&fs, path, &f, &err), GLM_OK);
    ck_assert_uint_eq(f.size, far + 4);
    ck_assert_int_eq(fs_read(&f, far, part, 4, path, &err), GLM_OK);
    ck_assert(!memcmp(part, "far!", 4));
    ck_assert_int_eq(fs_map(&f, far, 4, &at, &err), GLM_OK);
    ck_assert(!memcmp(at, "far!", 4));
    fs_unmap(&f, at, 4);
    fs_close(&f);
}
END_TEST

START_TEST(files_refused)
{
    struct fs fs;
    struct file f = {0};
    glm_error err = GLM_ERROR_INIT;
    int before = count_descriptors();

    fs_init(&fs, NULL);
    ck_assert_int_eq(fs_open(&fs, path, &f, &err), GLM_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "No such file"));
    ck_assert_str_eq(err.where, path);
    ck_assert(!fs_exists(&fs, path));
    ck_assert_int_eq(fs_open(&fs, folder, &f, &err), GLM_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "is a directory"));
    ck_assert(!fs_exists(&fs, folder));
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(fs_open(&fs, path, &f, &err), GLM_EIO); /* and does not wait for a writer */
    ck_assert_ptr_nonnull(strstr(err.message, "not a regular file"));
    ck_assert_ptr_null(f.handle);
    fs_close(&f);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

/* What cannot be looked at may be there: taken for missing, a file that matters would be left out without a word. */
START_TEST(files_that_may_exist)
{
    struct fs fs;
    struct rlimit old, few = {0, 0};
    struct file f;
    glm_error err = GLM_ERROR_INIT;

    fs_init(&fs, NULL);
    write_file("abc", 3, 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    few.rlim_max = old.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    ck_assert(fs_exists(&fs, path));
    ck_assert_int_eq(fs_open(&fs, path, &f, &err), GLM_EIO);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    unlink(path);
    ck_assert(!fs_exists(&fs, path));
    ck_assert_int_eq(symlink("file", path), 0); /* to itself */
    ck_assert(fs_exists(&fs, path));
    ck_assert_int_eq(fs_open(&fs, path, &f, &err), GLM_EIO);
}
END_TEST

START_TEST(files_load)
{
    struct failing_alloc a;
    struct mem m;
    struct fs fs;
    glm_error err = GLM_ERROR_INIT;
    char *data = NULL;
    size_t size = 77;
    int before = count_descriptors();

    failing_init(&a, 2, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&a);
    mem_init(&m, &hook);
    fs_init(&fs, NULL);
    write_file("one\0two", 7, 0);
    ck_assert_int_eq(fs_load(&m, &fs, path, 7, &data, &size, &err), GLM_OK);
    ck_assert_uint_eq(size, 7);
    ck_assert(!memcmp(data, "one\0two", 8));
    mem_free(&m, data);
    data = NULL;
    ck_assert_int_eq(fs_load(&m, &fs, path, 6, &data, &size, &err), GLM_EFORMAT);
    ck_assert_int_eq(fs_load(&m, &fs, path, 7, &data, &size, &err), GLM_ENOMEM);
    ck_assert_ptr_null(data);
    ck_assert_int_eq(truncate(path, 0), 0);
    ck_assert_int_eq(fs_load(&m, &fs, path, 7, &data, &size, &err), GLM_OK);
    ck_assert_uint_eq(size, 0);
    ck_assert_str_eq(data, "");
    mem_free(&m, data);
    ck_assert_uint_eq(a.bytes, 0);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

/* ---- a host's hooks: one file, "memory" ------------------------------------------------------ */

static const char host_bytes[] = "bytes of the host";

struct host {
    int n_open, n_close;
    int32_t read_status;
};

static int32_t GLM_CALL host_open(void *user, const char *name, void **file, uint64_t *size)
{
    if (strcmp(name, "memory"))
        return GLM_EINVAL;
    ((struct host *)user)->n_open++;
    *file = user;
    *size = sizeof host_bytes;
    return GLM_OK;
}

static int32_t GLM_CALL host_read(void *user, void *file, uint64_t offset, void *to, uint64_t size)
{
    struct host *h = user;

    ck_assert_ptr_eq(user, file);
    ck_assert_uint_le(offset + size, sizeof host_bytes);
    memcpy(to, host_bytes + offset, size);
    return h->read_status;
}

static void GLM_CALL host_close(void *user, void *file)
{
    ck_assert_ptr_eq(user, file);
    ((struct host *)user)->n_close++;
}

START_TEST(files_of_the_host)
{
    struct host h = {0, 0, GLM_OK};
    const glm_files hook = {sizeof hook, 0, &h, host_open, host_read, NULL, NULL, host_close};
    struct mem m;
    struct fs fs;
    struct file f;
    glm_error err = GLM_ERROR_INIT;
    char *data;
    size_t size;
    const void *at;

    mem_init(&m, NULL);
    fs_init(&fs, &hook);
    ck_assert(!fs_exists(&fs, "other"));
    ck_assert(fs_exists(&fs, "memory"));
    ck_assert_int_eq(fs_load(&m, &fs, "memory", 100, &data, &size, &err), GLM_OK);
    ck_assert_str_eq(data, host_bytes);
    mem_free(&m, data);
    ck_assert_int_eq(fs_open(&fs, "other", &f, &err), GLM_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "hook returned -1"));
    ck_assert_int_eq(fs_open(&fs, "memory", &f, &err), GLM_OK);
    ck_assert_int_eq(fs_map(&f, 0, 4, &at, &err), GLM_ENOTSUP);
    fs_close(&f);
    h.read_status = GLM_ENOMEM;
    ck_assert_int_eq(fs_load(&m, &fs, "memory", 100, &data, &size, &err), GLM_ENOMEM);
    h.read_status = 5;
    ck_assert_int_eq(fs_load(&m, &fs, "memory", 100, &data, &size, &err), GLM_EIO);
    ck_assert_int_eq(h.n_open, h.n_close);
    ck_assert_uint_eq(m.used, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("os");
    SRunner *runner = srunner_create(suite);
    TCase *host = tcase_create("machine"), *files = tcase_create("files");
    int failed;

    tcase_add_test(host, machine);
    tcase_add_test(host, floating_point_mode);
#if defined(__SSE__)
    tcase_add_test(host, flushing_is_undone);
#endif
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_add_test(files, files_read_and_map);
    tcase_add_test(files, files_bounds);
    tcase_add_test(files, files_beyond_4_gib);
    tcase_add_test(files, files_refused);
    tcase_add_test(files, files_that_may_exist);
    tcase_add_test(files, files_load);
    tcase_add_test(files, files_of_the_host);
    suite_add_tcase(suite, host);
    suite_add_tcase(suite, files);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
