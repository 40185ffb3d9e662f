/* test_control.c: what a host sets for a turn: budgets of thought, tokens and time, stop rules, and what it is told of
 * loops. Each with steps of any length, cancelled anywhere, and with every allocation failing. */
#include "../unit/failing_alloc.h"
#include "host.h"

static glm_model *model, *model47;

static void open_models(void)
{
    glm_model_options o = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    model = host_model();
    o.template_family = GLM_TEMPLATE_47;
    OK(glm_model_open(getenv("GLM_TEST_MODEL"), &o, &model47, &err));
}

static void close_models(void)
{
    glm_model_close(model);
    glm_model_close(model47);
}

static glm_turn_options greedy(uint32_t max_tokens)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    o.temperature = 0;
    o.max_tokens = max_tokens;
    return o;
}

static glm_turn_options budget(uint32_t think_tokens, const char *close)
{
    glm_turn_options o = greedy(300);
    o.thinking = GLM_THINK_BUDGET;
    o.think_tokens = think_tokens;
    o.think_close = close;
    return o;
}

/* ---- a turn, recorded ---------------------------------------------------------------------------------------- */

struct record {
    char text[8192], thought[8192];
    size_t n_text, n_thought;
    char order[512]; /* one letter for each run of events: P R T C (cut) L (loop) B D K (call) E */
    size_t n_order;
    unsigned n_none, n_cut, n_loop;
    glm_event cut, loop, end;
};

static void put_order(struct record *r, uint32_t type)
{
    static const char letters[] = "NPRTBDKECL";
    char c = letters[type];
    if (c == 'N' || (r->n_order && r->order[r->n_order - 1] == c && c != 'C' && c != 'L'))
        return;
    ck_assert_uint_lt(r->n_order, sizeof r->order - 1);
    r->order[r->n_order++] = c;
}

static void put_text(char *to, size_t *n, const glm_event *ev)
{
    ck_assert_uint_lt(*n + ev->text_size, 8191);
    memcpy(to + *n, ev->text, ev->text_size);
    *n += ev->text_size;
    to[*n] = '\0';
}

static void put(struct record *r, const glm_event *ev)
{
    put_order(r, ev->type);
    r->n_none += ev->type == GLM_EVENT_NONE;
    if (ev->type == GLM_EVENT_TEXT)
        put_text(r->text, &r->n_text, ev);
    if (ev->type == GLM_EVENT_REASONING)
        put_text(r->thought, &r->n_thought, ev);
    if (ev->type == GLM_EVENT_THINK_CUT) {
        r->n_cut++;
        r->cut = *ev;
    }
    if (ev->type == GLM_EVENT_LOOP) {
        r->n_loop++;
        r->loop = *ev;
    }
    r->end = *ev;
}

static void finish(glm_session *s, uint64_t budget_ns, struct record *r)
{
    glm_step how = GLM_STEP_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    how.budget_ns = budget_ns;
    while (ev.type != GLM_EVENT_TURN_END) {
        OK(glm_session_step(s, &how, &ev, &err));
        put(r, &ev);
        if (ev.type == GLM_EVENT_TOOL_CALL)
            OK(glm_tool_result(s, ev.call_id, "sunny", GLM_NTS, &err));
    }
}

static glm_session *ask(glm_model *m, const glm_turn_options *o, const char *question)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = host_session(m, 0, 0);
    OK(glm_session_turn(s, o, &err));
    host_say(s, question);
    return s;
}

static struct record answer(glm_model *m, const glm_turn_options *o, const char *question, uint64_t budget_ns)
{
    struct record r;
    glm_session *s = ask(m, o, question);
    memset(&r, 0, sizeof r);
    finish(s, budget_ns, &r);
    glm_session_close(s);
    return r;
}

static void same(const struct record *a, const struct record *b)
{
    ck_assert_uint_eq(a->n_text, b->n_text);
    ck_assert(!memcmp(a->text, b->text, a->n_text));
    ck_assert_uint_eq(a->n_thought, b->n_thought);
    ck_assert(!memcmp(a->thought, b->thought, a->n_thought));
    ck_assert_str_eq(a->order, b->order);
    ck_assert_uint_eq(a->n_cut, b->n_cut);
    ck_assert_uint_eq(a->cut.n_think, b->cut.n_think);
    ck_assert_uint_eq(a->end.end_reason, b->end.end_reason);
    ck_assert_uint_eq(a->end.n_think, b->end.n_think);
    ck_assert_uint_eq(a->end.n_answer, b->end.n_answer);
}

static const char sum[] = "What is 23 + 58?";

