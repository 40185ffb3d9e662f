/* stream_int.h: the parser's state, shared by its three files: stream.c (input, segments, the end),
 * stream_call.c (the grammar of a call) and stream_value.c (an argument's value into JSON). Read
 * text.h first.
 *
 * All memory that a token may need is reserved before the token is looked at (stream_room), so that
 * the machine itself can not fail half-way.
 */
#ifndef GLM_TEXT_STREAM_INT_H
#define GLM_TEXT_STREAM_INT_H

#include "text.h"

#define STREAM_NAME_MAX 65536u    /* bytes of a name, a key, or text where only a tag belongs */
#define STREAM_SPACE_MAX 65536u   /* bytes of space that may turn out to be glue */
#define STREAM_ARGUMENTS_MAX 512u /* arguments of one call */

enum stream_state {
    AT_TEXT,
    AT_THOUGHT,
    AT_NAME,      /* behind <tool_call> */
    AT_GAP,       /* between a call's parts */
    AT_KEY,       /* behind <arg_key> */
    AT_AFTER_KEY, /* behind </arg_key> */
    AT_VALUE,     /* behind <arg_value> */
    AT_BROKEN,    /* in a malformed call, up to its end */
    AT_END        /* stopped */
};

struct stream_argument { /* places in the arguments' text */
    size_t key, key_end, end;
    uint64_t hash;
};

struct stream {
    struct mem *mem;
    const struct tok *tok;
    const struct tool_types *types;
    const struct stream_sink *sink; /* of the call that is running */
    glm_error *err;
    int32_t status; /* of the call that is running; sticks */
    int32_t special[TOK_SPECIAL_COUNT];
    struct tok_decoder decoder;
    enum stream_state state;
    bool drop_calls;
    bool unclosed_thought; /* the stop came inside a thought */

    /* the running segment */
    bool in_segment;  /* something of it has been delivered */
    struct buf space; /* glue, unless more text follows */

    /* the running call */
    struct buf name, part; /* part: a key, a value that is not streamed, or what stands where only a
                              tag belongs */
    struct buf arguments;  /* so far, as JSON */
    size_t n_sent;         /* of it, in deltas */
    const struct tool_type *tool;
    struct stream_argument *argument; /* [STREAM_ARGUMENTS_MAX] */
    size_t n_argument;
    bool begun; /* CALL_BEGIN is out */
    bool has_duplicate;
    bool as_string; /* the value is a string for certain and goes out as it comes */
    size_t n_lead;  /* spaces that part begins with, where it is such a value */
    uint32_t value_types;
    uint32_t i_call, n_begun, n_call, n_cut;

    /* Tags inside a value wait here with the text between them until it is clear whether they are
     * the value's text or the sign that its end is missing. A tag is the byte 0xff, which UTF-8
     * does not have, and its number. */
    struct buf held, replay;
    struct buf decoded, scratch;
};

bool stream_is_space(char c);
struct vocab_text stream_trim(const char *text, size_t size); /* JSON's and the grammar's spaces */

void stream_emit(struct stream *s, const struct stream_event *ev);
void stream_on_text(struct stream *s, const char *text, size_t size);
void stream_on_special(struct stream *s, enum tok_special which);

/* stream_call.c */
bool stream_in_call(const struct stream *s);
void stream_call_open(struct stream *s);
void stream_call_text(struct stream *s, const char *text, size_t size);
void stream_call_special(struct stream *s, enum tok_special which);
void stream_call_flush(struct stream *s); /* deltas that are ready */
void stream_call_stop(
    struct stream *s); /* a stop token came: complete the call if that is safe, or cut it */
void stream_call_cut(struct stream *s);    /* CALL_CUT; the state is the caller's */
void stream_call_broken(struct stream *s); /* cut, and nothing more of it is looked at */

/* stream_value.c */
void stream_value_open(struct stream *s);
void stream_value_text(struct stream *s, const char *text, size_t size);
void stream_value_special(struct stream *s, enum tok_special which);
void stream_value_close(struct stream *s);   /* the value is whole: state AT_GAP */
void stream_value_resolve(struct stream *s); /* the end of input decides what held tags were */

#endif
