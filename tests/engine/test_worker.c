/* test_worker.c: turns that the model's worker runs: the same answers, events without waiting, a descriptor that tells of
 * them, and sessions that come and go from any thread in any order. */
#include "nano.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static glm_model *model;
static struct said alone[N_KIND];

static void listen_alone(void)
{
    model = host_model_threads(2);
    say_alone(model, alone);
    glm_model_close(model);
}

static void set_up(void) { model = host_model_threads(2); }
static void tear_down(void) { glm_model_close(model); }

static void start(glm_session *s)
{
    glm_error err = GLM_ERROR_INIT;
    ck_assert_msg(!glm_session_start(s, &err), "%s", err.message);
}

static bool readable(intptr_t fd, int wait_ms)
{
    struct pollfd p = { .fd = (int)fd, .events = POLLIN };
    return poll(&p, 1, wait_ms) == 1;
}

/* Polls until nothing waits. false: there was no event. A result that came after the message's end: the turn goes on. */
static bool hear_all(struct said *a, glm_session *s)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    bool any = false;
    while (!a->ended) {
        ck_assert_msg(!glm_session_poll(s, &ev, &err), "%s", err.message);
        if (ev.type == GLM_EVENT_NONE)
            break;
        hear(a, s, &ev);
        any = true;
        if (a->ended && a->end_reason == GLM_END_TOOLS) {
            a->ended = false;
            start(s);
        }
    }
    return any;
}

static void hear_to_end(struct said *a, glm_session *s)
{
    while (!a->ended) {
        ck_assert(readable(glm_session_fd(s), 20000));
        hear_all(a, s);
    }
}

static int count_entries(const char *folder)
{
    DIR *d = opendir(folder);
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* ---- turns ------------------------------------------------------------------------------------------------------------ */

START_TEST(answers_are_those_of_each_alone)
{
    glm_session *s[3 * N_KIND];
    struct said *said = calloc(3 * N_KIND, sizeof *said);
    struct pollfd fds[3 * N_KIND];
    uint32_t n_ended = 0;

    for (uint32_t i = 0; i < 3 * N_KIND; i++) {
        s[i] = open_kind(model, i);
        start(s[i]);
        fds[i] = (struct pollfd){ .fd = (int)glm_session_fd(s[i]), .events = POLLIN };
        ck_assert_int_ge(fds[i].fd, 0);
    }
    glm_model_close(model); /* sessions keep it */
    while (n_ended < 3 * N_KIND) {
        ck_assert_int_gt(poll(fds, 3 * N_KIND, 20000), 0);
        for (uint32_t i = 0; i < 3 * N_KIND; i++) {
            ck_assert(said[i].ended || glm_session_fd(s[i]) == fds[i].fd);
            if (fds[i].revents & POLLIN) {
                ck_assert(hear_all(&said[i], s[i])); /* readable: events wait */
                if (said[i].ended) {
                    fds[i].fd = -1;
                    n_ended++;
                }
            }
        }
    }
    for (uint32_t i = 0; i < 3 * N_KIND; i++) {
        ck_assert(!readable(glm_session_fd(s[i]), 0));
        check_same(&said[i], &alone[i % N_KIND]);
        glm_session_close(s[i]);
    }
    free(said);
    model = NULL;
}
END_TEST

/* After the end a session is the host's: steps and starts in turn. */
START_TEST(turn_after_turn)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *a = open_kind(model, 0), *b = open_kind(model, 0);
    intptr_t fd = -1;

    ck_assert_int_eq(glm_session_fd(a), -1);
    for (uint32_t i = 0; i < 4; i++) {
        struct said x = { .ended = false }, y = { .ended = false };
        if (i > 0) {
            ck_assert(!glm_session_say(a, GLM_ROLE_USER, "What is 9 + 4?", GLM_NTS, &err));
            ck_assert(!glm_session_say(b, GLM_ROLE_USER, "What is 9 + 4?", GLM_NTS, &err));
        }
        if (i == 2) {
            step_to_end(a, &x);
        } else {
            start(a);
            if (i == 0)
                fd = glm_session_fd(a);
            hear_to_end(&x, a);
        }
        ck_assert_int_eq(fd, glm_session_fd(a));
        ck_assert_int_eq(glm_session_poll(a, &ev, &err), GLM_ESTATE);
        ck_assert_int_eq(glm_session_start(a, &err), GLM_ESTATE); /* nothing to do */
        step_to_end(b, &y);
        check_same(&x, &y);
    }
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

/* A turn that was begun by steps goes on, with what was waiting first. */
START_TEST(started_in_the_middle)
{
    for (uint32_t n_step = 1; n_step < 12; n_step += 2) {
        glm_error err = GLM_ERROR_INIT;
        glm_event ev = GLM_EVENT_INIT;
        glm_session *s = open_kind(model, 2);
        struct said a = { .ended = false };
        for (uint32_t i = 0; i < n_step; i++) {
            ck_assert_msg(!glm_session_step(s, NULL, &ev, &err), "%s", err.message);
            hear(&a, s, &ev);
        }
        start(s);
        hear_to_end(&a, s);
        check_same(&a, &alone[2]);
        glm_session_close(s);
    }
}
END_TEST

START_TEST(results_that_come_late)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s = open_kind(model, 2);
    uint64_t id = 0;
    struct said a = { .ended = false };

    start(s);
    while (ev.type != GLM_EVENT_TURN_END) {
        ck_assert(readable(glm_session_fd(s), 20000));
        ck_assert(!glm_session_poll(s, &ev, &err));
        id = ev.type == GLM_EVENT_TOOL_CALL ? ev.call_id : id;
    }
    ck_assert_uint_eq(ev.end_reason, GLM_END_TOOLS);
    ck_assert_int_eq(glm_session_start(s, &err), GLM_ESTATE);
    ck_assert(!glm_tool_result(s, id, "sunny", GLM_NTS, &err));
    start(s);
    hear_to_end(&a, s);
    ck_assert(a.text[0] && a.end_reason == alone[2].end_reason);
    ck_assert(strstr(alone[2].text, a.text)); /* the second message of the turn */
    glm_session_close(s);
}
END_TEST

