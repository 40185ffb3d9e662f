/* engine_int.h: what the parts of the engine share behind engine.h. */
#ifndef GLM_ENGINE_INT_H
#define GLM_ENGINE_INT_H

#include "../model/model.h"
#include "../text/constraint.h"
#include "../text/text.h"
#include "engine.h"

#define PREFILL_ROWS 512u        /* rows of a prefill chunk */
#define DEFAULT_MAX_TOKENS 8192u
#define DEFAULT_EVENT_BYTES (1u << 20)
#define DRAFT_MEAN 64u           /* tokens whose mean time is compared */
#define BATCH_MAX 64u            /* sessions in one shared pass */

/* What tokens cost with and without drafts of the MTP layer (draft.c). */
struct draft_time {
    double plain, drafted;       /* ns a token, without drafts and with them: means of the last tokens */
    uint32_t of_plain, of_drafted; /* how many tokens the means are of, at most DRAFT_MEAN */
    uint64_t n_plain, n_drafted; /* tokens since the times were last compared afresh */
};

struct glm_model {
    struct mem mem;
    struct fs fs;
    glm_logger log;              /* write NULL: silent */
    struct ckpt *ckpt;
    struct tok *tok;             /* NULL: token level only */
    struct draft_time draft_time; /* as the sessions found it; under lock */
    struct con_vocab *con;       /* NULL until a grammar was needed; under lock */
    struct net *net;             /* NULL: GLM_WEIGHTS_NONE */
    enum chat_family family;
    glm_model_info info;
    uint32_t *plain_mask;        /* bit per id: ordinary tokens of the vocabulary, none of them added */
    uint64_t kv_cap;             /* 0: none */
    _Atomic uint64_t kv_used;
    atomic_uint refs;
    uint64_t pid;
    struct monitor *lock;        /* of the following; held for moments */
    struct shared_pass *shared;  /* all of them (batch.c) */
    uint64_t n_ticket;           /* shared passes begun */
    struct worker *worker;       /* NULL: no session was started */
};

/* ---- KV cache (kv.c): pages of one session ------------------------------------------------------ */

struct kv {
    glm_model *model;
    struct kv_seq seq;
    uint32_t capacity;           /* of seq.page */
    size_t page_bytes;
};
void kv_open(struct kv *kv, glm_model *m, uint32_t type);
void kv_close(struct kv *kv);
/* Pages for positions below n_pos, those from position `from` on for this session alone: they may be written. A failure
 * takes no page. */
int32_t kv_reserve(struct kv *kv, uint64_t from, uint64_t n_pos, glm_error *err);
/* The pages of the first n_pos positions, shared, into an open cache of the same type that has none. */
int32_t kv_fork(struct kv *to, const struct kv *from, uint64_t n_pos, glm_error *err);
uint64_t kv_shared_bytes(const struct kv *kv);
uint32_t kv_auto(const struct hparams *hp);  /* what GLM_KV_AUTO means for a model */

/* ---- events (events.c) ------------------------------------------------------------------------- */

/* Queued events own their text in one buffer, which is reused when the queue has run empty and the next
 * call comes. Offsets, not pointers: the buffer may move while it fills. */
struct queued {
    glm_event ev;
    size_t text, name, arguments; /* offsets into bytes, or SIZE_MAX: none */
};
struct events {
    struct mem *mem;
    struct queued *item;
    size_t n, head, capacity;
    struct buf bytes;
};
void events_init(struct events *q, struct mem *m);
void events_free(struct events *q);
struct queued *events_add(struct events *q, uint32_t type); /* NULL: out of memory */
bool events_text(struct events *q, size_t *offset, const char *text, size_t size);
bool events_take(struct events *q, glm_event *out);  /* false: none. Keeps out->struct_size */
void events_recycle(struct events *q);               /* nothing points into it any more */
bool events_copy(struct events *to, const struct events *from); /* what is not delivered, into an empty queue */
void events_clear(struct events *q);
void events_cut(struct events *q, size_t n, size_t bytes); /* back to an earlier length */
bool events_reserve(struct events *q, size_t n, size_t bytes); /* room for n more; false: out of memory */
/* All of `from` behind those of `to`. false: out of memory, nothing moved; never so where `to` has run empty. */
bool events_move(struct events *to, struct events *from);
uint64_t event_bytes(const glm_event *ev); /* what it takes in a queue, about */

