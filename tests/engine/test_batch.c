/* test_batch.c: sessions in shared passes say what they say alone, whatever joins, leaves or cuts a pass short. */
#include "nano.h"

#include <pthread.h>
#include <unistd.h>

static glm_model *model;
static struct said alone[N_KIND];

/* Once, before Check forks: tests open a model of their own. */
static void listen_alone(void)
{
    model = host_model_threads(2);
    say_alone(model, alone);
    glm_model_close(model);
}

static void set_up(void) { model = host_model_threads(2); }

static void tear_down(void) { glm_model_close(model); }

/* ---- a batch of some kinds ---------------------------------------------------------------------------------------- */

struct party {
    glm_session *s[64];
    uint32_t kind[64];
    struct said said[64];
    uint32_t n;
};

static void join(struct party *p, uint32_t kind)
{
    kind %= N_KIND;
    p->s[p->n] = open_kind(model, kind);
    p->kind[p->n] = kind;
    memset(&p->said[p->n], 0, sizeof p->said[0]);
    p->n++;
}

static void leave(struct party *p, uint32_t i)
{
    glm_session_close(p->s[i]);
    p->n--;
    p->s[i] = p->s[p->n];
    p->kind[i] = p->kind[p->n];
    p->said[i] = p->said[p->n];
}

/* One call for those whose bit is set in `who`. */
static int32_t step(struct party *p, uint64_t who, uint64_t budget_ns, glm_error *err)
{
    glm_session *s[64];
    glm_event ev[64], *at[64];
    uint32_t index[64], n = 0;
    glm_step how = GLM_STEP_INIT;
    int32_t rc;

    for (uint32_t i = 0; i < p->n; i++)
        if (who >> i & 1 && !p->said[i].ended) {
            ev[n] = (glm_event)GLM_EVENT_INIT;
            at[n] = &ev[n];
            index[n] = i;
            s[n++] = p->s[i];
        }
    if (n == 0)
        return GLM_OK;
    how.budget_ns = budget_ns;
    rc = glm_sessions_step(s, n, &how, at, err);
    for (uint32_t i = 0; i < n && !rc; i++)
        hear(&p->said[index[i]], s[i], &ev[i]);
    return rc;
}

static bool all_ended(const struct party *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (!p->said[i].ended)
            return false;
    return true;
}

static void check_and_leave(struct party *p)
{
    while (p->n) {
        check_same(&p->said[0], &alone[p->kind[0]]);
        leave(p, 0);
    }
}

static uint32_t to_the_end(struct party *p, uint64_t budget_ns)
{
    glm_error err = GLM_ERROR_INIT;
    uint32_t n_call = 0;
    while (!all_ended(p)) {
        ck_assert_msg(!step(p, UINT64_MAX, budget_ns, &err), "%s", err.message);
        n_call++;
    }
    return n_call;
}

/* ---- answers --------------------------------------------------------------------------------------------------------- */

START_TEST(answers_are_those_of_each_alone)
{
    static const uint64_t budgets[] = { 0, 1, 200000, 1000000, 4000000 };
    struct party p = { .n = 0 };
    uint32_t n_call;
    for (uint32_t i = 0; i < N_KIND; i++)
        join(&p, i);
    n_call = to_the_end(&p, budgets[_i]);
    if (budgets[_i] == 0) { /* passes are shared: few more calls than the longest answer has tokens and events */
        uint32_t most = 0;
        for (uint32_t i = 0; i < N_KIND; i++)
            most = p.said[i].n_event > most ? p.said[i].n_event : most;
        ck_assert_uint_lt(n_call, 2 * most + 40);
    }
    check_and_leave(&p);
}
END_TEST

START_TEST(sixty_four_sessions)
{
    struct party *p = calloc(1, sizeof *p);
    for (uint32_t i = 0; i < 64; i++)
        join(p, i == 7 ? 7 : i % 5);
    to_the_end(p, 0);
    check_and_leave(p);
    free(p);
}
END_TEST

START_TEST(a_batch_of_one)
{
    struct party p = { .n = 0 };
    join(&p, _i);
    to_the_end(&p, 300000);
    check_and_leave(&p);
}
END_TEST

