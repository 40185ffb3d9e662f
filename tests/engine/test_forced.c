/* test_forced.c: tokens that a grammar leaves no choice about are taken without a draw. What comes of a turn is compared with
 * what drawing every token gives: the same prompt, logits, grammar and random numbers, without the turn.
 */
#include "host.h"

#include "lib/engine/engine_int.h"

static glm_model *model;
static struct host_answer turn;

static void open_model(void) { model = host_model(); }
static void close_model(void) { glm_model_close(model); }

/* Keys and values that the model never saw, long ones, which can be cut into tokens in many ways. */
static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"set_lamp\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"zone_of_the_building\": {\"enum\": [\"kitchenette\", \"hallway upstairs\"]}, \"luminosity\": {\"type\": \"array\", \"items\": "
    "{\"type\": \"boolean\"}, \"minItems\": 2, \"maxItems\": 2}, \"why\": {\"type\": \"string\", \"pattern\": \"^because [a-z]{1,5}$\"}}, "
    "\"required\": [\"zone_of_the_building\", \"luminosity\"], \"additionalProperties\": false}}}]";

static glm_turn_options options(float temperature, uint64_t seed)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    o.temperature = temperature;
    o.seed = seed;
    o.top_p = 1;
    o.min_p = 0;
    o.repeat_penalty = 1;
    o.top_k = 0;
    o.max_tokens = 150;
    o.thinking = GLM_THINK_OFF;
    o.tool_choice = GLM_TOOLS_NAMED;
    o.tool_name = "set_lamp";
    return o;
}

/* The ids of the conversation so far, as the session has them. */
static void feed(glm_session *s, const int32_t *ids, size_t n)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    OK(glm_session_feed(s, ids, n, GLM_ROWS_LAST, &err));
    while (ev.type != GLM_EVENT_READY)
        OK(glm_session_step(s, NULL, &ev, &err));
}

static struct con_run *open_run(struct con_grammar **g, struct con_vocab **vocab)
{
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc = { 0 };
    struct con_run *run;
    OK(json_parse(&model->mem, tools, strlen(tools), 0, "tools", &doc, &err));
    struct con_spec spec = { .kind = CON_TURN, .family = model->family, .choice = CON_NAMED, .tools = doc.root,
        .name = "set_lamp", .name_size = 8 };
    OK(con_vocab_open(&model->mem, model->tok, model->info.n_vocab, vocab, &err));
    OK(con_compile(&model->mem, *vocab, &spec, g, &err));
    json_free(&doc);
    OK(con_open(&model->mem, *g, &run, &err));
    return run;
}

/* Draws each token until the call is complete; returns how many were drawn. */
static size_t draw_all(const int32_t *prompt, size_t n_prompt, const glm_turn_options *o, struct ids *out)
{
    static uint32_t bits[4096];
    glm_error err = GLM_ERROR_INIT;
    struct sample_options how = { .temperature = o->temperature, .top_p = 1, .repeat_penalty = 1, .seed = o->seed };
    struct con_grammar *g;
    struct con_vocab *vocab;
    struct con_run *run = open_run(&g, &vocab);
    struct sampler *sampler;
    glm_session *s = host_session(model, 0, 0);
    int32_t id = -1, end = tok_id(model->tok, TOK_TOOL_CALL_END);
    OK(sampler_open(&model->mem, model->info.n_vocab, &sampler, &err));
    feed(s, prompt, n_prompt);
    out->n = 0;
    while (id != end && out->n < 150) {
        const float *logits;
        OK(glm_session_logits(s, GLM_LAST_ROW, &logits, &err));
        OK(con_mask(run, bits, &err));
        OK(sample_draw(sampler, &how, logits, bits, NULL, 0, n_prompt + out->n, &id, &err));
        OK(con_accept(run, id, &err));
        ids_put(out, id);
        feed(s, &id, 1);
    }
    sampler_close(sampler);
    glm_session_close(s);
    con_close(run);
    con_release(g);
    con_vocab_close(vocab);
    return out->n;
}

START_TEST(drawing_gives_the_same)
{
    struct ids drawn;
    uint64_t n_token = 0, n_generated = 0;
    ids_init(&drawn, &model->mem);
    for (uint64_t seed = 1; seed <= 24; seed++) {
        glm_turn_options o = options(seed % 3 == 0 ? 0.0f : seed % 3 == 1 ? 1.5f : 6.0f, seed);
        glm_error err = GLM_ERROR_INIT;
        glm_session *s = host_session(model, 0, 0);
        glm_stats st = GLM_STATS_INIT;
        OK(glm_session_tools(s, tools, GLM_NTS, &err));
        OK(glm_session_turn(s, &o, &err));
        host_say(s, seed % 2 ? "Hello!" : "Use set_lamp with room hall.");
        host_finish(s, 0, NULL, &turn);
        OK(glm_session_stats(s, &st, &err));
        size_t n = draw_all(s->past.id, st.n_prompt, &o, &drawn);
        ck_assert_uint_le(st.n_prompt + n, s->past.n + s->queue.n - s->queue_done + 1);
        for (size_t i = 0; i < n && st.n_prompt + i < s->past.n; i++)
            ck_assert_msg(s->past.id[st.n_prompt + i] == drawn.id[i], "seed %d, token %zu: %d and %d", (int)seed, i,
                s->past.id[st.n_prompt + i], drawn.id[i]);
        n_token += turn.end.n_answer;
        n_generated += st.n_generated;
        glm_session_close(s);
    }
    ck_assert_uint_lt(n_generated, n_token); /* some were not drawn */
    ids_free(&drawn);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("forced");
    TCase *t = tcase_create("forced");
    tcase_add_checked_fixture(t, open_model, close_model);
    tcase_add_test(t, drawing_gives_the_same);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