/* ---- conversation (messages.c) ------------------------------------------------------------------- */

/* What messages point to: never changed once it is made, and shared by forks. A whole array of messages may share one. */
struct message_text {
    atomic_uint owners;          /* messages */
    struct mem *mem;
    struct arena arena;
    struct json_doc doc;         /* the arguments of calls, or the array that the messages came in */
};
struct message {
    struct message_text *text;
    struct chat_message chat;    /* with the ids that the model wrote it in, where it did */
    struct chat_call *kept;      /* owned, or NULL: chat.calls once calls without results were left out */
    uint64_t call_id;            /* tool results: the call that is answered */
};
struct messages {
    struct mem *mem;
    struct message *item;
    size_t n, capacity;
};
void messages_init(struct messages *v, struct mem *m);
void messages_cut(struct messages *v, size_t n);       /* forgets those from n on */
void messages_free(struct messages *v);
/* Appends a copy of a message in its public form. ids: what the model wrote it in, from behind <|assistant|> on; or NULL.
 * A failure leaves the conversation as it was. */
int32_t messages_add(struct messages *v, const glm_message *from, const struct ids *ids, uint64_t call_id, glm_error *err);
/* All messages of an OpenAI-style array, into an empty conversation, which then owns *doc. */
int32_t messages_from_json(struct messages *v, struct json_doc *doc, glm_error *err);
/* Messages of v that say the same as those of `old` in the same places become those: with the ids they were written in. */
void messages_adopt(struct messages *v, const struct messages *old);
/* The messages of `from`, shared, into an empty conversation. */
int32_t messages_fork(struct messages *to, const struct messages *from, glm_error *err);
/* Leaves out the last message's calls for which keep is false. */
int32_t messages_keep_calls(struct messages *v, const bool *keep, glm_error *err);
/* The records that chat_render reads, in arena: the first n_lead messages and those from first on; *n of them. */
struct chat_message *messages_chat(const struct messages *v, size_t n_lead, size_t first, struct arena *arena, size_t *n);

/* ---- prompts (prompt.c) ---------------------------------------------------------------------------- */

struct prompt {
    struct ids ids;
    size_t first;                /* message that it begins with, behind the leading system messages */
    size_t body;                 /* where the model's message begins: behind the last <|assistant|> */
};
void prompt_init(struct prompt *p, const glm_session *s); /* p->ids: freed by the caller */
/* The whole prompt, without turns that the session lets go so that `want` more tokens fit. It may still be too long. */
int32_t prompt_build(const glm_session *s, const glm_turn_options *opt, uint64_t want, struct prompt *p, glm_error *err);
size_t prompt_common(const glm_session *s, const struct prompt *p); /* ids that the cache begins with, too */

/* Declared tools: never changed, shared by forks. */
struct toolset {
    atomic_uint owners;
    struct mem *mem;
    struct json_doc doc;         /* the array */
    struct tool_types *types;
};
void toolset_drop(struct toolset *t); /* NULL is fine */

/* ---- code (infill.c) --------------------------------------------------------------------------------- */

struct infill_file {
    char *path;
    struct ids ids;              /* what the prompt shows of it */
};
struct infill {
    struct mem *mem;
    struct infill_file *file;
    size_t n_file, capacity;
    bool pending;                /* the next step begins the turn */
    struct ids prompt;
    struct buf line;             /* the line that the code goes on with, as far as its indentation shows */
    struct tok_decoder decoder;
    struct buf decoded;
};
void infill_init(struct infill *v, struct mem *m);
void infill_free(struct infill *v);
int32_t infill_copy(struct infill *to, const struct infill *from, glm_error *err); /* into an empty one */
int32_t infill_begin(glm_session *s, uint64_t *n_left, glm_error *err);
int32_t infill_put(glm_session *s, int32_t id, glm_error *err); /* a token of the code */