/* The fork has delivered what its parent has. */
static void fork_one(struct party *p, uint32_t i)
{
    glm_error err = GLM_ERROR_INIT;
    ck_assert_msg(!glm_session_fork(p->s[i], &p->s[p->n], &err), "%s", err.message);
    p->kind[p->n] = p->kind[i];
    p->said[p->n] = p->said[i];
    p->n++;
}

/* In and out at any call, sometimes alone, sometimes as two, with any budget. */
START_TEST(sessions_join_and_leave)
{
    static const uint64_t budgets[] = { 0, 1, 200000, 1000000, 4000000 };
    struct party p = { .n = 0 };
    uint64_t state = (uint64_t)_i + 1;
    glm_error err = GLM_ERROR_INIT;

    for (uint32_t n_joined = 0; n_joined < 12 || !all_ended(&p);) {
        uint64_t budget = budgets[dice(&state, 5)], who = dice(&state, 4) ? UINT64_MAX : dice(&state, 1u << 31);
        if (n_joined < 12 && p.n < 8 && dice(&state, 6) == 0)
            join(&p, dice(&state, N_KIND)), n_joined++;
        if (p.n && dice(&state, 20) == 0) { /* a step alone */
            uint32_t i = dice(&state, p.n);
            glm_event ev = GLM_EVENT_INIT;
            glm_step how = GLM_STEP_INIT;
            how.budget_ns = budget;
            if (!p.said[i].ended) {
                ck_assert_msg(!glm_session_step(p.s[i], &how, &ev, &err), "%s", err.message);
                hear(&p.said[i], p.s[i], &ev);
            }
        }
        if (p.n && p.n < 8 && dice(&state, 30) == 0)
            fork_one(&p, dice(&state, p.n));
        if (p.n && dice(&state, 60) == 0)
            leave(&p, dice(&state, p.n)); /* in the middle of its turn */
        ck_assert_msg(!step(&p, who, budget, &err), "%s", err.message);
        for (uint32_t i = p.n; i-- > 0 && p.n == 8;)
            if (p.said[i].ended) {
                check_same(&p.said[i], &alone[p.kind[i]]);
                leave(&p, i);
            }
    }
    check_and_leave(&p);
}
END_TEST

START_TEST(two_groups_take_turns)
{
    struct party p = { .n = 0 };
    glm_error err = GLM_ERROR_INIT;
    uint32_t n_call = 0;
    for (uint32_t i = 0; i < N_KIND; i++)
        join(&p, i);
    while (!all_ended(&p)) { /* each group's pass waits while the other's goes on */
        ck_assert_msg(!step(&p, n_call++ % 2 ? 0x0f : 0xf0, 1, &err), "%s", err.message);
        ck_assert_uint_lt(n_call, 1000000);
    }
    check_and_leave(&p);
}
END_TEST

static void *step_group(void *arg)
{
    struct party *p = arg;
    to_the_end(p, 100000);
    return NULL;
}

START_TEST(groups_on_threads_of_their_own)
{
    struct party p[3];
    pthread_t thread[3];
    for (uint32_t g = 0; g < 3; g++) {
        p[g].n = 0;
        for (uint32_t i = 0; i < 3; i++)
            join(&p[g], g + 2 * i);
        ck_assert(!pthread_create(&thread[g], NULL, step_group, &p[g]));
    }
    for (uint32_t g = 0; g < 3; g++) {
        pthread_join(thread[g], NULL);
        check_and_leave(&p[g]);
    }
}
END_TEST

/* ---- tokens ------------------------------------------------------------------------------------------------------------ */

#define N_FEED 300u

static void fill(int32_t *ids, uint32_t n, uint64_t seed, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)dice(&seed, n_vocab);
}

/* Feeds of all rows and of the last one in one batch; logits, states and draws are those of sessions alone, and stay while
 * other sessions go on. */
