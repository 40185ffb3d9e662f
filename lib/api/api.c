/* api.c: the public functions. They check arguments, copy structs into the sizes that the library knows, guard sessions
 * against a second thread and handles against fork, and call the engine. Nothing else happens here. */
#include "../engine/engine.h"

#include <string.h>

#define STOPS_MAX 64u
#define TURN_OPTIONS_FIRST offsetof(glm_turn_options, keep_thoughts) /* its size in the first version */

/* ---- structs --------------------------------------------------------------------------------------------------- */

static bool all_zero(const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            return false;
    return true;
}

/* Copies a host's struct over the defaults in `to`. `known` is its size in this version, `first` in the first one. */
static int32_t take_struct(void *to, size_t known, size_t first, const void *from, const char *name, glm_error *err)
{
    uint32_t size;
    if (!from)
        return GLM_OK;
    memcpy(&size, from, sizeof size);
    if (size < first)
        return err_set(err, GLM_EINVAL, size, name, "struct_size is %u, at least %zu is needed: use the INIT macro", size,
            first);
    if (size > known && !all_zero((const unsigned char *)from + known, size - known))
        return err_set(err, GLM_EVERSION, known, name, "fields behind the %zu bytes that this library knows are set", known);
    memcpy(to, from, size < known ? size : known);
    return GLM_OK;
}

static int32_t check_out(const void *to, size_t first, const char *name, glm_error *err)
{
    uint32_t size;
    if (!to)
        return err_set(err, GLM_EINVAL, 0, name, "NULL");
    memcpy(&size, to, sizeof size);
    if (size < first)
        return err_set(err, GLM_EINVAL, size, name, "struct_size is %u, at least %zu is needed: use the INIT macro", size,
            first);
    return GLM_OK;
}

/* Fills a host's struct, of whatever version, and keeps its struct_size. */
static void give_struct(void *to, const void *from, size_t known)
{
    uint32_t size;
    memcpy(&size, to, sizeof size);
    memset((unsigned char *)to + sizeof size, 0, size - sizeof size);
    memcpy((unsigned char *)to + sizeof size, (const unsigned char *)from + sizeof size,
        (size < known ? size : known) - sizeof size);
}

static int32_t null_argument(glm_error *err, const char *name)
{
    return err_set(err, GLM_EINVAL, 0, name, "NULL");
}

static int32_t check_range(uint32_t value, uint32_t most, const char *name, glm_error *err)
{
    return value > most ? err_set(err, GLM_EINVAL, value, name, "%u is not one of its values", value) : GLM_OK;
}

/* ---- library ------------------------------------------------------------------------------------------------------ */

GLM_API uint32_t GLM_CALL glm_version(void)
{
    return GLM_VERSION_MAJOR * 10000 + GLM_VERSION_MINOR * 100 + GLM_VERSION_PATCH;
}

GLM_API const char *GLM_CALL glm_status_name(int32_t status)
{
    static const char *const names[] = { "GLM_OK", "GLM_EINVAL", "GLM_ENOMEM", "GLM_EIO", "GLM_EFORMAT", "GLM_ESTATE",
        "GLM_EBUSY", "GLM_ELIMIT", "GLM_ECONTEXT", "GLM_EUTF8", "GLM_ESCHEMA", "GLM_EVERSION", "GLM_EMISMATCH",
        "GLM_EDEVICE", "GLM_ENUMERIC", "GLM_EFORK", "GLM_ENOTSUP" };
    return status <= 0 && status > -(int32_t)ARRAY_LEN(names) ? names[-status] : "unknown status";
}

/* ---- models -------------------------------------------------------------------------------------------------------- */

