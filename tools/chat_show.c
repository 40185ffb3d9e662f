/* chat_show.c: see chat_show.h. */
#include "chat_show.h"

#include <string.h>

#define PREFILL_SHOWN 256u   /* prompts of fewer tokens need no bar */
#define RESULT_SHOWN 400u    /* bytes of a tool's result that a person gets to see */

FILE *show_remarks(const struct show *s) { return s->terminal.out ? stdout : stderr; }

static void put(struct show *s, FILE *to, enum style style, const char *text, size_t size)
{
    if (size == 0)
        return;
    terminal_style(&s->terminal, to, style);
    terminal_text(&s->terminal, to, text, size);
    terminal_style(&s->terminal, to, STYLE_PLAIN);
    s->fresh_line = text[size - 1] == '\n';
}

static void end_line(struct show *s, FILE *to)
{
    if (!s->fresh_line)
        fputc('\n', to);
    s->fresh_line = true;
}

/* Thought, answer and calls each begin on a line of their own. */
static void change_kind(struct show *s, FILE *to, uint32_t type)
{
    if (s->last != type && s->last != GLM_EVENT_NONE) {
        end_line(s, to);
        if (s->terminal.out && type == GLM_EVENT_TEXT)
            fputc('\n', to);
    }
    s->last = type;
}

void show_remark(struct show *s, const char *text)
{
    if (s->terminal.out)
        end_line(s, stdout);
    fflush(stdout);
    terminal_style(&s->terminal, stdout, STYLE_DIM);
    fprintf(show_remarks(s), "[%s]\n", text);
    terminal_style(&s->terminal, stdout, STYLE_PLAIN);
}

void show_result(struct show *s, const struct tool_answer *a)
{
    FILE *to = show_remarks(s);
    size_t n = a->size;

    if (n > RESULT_SHOWN)
        for (n = RESULT_SHOWN; n > 0 && ((unsigned char)a->text[n] & 0xc0) == 0x80;)
            n--;
    put(s, to, STYLE_TOOL, a->failed ? "  failed: " : "  result: ", 10);
    put(s, to, STYLE_DIM, a->text, n);
    if (n < a->size) {
        char more[64];
        put(s, to, STYLE_DIM, more, (size_t)snprintf(more, sizeof more, " ... (%zu bytes)", a->size));
    }
    end_line(s, to);
}

static void put_end(struct show *s, const glm_event *ev)
{
    double seconds = (double)ev->decode_ns * 1e-9;
    uint64_t n = ev->n_think + ev->n_answer;

    if (s->terminal.out || s->last == GLM_EVENT_TEXT)
        end_line(s, stdout);
    if (ev->end_reason == GLM_END_LENGTH)
        show_remark(s, "cut: --max-tokens or the context is used up");
    if (ev->end_reason == GLM_END_TIME)
        show_remark(s, "cut: --max-seconds is used up");
    if (ev->end_reason == GLM_END_CANCELLED)
        show_remark(s, "stopped");
    if (s->terminal.out && s->terminal.in) {
        char counts[96];
        snprintf(counts, sizeof counts, "%llu + %llu tokens, %.1f a second", (unsigned long long)ev->n_prompt,
            (unsigned long long)n, seconds > 0 ? (double)n / seconds : 0);
        show_remark(s, counts);
    }
    fflush(stdout);
}

static void put_count(struct show *s, const char *fmt, uint64_t a, uint64_t b)
{
    char text[128];
    snprintf(text, sizeof text, fmt, (unsigned long long)a, (unsigned long long)b);
    show_remark(s, text);
}

void show_begin(struct show *s)
{
    s->last = GLM_EVENT_NONE;
    s->fresh_line = true;
    progress_begin(&s->progress, "reading the prompt");
}

void show_event(struct show *s, const glm_event *ev)
{
    FILE *remarks = show_remarks(s);

    if (ev->type != GLM_EVENT_NONE && ev->type != GLM_EVENT_PREFILL)
        progress_end(&s->progress);
    switch (ev->type) {
    case GLM_EVENT_NONE:
    case GLM_EVENT_PREFILL:
        if (ev->rows_total >= PREFILL_SHOWN)
            progress_show(&s->progress, (double)ev->rows_done, (double)ev->rows_total, "tokens");
        break;
    case GLM_EVENT_REASONING:
        if (!s->terminal.out && !s->thinking)
            break;
        change_kind(s, stdout, ev->type);
        put(s, stdout, STYLE_DIM, ev->text, ev->text_size);
        break;
    case GLM_EVENT_TEXT:
        change_kind(s, stdout, ev->type);
        put(s, stdout, STYLE_PLAIN, ev->text, ev->text_size);
        break;
    case GLM_EVENT_TOOL_CALL_BEGIN:
        change_kind(s, remarks, GLM_EVENT_TOOL_CALL);
        end_line(s, remarks);
        put(s, remarks, STYLE_TOOL, ev->name, ev->name_size);
        put(s, remarks, STYLE_TOOL, "(", 1);
        break;
    case GLM_EVENT_TOOL_CALL_DELTA: put(s, remarks, STYLE_DIM, ev->text, ev->text_size); break;
    case GLM_EVENT_TOOL_CALL: put(s, remarks, STYLE_TOOL, ")\n", 2); break;
    case GLM_EVENT_THINK_CUT:
        if (s->terminal.out || s->thinking)
            put_count(s, "thought closed after %llu tokens", ev->n_think, 0);
        break;
    case GLM_EVENT_LOOP:
        put_count(s, "the model repeats itself: %llu tokens of the same %llu over and over", ev->rows_done, ev->rows_total);
        break;
    case GLM_EVENT_TURN_END: put_end(s, ev); break;
    default: break;
    }
    fflush(stdout);
}

void show_abort(struct show *s)
{
    end_line(s, stdout);
    fflush(stdout);
}