START_TEST(feeds_of_the_token_level)
{
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    struct party p = { .n = 0 };
    int32_t ids[4][N_FEED];
    const float *a, *b;
    bool ready[4] = { false, false, false, false };

    so.n_ctx = 2048;
    ck_assert(!glm_model_describe(model, &info, &err));
    join(&p, 1);
    for (uint32_t i = 0; i < 4; i++) {
        fill(ids[i], N_FEED, i + 3, info.n_vocab);
        ck_assert(!glm_session_open(model, &so, &p.s[p.n], &err));
        to.seed = i;
        ck_assert(!glm_session_turn(p.s[p.n], &to, &err));
        ck_assert(!glm_session_feed(p.s[p.n], ids[i], N_FEED - 70 * i, i % 2 ? GLM_ROWS_ALL : GLM_ROWS_LAST, &err));
        memset(&p.said[p.n++], 0, sizeof p.said[0]);
    }
    for (uint32_t n_ready = 0; n_ready < 4;) {
        glm_session *s[5];
        glm_event ev[5], *at[5];
        uint32_t index[5], n = 0;
        glm_step how = GLM_STEP_INIT;
        how.budget_ns = 300000;
        for (uint32_t i = 0; i < 5; i++)
            if (i == 0 ? !p.said[0].ended : !ready[i - 1]) {
                ev[n] = (glm_event)GLM_EVENT_INIT;
                at[n] = &ev[n];
                index[n] = i;
                s[n++] = p.s[i];
            }
        ck_assert_msg(!glm_sessions_step(s, n, &how, at, &err), "%s", err.message);
        for (uint32_t i = 0; i < n; i++)
            if (index[i] == 0) {
                hear(&p.said[0], s[i], &ev[i]);
            } else if (ev[i].type == GLM_EVENT_READY) {
                ready[index[i] - 1] = true;
                n_ready++;
            }
    }
    while (!p.said[0].ended) /* the others' results stay meanwhile */
        ck_assert_msg(!step(&p, 1, 0, &err), "%s", err.message);
    check_same(&p.said[0], &alone[1]);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t n = N_FEED - 70 * i;
        glm_session *s = NULL;
        glm_event ev = GLM_EVENT_INIT;
        int32_t x, y;
        ck_assert(!glm_session_open(model, &so, &s, &err));
        to.seed = i;
        ck_assert(!glm_session_turn(s, &to, &err));
        ck_assert(!glm_session_feed(s, ids[i], n, GLM_ROWS_ALL, &err));
        while (ev.type != GLM_EVENT_READY)
            ck_assert(!glm_session_step(s, NULL, &ev, &err));
        for (uint32_t row = i % 2 ? 0 : n - 1; row < n; row++) {
            ck_assert_msg(!glm_session_logits(s, row, &a, &err) && !glm_session_logits(p.s[i + 1], row, &b, &err), "%s",
                err.message);
            ck_assert(!memcmp(a, b, info.n_vocab * sizeof *a));
            ck_assert(!glm_session_hidden(s, row, &a, &err) && !glm_session_hidden(p.s[i + 1], row, &b, &err));
            ck_assert(!memcmp(a, b, info.d_model * sizeof *a));
        }
        ck_assert(!glm_session_logits(p.s[i + 1], GLM_LAST_ROW, &b, &err));
        ck_assert_int_eq(glm_session_logits(p.s[i + 1], n, &b, &err), GLM_EINVAL);
        if (i % 2 == 0)
            ck_assert_int_eq(glm_session_logits(p.s[i + 1], 0, &b, &err), GLM_ESTATE);
        ck_assert(!glm_session_sample(s, &x, &err) && !glm_session_sample(p.s[i + 1], &y, &err));
        ck_assert_int_eq(x, y);
        glm_session_close(s);
    }
    while (p.n)
        leave(&p, 0);
}
END_TEST

/* ---- cancel ------------------------------------------------------------------------------------------------------------- */

static void *cancel_soon(void *s)
{
    usleep(3000);
    glm_session_cancel(s);
    return NULL;
}

/* The cancelled one ends, the others do not notice. */
START_TEST(a_member_is_cancelled)
{
    for (uint32_t round = 0; round < 12; round++) {
        struct party p = { .n = 0 };
        pthread_t thread;
        glm_error err = GLM_ERROR_INIT;
        for (uint32_t i = 0; i < 4; i++)
            join(&p, round + i);
        ck_assert(!pthread_create(&thread, NULL, cancel_soon, p.s[0]));
        to_the_end(&p, round % 3 * 150000);
        pthread_join(thread, NULL);
        if (p.said[0].end_reason == GLM_END_CANCELLED) {
            glm_session_cancel(p.s[0]); /* once more, for the next turn, which a message takes back */
            ck_assert_msg(!glm_session_say(p.s[0], GLM_ROLE_USER, "Hello!", GLM_NTS, &err), "%s", err.message);
            memset(&p.said[0], 0, sizeof p.said[0]);
            to_the_end(&p, 0);
            ck_assert_uint_ne(p.said[0].end_reason, GLM_END_CANCELLED);
        }
        leave(&p, 0);
        check_and_leave(&p);
    }
}
END_TEST