static int32_t check_hooks(const glm_model_options *o, glm_error *err)
{
    if (o->allocator && (o->allocator->struct_size < sizeof *o->allocator || !o->allocator->alloc || !o->allocator->release))
        return err_set(err, GLM_EINVAL, 0, "allocator", "struct_size, alloc and release must be set");
    if (o->logger && (o->logger->struct_size < sizeof *o->logger || !o->logger->write))
        return err_set(err, GLM_EINVAL, 0, "logger", "struct_size and write must be set");
    if (o->runner && (o->runner->struct_size < sizeof *o->runner || !o->runner->run || !o->runner->width))
        return err_set(err, GLM_EINVAL, 0, "runner", "struct_size, width and run must be set");
    if (o->files && (o->files->struct_size < sizeof *o->files || !o->files->open || !o->files->read || !o->files->close ||
            !o->files->map != !o->files->unmap))
        return err_set(err, GLM_EINVAL, 0, "files", "struct_size, open, read and close, and map with unmap, must be set");
    return GLM_OK;
}

static int32_t take_model_options(glm_model_options *to, const glm_model_options *from, glm_error *err)
{
    int32_t rc;
    *to = (glm_model_options)GLM_MODEL_OPTIONS_INIT;
    rc = take_struct(to, sizeof *to, sizeof *to, from, "glm_model_options", err);
    if (!rc)
        rc = check_range(to->weights, GLM_WEIGHTS_NONE, "weights", err);
    if (!rc)
        rc = check_range(to->template_family, GLM_TEMPLATE_47, "template_family", err);
    if (!rc)
        rc = check_range(to->device, GLM_DEVICE_CUDA, "device", err);
    if (!rc)
        rc = check_range(to->activations, GLM_ACTIVATIONS_F32, "activations", err);
    return rc ? rc : check_hooks(to, err);
}

static int32_t take_session_options(glm_session_options *to, const glm_session_options *from, glm_error *err)
{
    int32_t rc;
    *to = (glm_session_options)GLM_SESSION_OPTIONS_INIT;
    rc = take_struct(to, sizeof *to, offsetof(glm_session_options, speculation), from, "glm_session_options", err);
    if (!rc)
        rc = check_range(to->kv_type, GLM_KV_FP8, "kv_type", err);
    if (!rc)
        rc = check_range(to->speculation, GLM_SPECULATION_ON, "speculation", err);
    if (!rc && to->reserved)
        rc = err_set(err, GLM_EINVAL, to->reserved, "reserved", "must be 0");
    return rc ? rc : check_range(to->overflow, GLM_OVERFLOW_DROP_OLDEST, "overflow", err);
}

GLM_API int32_t GLM_CALL glm_model_open(const char *path, const glm_model_options *opt, glm_model **out, glm_error *err)
{
    glm_model_options o;
    int32_t rc;
    if (out)
        *out = NULL;
    if (!path || !out)
        return null_argument(err, path ? "out" : "path");
    rc = take_model_options(&o, opt, err);
    return rc ? rc : engine_open(path, &o, out, err);
}

GLM_API void GLM_CALL glm_model_close(glm_model *m)
{
    if (m && !engine_forked(m))
        engine_release(m);
}

static int32_t check_model(const glm_model *m, glm_error *err)
{
    if (!m)
        return null_argument(err, "m");
    return engine_forked(m) ? err_set(err, GLM_EFORK, 0, NULL, "the model was opened by the parent process: open it again")
                            : GLM_OK;
}

GLM_API int32_t GLM_CALL glm_model_describe(const glm_model *m, glm_model_info *out, glm_error *err)
{
    glm_model_info info;
    int32_t rc = check_model(m, err);
    if (!rc)
        rc = check_out(out, sizeof info, "glm_model_info", err);
    if (rc)
        return rc;
    engine_describe(m, &info);
    give_struct(out, &info, sizeof info);
    return GLM_OK;
}

GLM_API int32_t GLM_CALL glm_model_estimate(const char *path, const glm_model_options *opt,
    const glm_session_options *sopt, uint32_t n_sessions, glm_estimate *out, glm_error *err)
{
    glm_model_options o;
    glm_session_options so;
    glm_estimate e = GLM_ESTIMATE_INIT;
    int32_t rc;

    if (!path)
        return null_argument(err, "path");
    rc = check_out(out, sizeof e, "glm_estimate", err);
    if (!rc)
        rc = take_model_options(&o, opt, err);
    if (!rc)
        rc = take_session_options(&so, sopt, err);
    if (!rc)
        rc = engine_estimate(path, &o, &so, n_sessions, &e, err);
    if (!rc)
        give_struct(out, &e, sizeof e);
    return rc;
}

