/* engine.h: models and sessions, as lib/api sees them. Arguments have been checked by lib/api: pointers are
 * there, structs are whole, text is valid UTF-8. Each function that can fail leaves what the caller can see
 * unchanged when it does.
 */
#ifndef GLM_ENGINE_ENGINE_H
#define GLM_ENGINE_ENGINE_H

#include "../base/base.h"

/* ---- models (model.c) -------------------------------------------------------------------------- */

int32_t engine_open(const char *path, const glm_model_options *opt, glm_model **out, glm_error *err);
void engine_release(glm_model *m); /* the last reference closes it; sessions hold one each */
void engine_describe(const glm_model *m, glm_model_info *out);
int32_t engine_estimate(const char *path, const glm_model_options *opt,
    const glm_session_options *sopt, uint32_t n_sessions, glm_estimate *out, glm_error *err);
bool engine_forked(const glm_model *m); /* in a child of the process that opened it */
int32_t engine_tokenize(const glm_model *m, const char *text, size_t size, uint32_t flags,
    int32_t *ids, size_t capacity, size_t *n, glm_error *err);
int32_t engine_detokenize(const glm_model *m, const int32_t *ids, size_t n, char *text,
    size_t capacity, size_t *size, glm_error *err);

/* ---- sessions (session.c, turn.c, step.c, tokens.c) ---------------------------------------------- */

int32_t session_open(glm_model *m, const glm_session_options *opt, glm_session **out, glm_error *err);
void session_close(glm_session *s);
glm_model *session_model(const glm_session *s);
bool session_enter(glm_session *s); /* false: another thread is inside, or the worker runs it */
void session_leave(glm_session *s);
/* For what is legal on a session that the worker runs, too: *started says so, and is given back. */
bool session_enter_started(glm_session *s, bool *started);
void session_leave_started(glm_session *s, bool started);

int32_t session_add(glm_session *s, const glm_message *msg, glm_error *err);
int32_t session_messages(glm_session *s, const char *json, size_t size, uint64_t *n_common,
    glm_error *err);
int32_t session_tools(glm_session *s, const char *json, size_t size, glm_error *err);
int32_t session_turn(glm_session *s, const glm_turn_options *opt, glm_error *err);
int32_t session_step(glm_session *s, uint64_t budget_ns, glm_event *ev, glm_error *err);
/* Sessions of one model, each entered, none twice. Each then has its event; none has advanced if this fails. */
int32_t sessions_step(glm_session *const *s, uint32_t n, uint64_t budget_ns, glm_error *err);
void session_event(glm_session *s, glm_event *ev);
int32_t session_tool_result(glm_session *s, uint64_t call_id, const char *text, size_t size,
    glm_error *err);
void session_cancel(glm_session *s);
int32_t session_fork(glm_session *s, glm_session **out, glm_error *err);
int32_t session_mark(const glm_session *s, uint64_t *mark, glm_error *err);
int32_t session_rewind(glm_session *s, uint64_t mark, glm_error *err);
int32_t session_end_thought(glm_session *s, glm_error *err);
int32_t session_infill(glm_session *s, const char *prefix, size_t prefix_size, const char *suffix, size_t suffix_size,
    glm_error *err);
int32_t session_infill_file(glm_session *s, const char *path, const char *text /* NULL: takes it back */, size_t size,
    glm_error *err);
void session_stats(const glm_session *s, glm_stats *out);
/* snapshot.c */
int32_t session_save(glm_session *s, const char *path, glm_error *err);
int32_t session_save_to(glm_session *s, const glm_stream *to, glm_error *err);
int32_t session_load(glm_model *m, const char *path, const glm_session_options *opt, glm_session **out, glm_error *err);
int32_t session_load_from(glm_model *m, const glm_stream *from, const glm_session_options *opt, glm_session **out,
    glm_error *err);
int32_t session_feed(glm_session *s, const int32_t *ids, size_t n, uint32_t rows, glm_error *err);
int32_t session_logits(glm_session *s, uint64_t row, const float **logits, glm_error *err);
int32_t session_hidden(glm_session *s, uint64_t row, const float **hidden, glm_error *err);
int32_t session_mask(glm_session *s, const uint32_t **bits, glm_error *err);
int32_t session_sample(glm_session *s, int32_t *id, glm_error *err);

/* ---- the worker (worker.c) ------------------------------------------------------------------------ */

int32_t session_start(glm_session *s, glm_error *err); /* entered; and stays so until the turn's end is polled */
int32_t session_poll(glm_session *s, glm_event *ev, glm_error *err); /* not entered */
intptr_t session_fd(const glm_session *s);

#endif
