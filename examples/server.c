/* server.c: many conversations in one loop on one thread, as a server has them. All that are under way are computed
 * together, so that the weights are read once for all; questions come and answers end at any time.
 *
 *     server MODEL QUESTION...
 */
#include <glm45/glm45.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS 64
#define PASSES_BETWEEN 3u /* a question arrives after so many shared passes */

struct client {
    glm_session *session;
    glm_event event;
    const char *question;
    char answer[2048];
    size_t size;
};

struct server {
    glm_model *model;
    struct client client[CLIENTS];
    struct client *active[CLIENTS]; /* [n] with a turn under way */
    uint32_t n;
};

/* A question arrives: its conversation joins at the next pass. */
static int32_t join(struct server *server, struct client *c, const char *question, glm_error *err)
{
    glm_turn_options turn = GLM_TURN_OPTIONS_INIT;

    turn.thinking = GLM_THINK_OFF;
    turn.temperature = 0;
    turn.max_tokens = 200;
    turn.max_ns = 60000000000u; /* nobody waits longer than a minute */
    c->event = (glm_event)GLM_EVENT_INIT;
    c->question = question;
    if (glm_session_open(server->model, NULL, &c->session, err) || glm_session_turn(c->session, &turn, err) ||
        glm_session_say(c->session, GLM_ROLE_USER, question, GLM_NTS, err))
        return err->code;
    server->active[server->n++] = c;
    return GLM_OK;
}

static void hear(struct client *c)
{
    const glm_event *ev = &c->event;
    if (ev->type == GLM_EVENT_TEXT && c->size + ev->text_size < sizeof c->answer) {
        memcpy(c->answer + c->size, ev->text, ev->text_size);
        c->size += ev->text_size;
    }
}

/* A client's turn is over, well or not: one that fails takes nobody with it. */
static void leave(struct server *server, uint32_t i)
{
    struct client *c = server->active[i];
    const glm_event *ev = &c->event;

    c->answer[c->size] = '\0';
    if (ev->type == GLM_EVENT_ERROR)
        printf("%s -> failed: %s\n", c->question, ev->text);
    else
        printf("%s -> %s\n", c->question, c->answer);
    server->active[i] = server->active[--server->n];
}

/* At most one forward pass for all, and what came of it. */
static int32_t pass(struct server *server, glm_error *err)
{
    glm_session *sessions[CLIENTS];
    glm_event *events[CLIENTS];
    int32_t rc;

    for (uint32_t i = 0; i < server->n; i++) {
        sessions[i] = server->active[i]->session;
        events[i] = &server->active[i]->event;
    }
    rc = glm_sessions_step(sessions, server->n, NULL, events, err);
    if (rc)
        return rc;
    for (uint32_t i = server->n; i-- > 0;) {
        hear(server->active[i]);
        if (events[i]->type == GLM_EVENT_TURN_END || events[i]->type == GLM_EVENT_ERROR)
            leave(server, i);
    }
    return GLM_OK;
}

static int32_t serve(struct server *server, char **questions, size_t n, glm_error *err)
{
    uint32_t n_pass = 0, most = 0;
    size_t arrived = 0;
    int32_t rc = GLM_OK;

    while (!rc && (arrived < n || server->n > 0)) {
        if (arrived < n && (server->n == 0 || n_pass >= PASSES_BETWEEN * arrived)) {
            rc = join(server, &server->client[arrived], questions[arrived], err);
            arrived++;
        }
        if (!rc)
            rc = pass(server, err);
        n_pass++;
        if (server->n > most)
            most = server->n;
    }
    fprintf(stderr, "%u calls for %zu answers; at most %u at once\n", n_pass, n, most);
    return rc;
}

int main(int argc, char **argv)
{
    glm_error err = GLM_ERROR_INIT;
    struct server *server = calloc(1, sizeof *server);

    if (argc < 3 || argc > CLIENTS + 2 || !server) {
        fprintf(stderr, "usage: server MODEL QUESTION...\n");
        free(server);
        return 2;
    }
    if (!glm_model_open(argv[1], NULL, &server->model, &err))
        serve(server, argv + 2, (size_t)argc - 2, &err);
    if (err.code)
        fprintf(stderr, "%s: %s\n", glm_status_name(err.code), err.message);
    for (size_t i = 0; i < CLIENTS; i++)
        glm_session_close(server->client[i].session);
    glm_model_close(server->model);
    free(server);
    return err.code != 0;
}
