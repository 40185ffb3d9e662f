/* test_run_command.c: programs that `glm45 chat` runs as tools: what goes in and comes out, and every way to end badly. */
#include "tools/run_command.h"
#include "tools/toolfile.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool stop_now(void) { return true; }

static void shell(const char *script, const char *input, size_t size, unsigned seconds, bool (*stop)(void),
    struct command_result *out)
{
    char name[] = "sh", option[] = "-c", *text = strdup(script), *argv[] = { name, option, text, NULL };
    run_command(argv, input, size, seconds, stop, out);
    free(text);
}

START_TEST(in_and_out)
{
    struct command_result r;
    size_t size = 300000; /* more than a pipe holds, both ways at once */
    char *big = malloc(size);

    shell("cat", "{\"a\": 1}", 8, 20, NULL, &r);
    ck_assert(!r.problem && !r.status && !r.timed_out && !r.cut && !r.stopped);
    ck_assert_str_eq(r.output, "{\"a\": 1}");
    free(r.output);
    memset(big, 'x', size);
    shell("cat", big, size, 20, NULL, &r);
    ck_assert_uint_eq(r.size, size);
    ck_assert_int_eq(memcmp(r.output, big, size), 0);
    free(r.output);
    shell("exec <&-; echo done; exit 3", big, size, 20, NULL, &r); /* does not read */
    ck_assert_int_eq(r.status, 3);
    ck_assert_str_eq(r.output, "done\n");
    free(r.output);
    shell("kill -9 $$", "", 0, 20, NULL, &r);
    ck_assert_int_eq(r.status, 128 + 9);
    free(r.output);
    free(big);
}
END_TEST

START_TEST(limits)
{
    struct command_result r;
    time_t begin = time(NULL);

    shell("echo first; sleep 60", "", 0, 1, NULL, &r);
    ck_assert(r.timed_out);
    ck_assert_str_eq(r.output, "first\n");
    free(r.output);
    shell("exec 1>&-; sleep 60", "", 0, 1, NULL, &r); /* silent, but still there */
    ck_assert(r.timed_out);
    free(r.output);
    shell("sleep 60", "", 0, 30, stop_now, &r);
    ck_assert(r.stopped);
    free(r.output);
    shell("yes", "", 0, 30, NULL, &r);
    ck_assert(r.cut);
    ck_assert_uint_eq(r.size, COMMAND_OUTPUT);
    free(r.output);
    shell("sleep 5 & echo quick", "", 0, 30, NULL, &r); /* a child of its own keeps the pipe open */
    ck_assert(!r.timed_out && !r.status);
    ck_assert_str_eq(r.output, "quick\n");
    free(r.output);
    ck_assert_int_lt(time(NULL) - begin, 10);
}
END_TEST

START_TEST(not_there)
{
    char name[] = "glm45-no-such-program", *argv[] = { name, NULL };
    struct command_result r;
    run_command(argv, "", 0, 5, NULL, &r);
    ck_assert_ptr_nonnull(r.problem);
    free(r.output);
}
END_TEST

static struct toolfile *tools_of(const char *json, glm_error *err)
{
    char path[] = "/tmp/glm45-tools-XXXXXX";
    struct toolfile *t;
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, json, strlen(json)), (ssize_t)strlen(json));
    close(fd);
    toolfile_open(path, &t, err);
    unlink(path);
    return t;
}

START_TEST(answers)
{
    glm_error err = GLM_ERROR_INIT;
    struct tool_answer a;
    size_t size;
    struct toolfile *t = tools_of("[{\"type\": \"function\", \"command\": [\"sh\", \"-c\", \"printf 'a\\\\377b\\\\n'; exit 2\"],"
        " \"function\": {\"name\": \"f\", \"parameters\": {\"n\": 1.50}}}, {\"name\": \"g\", \"command\": [\"cat\"]}]", &err);

    ck_assert_msg(t != NULL, "%s %s", err.where, err.message);
    ck_assert_str_eq(toolfile_declared(t, &size), "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": "
        "{\"n\": 1.5}}}, {\"name\": \"g\"}]");
    ck_assert(toolfile_run(t, "f", "{}", 2, NULL, &a));
    ck_assert(a.failed);
    ck_assert_str_eq(a.text, "a\xef\xbf\xbd" "b\nerror: exit status 2"); /* always valid UTF-8 */
    free(a.text);
    ck_assert(toolfile_run(t, "g", "{\"x\": 1}", 8, NULL, &a));
    ck_assert(!a.failed);
    ck_assert_str_eq(a.text, "{\"x\": 1}");
    free(a.text);
    ck_assert(toolfile_run(t, "h", "{}", 2, NULL, &a));
    ck_assert(a.failed && strstr(a.text, "no such tool"));
    free(a.text);
    toolfile_close(t);
    ck_assert_ptr_null(tools_of("[{\"name\": \"f\", \"command\": \"rm\"}]", &err));
    ck_assert_int_eq(err.code, GLM_ESCHEMA);
    ck_assert_ptr_nonnull(strstr(err.where, "/0/command"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("run_command");
    TCase *tc = tcase_create("run_command");
    SRunner *r = srunner_create(suite);
    signal(SIGPIPE, SIG_IGN);
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, in_and_out);
    tcase_add_test(tc, limits);
    tcase_add_test(tc, not_there);
    tcase_add_test(tc, answers);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