/* The end waits, unpolled, when the result comes: the next start goes on. */
START_TEST(a_result_before_the_end_is_polled)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s = open_kind(model, 2);
    struct said a = { .ended = false };

    start(s);
    while (ev.type != GLM_EVENT_TOOL_CALL) {
        ck_assert(readable(glm_session_fd(s), 20000));
        ck_assert(!glm_session_poll(s, &ev, &err));
    }
    uint64_t id = ev.call_id;
    ck_assert(readable(glm_session_fd(s), 20000)); /* the message has ended by now */
    ck_assert(!glm_tool_result(s, id, "sunny", GLM_NTS, &err));
    while (ev.type != GLM_EVENT_TURN_END) {
        ck_assert(readable(glm_session_fd(s), 20000));
        ck_assert(!glm_session_poll(s, &ev, &err));
    }
    if (ev.end_reason == GLM_END_TOOLS) {
        start(s);
        hear_to_end(&a, s);
        ck_assert_uint_eq(a.end_reason, alone[2].end_reason);
    }
    glm_session_close(s);
}
END_TEST

START_TEST(a_feed)
{
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s[2];
    int32_t ids[40];
    const float *a, *b;

    so.n_ctx = 256;
    ck_assert(!glm_model_describe(model, &info, &err));
    for (int32_t i = 0; i < 40; i++)
        ids[i] = 3 + 5 * i;
    for (int i = 0; i < 2; i++) {
        ck_assert(!glm_session_open(model, &so, &s[i], &err));
        ck_assert(!glm_session_feed(s[i], ids, 40, GLM_ROWS_LAST, &err));
    }
    start(s[0]);
    while (ev.type != GLM_EVENT_READY) {
        ck_assert(readable(glm_session_fd(s[0]), 20000));
        ck_assert(!glm_session_poll(s[0], &ev, &err));
    }
    for (ev.type = GLM_EVENT_NONE; ev.type != GLM_EVENT_READY;)
        ck_assert(!glm_session_step(s[1], NULL, &ev, &err));
    ck_assert(!glm_session_logits(s[0], GLM_LAST_ROW, &a, &err) && !glm_session_logits(s[1], GLM_LAST_ROW, &b, &err));
    ck_assert(!memcmp(a, b, info.n_vocab * sizeof *a));
    glm_session_close(s[0]);
    glm_session_close(s[1]);
}
END_TEST