GLM_API int32_t GLM_CALL glm_tokenize(const glm_model *m, const char *text, size_t size, uint32_t flags, int32_t *ids,
    size_t capacity, size_t *n, glm_error *err)
{
    int32_t rc = check_model(m, err);
    if (!rc && (!n || (!ids && capacity)))
        rc = null_argument(err, n ? "ids" : "n");
    if (!rc)
        rc = check_range(flags, GLM_TOKENIZE_SPECIALS, "flags", err);
    if (!rc)
        rc = utf8_argument(text, &size, "text", err);
    return rc ? rc : engine_tokenize(m, text, size, flags, ids, capacity, n, err);
}

GLM_API int32_t GLM_CALL glm_detokenize(const glm_model *m, const int32_t *ids, size_t n, char *text, size_t capacity,
    size_t *size, glm_error *err)
{
    int32_t rc = check_model(m, err);
    if (!rc && (!size || (!ids && n) || (!text && capacity)))
        rc = null_argument(err, !size ? "size" : !ids && n ? "ids" : "text");
    return rc ? rc : engine_detokenize(m, ids, n, text, capacity, size, err);
}

/* ---- sessions -------------------------------------------------------------------------------------------------------- */

GLM_API int32_t GLM_CALL glm_session_open(glm_model *m, const glm_session_options *opt, glm_session **out, glm_error *err)
{
    glm_session_options o;
    int32_t rc;
    if (out)
        *out = NULL;
    if (!out)
        return null_argument(err, "out");
    rc = check_model(m, err);
    if (!rc)
        rc = take_session_options(&o, opt, err);
    return rc ? rc : session_open(m, &o, out, err);
}

GLM_API void GLM_CALL glm_session_close(glm_session *s)
{
    if (s && !engine_forked(session_model(s)))
        session_close(s);
}

/* Every call but close and cancel runs between enter and session_leave. */
static int32_t enter(glm_session *s, glm_error *err)
{
    int32_t rc;
    if (!s)
        return null_argument(err, "s");
    rc = check_model(session_model(s), err);
    if (rc)
        return rc;
    return session_enter(s) ? GLM_OK
                            : err_set(err, GLM_EBUSY, 0, NULL, "the session is in use by another thread or by the worker");
}

static int32_t leave(glm_session *s, int32_t rc)
{
    session_leave(s);
    return rc;
}

/* The parts of a message that have to be text. */
static int32_t check_message(glm_message *m, glm_error *err)
{
    int32_t rc = check_range(m->role, GLM_ROLE_TOOL, "role", err);
    if (!rc)
        rc = check_range(m->flags, GLM_MESSAGE_SPECIALS, "flags", err);
    if (!rc && m->reserved)
        rc = err_set(err, GLM_EINVAL, m->reserved, "reserved", "must be 0");
    if (!rc && (m->reasoning || m->calls_json) && m->role != GLM_ROLE_ASSISTANT)
        rc = err_set(err, GLM_EINVAL, m->role, "role", "only an assistant's message has reasoning or calls");
    if (!rc && !m->text && m->text_size == 0)
        m->text = "";
    if (!rc)
        rc = utf8_argument(m->text, &m->text_size, "text", err);
    if (!rc && m->reasoning)
        rc = utf8_argument(m->reasoning, &m->reasoning_size, "reasoning", err);
    if (!rc && m->calls_json)
        rc = utf8_argument(m->calls_json, &m->calls_size, "calls_json", err);
    return rc;
}

GLM_API int32_t GLM_CALL glm_session_add(glm_session *s, const glm_message *msg, glm_error *err)
{
    glm_message m = GLM_MESSAGE_INIT;
    int32_t rc;
    if (!msg)
        return null_argument(err, "msg");
    rc = take_struct(&m, sizeof m, sizeof m, msg, "glm_message", err);
    if (!rc)
        rc = check_message(&m, err);
    if (!rc)
        rc = enter(s, err);
    return rc ? rc : leave(s, session_add(s, &m, err));
}