/* A call that the model made in the current turn. */
struct call {
    uint64_t id;
    bool complete;               /* delivered whole */
    bool answered;
    char *result;                /* owned */
    size_t result_size;
};

/* ---- session ------------------------------------------------------------------------------------ */

enum session_state {
    SESSION_IDLE,
    SESSION_FEED,        /* token level: computing queued ids, then READY */
    SESSION_PREFILL,     /* a turn: computing the prompt */
    SESSION_DECODE,      /* a turn: computing the last sampled token */
    SESSION_TOOLS        /* the message stopped with calls that lack results */
};

struct turn {
    glm_turn_options opt;        /* frozen at the turn's first step */
    void *opt_block;             /* what its pointers point into */
    struct sample_options sample;
    struct ids close;            /* tokens that end a thought early: the closing phrase and </think> */
    struct text_stop *stop;      /* NULL: no rules */
    struct buf ready;            /* text that has passed them */
    struct text_loop loop;
    bool active;                 /* between the first step and the turn's end */
    bool infill;                 /* it writes code */
    bool stopped;                /* the model has ended its message, or a stop rule has */
    bool ruled;                  /* it was a stop rule: nothing more of the message is delivered */
    bool thought;                /* the message has, or had, one */
    uint64_t n_thought;          /* tokens of it */
    uint64_t n_left;             /* tokens that may still be generated */
    uint64_t n_prompt, n_reused, n_think, n_answer;
    uint64_t prefill_ns, decode_ns;
    size_t body;                 /* position of the message's first token, behind <|assistant|> */
    /* of the message being generated */
    struct buf reasoning, text, calls; /* calls: a JSON array without its end */
    struct call *call;
    size_t n_call, call_capacity;
    struct stream *stream;
    struct con_run *run;         /* the grammar that the message keeps to; NULL: none */
    uint32_t *base, *mask;       /* ids that may be sampled at all; of those, where there is a run, the ones that fit now */
    bool has_mask;               /* mask is up to date */
};

/* Where a session's rows stand in a forward pass. */
struct chunk {
    uint32_t row, n_row;         /* of the pass */
    uint32_t logit, n_logit;     /* of its rows with logits */
};

/* A session's part in a shared pass (batch.c). */
struct share {
    struct shared_pass *pass;    /* NULL: none. Lives as long as the model */
    uint64_t ticket;             /* of the pass that it took part in: over if the pass has another by now */
    struct chunk chunk;
    int32_t rc, id;              /* of finishing: the token drawn */
    bool drawn;
};

/* Speculative decoding (draft.c). */
struct draft {
    uint32_t mode;               /* GLM_SPECULATION_*; OFF where the checkpoint has no MTP layer */
    bool on;                     /* in this turn */
    bool running, wants;         /* a pass of the MTP layer is under way in the session's pass; for a draft */
    bool has, verify;            /* a draft waits; the trunk's pass has it as its last row */
    int32_t id;
    size_t n_pos;                /* the MTP layer's keys and values are right below this position */
    float *hidden;               /* [n_hidden, d_model] the trunk's states from n_pos on */
    int32_t *ids;
    size_t n_hidden, capacity;
    uint32_t logit_row;
    struct draft_time time;
    uint64_t ns;                 /* spent since the last token */
    bool with_draft, caught_up;  /* the token being computed: with a draft; after states of several tokens had waited */
};