/* ---- what is legal -------------------------------------------------------------------------------------------------------- */

START_TEST(most_calls_are_refused)
{
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT, *at = &ev;
    glm_stats stats = GLM_STATS_INIT;
    glm_session *s = open_kind(model, 3), *other = NULL;
    const float *logits;
    uint64_t mark = 0;
    int32_t id = 0;

    ck_assert_int_eq(glm_session_poll(s, &ev, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_poll(NULL, &ev, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_start(NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_fd(NULL), -1);
    start(s);
    ck_assert_int_eq(glm_session_poll(s, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_start(s, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_sessions_step(&s, 1, NULL, &at, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_say(s, GLM_ROLE_USER, "x", 1, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_messages(s, "[]", 2, NULL, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_tools(s, "[]", 2, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_turn(s, NULL, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_feed(s, &id, 1, 0, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_logits(s, 0, &logits, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_sample(s, &id, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_fork(s, &other, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_mark(s, &mark, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_rewind(s, 0, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_save(s, "/nowhere", &err), GLM_EBUSY);
    ck_assert_int_eq(glm_session_infill(s, "x", 1, "x", 1, &err), GLM_EBUSY);
    ck_assert_int_eq(glm_tool_result(s, 99, "x", 1, &err), GLM_EINVAL); /* legal, but there is no such call */
    ck_assert(!glm_session_stats(s, &stats, &err));
    ck_assert_int_ge(glm_session_fd(s), 0);
    struct said a = { .ended = false };
    hear_to_end(&a, s);
    check_same(&a, &alone[3]);
    ck_assert(!glm_session_stats(s, &stats, &err));
    ck_assert_uint_eq(stats.n_generated, a.n_answer + a.n_think);
    glm_session_close(s);

    so.n_ctx = 16;
    ck_assert(!glm_session_open(model, &so, &s, &err));
    ck_assert_int_eq(glm_session_start(s, &err), GLM_ESTATE);
    ck_assert(!glm_session_say(s, GLM_ROLE_USER, "Too long for a context of so few tokens as that", GLM_NTS, &err));
    start(s);
    ck_assert(readable(glm_session_fd(s), 20000));
    ck_assert(!glm_session_poll(s, &ev, &err));
    ck_assert_uint_eq(ev.type, GLM_EVENT_ERROR);
    ck_assert_int_eq(ev.status, GLM_ECONTEXT);
    ck_assert(strstr(ev.text, "16"));
    ck_assert_int_eq(glm_session_poll(s, &ev, &err), GLM_ESTATE);
    ck_assert(!readable(glm_session_fd(s), 0));
    ck_assert(!glm_session_say(s, GLM_ROLE_USER, "x", 1, &err));
    glm_session_close(s);
}
END_TEST

/* Kind 0, but an event that waits is enough to pause it. */
static glm_session *open_slow(uint32_t max_tokens)
{
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;

    so.event_bytes = 1;
    so.n_ctx = 2048;
    to.temperature = 0;
    to.max_tokens = max_tokens;
    ck_assert(!glm_session_open(model, &so, &s, &err) && !glm_session_turn(s, &to, &err));
    ck_assert(!glm_session_say(s, GLM_ROLE_USER, "What is 23 + 58?", GLM_NTS, &err));
    return s;
}

/* A queue of one event at a time holds its session back and no other. */
START_TEST(a_full_queue_pauses)
{
    glm_stats stats = GLM_STATS_INIT, later = GLM_STATS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *slow = open_slow(24), *other = open_kind(model, 0);
    struct said a = { .ended = false }, b = { .ended = false };

    start(slow);
    start(other);
    hear_to_end(&b, other);
    check_same(&b, &alone[0]);
    ck_assert(readable(glm_session_fd(slow), 20000));
    ck_assert(!glm_session_stats(slow, &stats, &err));
    usleep(20000);
    ck_assert(!glm_session_stats(slow, &later, &err));
    ck_assert_uint_eq(stats.n_generated, later.n_generated);
    ck_assert_uint_le(later.n_generated, 4); /* of 24 */
    hear_to_end(&a, slow);
    check_same(&a, &alone[0]);
    ck_assert(!glm_session_say(slow, GLM_ROLE_USER, "What is 23 + 58?", GLM_NTS, &err));
    start(slow);
    ck_assert(readable(glm_session_fd(slow), 20000));
    glm_session_cancel(slow); /* while it pauses */
    memset(&a, 0, sizeof a);
    hear_to_end(&a, slow);
    ck_assert_uint_eq(a.end_reason, GLM_END_CANCELLED);
    glm_session_close(slow);
    glm_session_close(other);
}
END_TEST

/* The host closes a thought from outside, whenever it likes. */
START_TEST(a_thought_is_ended)
{
    uint32_t n_cut = 0;
    for (uint32_t i = 0; i < 8; i++) {
        glm_error err = GLM_ERROR_INIT;
        glm_event ev = GLM_EVENT_INIT;
        glm_session *s = open_slow(24);
        bool cut = false;
        int32_t rc;

        start(s);
        while (ev.type != GLM_EVENT_REASONING) {
            ck_assert(readable(glm_session_fd(s), 20000));
            ck_assert(!glm_session_poll(s, &ev, &err));
        }
        rc = glm_session_end_thought(s, &err);
        ck_assert(rc == GLM_OK || rc == GLM_ESTATE); /* it may be over by now */
        while (ev.type != GLM_EVENT_TURN_END) {
            ck_assert(readable(glm_session_fd(s), 20000));
            ck_assert(!glm_session_poll(s, &ev, &err));
            cut = cut || ev.type == GLM_EVENT_THINK_CUT;
        }
        ck_assert(!cut || rc == GLM_OK);
        n_cut += cut;
        glm_session_close(s);
    }
    ck_assert_uint_gt(n_cut, 0);
}
END_TEST

/* ---- ends ------------------------------------------------------------------------------------------------------------------ */

START_TEST(cancelled)
{
    for (uint32_t i = 0; i < 10; i++) {
        glm_session *s[2] = { open_kind(model, 7), open_kind(model, 0) };
        struct said a = { .ended = false }, b = { .ended = false };
        start(s[0]);
        start(s[1]);
        usleep(i * 500);
        glm_session_cancel(s[0]);
        hear_to_end(&a, s[0]);
        ck_assert(a.end_reason == GLM_END_CANCELLED || strcmp(a.text, alone[7].text) == 0);
        hear_to_end(&b, s[1]);
        check_same(&b, &alone[0]);
        glm_session_close(s[1]);
        glm_session_close(s[0]);
    }
}
END_TEST

/* No thread and no descriptor stays behind the last close, whatever the order. */
START_TEST(closed_while_running)
{
    int n_thread = count_entries("/proc/self/task"), n_fd = count_entries("/proc/self/fd");
    for (uint32_t i = 0; i < 24; i++) {
        glm_session *s[5];
        glm_model *m = model;
        struct said a = { .ended = false };
        for (uint32_t j = 0; j < 5; j++)
            start(s[j] = open_kind(m, i + j));
        usleep(i % 6 * 700);
        if (i % 4 == 0) {
            hear_to_end(&a, s[2]);
            check_same(&a, &alone[(i + 2) % N_KIND]);
        }
        for (uint32_t j = 0; j < 5; j++)
            glm_session_close(s[(j * (1 + i % 4) + i) % 5]);
        ck_assert_int_eq(count_entries("/proc/self/fd"), n_fd);
        for (int k = 0; k < 200 && count_entries("/proc/self/task") > n_thread; k++)
            usleep(1000); /* a joined thread's entry may outlive it for a moment */
        ck_assert_int_le(count_entries("/proc/self/task"), n_thread);
    }
}
END_TEST

START_TEST(the_model_goes_first)
{
    glm_model *m = host_model_threads(2);
    glm_session *s = open_kind(m, 1);
    struct said a = { .ended = false };
    start(s);
    glm_model_close(m);
    hear_to_end(&a, s);
    check_same(&a, &alone[1]);
    glm_session_close(s);
}
END_TEST

START_TEST(in_a_forked_child)
{
    glm_session *s = open_kind(model, 3), *idle = open_kind(model, 1);
    struct said a = { .ended = false };
    int status = 0;

    start(s);
    pid_t pid = fork();
    if (pid == 0) {
        glm_event ev = GLM_EVENT_INIT, *at = &ev;
        int bad = glm_session_poll(s, &ev, NULL) != GLM_EFORK;
        bad |= glm_session_start(idle, NULL) != GLM_EFORK;
        bad |= glm_sessions_step(&idle, 1, NULL, &at, NULL) != GLM_EFORK;
        bad |= glm_tool_result(s, 1, "x", 1, NULL) != GLM_EFORK;
        bad |= glm_session_fd(s) != -1;
        glm_session_close(s);
        glm_session_close(idle);
        glm_model_close(model);
        _exit(bad);
    }
    waitpid(pid, &status, 0);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    hear_to_end(&a, s);
    check_same(&a, &alone[3]);
    glm_session_close(s);
    glm_session_close(idle);
}
END_TEST

/* ---- everything at once --------------------------------------------------------------------------------------------------- */

struct guest {
    pthread_t thread;
    uint64_t state;
    uint32_t n_turn, n_wrong;
};

/* Turns of random kinds, started or stepped, heard to the end, cancelled or closed in the middle. */
static void *be_a_guest(void *arg)
{
    struct guest *g = arg;
    for (uint32_t i = 0; i < 14; i++) {
        uint32_t kind = dice(&g->state, N_KIND), end = dice(&g->state, 6);
        glm_session *s = open_kind(model, kind);
        glm_stats stats = GLM_STATS_INIT;
        struct said a = { .ended = false };
        if (dice(&g->state, 3) == 0) {
            step_to_end(s, &a);
        } else {
            start(s);
            if (end < 2)
                usleep(dice(&g->state, 8000));
            if (end == 0)
                glm_session_cancel(s);
            ck_assert(!glm_session_stats(s, &stats, NULL));
            if (end != 1)
                hear_to_end(&a, s);
        }
        if (a.ended && a.end_reason != GLM_END_CANCELLED) {
            g->n_turn++;
            g->n_wrong += strcmp(a.text, alone[kind].text) != 0;
        }
        glm_session_close(s);
    }
    return NULL;
}

START_TEST(guests_come_and_go)
{
    struct guest g[4];
    uint32_t n_turn = 0;
    for (uint32_t i = 0; i < 4; i++) {
        g[i] = (struct guest){ .state = 77 * i + 5 };
        ck_assert(!pthread_create(&g[i].thread, NULL, be_a_guest, &g[i]));
    }
    for (uint32_t i = 0; i < 4; i++) {
        pthread_join(g[i].thread, NULL);
        ck_assert_uint_eq(g[i].n_wrong, 0);
        n_turn += g[i].n_turn;
    }
    ck_assert_uint_gt(n_turn, 20);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = { answers_are_those_of_each_alone, turn_after_turn, started_in_the_middle,
        results_that_come_late, a_result_before_the_end_is_polled, a_feed, most_calls_are_refused, a_full_queue_pauses,
        a_thought_is_ended,
        cancelled, closed_while_running, the_model_goes_first, in_a_forked_child, guests_come_and_go };
    Suite *suite = suite_create("worker");
    TCase *tc = tcase_create("worker");
    tcase_add_unchecked_fixture(tc, listen_alone, NULL);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tc, tests[i]);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