GLM_API int32_t GLM_CALL glm_session_say(glm_session *s, uint32_t role, const char *text, size_t size, glm_error *err)
{
    glm_message m = GLM_MESSAGE_INIT;
    m.role = role;
    m.text = text;
    m.text_size = size;
    if (!text)
        return null_argument(err, "text");
    return glm_session_add(s, &m, err);
}

/* A call that takes one text. */
static int32_t with_text(glm_session *s, const char *text, size_t *size, const char *name, glm_error *err)
{
    int32_t rc = text ? utf8_argument(text, size, name, err) : null_argument(err, name);
    return rc ? rc : enter(s, err);
}

GLM_API int32_t GLM_CALL glm_session_messages(glm_session *s, const char *json, size_t size, uint64_t *n_common,
    glm_error *err)
{
    int32_t rc = with_text(s, json, &size, "json", err);
    return rc ? rc : leave(s, session_messages(s, json, size, n_common, err));
}

GLM_API int32_t GLM_CALL glm_session_tools(glm_session *s, const char *json, size_t size, glm_error *err)
{
    int32_t rc = with_text(s, json, &size, "json", err);
    return rc ? rc : leave(s, session_tools(s, json, size, err));
}

/* What is legal on a session that the worker runs, too. */
static int32_t enter_started(glm_session *s, bool *started, glm_error *err)
{
    int32_t rc;
    if (!s)
        return null_argument(err, "s");
    rc = check_model(session_model(s), err);
    if (rc)
        return rc;
    return session_enter_started(s, started) ? GLM_OK
                                             : err_set(err, GLM_EBUSY, 0, NULL, "the session is in use by another thread");
}

GLM_API int32_t GLM_CALL glm_tool_result(glm_session *s, uint64_t call_id, const char *text, size_t size, glm_error *err)
{
    bool started;
    int32_t rc = text ? utf8_argument(text, &size, "text", err) : null_argument(err, "text");
    if (!rc)
        rc = enter_started(s, &started, err);
    if (rc)
        return rc;
    rc = session_tool_result(s, call_id, text, size, err);
    session_leave_started(s, started);
    return rc;
}

/* Text that may be absent, and ends at its NUL. */
static int32_t check_option_text(const char *text, const char *name, glm_error *err)
{
    size_t size = GLM_NTS;
    return text ? utf8_argument(text, &size, name, err) : GLM_OK;
}

static int32_t check_stops(const glm_turn_options *o, glm_error *err)
{
    int32_t rc = check_range(o->stop_dedent, 1, "stop_dedent", err);
    if (!rc && o->n_stop > STOPS_MAX)
        rc = err_set(err, GLM_EINVAL, o->n_stop, "n_stop", "%u stop strings, at most %u are allowed", o->n_stop, STOPS_MAX);
    if (!rc && o->n_stop && !o->stop)
        rc = null_argument(err, "stop");
    for (uint32_t i = 0; i < o->n_stop && !rc; i++)
        rc = o->stop[i] ? check_option_text(o->stop[i], "stop", err) : null_argument(err, "stop");
    return rc;
}

static int32_t check_turn_options(const glm_turn_options *o, glm_error *err)
{
    int32_t rc = check_range(o->thinking, GLM_THINK_BUDGET, "thinking", err);
    if (!rc)
        rc = check_range(o->tool_choice, GLM_TOOLS_NAMED, "tool_choice", err);
    if (!rc)
        rc = check_range(o->keep_thoughts, 1, "keep_thoughts", err);
    if (!rc && o->top_k < -1)
        rc = err_set(err, GLM_EINVAL, 0, "top_k", "%d is below -1", o->top_k);
    if (!rc && o->reserved)
        rc = err_set(err, GLM_EINVAL, o->reserved, "reserved", "must be 0");
    if (!rc)
        rc = check_option_text(o->tool_name, "tool_name", err);
    if (!rc)
        rc = check_option_text(o->think_close, "think_close", err);
    if (!rc)
        rc = check_option_text(o->answer_schema, "answer_schema", err);
    if (!rc)
        rc = check_option_text(o->answer_pattern, "answer_pattern", err);
    return rc ? rc : check_stops(o, err);
}