START_TEST(cancelled_before_its_first_step)
{
    struct party p = { .n = 0 };
    join(&p, 0);
    join(&p, 3);
    glm_session_cancel(p.s[1]);
    to_the_end(&p, 0);
    ck_assert_uint_eq(p.said[1].end_reason, GLM_END_CANCELLED);
    ck_assert_uint_eq(p.said[1].n_answer + p.said[1].n_think, 0);
    leave(&p, 1);
    check_and_leave(&p);
}
END_TEST

/* ---- failures and misuse --------------------------------------------------------------------------------------------------- */

START_TEST(a_failure_is_its_sessions_event)
{
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_event ev[2] = { GLM_EVENT_INIT, GLM_EVENT_INIT }, *at[2] = { &ev[0], &ev[1] };
    struct party p = { .n = 0 };
    glm_session *s[2] = { NULL, NULL };

    join(&p, 0);
    s[0] = p.s[0];
    so.n_ctx = 16;
    to.max_tokens = 16;
    ck_assert(!glm_session_open(model, &so, &s[1], &err) && !glm_session_turn(s[1], &to, &err));
    ck_assert(!glm_session_say(s[1], GLM_ROLE_USER, "Too long for so small a context", GLM_NTS, &err));
    for (int i = 0; i < 2; i++) { /* nothing has changed: it fails again */
        ck_assert_msg(!glm_sessions_step(s, 2, NULL, at, &err), "%s", err.message);
        hear(&p.said[0], s[0], &ev[0]);
        ck_assert_uint_eq(ev[1].type, GLM_EVENT_ERROR);
        ck_assert_int_eq(ev[1].status, GLM_ECONTEXT);
        ck_assert_uint_eq(strlen(ev[1].text), ev[1].text_size);
        ck_assert(strstr(ev[1].text, "16"));
    }
    to_the_end(&p, 0);
    check_and_leave(&p);
    ck_assert(!glm_session_say(s[1], GLM_ROLE_USER, "x", 1, &err)); /* no turn is under way */
    glm_session_close(s[1]);
}
END_TEST

