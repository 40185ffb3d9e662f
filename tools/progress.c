/* progress.c: see progress.h. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BEFORE_NS 500000000u
#define EVERY_NS 100000000u
#define BAR 24

uint64_t progress_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void progress_begin(struct progress *p, const char *what)
{
    *p = (struct progress){ .what = what, .began = progress_now(), .on = isatty(STDERR_FILENO) };
}

void progress_show(struct progress *p, double done, double total, const char *unit)
{
    uint64_t now;
    char bar[BAR + 1];
    double part = total > 0 ? done / total : 0, s, left;

    if (!p->on)
        return;
    now = progress_now();
    if (now - p->began < BEFORE_NS || now - p->drawn < EVERY_NS)
        return;
    p->drawn = now;
    p->visible = true;
    part = part < 0 ? 0 : part > 1 ? 1 : part;
    memset(bar, '-', BAR);
    memset(bar, '#', (size_t)(part * BAR));
    bar[BAR] = '\0';
    s = (double)(now - p->began) * 1e-9;
    left = part > 0 ? s / part - s : 0;
    fprintf(stderr, "\r%s [%s] %3.0f%%  %.0f of %.0f %s, %.0f s left\033[K", p->what, bar, part * 100, done, total,
        unit, left);
    fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->visible)
        fputs("\r\033[K", stderr);
    p->visible = false;
}