/* ---- budgets of thought ------------------------------------------------------------------------------------------ */

/* The whole thought first; then every budget below it cuts just there, and the answer follows. */
static void cut_everywhere(glm_model *m, const char *phrase)
{
    glm_turn_options o = greedy(300);
    struct record whole = answer(m, &o, sum, 0);
    size_t n_phrase = phrase ? strlen(phrase) : 0;
    uint32_t n_thought = (uint32_t)whole.end.n_think;

    ck_assert_uint_gt(n_thought, 5);
    for (uint32_t n = 0; n < n_thought; n += n < 8 ? 1 : 5) {
        struct record r;
        o = budget(n, phrase);
        r = answer(m, &o, sum, 0);
        ck_assert_uint_eq(r.n_cut, 1);
        ck_assert_uint_eq(r.cut.n_think, n);
        ck_assert_uint_ge(r.end.n_think, n);
        ck_assert_uint_ge(r.n_thought, n_phrase);
        ck_assert(!memcmp(r.thought, whole.thought, r.n_thought - n_phrase));
        if (phrase)
            ck_assert_str_eq(r.thought + r.n_thought - n_phrase, phrase);
        else
            ck_assert_uint_eq(r.end.n_think, n);
        ck_assert_str_eq(r.order, r.n_thought ? "PRCTE" : "PCTE");
        ck_assert(!strstr(r.text, "think>") && !strstr(r.thought, "think>"));
        ck_assert_uint_lt(n, 1000);
    }
}

START_TEST(a_budget_cuts_the_thought) { cut_everywhere(model, NULL); }
END_TEST

START_TEST(a_phrase_closes_it) { cut_everywhere(model, "So the answer is near."); }
END_TEST

/* The prompt of 4.7 ends inside the thought. */
START_TEST(both_families)
{
    static const char *const phrases[] = { NULL, "Enough." };
    for (int i = 0; i < 2; i++)
        for (uint32_t n = 0; n < 6; n++) {
            glm_turn_options o = budget(n, phrases[i]);
            o.max_tokens = 60;
            struct record r = answer(model47, &o, sum, 0), small = answer(model47, &o, sum, 200000);
            ck_assert_uint_eq(r.n_cut, 1);
            ck_assert_uint_eq(r.cut.n_think, n);
            same(&r, &small);
            if (phrases[i])
                ck_assert_str_eq(r.thought + r.n_thought - 7, "Enough.");
            else if (n == 0)
                ck_assert_str_eq(r.order, "PCTE");
        }
}
END_TEST

START_TEST(a_budget_that_is_not_used_up)
{
    glm_turn_options o = greedy(300), b = budget(100000, "never said");
    struct record free = answer(model, &o, sum, 0), r = answer(model, &b, sum, 0);
    same(&free, &r);
    b = budget((uint32_t)free.end.n_think + 1, "never said"); /* the model closes the thought before it is due */
    r = answer(model, &b, sum, 0);
    same(&free, &r);
}
END_TEST

START_TEST(cut_the_same_whatever_the_steps)
{
    static const uint64_t steps[] = { 200000, 1, 3000000 };
    for (uint32_t n = 0; n < 12; n += 3) {
        glm_turn_options o = budget(n, "Well, that will do.");
        struct record whole = answer(model, &o, sum, 0);
        for (int i = 0; i < 3; i++) {
            struct record r = answer(model, &o, sum, steps[i]);
            same(&whole, &r);
        }
    }
}
END_TEST

/* Forced tokens count: a limit on all tokens holds, and never leaves half a closing phrase. */
START_TEST(limits_hold_with_forced_tokens)
{
    static const char phrase[] = "So the answer is near.";
    for (uint32_t most = 1; most < 40; most++) {
        glm_turn_options o = budget(4, phrase);
        struct record r;
        o.max_tokens = most;
        r = answer(model, &o, sum, 0);
        ck_assert_uint_le(r.end.n_think + r.end.n_answer, most);
        ck_assert(!strstr(r.thought, "So") == !r.n_cut);
        if (r.n_cut)
            ck_assert(strstr(r.thought, phrase));
        if (!r.n_cut)
            ck_assert_uint_eq(r.end.end_reason, GLM_END_LENGTH);
    }
}
END_TEST

