/* run_command.c: see run_command.h. */
#include "run_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

struct running {
    pid_t pid;
    int in, out;           /* our ends; -1: closed */
    bool reaped;
    int wait_status;
    const char *input;
    size_t left;
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* SIGPIPE and SIGINT are set back to their defaults: we ignore the one and catch the other. */
static int spawn(char *const argv[], int in, int out, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t defaults;
    int rc;

    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    if (posix_spawn_file_actions_init(&files))
        return ENOMEM;
    if (posix_spawnattr_init(&how)) {
        posix_spawn_file_actions_destroy(&files);
        return ENOMEM;
    }
    rc = posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    rc = rc ? rc : posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    rc = rc ? rc : posix_spawnattr_setsigdefault(&how, &defaults);
    rc = rc ? rc : posix_spawnattr_setpgroup(&how, 0);
    rc = rc ? rc : posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    rc = rc ? rc : posix_spawnp(pid, argv[0], &files, &how, argv, environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

static const char *start(char *const argv[], struct running *r)
{
    int to[2] = { -1, -1 }, from[2] = { -1, -1 }, rc = 0;

    r->in = r->out = -1;
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
        rc = errno;
    else
        rc = spawn(argv, to[0], from[1], &r->pid);
    close_end(&to[0]);
    close_end(&from[1]);
    if (rc) {
        close_end(&to[1]);
        close_end(&from[0]);
        return strerror(rc);
    }
    r->in = to[1];
    r->out = from[0];
    fcntl(r->in, F_SETFL, O_NONBLOCK);
    fcntl(r->out, F_SETFL, O_NONBLOCK);
    return NULL;
}

static void feed(struct running *r)
{
    ssize_t n = r->left ? write(r->in, r->input, r->left) : 0;
    if (n > 0) {
        r->input += n;
        r->left -= (size_t)n;
    }
    if (r->left == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close_end(&r->in);
}

/* false: there is nothing more to come, now or (`gone`) ever. */
static bool drain(struct running *r, struct command_result *out, bool *gone)
{
    char spill[4096];
    bool full = out->size == COMMAND_OUTPUT;
    ssize_t n = full ? read(r->out, spill, sizeof spill) : read(r->out, out->output + out->size, COMMAND_OUTPUT - out->size);

    *gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (n > 0 && full)
        out->cut = *gone = true;
    else if (n > 0)
        out->size += (size_t)n;
    return n > 0 && !*gone;
}

static void reap(struct running *r)
{
    if (!r->reaped && waitpid(r->pid, &r->wait_status, WNOHANG) == r->pid)
        r->reaped = true;
}

/* Until its output ends and it has exited, or a limit is reached. */
static void talk(struct running *r, struct command_result *out, unsigned seconds, bool (*stop)(void))
{
    uint64_t deadline = now_ms() + (uint64_t)seconds * 1000u;
    bool gone = false;

    while (!(gone && r->reaped)) {
        struct pollfd p[2] = { { gone ? -1 : r->out, POLLIN, 0 }, { r->in, POLLOUT, 0 } };
        poll(p, 2, gone ? 5 : 50);
        if (r->in >= 0 && p[1].revents)
            feed(r);
        reap(r); /* before the last look at its output */
        while (!gone && drain(r, out, &gone)) {}
        if (r->reaped && !gone && !(p[0].revents & POLLIN))
            gone = true; /* a child of its own keeps the pipe open */
        out->stopped = stop && stop();
        out->timed_out = now_ms() > deadline;
        if (out->stopped || out->timed_out || out->cut)
            break;
    }
}

void run_command(char *const argv[], const char *input, size_t size, unsigned seconds, bool (*stop)(void),
    struct command_result *out)
{
    struct running r = { .input = input, .left = size };

    *out = (struct command_result){ .output = malloc(COMMAND_OUTPUT + 1) };
    if (!out->output) {
        out->problem = "out of memory";
        return;
    }
    out->problem = start(argv, &r);
    if (!out->problem) {
        talk(&r, out, seconds, stop);
        if (!r.reaped) {
            kill(-r.pid, SIGKILL);
            waitpid(r.pid, &r.wait_status, 0);
        }
        out->status = WIFEXITED(r.wait_status) ? WEXITSTATUS(r.wait_status) : 128 + WTERMSIG(r.wait_status);
    }
    close_end(&r.in);
    close_end(&r.out);
    out->output[out->size] = '\0';
}