GLM_API int32_t GLM_CALL glm_session_turn(glm_session *s, const glm_turn_options *opt, glm_error *err)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    int32_t rc = take_struct(&o, sizeof o, TURN_OPTIONS_FIRST, opt, "glm_turn_options", err);
    if (!rc)
        rc = check_turn_options(&o, err);
    if (!rc)
        rc = enter(s, err);
    return rc ? rc : leave(s, session_turn(s, &o, err));
}

GLM_API int32_t GLM_CALL glm_session_end_thought(glm_session *s, glm_error *err)
{
    bool started;
    int32_t rc = enter_started(s, &started, err);
    if (rc)
        return rc;
    rc = session_end_thought(s, err);
    session_leave_started(s, started);
    return rc;
}

static int32_t take_step(glm_step *to, const glm_step *from, glm_error *err)
{
    int32_t rc;
    *to = (glm_step)GLM_STEP_INIT;
    rc = take_struct(to, sizeof *to, sizeof *to, from, "glm_step", err);
    return rc || !to->reserved ? rc : err_set(err, GLM_EINVAL, to->reserved, "reserved", "must be 0");
}

GLM_API int32_t GLM_CALL glm_session_step(glm_session *s, const glm_step *how, glm_event *ev, glm_error *err)
{
    glm_step step;
    glm_event event = GLM_EVENT_INIT;
    int32_t rc = check_out(ev, sizeof event, "glm_event", err);
    if (!rc)
        rc = take_step(&step, how, err);
    if (!rc)
        rc = enter(s, err);
    if (rc)
        return rc;
    rc = leave(s, session_step(s, step.budget_ns, &event, err));
    if (!rc)
        give_struct(ev, &event, sizeof event);
    return rc;
}

/* ---- code ---------------------------------------------------------------------------------------------------------------- */

GLM_API int32_t GLM_CALL glm_session_infill(glm_session *s, const char *prefix, size_t prefix_size, const char *suffix,
    size_t suffix_size, glm_error *err)
{
    int32_t rc = prefix ? utf8_argument(prefix, &prefix_size, "prefix", err) : null_argument(err, "prefix");
    if (!rc)
        rc = suffix ? utf8_argument(suffix, &suffix_size, "suffix", err) : null_argument(err, "suffix");
    if (!rc)
        rc = enter(s, err);
    return rc ? rc : leave(s, session_infill(s, prefix, prefix_size, suffix, suffix_size, err));
}

GLM_API int32_t GLM_CALL glm_session_infill_file(glm_session *s, const char *path, const char *text, size_t size,
    glm_error *err)
{
    size_t path_size = GLM_NTS;
    int32_t rc = path ? utf8_argument(path, &path_size, "path", err) : null_argument(err, "path");
    if (!rc && path_size == 0)
        rc = err_set(err, GLM_EINVAL, 0, "path", "the path is empty");
    if (!rc && text)
        rc = utf8_argument(text, &size, "text", err);
    if (!rc)
        rc = enter(s, err);
    return rc ? rc : leave(s, session_infill_file(s, path, text, size, err));
}

static int32_t at_index(glm_error *err, uint32_t i, int32_t rc)
{
    if (rc && err)
        err->offset = i;
    return rc;
}

/* Sessions of one model, none twice, and room for an event of each. */
static int32_t check_sessions(glm_session *const *s, uint32_t n, glm_event *const *events, glm_error *err)
{
    glm_model_info info;
    int32_t rc = GLM_OK;

    if (!s || !events)
        return null_argument(err, s ? "events" : "s");
    if (n == 0 || !s[0])
        return n ? null_argument(err, "s") : err_set(err, GLM_EINVAL, 0, "n", "there are no sessions");
    rc = check_model(session_model(s[0]), err);
    if (rc)
        return rc;
    engine_describe(session_model(s[0]), &info);
    if (n > info.batch_max)
        return err_set(err, GLM_EINVAL, n, "n", "at most %u sessions step together", info.batch_max);
    for (uint32_t i = 0; i < n && !rc; i++) {
        if (!s[i])
            rc = null_argument(err, "s");
        else if (session_model(s[i]) != session_model(s[0]))
            rc = err_set(err, GLM_EINVAL, i, "s", "session %u is of another model than the first", i);
        for (uint32_t j = 0; j < i && !rc; j++)
            if (s[j] == s[i])
                rc = err_set(err, GLM_EINVAL, i, "s", "session %u is session %u", i, j);
        if (!rc)
            rc = check_out(events[i], sizeof(glm_event), "events", err);
        at_index(err, i, rc);
    }
    return rc;
}