/* Random bytes make half characters at every turn: a cut thought is the beginning of the whole one. */
START_TEST(a_cut_leaves_characters_whole)
{
    unsigned n_cut = 0, n_back = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        glm_turn_options o = budget(100000, NULL);
        uint32_t n = 3 + (uint32_t)(seed % 8);
        struct record whole, cut, closed;
        size_t n_phrase = 5;
        o.temperature = 8;
        o.top_p = 1;
        o.seed = seed;
        o.max_tokens = 60;
        whole = answer(model47, &o, "x", 0);
        o.think_tokens = n;
        cut = answer(model47, &o, "x", 0);
        if (!cut.n_cut) /* the model closed its thought before */
            continue;
        n_cut++;
        ck_assert_uint_le(cut.n_thought, whole.n_thought);
        ck_assert(!memcmp(cut.thought, whole.thought, cut.n_thought));
        ck_assert_uint_le(cut.cut.n_think, n + 3);
        n_back += cut.cut.n_think < n;
        o.think_close = "Done.";
        closed = answer(model47, &o, "x", 200000);
        ck_assert_uint_eq(closed.n_cut, 1);
        ck_assert_uint_ge(closed.n_thought, n_phrase);
        ck_assert(!memcmp(closed.thought + closed.n_thought - n_phrase, "Done.", n_phrase));
        ck_assert(!memcmp(closed.thought, cut.thought, cut.n_thought));
        ck_assert_uint_eq(closed.cut.n_think, cut.cut.n_think);
    }
    ck_assert_uint_gt(n_cut, 60);
    ck_assert_uint_gt(n_back, 2); /* it did have to take tokens back */
}
END_TEST

/* ---- the host ends the thought -------------------------------------------------------------------------------------- */

static void step_to(glm_session *s, struct record *r, uint64_t budget_ns, unsigned n)
{
    glm_step how = GLM_STEP_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    how.budget_ns = budget_ns;
    for (unsigned i = 0; i < n && ev.type != GLM_EVENT_TURN_END; i++) {
        OK(glm_session_step(s, &how, &ev, &err));
        put(r, &ev);
    }
}

START_TEST(ended_at_any_step)
{
    unsigned n_cut = 0, n_late = 0;
    for (unsigned n = 1;; n += n < 100 ? 9 : 170) {
        glm_turn_options o = greedy(300);
        glm_error err = GLM_ERROR_INIT;
        struct record r;
        int32_t rc;
        o.think_close = "Stop.";
        glm_session *s = ask(model, &o, sum);
        memset(&r, 0, sizeof r);
        step_to(s, &r, 1, n); /* a unit of work each */
        if (r.end.type == GLM_EVENT_TURN_END) {
            glm_session_close(s);
            break;
        }
        rc = glm_session_end_thought(s, &err);
        if (rc == GLM_OK) {
            n_cut++;
            ck_assert_uint_eq(r.n_text, 0);
            finish(s, 50000, &r);
            ck_assert_uint_eq(r.n_cut, 1);
            ck_assert(r.n_text > 0 && r.n_thought >= 5);
            ck_assert_str_eq(r.thought + r.n_thought - 5, "Stop.");
        } else {
            n_late++;
            ck_assert_int_eq(rc, GLM_ESTATE);
            finish(s, 0, &r);
            ck_assert_uint_eq(r.n_cut, 0);
        }
        ck_assert_uint_eq(r.end.end_reason, GLM_END_STOP);
        host_say(s, "Hello!"); /* the session goes on */
        memset(&r, 0, sizeof r);
        finish(s, 0, &r);
        ck_assert_uint_eq(r.n_cut, 0);
        glm_session_close(s);
    }
    printf("ended %u thoughts, came too late for %u\n", n_cut, n_late);
    ck_assert_uint_gt(n_cut, 5);
    ck_assert_uint_gt(n_late, 1);
}
END_TEST