/* Grammars that were compiled of late (constrain.c). */
#define GRAMMARS_KEPT 4u
struct grammar {
    struct con_grammar *grammar; /* NULL: none */
    char *key;                   /* what it was compiled from, beside the session's tools */
    size_t key_size;
    uint64_t used;
};
struct grammars {
    struct grammar item[GRAMMARS_KEPT];
    uint64_t clock;
};
void grammars_clear(struct grammars *v, struct mem *m);

struct glm_session {
    glm_model *model;
    atomic_flag busy;
    atomic_bool cancel;
    atomic_bool end_thought;     /* the host wants the thought closed */
    uint32_t n_ctx, overflow;
    enum session_state state;
    struct messages messages;
    size_t first_message;        /* prompts begin here, behind the leading system messages: older turns were let go */
    struct toolset *tools;       /* NULL: none declared */
    glm_turn_options options;    /* of turns to come */
    void *options_block;         /* what their pointers point into */
    uint64_t next_call;
    struct kv kv;
    struct ids past;             /* tokens whose keys and values are in the cache */
    struct ids queue;            /* tokens to compute, from queue_done on */
    size_t queue_done;
    uint32_t feed_rows;          /* GLM_ROWS_* of the feed in the queue */
    struct pass *pass;           /* of its own: NULL until it steps alone */
    uint32_t pass_rows, pass_logits;
    bool pass_running;
    struct chunk chunk;          /* of the running pass */
    struct segment segment;      /* of the running pass */
    uint32_t *logit_rows;        /* [pass_logits] */
    struct kv_seq *seq;
    struct buf logits, hidden;   /* of a feed with GLM_ROWS_ALL, or what is kept of a shared pass */
    uint64_t n_fed, n_kept;      /* rows of the last feed; with GLM_ROWS_ALL those that are kept */
    bool has_logits;             /* of the last position in the cache, at: */
    const float *last_logits, *last_hidden;
    bool in_batch;               /* it steps with others: no pass of its own is needed */
    struct share share;
    struct sampler *sampler;
    struct draft draft;
    struct grammars grammars;    /* of the tools as they are declared now */
    struct con_run *token_run;   /* the token level's, since the first mask or draw; NULL: none */
    uint32_t *token_mask;
    struct turn turn;
    struct infill infill;
    struct events events;
    bool failed;                 /* in a batch: `failure` is its next event */
    glm_error failure;
    struct run *_Atomic run;     /* its part in the worker (worker.c); NULL: never started */
    uint64_t event_bytes;
    glm_stats stats;
};

int32_t session_check_idle(const glm_session *s, glm_error *err); /* the conversation may be changed between turns only */

/* begin.c */
int32_t turn_begin(glm_session *s, glm_error *err); /* the turn, or its next message */
bool turn_due(const glm_session *s);   /* the conversation waits for an answer, or code is to be written */
uint64_t turn_common(glm_session *s);
int32_t turn_check_length(const glm_session *s, uint64_t n_prompt, bool first, uint64_t *n_left, glm_error *err);
int32_t turn_queue(glm_session *s, const struct prompt *p, uint64_t n_left, glm_error *err); /* takes the turn's memory */
int32_t turn_open_stream(glm_session *s, struct stream **out, glm_error *err); /* for the turn's next message */
int32_t turn_reserve_text(glm_session *s, glm_error *err); /* empties the turn's text and makes room */
uint64_t turn_pass_rows(const glm_session *s, uint64_t n); /* rows of a pass for a turn with n new tokens */

/* turn.c */
/* A sampled token becomes events, and at the message's end messages. */
int32_t turn_token(glm_session *s, int32_t id, glm_error *err);
/* Known tokens instead of sampled ones, in order: as if they had been sampled, but they are computed in one pass. Fewer where
 * they end the message. turn_settle follows. */