GLM_API int32_t GLM_CALL glm_sessions_step(glm_session *const *s, uint32_t n, const glm_step *how,
    glm_event *const *events, glm_error *err)
{
    glm_step step;
    uint32_t n_entered = 0;
    int32_t rc = check_sessions(s, n, events, err);

    if (!rc)
        rc = take_step(&step, how, err);
    while (!rc && n_entered < n) {
        rc = at_index(err, n_entered, enter(s[n_entered], err));
        n_entered += !rc;
    }
    if (!rc)
        rc = sessions_step(s, n, step.budget_ns, err);
    for (uint32_t i = 0; i < n && !rc; i++) {
        glm_event event = GLM_EVENT_INIT;
        session_event(s[i], &event);
        give_struct(events[i], &event, sizeof event);
    }
    while (n_entered > 0)
        session_leave(s[--n_entered]);
    return rc;
}

GLM_API void GLM_CALL glm_session_cancel(glm_session *s)
{
    if (s)
        session_cancel(s);
}

GLM_API int32_t GLM_CALL glm_session_fork(glm_session *s, glm_session **out, glm_error *err)
{
    int32_t rc;
    if (!out)
        return null_argument(err, "out");
    *out = NULL;
    rc = enter(s, err);
    return rc ? rc : leave(s, session_fork(s, out, err));
}

GLM_API int32_t GLM_CALL glm_session_mark(glm_session *s, uint64_t *mark, glm_error *err)
{
    int32_t rc = mark ? enter(s, err) : null_argument(err, "mark");
    return rc ? rc : leave(s, session_mark(s, mark, err));
}

GLM_API int32_t GLM_CALL glm_session_rewind(glm_session *s, uint64_t mark, glm_error *err)
{
    int32_t rc = enter(s, err);
    return rc ? rc : leave(s, session_rewind(s, mark, err));
}