START_TEST(ended_where_there_is_none)
{
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = greedy(100);
    struct record r;
    glm_session *s = ask(model, &o, sum);
    ck_assert_int_eq(glm_session_end_thought(NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_end_thought(s, &err), GLM_ESTATE); /* no turn yet */
    memset(&r, 0, sizeof r);
    finish(s, 0, &r);
    ck_assert_int_eq(glm_session_end_thought(s, &err), GLM_ESTATE);
    glm_session_close(s);
    o.thinking = GLM_THINK_OFF;
    s = ask(model, &o, sum);
    step_to(s, &r, 0, 1);
    ck_assert_int_eq(glm_session_end_thought(s, &err), GLM_ESTATE);
    glm_session_close(s);
}
END_TEST

/* ---- time ----------------------------------------------------------------------------------------------------------- */

START_TEST(time_runs_out)
{
    static const char question[] = "What is 123 + 456?";
    static const uint64_t steps[] = { 0, 200000 };
    glm_turn_options o = greedy(2000);
    struct record whole = answer(model, &o, question, 0);
    uint64_t prefill = whole.end.prefill_ns, decode = whole.end.decode_ns;
    const uint64_t most[] = { 1, prefill / 2 + 1, prefill + decode / 4, prefill + decode / 2, 1000 * (prefill + decode) };
    unsigned n_early = 0, n_late = 0, n_whole = 0;
    for (int i = 0; i < 10; i++) {
        glm_event ev = GLM_EVENT_INIT;
        glm_error err = GLM_ERROR_INIT;
        struct record r;
        glm_session *s;
        o.max_ns = most[i / 2];
        s = ask(model, &o, question);
        memset(&r, 0, sizeof r);
        finish(s, steps[i % 2], &r);
        if (r.end.end_reason == GLM_END_TIME) {
            ck_assert_uint_ge(r.end.prefill_ns + r.end.decode_ns, o.max_ns);
            ck_assert(!memcmp(r.thought, whole.thought, r.n_thought) && !memcmp(r.text, whole.text, r.n_text));
            *(r.end.n_think + r.end.n_answer ? &n_late : &n_early) += 1;
        } else {
            ck_assert_uint_eq(r.end.end_reason, GLM_END_STOP);
            same(&r, &whole);
            n_whole++;
        }
        if (r.end.n_think + r.end.n_answer) /* the message is there: nothing to do */
            ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE);
        o.max_ns = 0;
        OK(glm_session_turn(s, &o, &err));
        host_say(s, "Hello!");
        memset(&r, 0, sizeof r);
        finish(s, 0, &r);
        ck_assert_uint_eq(r.end.end_reason, GLM_END_STOP);
        glm_session_close(s);
    }
    printf("out of time %u times in the prompt, %u times later\n", n_early, n_late);
    ck_assert_uint_gt(n_early, 0);
    ck_assert_uint_gt(n_late, 0);
    ck_assert_uint_gt(n_whole, 1);
}
END_TEST

/* ---- stops ------------------------------------------------------------------------------------------------------------ */

/* What the next prompt holds of the answer is what was delivered: the same number of tokens as with that text given. */
static void check_kept(glm_session *s, const char *question, const struct record *r)
{
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = greedy(1);
    struct record a, b;
    glm_session *told = ask(model, &o, question);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    OK(glm_session_say(told, GLM_ROLE_ASSISTANT, r->text, r->n_text, &err));
    OK(glm_session_turn(s, &o, &err));
    host_say(s, "And 1 + 1?");
    host_say(told, "And 1 + 1?");
    finish(s, 0, &a);
    finish(told, 0, &b);
    ck_assert_uint_eq(a.end.n_prompt, b.end.n_prompt);
    glm_session_close(told);
}

/* Every piece of the answer as a stop string. */
START_TEST(stop_strings)
{
    static const uint64_t steps[] = { 0, 200000 };
    glm_turn_options o = greedy(300);
    struct record whole = answer(model, &o, sum, 0);
    ck_assert_uint_gt(whole.n_text, 10);
    for (size_t at = 0; at < whole.n_text; at++)
        for (size_t n = 1; n <= 9 && at + n <= whole.n_text; n += 4) {
            char piece[16];
            const char *stop[2] = { "not in there", piece };
            size_t want;
            struct record r;
            glm_session *s;
            memcpy(piece, whole.text + at, n);
            piece[n] = '\0';
            want = (size_t)(strstr(whole.text, piece) - whole.text);
            o.stop = stop;
            o.n_stop = 2;
            s = ask(model, &o, sum);
            memset(&r, 0, sizeof r);
            finish(s, steps[at % 2], &r);
            ck_assert_uint_eq(r.n_text, want);
            ck_assert(!memcmp(r.text, whole.text, want));
            ck_assert_str_eq(r.thought, whole.thought); /* which may hold it: only the answer counts */
            ck_assert_uint_eq(r.end.end_reason, GLM_END_STOP);
            if (at % 5 == 0)
                check_kept(s, sum, &r);
            glm_session_close(s);
        }
}
END_TEST

START_TEST(stops_that_never_come)
{
    const char *stop[64];
    char store[64][8];
    glm_turn_options o = greedy(300);
    struct record whole = answer(model, &o, sum, 0), r;
    for (int i = 0; i < 64; i++) {
        snprintf(store[i], sizeof store[i], "%.3s%c", whole.text + (size_t)i % (whole.n_text - 3), '\x01');
        stop[i] = store[i];
    }
    o.stop = stop;
    o.n_stop = 64;
    r = answer(model, &o, sum, 0);
    ck_assert_str_eq(r.text, whole.text);
    ck_assert_uint_eq(r.end.n_answer, whole.end.n_answer);
}
END_TEST

