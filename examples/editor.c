/* editor.c: what an editor does with a model: at every pause in the typing it asks for the code at the cursor, shows it as
 * it comes, and gives up as soon as the next key is pressed. The rest of the project is shown to the model once; what it
 * computed of it is used again at every request.
 *
 *     editor MODEL
 */
#include <glm45/glm45.h>
#include <stdio.h>
#include <string.h>

#define STEP_NS 4000000u /* between two looks at the keyboard */

static const char neighbour[] = "def greater(size, limit):\n    return size > limit\n";

/* The keyboard of this example: the text before the cursor, key by key; a key is pressed while the model still writes. */
static const char *const typed[] = { "def less(", "def less(i, acroup):\n", "def less(i, acroup):\n    return" };
static const char behind[] = "\n";

static int key_pressed(size_t i_pause, unsigned n_event)
{
    return i_pause + 1 < sizeof typed / sizeof *typed && n_event >= 1;
}

/* Asks at one pause in the typing. Returns with the suggestion as far as it came. */
static int32_t suggest(glm_session *s, size_t i_pause, char *text, size_t capacity, glm_event *ev, glm_error *err)
{
    glm_step how = GLM_STEP_INIT;
    size_t size = 0;
    int32_t rc = glm_session_infill(s, typed[i_pause], GLM_NTS, behind, GLM_NTS, err);

    how.budget_ns = STEP_NS;
    ev->type = GLM_EVENT_NONE;
    for (unsigned n_event = 0; !rc && ev->type != GLM_EVENT_TURN_END; n_event += ev->type != GLM_EVENT_NONE) {
        if (key_pressed(i_pause, n_event))
            glm_session_cancel(s); /* the turn's end is the next event that is not waiting already */
        rc = glm_session_step(s, &how, ev, err);
        if (!rc && ev->type == GLM_EVENT_TEXT && size + ev->text_size < capacity) {
            memcpy(text + size, ev->text, ev->text_size);
            size += ev->text_size;
        }
    }
    text[size] = '\0';
    return rc;
}

int main(int argc, char **argv)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event end = GLM_EVENT_INIT;
    glm_turn_options turn = GLM_TURN_OPTIONS_INIT;
    glm_model *model = NULL;
    glm_session *editor = NULL;
    char text[1024];

    if (argc != 2) {
        fprintf(stderr, "usage: editor MODEL\n");
        return 2;
    }
    turn.max_tokens = 100;
    turn.temperature = 0;
    turn.stop_lines = 3;
    turn.stop_dedent = 1;
    if (glm_model_open(argv[1], NULL, &model, &err) || glm_session_open(model, NULL, &editor, &err) ||
        glm_session_turn(editor, &turn, &err) ||
        glm_session_infill_file(editor, "compare.py", neighbour, GLM_NTS, &err))
        goto fail;
    for (size_t i = 0; i < sizeof typed / sizeof *typed; i++) {
        if (suggest(editor, i, text, sizeof text, &end, &err))
            goto fail;
        printf("%s[%s]%s  %s, %llu of %llu prompt tokens were there\n", typed[i], text, behind,
            end.end_reason == GLM_END_CANCELLED ? "given up" : "done", (unsigned long long)end.n_reused,
            (unsigned long long)end.n_prompt);
    }
fail:
    if (err.code)
        fprintf(stderr, "%s: %s\n", glm_status_name(err.code), err.message);
    glm_session_close(editor);
    glm_model_close(model);
    return err.code != 0;
}