START_TEST(arguments)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev[65], *at[65];
    glm_session *s[65];
    glm_step how = GLM_STEP_INIT;
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_model *other = host_model_threads(1);

    for (uint32_t i = 0; i < 65; i++) {
        ev[i] = (glm_event)GLM_EVENT_INIT;
        at[i] = &ev[i];
        ck_assert(!glm_session_open(model, NULL, &s[i], &err));
    }
    ck_assert(!glm_model_describe(model, &info, &err));
    ck_assert_uint_eq(info.batch_max, 64);
    ck_assert_int_eq(glm_sessions_step(NULL, 1, NULL, at, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_sessions_step(s, 1, NULL, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_sessions_step(s, 0, NULL, at, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_sessions_step(s, 65, NULL, at, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_sessions_step(s, 64, NULL, at, &err), GLM_ESTATE); /* nothing to do for any */
    ck_assert_int_eq(glm_sessions_step(s, 64, NULL, at, NULL), GLM_ESTATE);
    ck_assert(!glm_session_say(s[5], GLM_ROLE_USER, "Hello!", GLM_NTS, &err));
    how.reserved = 1;
    ck_assert_int_eq(glm_sessions_step(s, 64, &how, at, &err), GLM_EINVAL);
    at[7] = NULL;
    ck_assert_int_eq(glm_sessions_step(s, 64, NULL, at, &err), GLM_EINVAL);
    ck_assert_uint_eq(err.offset, 7);
    ck_assert(!glm_sessions_step(s, 7, NULL, at, &err)); /* the others have nothing to do */
    ck_assert_uint_eq(ev[0].type, GLM_EVENT_NONE);
    ck_assert_uint_ne(ev[5].type, GLM_EVENT_ERROR);
    at[7] = &ev[7];
    ev[9].struct_size = 8;
    ck_assert_int_eq(glm_sessions_step(s, 64, NULL, at, &err), GLM_EINVAL);
    ck_assert_uint_eq(err.offset, 9);
    ev[9].struct_size = sizeof ev[9];
    glm_session *was = s[11];
    s[11] = s[3];
    ck_assert_int_eq(glm_sessions_step(s, 64, NULL, at, &err), GLM_EINVAL);
    ck_assert_uint_eq(err.offset, 11);
    s[11] = NULL;
    ck_assert_int_eq(glm_sessions_step(s, 64, NULL, at, &err), GLM_EINVAL);
    ck_assert_uint_eq(err.offset, 11);
    ck_assert(!glm_session_open(other, NULL, &s[11], &err));
    ck_assert_int_eq(glm_sessions_step(s, 64, NULL, at, &err), GLM_EINVAL);
    ck_assert_uint_eq(err.offset, 11);
    glm_session_close(s[11]);
    s[11] = was;
    ck_assert(!glm_sessions_step(s, 64, NULL, at, &err)); /* nobody was left busy */
    for (uint32_t i = 0; i < 65; i++)
        glm_session_close(s[i]);
    glm_model_close(other);
}
END_TEST

struct rogue {
    glm_session *s[2];
    int32_t batch, single;
    uint64_t offset;
    bool tried;
};
static struct rogue rogue;

static void *step_from_runner(void *arg)
{
    struct rogue *r = arg;
    glm_error err = GLM_ERROR_INIT;
    glm_event ev[2] = { GLM_EVENT_INIT, GLM_EVENT_INIT }, *at[2] = { &ev[0], &ev[1] };
    r->single = glm_session_step(r->s[1], NULL, &ev[0], &err);
    r->batch = glm_sessions_step(r->s, 2, NULL, at, &err);
    r->offset = err.offset;
    return NULL;
}

static void GLM_CALL run_serially(void *user, glm_task_fn fn, void *task, uint32_t count)
{
    (void)user;
    if (rogue.s[0] && !rogue.tried) {
        pthread_t thread;
        rogue.tried = true;
        ck_assert(!pthread_create(&thread, NULL, step_from_runner, &rogue));
        pthread_join(thread, NULL);
    }
    while (count-- > 0)
        fn(task, count);
}

/* Busy is all or nothing: the session in front of the busy one is free again. */
START_TEST(a_busy_session)
{
    glm_runner runner = { sizeof runner, 3, NULL, run_serially };
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *own = model, *m = NULL;
    struct party p = { .n = 0 };

    mo.runner = &runner;
    ck_assert(!glm_model_open(getenv("GLM_TEST_MODEL"), &mo, &m, &err));
    model = m;
    for (uint32_t i = 0; i < 3; i++)
        join(&p, i);
    model = own;
    rogue = (struct rogue){ .s = { p.s[2], p.s[0] } };
    while (!p.said[0].ended) /* p.s[2] is not in this batch */
        ck_assert_msg(!step(&p, 3, 0, &err), "%s", err.message);
    ck_assert(rogue.tried);
    rogue.s[0] = NULL;
    ck_assert_int_eq(rogue.single, GLM_EBUSY);
    ck_assert_int_eq(rogue.batch, GLM_EBUSY);
    ck_assert_uint_eq(rogue.offset, 1);
    to_the_end(&p, 0);
    check_and_leave(&p);
    glm_model_close(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("batch");
    TCase *tc = tcase_create("batch");
    tcase_add_unchecked_fixture(tc, listen_alone, NULL);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, answers_are_those_of_each_alone, 0, 5);
    tcase_add_test(tc, sixty_four_sessions);
    tcase_add_loop_test(tc, a_batch_of_one, 1, 3);
    tcase_add_loop_test(tc, sessions_join_and_leave, 0, 6);
    tcase_add_test(tc, two_groups_take_turns);
    tcase_add_test(tc, groups_on_threads_of_their_own);
    tcase_add_test(tc, feeds_of_the_token_level);
    tcase_add_test(tc, a_member_is_cancelled);
    tcase_add_test(tc, cancelled_before_its_first_step);
    tcase_add_test(tc, a_failure_is_its_sessions_event);
    tcase_add_test(tc, arguments);
    tcase_add_test(tc, a_busy_session);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