/* A stop in the text in front of a call ends the turn; what is held back comes before the call otherwise. */
START_TEST(stops_and_calls)
{
    static const char *const stop[] = { "get_weather", "Oslo", "{", "sunny" };
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = greedy(300);
    struct record plain, r;
    glm_session *s;
    memset(&plain, 0, sizeof plain);
    memset(&r, 0, sizeof r);
    s = ask(model, &o, "What is the weather in Oslo?");
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    finish(s, 0, &plain);
    glm_session_close(s);
    ck_assert(strchr(plain.order, 'K') && plain.n_text > 4);
    o.stop = stop; /* in the call: not the answer's text */
    o.n_stop = 3;
    s = ask(model, &o, "What is the weather in Oslo?");
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    finish(s, 0, &r);
    glm_session_close(s);
    ck_assert(strchr(r.order, 'K'));
    const char *at = strstr(plain.text, "Oslo");
    ck_assert_uint_eq(r.n_text, at ? (size_t)(at - plain.text) : plain.n_text);
}
END_TEST

START_TEST(lines_and_random_text)
{
    unsigned n_stop = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        glm_turn_options o = greedy(60);
        struct record whole, r;
        size_t want = 0, lines = 0;
        o.thinking = GLM_THINK_OFF;
        o.temperature = 5;
        o.top_p = 1;
        o.seed = seed;
        whole = answer(model, &o, sum, 0);
        while (want < whole.n_text && (whole.text[want] != '\n' || ++lines < 2))
            want++;
        if (want < whole.n_text && want && whole.text[want - 1] == '\r')
            want--;
        n_stop += want < whole.n_text;
        o.stop_lines = 2;
        r = answer(model, &o, sum, 200000);
        ck_assert_uint_eq(r.n_text, want);
        ck_assert(!memcmp(r.text, whole.text, want));
    }
    ck_assert_uint_gt(n_stop, 3);
}
END_TEST

/* ---- loops -------------------------------------------------------------------------------------------------------------- */

/* Greedy code without an end repeats itself sooner or later. */
START_TEST(a_loop_is_told_once)
{
    static const uint64_t steps[] = { 0, 200000 };
    glm_turn_options o = greedy(400);
    struct record r[2];
    for (int i = 0; i < 2; i++) {
        glm_error err = GLM_ERROR_INIT;
        glm_session *s = host_session(model, 0, 0);
        OK(glm_session_turn(s, &o, &err));
        OK(glm_session_infill(s, "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", GLM_NTS, "", 0, &err));
        memset(&r[i], 0, sizeof r[i]);
        finish(s, steps[i], &r[i]);
        glm_session_close(s);
    }
    same(&r[0], &r[1]);
    ck_assert_uint_eq(r[0].n_loop, 1);
    ck_assert_uint_gt(r[0].loop.rows_total, 0);
    ck_assert_uint_ge(r[0].loop.rows_done, 48 + r[0].loop.rows_total);
    ck_assert_uint_eq(r[0].end.end_reason, GLM_END_LENGTH); /* the turn went on */
}
END_TEST

/* ---- options ------------------------------------------------------------------------------------------------------------ */

/* The library keeps its own copy, and a turn under way its own. */
START_TEST(options_are_copied_and_frozen)
{
    char phrase[16] = "Enough.", word[16];
    const char *stop[1] = { word };
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = budget(3, phrase), other = greedy(5);
    struct record whole = answer(model, &o, sum, 0), want, r;
    glm_session *s;

    snprintf(word, sizeof word, "%.3s", whole.text + 4);
    o.stop = stop;
    o.n_stop = 1;
    want = answer(model, &o, sum, 0);
    ck_assert_uint_lt(want.n_text, whole.n_text);
    s = ask(model, &o, sum);
    memset(phrase, 'x', 7);
    memset(word, 'x', 3);
    stop[0] = NULL;
    memset(&r, 0, sizeof r);
    step_to(s, &r, 0, 1);
    OK(glm_session_turn(s, &other, &err));
    finish(s, 0, &r);
    same(&r, &want);
    host_say(s, sum); /* the new ones */
    memset(&r, 0, sizeof r);
    finish(s, 0, &r);
    ck_assert_uint_eq(r.end.n_think + r.end.n_answer, 5);
    OK(glm_session_turn(s, NULL, &err));
    glm_session_close(s);
}
END_TEST