int32_t turn_force(glm_session *s, const int32_t *ids, size_t n, glm_error *err);
/* Where the message stands after its tokens so far: ended, at a limit, at the end of its thought, or to be gone on with. */
int32_t turn_settle(glm_session *s, glm_error *err);
int32_t turn_answer(glm_session *s, const char *text, size_t size); /* more of the answer; GLM_ENOMEM without a record */
bool turn_expired(const glm_session *s);             /* the turn's computing time is used up */
int32_t turn_expire(glm_session *s, glm_error *err); /* ends it for that */
uint64_t turn_deadline(const glm_session *s, uint64_t now, uint64_t deadline); /* the earlier of the step's and the turn's */
int32_t turn_end(glm_session *s, uint32_t reason, glm_error *err);
int32_t turn_results(glm_session *s, glm_error *err); /* all calls answered: results become messages */
int32_t turn_cancel(glm_session *s, glm_error *err);
void turn_abort(glm_session *s);       /* after a failed step: the message being generated is dropped */
void turn_drop_calls(glm_session *s);
void turn_free(glm_session *s);

/* think.c */
bool think_due(const glm_session *s);                /* the thought is to be closed before anything is sampled */
int32_t think_close(glm_session *s, glm_error *err); /* queues what closes it; n_left 0: there is no room for that */

/* options.c */
glm_turn_options turn_options_default(void);
/* A copy that owns what it points to: *block, freed with mem_free; NULL where there is nothing. */
int32_t turn_options_copy(struct mem *m, const glm_turn_options *from, glm_turn_options *to, void **block, glm_error *err);
int32_t turn_freeze(glm_session *s, glm_error *err); /* the turn's own options, and what follows from them */
int32_t turn_copy_rules(struct mem *m, struct turn *to, const struct turn *from, glm_error *err); /* what turn_freeze made */
int32_t turn_sample_options(const glm_session *s, struct sample_options *out, glm_error *err);

/* ---- what is saved of a session beside its tokens and its cache (saved.c) ------------------------------ */

struct saved {
    const char *at;              /* bytes of a snapshot's section */
    size_t left;
    bool bad;
    uint64_t offset;             /* in the file, for errors */
    const char *where;
};
void saved_put_session(const glm_session *s, struct buf *out); /* with the turn under way */
void saved_put_messages(const struct messages *v, struct buf *out);
/* Into a new session: messages first. GLM_EFORMAT for bytes that no session can have. */
int32_t saved_take_messages(struct saved *in, glm_session *s, glm_error *err);
int32_t saved_take_session(struct saved *in, glm_session *s, glm_error *err);

/* tokens.c */
/* What it takes to compute n_new tokens from position `from` on, and more up to position n_pos. */
int32_t tokens_reserve(glm_session *s, uint64_t from, uint64_t n_new, uint64_t n_pos, glm_error *err);
int32_t tokens_ready(glm_session *s, glm_error *err); /* work space for what is queued */
void tokens_truncate(glm_session *s, size_t n);
void tokens_drop_queue(glm_session *s);
/* Computes queued tokens until a chunk is done, the time is up (*done false) or a cancel comes. */
int32_t tokens_run(glm_session *s, uint64_t deadline, bool *done, glm_error *err);
int32_t tokens_draw(glm_session *s, const struct sample_options *o, const uint32_t *mask, int32_t *id,
    glm_error *err);
/* A pass that is shared: rows [c->row, c->row + c->n_row) are the next ones of the queue. Fills in those with logits, from
 * c->logit on. */
void tokens_chunk(const glm_session *s, struct chunk *c, uint32_t *logit_rows);
int32_t tokens_computed(glm_session *s, const struct pass *p, const struct chunk *c, glm_error *err);
void tokens_keep_last(glm_session *s); /* the last position's results: the pass goes on to others */
bool tokens_all_rows(const glm_session *s);
uint32_t tokens_logit_rows(const glm_model *m);

/* constrain.c */
/* What a message has to keep to under these options: NULL, or the session's own grammar, which need not be released. first:
 * of the turn's messages, the one that tool_choice is about. */
