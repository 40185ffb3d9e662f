/* fpenv.c: our results may not depend on the rounding mode or the flushing of small numbers that a
 * host has set for itself, and the host must find its own mode again. Owns nothing. */
#include "base.h"

#if defined(__SSE__)
#include <xmmintrin.h>

/* Round to nearest, nothing flushed to zero, every exception masked. The restored word holds the
 * host's exception flags, too: ours do not show. */
struct fp_mode fp_enter(void)
{
    struct fp_mode mode = {_mm_getcsr()};

    _mm_setcsr(0x1f80);
    return mode;
}

void fp_leave(struct fp_mode mode)
{
    _mm_setcsr(mode.saved);
}

#elif defined(__aarch64__)

struct fp_mode fp_enter(void)
{
    uint64_t control;

    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return (struct fp_mode){(uint32_t)control};
}

void fp_leave(struct fp_mode mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode.saved) : "memory");
}

#else
#include <fenv.h>

struct fp_mode fp_enter(void)
{
    struct fp_mode mode = {(uint32_t)fegetround()};

    fesetround(FE_TONEAREST);
    return mode;
}

void fp_leave(struct fp_mode mode)
{
    fesetround((int)mode.saved);
}

#endif
