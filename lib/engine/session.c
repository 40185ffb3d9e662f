/* session.c: a session's life and the host's side of its conversation. */
#include "engine_int.h"

#include <string.h>

int32_t session_open(glm_model *m, const glm_session_options *opt, glm_session **out, glm_error *err)
{
    glm_session *s;
    uint32_t type = opt->kv_type;

    *out = NULL;
    if (!m->net)
        return err_set(err, GLM_ESTATE, 0, NULL, "the model was opened without weights: nothing can be computed");
    if (opt->n_ctx > m->info.n_ctx_train)
        return err_set(err, GLM_EINVAL, opt->n_ctx, "n_ctx", "the model was made for %u positions", m->info.n_ctx_train);
    s = mem_zalloc(&m->mem, sizeof *s);
    if (!s)
        return err_nomem(err, "a session");
    s->model = m;
    s->n_ctx = opt->n_ctx ? opt->n_ctx : m->info.n_ctx_train;
    s->overflow = opt->overflow;
    s->event_bytes = opt->event_bytes ? opt->event_bytes : DEFAULT_EVENT_BYTES;
    s->options = turn_options_default();
    s->next_call = 1;
    draft_init(&s->draft, s, opt->speculation);
    atomic_flag_clear(&s->busy);
    atomic_init(&s->cancel, false);
    atomic_init(&s->end_thought, false);
    kv_open(&s->kv, m, type == GLM_KV_AUTO ? kv_auto(&m->net->hp) : type);
    messages_init(&s->messages, &m->mem);
    events_init(&s->events, &m->mem);
    infill_init(&s->infill, &m->mem);
    ids_init(&s->past, &m->mem);
    ids_init(&s->queue, &m->mem);
    buf_init(&s->logits, &m->mem);
    buf_init(&s->hidden, &m->mem);
    buf_init(&s->turn.reasoning, &m->mem);
    buf_init(&s->turn.text, &m->mem);
    buf_init(&s->turn.calls, &m->mem);
    buf_init(&s->turn.ready, &m->mem);
    ids_init(&s->turn.close, &m->mem);
    atomic_fetch_add(&m->refs, 1);
    *out = s;
    return GLM_OK;
}

void session_close(glm_session *s)
{
    glm_model *m;
    if (!s)
        return;
    m = s->model;
    run_close(s);
    batch_leave(s);
    turn_free(s);
    events_free(&s->events);
    messages_free(&s->messages);
    infill_free(&s->infill);
    toolset_drop(s->tools);
    mem_free(&m->mem, s->options_block);
    pass_close(s->pass);
    mem_free(&m->mem, s->logit_rows);
    sampler_close(s->sampler);
    draft_free(&s->draft, &m->mem);
    ids_free(&s->past);
    ids_free(&s->queue);
    buf_free(&s->logits);
    buf_free(&s->hidden);
    kv_close(&s->kv);
    mem_free(&m->mem, s);
    engine_release(m);
}

glm_model *session_model(const glm_session *s) { return s->model; }
bool session_enter(glm_session *s) { return !atomic_flag_test_and_set(&s->busy); }
void session_leave(glm_session *s) { atomic_flag_clear(&s->busy); }
void session_cancel(glm_session *s) { atomic_store_explicit(&s->cancel, true, memory_order_relaxed); }

int32_t session_check_idle(const glm_session *s, glm_error *err)
{
    if (!s->model->tok)
        return err_set(err, GLM_ENOTSUP, 0, NULL, "the checkpoint has no tokenizer: only the token level works");
    if (s->state == SESSION_TOOLS)
        return err_set(err, GLM_ESTATE, 0, NULL, "tool calls wait for results: give them or cancel first");
    if (s->state != SESSION_IDLE || s->events.head < s->events.n)
        return err_set(err, GLM_ESTATE, 0, NULL, "a turn is under way: step to its end or cancel first");
    return GLM_OK;
}

int32_t session_add(glm_session *s, const glm_message *msg, glm_error *err)
{
    int32_t rc = session_check_idle(s, err);
    if (!rc)
        rc = messages_add(&s->messages, msg, NULL, 0, err);
    if (!rc)
        atomic_store(&s->cancel, false);
    return rc;
}