int32_t constrain_message(glm_session *s, const glm_turn_options *opt, bool first, struct con_grammar **out, glm_error *err);
int32_t constrain_begin(glm_session *s, bool first, struct con_run **out, glm_error *err); /* of the turn's next message */
int32_t constrain_mask(glm_session *s, const uint32_t **mask, glm_error *err); /* for the message's next token */
int32_t constrain_take(glm_session *s, int32_t id, glm_error *err);
void constrain_forget(glm_session *s, size_t n_token);     /* the last ones were taken back */
int32_t constrain_forced(glm_session *s, bool *took, glm_error *err); /* takes the next token if only one can come */
int32_t constrain_tokens(glm_session *s, const uint32_t **mask, glm_error *err); /* the token level's; NULL: all ids */
int32_t constrain_fed(glm_session *s, const int32_t *ids, size_t n, glm_error *err);
void constrain_unfed(glm_session *s, size_t n); /* the last n were not computed after all */
int32_t constrain_copy(glm_session *to, const glm_session *from, glm_error *err);
void constrain_close(glm_session *s);

/* draft.c */
void draft_init(struct draft *d, const glm_session *s, uint32_t mode);
void draft_free(struct draft *d, struct mem *m);
int32_t draft_reserve(glm_session *s, uint32_t n_row, glm_error *err); /* for passes of up to n_row rows */
int32_t draft_copy(glm_session *to, const glm_session *from, glm_error *err);
/* A turn's prompt begins behind the first `common` tokens of the cache: how many of them can really be kept. */
size_t draft_begin(glm_session *s, size_t common);
void draft_truncate(glm_session *s, size_t n);
/* The last n_row tokens of the past were computed: their states are rows of a pass. */
void draft_computed(glm_session *s, const struct pass *p, uint32_t row, uint32_t n_row);
bool draft_due(const glm_session *s);  /* the MTP layer is to be run before the queue */
int32_t draft_run(glm_session *s, uint64_t deadline, const struct stop *stop, bool *done, glm_error *err);
bool draft_joins(glm_session *s);      /* draft.ids are the next pass's ids: the queue's token and the draft */
bool draft_accept(glm_session *s);     /* the token drawn last is the draft: its results are the last ones now */
void draft_drop(glm_session *s);       /* what is under way */
void draft_timed(glm_session *s, uint64_t ns, uint64_t n);
double draft_speedup(const glm_session *s); /* 0: not measured */

/* step.c */
enum step_work {
    STEP_NOTHING,    /* no turn is due */
    STEP_WAIT,       /* calls wait for results */
    STEP_CANCEL, STEP_BEGIN, STEP_COMPUTE
};
enum step_work step_work(const glm_session *s);
int32_t step_refuse(enum step_work work, glm_error *err); /* GLM_ESTATE, for one of the first two */
int32_t step_cancel(glm_session *s, glm_error *err);
bool step_draws(const glm_session *s);                    /* after a chunk: the next token is to be drawn */
int32_t step_draw(glm_session *s, int32_t *id, glm_error *err);
/* After a chunk, with the token drawn where there is one: events. */
int32_t step_chunk(glm_session *s, const int32_t *id, glm_error *err);
void step_failed(glm_session *s);                         /* ends the turn */
void step_event(glm_session *s, glm_event *ev);           /* the next event; GLM_EVENT_NONE without one */

/* batch.c */
/* At most one shared pass; events wait in the sessions. `hurry`, or NULL: another thread asks for an early return. */
int32_t batch_step(glm_session *const *s, uint32_t n, uint64_t deadline, const atomic_bool *hurry, glm_error *err);
void batch_leave(glm_session *s);   /* its part in a pass that a budget cut short is void */
void batch_free(glm_model *m);

/* worker.c */
/* The worker's turn to change a session, while the host may call what is legal on a started one. Nothing to do with
 * sessions that the worker does not run. */
void run_hold(glm_session *s);
void run_release(glm_session *s);
void run_close(glm_session *s);     /* takes it from the worker first */

#endif