START_TEST(refused)
{
    const char *stop[2] = { "a", "" };
    const char *many[65];
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o;
    glm_session *s = host_session(model, 0, 0), *s47 = host_session(model47, 0, 0);
    static char text[70000];

    for (int i = 0; i < 65; i++)
        many[i] = "x";
    o = greedy(0), o.stop = stop, o.n_stop = 2;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    ck_assert_str_eq(err.where, "stop");
    stop[1] = "\xff";
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EUTF8);
    stop[1] = NULL;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.stop = many, o.n_stop = 65;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.n_stop = 64;
    OK(glm_session_turn(s, &o, &err));
    memset(text, 'x', sizeof text - 1);
    many[3] = text;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_ELIMIT);
    o.stop = NULL;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o = greedy(0), o.stop_dedent = 2;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o = greedy(0), o.think_close = "a\xc3";
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EUTF8);
    o = greedy(0), o.think_tokens = 7;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o = greedy(0), o.reserved = 7;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o = greedy(0), o.keep_thoughts = 2;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.keep_thoughts = 1;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_ENOTSUP);
    OK(glm_session_turn(s47, &o, &err));
    o = greedy(0), o.tool_choice = GLM_TOOLS_REQUIRED;
    glm_session_close(s);
    glm_session_close(s47);
}
END_TEST

START_TEST(thoughts_are_kept)
{
    uint64_t n_prompt[2];
    for (uint32_t keep = 0; keep < 2; keep++) {
        glm_turn_options o = budget(6, NULL);
        struct record r;
        o.keep_thoughts = keep;
        o.max_tokens = 20;
        glm_session *s = ask(model47, &o, sum);
        memset(&r, 0, sizeof r);
        finish(s, 0, &r);
        ck_assert_uint_gt(r.n_thought, 0);
        host_say(s, "Hello!");
        finish(s, 0, &r);
        n_prompt[keep] = r.end.n_prompt;
        glm_session_close(s);
    }
    ck_assert_uint_gt(n_prompt[1], n_prompt[0]);
}
END_TEST

/* ---- text is data --------------------------------------------------------------------------------------------------- */

static uint64_t prompt_with(uint32_t role, const char *text)
{
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = greedy(1);
    glm_message msg = GLM_MESSAGE_INIT;
    struct record r;
    glm_session *s = ask(model47, &o, "a");
    msg.role = role;
    msg.text = text;
    msg.text_size = GLM_NTS;
    msg.reasoning = role == GLM_ROLE_ASSISTANT ? "" : NULL;
    OK(glm_session_add(s, &msg, &err));
    host_say(s, "b");
    memset(&r, 0, sizeof r);
    finish(s, 0, &r);
    glm_session_close(s);
    return r.end.n_prompt;
}

/* Every special token of the vocabulary in the text of every role: the prompt grows by the tokens of its letters. */
START_TEST(special_tokens_are_text_in_every_role)
{
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    unsigned n_special = 0;
    OK(glm_model_describe(model, &info, &err));
    for (int32_t id = 0; id < (int32_t)info.n_vocab; id++) {
        char text[64];
        int32_t ids[64];
        size_t size = 0, n = 0;
        if (glm_detokenize(model, &id, 1, text, sizeof text, &size, &err) || size == 0 ||
            glm_tokenize(model, text, size, 0, ids, 64, &n, &err) || n < 2 ||
            glm_tokenize(model, text, size, GLM_TOKENIZE_SPECIALS, ids, 64, &size, &err) || size != 1 || ids[0] != id)
            continue;
        n_special++;
        for (uint32_t role = GLM_ROLE_SYSTEM; role <= GLM_ROLE_TOOL; role++)
            ck_assert_uint_eq(prompt_with(role, text), prompt_with(role, "x") + n - 1);
    }
    ck_assert_uint_ge(n_special, 36);
}
END_TEST

/* ---- everything at once ------------------------------------------------------------------------------------------------- */

static glm_turn_options all_rules(uint64_t seed)
{
    static const char *const stop[] = { "zq", "\n\n\n", "42" };
    glm_turn_options o = budget(3 + (uint32_t)(seed % 5), "All right.");
    o.temperature = 3;
    o.top_p = 1;
    o.seed = seed;
    o.max_tokens = 40;
    o.stop = stop;
    o.n_stop = 3;
    o.stop_lines = 3;
    return o;
}