int32_t session_messages(glm_session *s, const char *json, size_t size, uint64_t *n_common, glm_error *err)
{
    struct messages fresh;
    struct json_doc doc = { 0 };
    int32_t rc = session_check_idle(s, err);

    messages_init(&fresh, &s->model->mem);
    if (!rc)
        rc = json_parse(&s->model->mem, json, size, 0, "messages", &doc, err);
    if (!rc)
        rc = messages_from_json(&fresh, &doc, err);
    json_free(&doc);
    if (rc) {
        messages_free(&fresh);
        return rc;
    }
    messages_adopt(&fresh, &s->messages);
    messages_free(&s->messages);
    s->messages = fresh;
    s->first_message = 0;
    atomic_store(&s->cancel, false);
    if (n_common)
        *n_common = turn_common(s);
    return GLM_OK;
}

void toolset_drop(struct toolset *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->owners, 1, memory_order_acq_rel) != 1)
        return;
    json_free(&t->doc);
    tool_types_close(t->types);
    mem_free(t->mem, t);
}

int32_t session_tools(glm_session *s, const char *json, size_t size, glm_error *err)
{
    struct mem *m = &s->model->mem;
    struct toolset *t, *before;
    glm_turn_options plain = turn_options_default();
    struct con_grammar *grammar;
    int32_t rc = session_check_idle(s, err);

    if (rc)
        return rc;
    plain.thinking = s->options.thinking;
    t = mem_zalloc(m, sizeof *t);
    if (!t)
        return err_nomem(err, "the tools");
    t->mem = m;
    atomic_init(&t->owners, 1);
    rc = json_parse(m, json, size, JSON_REFUSE_DUPLICATES, "tools", &t->doc, err);
    if (!rc)
        rc = tool_types_open(m, t->doc.root, &t->types, err);
    if (rc) {
        toolset_drop(t);
        return rc;
    }
    if (t->doc.root->count == 0) { /* an empty list takes the tools back */
        toolset_drop(t);
        t = NULL;
    }
    before = s->tools;
    s->tools = t;
    grammars_clear(&s->grammars, m); /* they know the tools before */
    rc = t ? constrain_message(s, &plain, true, &grammar, err) : GLM_OK;
    if (rc) {
        s->tools = before;
        grammars_clear(&s->grammars, m);
        toolset_drop(t);
        return rc;
    }
    toolset_drop(before);
    return GLM_OK;
}

int32_t session_tool_result(glm_session *s, uint64_t call_id, const char *text, size_t size, glm_error *err)
{
    struct turn *t = &s->turn;
    struct call *call = NULL;
    bool all = true;
    char *copy;

    for (size_t i = 0; i < t->n_call; i++) {
        if (t->call[i].id == call_id)
            call = &t->call[i];
        else
            all = all && t->call[i].answered;
    }
    if (!t->active || !call || !call->complete)
        return err_set(err, GLM_EINVAL, call_id, "call_id", "no call %llu waits for a result", (unsigned long long)call_id);
    if (call->answered)
        return err_set(err, GLM_EINVAL, call_id, "call_id", "call %llu has its result already", (unsigned long long)call_id);
    copy = mem_alloc(&s->model->mem, size + 1);
    if (!copy)
        return err_nomem(err, "a tool result");
    memcpy(copy, text, size);
    copy[size] = '\0';
    call->result = copy;
    call->result_size = size;
    call->answered = true;
    if (s->state == SESSION_TOOLS && all) {
        int32_t rc = turn_results(s, err);
        if (rc) {
            call->answered = false;
            call->result = NULL;
            mem_free(&s->model->mem, copy);
            return rc;
        }
        s->state = SESSION_IDLE; /* the next step goes on with the turn */
    }
    return GLM_OK;
}

void session_stats(const glm_session *s, glm_stats *out)
{
    *out = s->stats;
    out->kv_bytes = (uint64_t)s->kv.seq.n_page * s->kv.page_bytes;
    out->kv_shared_bytes = kv_shared_bytes(&s->kv);
    out->draft_speedup = draft_speedup(s);
    if (s->model->net->cache) {
        struct cache_stats c;
        cache_stats(s->model->net->cache, &c);
        out->n_expert_hit = c.n_hit;
        out->n_expert_miss = c.n_miss;
        out->n_expert_foreseen = c.n_prefetched;
        out->n_foreseen_used = c.n_prefetch_used;
        out->expert_bytes_read = c.bytes_read;
        out->expert_wait_ns = c.wait_ns;
    }
}