GLM_API int32_t GLM_CALL glm_session_stats(glm_session *s, glm_stats *out, glm_error *err)
{
    glm_stats stats = GLM_STATS_INIT;
    bool started;
    int32_t rc = check_out(out, offsetof(glm_stats, draft_speedup), "glm_stats", err);
    if (!rc)
        rc = enter_started(s, &started, err);
    if (rc)
        return rc;
    session_stats(s, &stats);
    session_leave_started(s, started);
    give_struct(out, &stats, sizeof stats);
    return GLM_OK;
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------- */

static int32_t take_stream(glm_stream *to, const glm_stream *from, bool writing, glm_error *err)
{
    const char *name = writing ? "to" : "from";
    int32_t rc;

    memset(to, 0, sizeof *to);
    rc = from ? take_struct(to, sizeof *to, sizeof *to, from, "glm_stream", err) : null_argument(err, name);
    if (!rc && to->reserved)
        rc = err_set(err, GLM_EINVAL, to->reserved, "reserved", "must be 0");
    if (!rc && (writing ? !to->write : !to->read))
        rc = null_argument(err, writing ? "write" : "read");
    return rc;
}

GLM_API int32_t GLM_CALL glm_session_save(glm_session *s, const char *path, glm_error *err)
{
    int32_t rc = path ? enter(s, err) : null_argument(err, "path");
    return rc ? rc : leave(s, session_save(s, path, err));
}

GLM_API int32_t GLM_CALL glm_session_save_to(glm_session *s, const glm_stream *to, glm_error *err)
{
    glm_stream stream;
    int32_t rc = take_stream(&stream, to, true, err);
    if (!rc)
        rc = enter(s, err);
    return rc ? rc : leave(s, session_save_to(s, &stream, err));
}

static int32_t check_load(const glm_model *m, const glm_session_options *opt, glm_session **out, glm_session_options *o,
    glm_error *err)
{
    int32_t rc;
    if (!out)
        return null_argument(err, "out");
    *out = NULL;
    rc = check_model(m, err);
    return rc ? rc : take_session_options(o, opt, err);
}

GLM_API int32_t GLM_CALL glm_session_load(glm_model *m, const char *path, const glm_session_options *opt,
    glm_session **out, glm_error *err)
{
    glm_session_options o;
    int32_t rc = check_load(m, opt, out, &o, err);
    if (!rc && !path)
        rc = null_argument(err, "path");
    return rc ? rc : session_load(m, path, &o, out, err);
}

GLM_API int32_t GLM_CALL glm_session_load_from(glm_model *m, const glm_stream *from, const glm_session_options *opt,
    glm_session **out, glm_error *err)
{
    glm_session_options o;
    glm_stream stream;
    int32_t rc = check_load(m, opt, out, &o, err);
    if (!rc)
        rc = take_stream(&stream, from, false, err);
    return rc ? rc : session_load_from(m, &stream, &o, out, err);
}

/* ---- the worker ------------------------------------------------------------------------------------------------------- */

/* A session that was started stays entered: it is the worker's until the turn's end is polled. */
GLM_API int32_t GLM_CALL glm_session_start(glm_session *s, glm_error *err)
{
    int32_t rc = enter(s, err);
    if (rc)
        return rc;
    rc = session_start(s, err);
    return rc ? leave(s, rc) : GLM_OK;
}

GLM_API int32_t GLM_CALL glm_session_poll(glm_session *s, glm_event *ev, glm_error *err)
{
    glm_event event = GLM_EVENT_INIT;
    int32_t rc = check_out(ev, sizeof event, "glm_event", err);
    if (!rc && !s)
        rc = null_argument(err, "s");
    if (!rc)
        rc = check_model(session_model(s), err);
    if (!rc)
        rc = session_poll(s, &event, err);
    if (!rc)
        give_struct(ev, &event, sizeof event);
    return rc;
}

GLM_API intptr_t GLM_CALL glm_session_fd(glm_session *s)
{
    return s && !engine_forked(session_model(s)) ? session_fd(s) : -1;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------------ */

GLM_API int32_t GLM_CALL glm_session_feed(glm_session *s, const int32_t *ids, size_t n, uint32_t rows, glm_error *err)
{
    int32_t rc = check_range(rows, GLM_ROWS_ALL, "rows", err);
    if (!rc && (!ids || n == 0))
        rc = ids ? err_set(err, GLM_EINVAL, 0, "n", "there are no ids") : null_argument(err, "ids");
    if (!rc)
        rc = enter(s, err);
    return rc ? rc : leave(s, session_feed(s, ids, n, rows, err));
}

GLM_API int32_t GLM_CALL glm_session_logits(glm_session *s, uint64_t row, const float **logits, glm_error *err)
{
    int32_t rc = logits ? enter(s, err) : null_argument(err, "logits");
    return rc ? rc : leave(s, session_logits(s, row, logits, err));
}

GLM_API int32_t GLM_CALL glm_session_hidden(glm_session *s, uint64_t row, const float **hidden, glm_error *err)
{
    int32_t rc = hidden ? enter(s, err) : null_argument(err, "hidden");
    return rc ? rc : leave(s, session_hidden(s, row, hidden, err));
}

GLM_API int32_t GLM_CALL glm_session_mask(glm_session *s, const uint32_t **bits, glm_error *err)
{
    int32_t rc = bits ? enter(s, err) : null_argument(err, "bits");
    return rc ? rc : leave(s, session_mask(s, bits, err));
}

GLM_API int32_t GLM_CALL glm_session_sample(glm_session *s, int32_t *id, glm_error *err)
{
    int32_t rc = id ? enter(s, err) : null_argument(err, "id");
    return rc ? rc : leave(s, session_sample(s, id, err));
}
