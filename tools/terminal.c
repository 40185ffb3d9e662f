/* terminal.c: see terminal.h. The state that the signal handler sees is the one writable state of this program. */
#include "terminal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic(void *) target;
static void (*_Atomic action)(void *user);
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    void (*cancel)(void *) = atomic_load(&action);
    (void)signal_number;
    interrupted = 1;
    if (cancel)
        cancel(atomic_load(&target));
}

void terminal_on_interrupt(void (*cancel)(void *user), void *user)
{
    struct sigaction sa;

    atomic_store(&action, (void (*)(void *))NULL); /* never the one's action with the other's target */
    atomic_store(&target, user);
    interrupted = 0;
    atomic_store(&action, cancel);
    memset(&sa, 0, sizeof sa); /* no SA_RESTART: reading a line must end */
    sa.sa_handler = on_interrupt;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

bool terminal_interrupted(void) { return interrupted != 0; }

void terminal_open(struct terminal *t)
{
    const char *no_colour = getenv("NO_COLOR"), *kind = getenv("TERM");
    *t = (struct terminal){ .in = isatty(STDIN_FILENO), .out = isatty(STDOUT_FILENO) };
    t->colour = t->out && !(no_colour && *no_colour) && kind && strcmp(kind, "dumb") != 0;
}

void terminal_close(struct terminal *t) { free(t->line); }

void terminal_style(const struct terminal *t, FILE *to, enum style style)
{
    static const char *const codes[] = { "\033[0m", "\033[2m", "\033[1m", "\033[36m" };
    if (t->colour && (to == stdout || isatty(fileno(to))))
        fputs(codes[style], to);
}

void terminal_text(const struct terminal *t, FILE *to, const char *text, size_t size)
{
    size_t plain = 0;
    if (!t->out) {
        fwrite(text, 1, size, to);
        return;
    }
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        bool c1 = c == 0xc2 && i + 1 < size && (unsigned char)text[i + 1] >= 0x80 && (unsigned char)text[i + 1] < 0xa0;
        if (!c1 && (c >= 0x20 || c == '\n' || c == '\t') && c != 0x7f)
            continue;
        fwrite(text + plain, 1, i - plain, to);
        fputc('?', to);
        i += c1;
        plain = i + 1;
    }
    fwrite(text + plain, 1, size - plain, to);
}

/* Until there is a line to read; false: Ctrl-C came first. The signal is let in only while waiting, so that one that comes
 * just before is not slept through. A terminal hands out whole lines: reading then does not wait. */
static bool wait_for_line(void)
{
    struct pollfd p = { STDIN_FILENO, POLLIN, 0 };
    sigset_t block, before;

    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    pthread_sigmask(SIG_BLOCK, &block, &before);
    while (!interrupted && ppoll(&p, 1, NULL, &before) < 0 && errno == EINTR) {}
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !interrupted;
}

bool terminal_waiting(const struct terminal *t)
{
    struct pollfd p = { STDIN_FILENO, POLLIN, 0 };
    return t->in && poll(&p, 1, 0) > 0 && (p.revents & POLLIN);
}

char *terminal_line(struct terminal *t, const char *prompt, size_t *size, bool *stopped)
{
    char *more = NULL;
    size_t more_capacity = 0, n = 0;
    bool goes_on = true;

    *stopped = false;
    for (const char *p = prompt; goes_on; p = "... ") {
        ssize_t got;
        if (t->in && t->out) {
            terminal_style(t, stdout, STYLE_BOLD);
            fputs(p, stdout);
            terminal_style(t, stdout, STYLE_PLAIN);
        }
        fflush(stdout);
        got = t->in && !wait_for_line() ? -1 : getline(&more, &more_capacity, stdin);
        if (got < 0) {
            *stopped = terminal_interrupted();
            clearerr(stdin);
            break;
        }
        while (got > 0 && (more[got - 1] == '\n' || more[got - 1] == '\r'))
            got--;
        goes_on = t->in && got > 0 && more[got - 1] == '\\';
        got -= goes_on;
        if (n + (size_t)got + 2 > t->capacity) {
            char *line = realloc(t->line, 2 * (n + (size_t)got + 2));
            if (!line)
                break;
            t->line = line;
            t->capacity = 2 * (n + (size_t)got + 2);
        }
        memcpy(t->line + n, more, (size_t)got);
        n += (size_t)got;
        if (goes_on)
            t->line[n++] = '\n';
        t->line[n] = '\0';
        if (!goes_on) {
            free(more);
            *size = n;
            return t->line;
        }
    }
    free(more);
    return NULL;
}