START_TEST(cancelled_anywhere)
{
    for (unsigned n = 0; n < 200; n += 7) {
        glm_turn_options o = all_rules(n % 3);
        struct record r;
        glm_session *s = ask(model, &o, sum);
        memset(&r, 0, sizeof r);
        step_to(s, &r, 30000, n);
        if (r.end.type != GLM_EVENT_TURN_END || n == 0) {
            glm_session_cancel(s);
            finish(s, 0, &r);
            ck_assert(r.end.end_reason == GLM_END_CANCELLED || r.end.pending == 0);
        }
        host_say(s, "Hello!");
        memset(&r, 0, sizeof r);
        finish(s, 0, &r);
        glm_session_close(s);
    }
}
END_TEST

START_TEST(forked_anywhere)
{
    for (unsigned n = 1; n < 120; n += 5) {
        glm_turn_options o = all_rules(n % 4);
        glm_error err = GLM_ERROR_INIT;
        struct record a, b;
        glm_session *s = ask(model, &o, sum), *f = NULL;
        memset(&a, 0, sizeof a);
        step_to(s, &a, 50000, n);
        OK(glm_session_fork(s, &f, &err));
        if (a.end.type != GLM_EVENT_TURN_END) {
            if (n % 2 && glm_session_end_thought(s, &err) == GLM_OK)
                OK(glm_session_end_thought(f, &err));
            b = a;
            finish(s, 0, &a);
            finish(f, 0, &b);
            same(&a, &b);
        }
        glm_session_close(s);
        host_say(f, "Hello!"); /* on its own now */
        memset(&b, 0, sizeof b);
        finish(f, 0, &b);
        glm_session_close(f);
    }
}
END_TEST

/* In shared passes forced tokens are rows like others: the same turns as alone. */
START_TEST(the_same_in_shared_passes)
{
    enum { N = 5 };
    struct record alone[N], r[N];
    glm_session *s[N];
    glm_event ev[N], *events[N];
    glm_error err = GLM_ERROR_INIT;
    unsigned n_done = 0, n_cut = 0;

    memset(r, 0, sizeof r);
    for (unsigned i = 0; i < N; i++) {
        glm_turn_options o = all_rules(i);
        alone[i] = answer(model, &o, sum, 0);
        n_cut += alone[i].n_cut;
        s[i] = ask(model, &o, sum);
        ev[i] = (glm_event)GLM_EVENT_INIT;
        events[i] = &ev[i];
    }
    while (n_done < N) {
        OK(glm_sessions_step(s, N, NULL, events, &err));
        for (unsigned i = 0; i < N; i++) {
            if (ev[i].type == GLM_EVENT_NONE)
                continue;
            put(&r[i], &ev[i]);
            n_done += ev[i].type == GLM_EVENT_TURN_END;
        }
    }
    for (unsigned i = 0; i < N; i++) {
        same(&alone[i], &r[i]);
        glm_session_close(s[i]);
    }
    ck_assert_uint_gt(n_cut, 1);
}
END_TEST

/* A draft of a token that the rules then replace changes nothing. */
START_TEST(the_same_with_drafts)
{
    for (unsigned i = 0; i < 24; i++) {
        static const uint32_t modes[] = { GLM_SPECULATION_OFF, GLM_SPECULATION_ON };
        glm_turn_options o = i % 2 ? all_rules(i) : budget(i, i % 4 ? "All right." : NULL);
        struct record r[2];
        memset(r, 0, sizeof r);
        for (int k = 0; k < 2; k++) {
            glm_session_options so = GLM_SESSION_OPTIONS_INIT;
            glm_error err = GLM_ERROR_INIT;
            glm_session *s = NULL;
            so.speculation = modes[k];
            OK(glm_session_open(i % 3 ? model : model47, &so, &s, &err));
            OK(glm_session_turn(s, &o, &err));
            host_say(s, sum);
            finish(s, 200000, &r[k]);
            glm_session_close(s);
        }
        same(&r[0], &r[1]);
    }
}
END_TEST

/* One turn with all of it, memory failing at the k-th allocation of the session. */
static int32_t turn_with_failure(glm_model *m, struct failing_alloc *f, uint64_t k, glm_error *err)
{
    glm_turn_options o = all_rules(2);
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s = NULL;
    int32_t rc;

    f->n_failed = 0;
    f->fail_at = f->n_alloc + k;
    rc = glm_session_open(m, NULL, &s, err);
    if (!rc)
        rc = glm_session_turn(s, &o, err);
    if (!rc)
        rc = glm_session_infill_file(s, "a.py", "import os", GLM_NTS, err);
    if (!rc)
        rc = glm_session_infill(s, "def f(", GLM_NTS, "\n", GLM_NTS, err);
    if (!rc)
        rc = glm_session_say(s, GLM_ROLE_USER, sum, GLM_NTS, err);
    for (int n = 0; n < 2 && !rc; n += ev.type == GLM_EVENT_TURN_END)
        rc = glm_session_step(s, NULL, &ev, err);
    f->fail_at = 0;
    if (s && rc) { /* the session survives */
        struct record r;
        glm_error again = GLM_ERROR_INIT;
        memset(&r, 0, sizeof r);
        glm_session_cancel(s);
        if (glm_session_say(s, GLM_ROLE_USER, "Hello!", GLM_NTS, &again) == GLM_OK)
            finish(s, 0, &r);
    }
    glm_session_close(s);
    return rc;
}

