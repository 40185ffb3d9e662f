/* game_loop.c: a character thinks while the game runs. Every frame gives the model 4 milliseconds and then goes on
 * with its own work; nothing of the library runs in between, and the loop never waits for an answer.
 *
 *     game_loop MODEL [LINE FOR THE CHARACTER]
 */
#define _POSIX_C_SOURCE 199309L
#include <glm45/glm45.h>
#include <stdio.h>
#include <time.h>

#define BUDGET_NS 4000000u /* of a frame for the model */
#define FRAME_NS 16666667u

struct game {
    unsigned n_frame, n_over; /* frames; those in which the model took more than twice its budget */
    uint64_t longest_ns;
    char speech[1024];        /* what the character has said so far */
    size_t speech_size;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The rest of the frame: here a real game draws, simulates, and waits for the display. */
static void play(const struct game *g, uint64_t frame_began)
{
    uint64_t spent = now_ns() - frame_began;
    struct timespec rest = { 0, spent < FRAME_NS ? (long)(FRAME_NS - spent) : 0 };
    (void)g;
    nanosleep(&rest, NULL);
}

static void hear(struct game *g, const glm_event *ev)
{
    for (size_t i = 0; i < ev->text_size && g->speech_size + 1 < sizeof g->speech; i++)
        g->speech[g->speech_size++] = ev->text[i];
    g->speech[g->speech_size] = '\0';
}

/* The model's part of a frame: events until the budget is spent or the turn is over. */
static int32_t think(struct game *g, glm_session *character, int *done, glm_error *err)
{
    uint64_t began = now_ns(), spent = 0;
    glm_step how = GLM_STEP_INIT;
    glm_event ev = GLM_EVENT_INIT;

    while (!*done && spent < BUDGET_NS) {
        how.budget_ns = BUDGET_NS - spent;
        int32_t rc = glm_session_step(character, &how, &ev, err);
        if (rc)
            return rc;
        if (ev.type == GLM_EVENT_TEXT)
            hear(g, &ev);
        *done = ev.type == GLM_EVENT_TURN_END;
        spent = now_ns() - began;
    }
    if (spent > g->longest_ns)
        g->longest_ns = spent;
    g->n_over += spent > 2 * BUDGET_NS;
    return GLM_OK;
}

int main(int argc, char **argv)
{
    glm_error err = GLM_ERROR_INIT;
    glm_model_options how = GLM_MODEL_OPTIONS_INIT;
    glm_turn_options turn = GLM_TURN_OPTIONS_INIT;
    glm_model *model = NULL;
    glm_session *character = NULL;
    struct game game = { 0 };
    int done = 0;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: game_loop MODEL [LINE]\n");
        return 2;
    }
    how.n_threads = 1; /* the game keeps the other cores */
    turn.thinking = GLM_THINK_OFF;
    turn.max_tokens = 100;
    if (glm_model_open(argv[1], &how, &model, &err) || glm_session_open(model, NULL, &character, &err) ||
        glm_session_turn(character, &turn, &err) ||
        glm_session_say(character, GLM_ROLE_USER, argc > 2 ? argv[2] : "Hello! Who are you?", GLM_NTS, &err))
        goto fail;

    while (!done) {
        uint64_t frame_began = now_ns();
        if (think(&game, character, &done, &err))
            goto fail;
        play(&game, frame_began);
        game.n_frame++;
    }
    printf("%s\n", game.speech);
    fprintf(stderr, "%u frames; the model took %.2f ms in the longest, more than twice its budget in %u\n", game.n_frame,
        (double)game.longest_ns / 1e6, game.n_over);
fail:
    if (err.code)
        fprintf(stderr, "%s: %s\n", glm_status_name(err.code), err.message);
    glm_session_close(character);
    glm_model_close(model);
    return err.code != 0;
}