START_TEST(allocations_fail)
{
    struct failing_alloc f;
    glm_error err = GLM_ERROR_INIT;
    glm_model_options o = GLM_MODEL_OPTIONS_INIT;
    glm_model *m = NULL;
    failing_init(&f, 0, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    uint64_t bytes, k;

    o.allocator = &hook;
    OK(glm_model_open(getenv("GLM_TEST_MODEL"), &o, &m, &err));
    bytes = f.bytes;
    for (k = 1;; k++) {
        int32_t rc = turn_with_failure(m, &f, k, &err);
        ck_assert_uint_eq(f.bytes, bytes);
        if (!failing_hit(&f)) {
            OK(rc);
            break;
        }
        ck_assert_int_eq(rc, GLM_ENOMEM);
    }
    ck_assert_uint_gt(k, 30);
    glm_model_close(m);
    ck_assert_uint_eq(f.bytes, 0);
    ck_assert_uint_eq(f.n_wrong, 0);
}
END_TEST

/* A turn's first step takes all memory: with budgets, rules, forced tokens and events there is nothing left to ask for. */
START_TEST(later_steps_allocate_nothing)
{
    struct failing_alloc f;
    glm_error err = GLM_ERROR_INIT;
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_model *m = NULL;
    failing_init(&f, 0, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    mo.allocator = &hook;
    OK(glm_model_open(getenv("GLM_TEST_MODEL"), &mo, &m, &err));
    for (uint64_t seed = 0; seed < 6; seed++) {
        glm_turn_options o = all_rules(seed);
        glm_session *s;
        struct record r;
        uint64_t n_alloc;
        o.max_tokens = 100;
        s = ask(m, &o, sum);
        memset(&r, 0, sizeof r);
        step_to(s, &r, 1, 1);
        n_alloc = f.n_alloc;
        finish(s, 200000, &r);
        ck_assert_uint_le(f.n_alloc - n_alloc, 4); /* the message that joins the conversation at the end */
        glm_session_close(s);
    }
    glm_model_close(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control");
    TCase *c = tcase_create("control");
    SRunner *r = srunner_create(suite);
    int n_failed;

    tcase_add_checked_fixture(c, open_models, close_models);
    tcase_set_timeout(c, 240);
    tcase_add_test(c, a_budget_cuts_the_thought);
    tcase_add_test(c, a_phrase_closes_it);
    tcase_add_test(c, both_families);
    tcase_add_test(c, a_budget_that_is_not_used_up);
    tcase_add_test(c, cut_the_same_whatever_the_steps);
    tcase_add_test(c, limits_hold_with_forced_tokens);
    tcase_add_test(c, a_cut_leaves_characters_whole);
    tcase_add_test(c, ended_at_any_step);
    tcase_add_test(c, ended_where_there_is_none);
    tcase_add_test(c, time_runs_out);
    tcase_add_test(c, stop_strings);
    tcase_add_test(c, stops_that_never_come);
    tcase_add_test(c, stops_and_calls);
    tcase_add_test(c, lines_and_random_text);
    tcase_add_test(c, a_loop_is_told_once);
    tcase_add_test(c, options_are_copied_and_frozen);
    tcase_add_test(c, refused);
    tcase_add_test(c, thoughts_are_kept);
    tcase_add_test(c, special_tokens_are_text_in_every_role);
    tcase_add_test(c, cancelled_anywhere);
    tcase_add_test(c, forked_anywhere);
    tcase_add_test(c, the_same_in_shared_passes);
    tcase_add_test(c, the_same_with_drafts);
    tcase_add_test(c, allocations_fail);
    tcase_add_test(c, later_steps_allocate_nothing);
    suite_add_tcase(suite, c);
    srunner_run_all(r, CK_NORMAL);
    n_failed = srunner_ntests_failed(r);
    srunner_free(r);
    return n_failed != 0;
}
