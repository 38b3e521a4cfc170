/* What one core of this machine can do at best, so that times can be compared with a counted floor.
 * peak fma: float32 multiply-adds in registers, GFLOP/s.   peak stream BYTES: read two arrays, write one, GB/s, where
 * each array holds BYTES. The best of several runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __AVX512F__
#define LANES 16
#define REGISTER "+v"
#elif defined(__AVX2__)
#define LANES 8
#define REGISTER "+x"
#else
#define LANES 4
#define REGISTER "+x"
#endif
#define CHAINS 12
typedef float vec __attribute__((vector_size(4 * LANES)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* The chains are separate variables: an array of them would live in memory. */
#define EACH(F) F(a) F(b) F(c) F(d) F(e) F(f) F(g) F(h) F(i) F(j) F(k) F(l)
#define START(v) vec v = y;
#define STEP(v) v = v * x + y;
#define KEEP(v) __asm__ volatile("" : REGISTER(v));

static double fma_seconds(long steps) {
    vec x, y;
    for (int lane = 0; lane < LANES; lane++) x[lane] = 0.999f, y[lane] = 1e-3f;
    EACH(START)
    double start = now();
    for (long s = 0; s < steps; s++) {
        EACH(STEP)
        EACH(KEEP)
    }
    return now() - start;
}

static double stream_seconds(size_t n, int repeats) {
    float *a = aligned_alloc(64, 4 * n), *b = aligned_alloc(64, 4 * n), *c = aligned_alloc(64, 4 * n);
    for (size_t i = 0; i < n; i++) a[i] = 1, b[i] = 2, c[i] = 0;
    double start = now();
    for (int r = 0; r < repeats; r++) {
        for (size_t i = 0; i < n; i++) c[i] = a[i] * 0.5f + b[i];
        __asm__ volatile("" ::"r"(c) : "memory");
    }
    double seconds = now() - start;
    free(a), free(b), free(c);
    return seconds;
}

int main(int argc, char **argv) {
    double best = 0;
    if (argc == 2 && !strcmp(argv[1], "fma")) {
        const long steps = 2000000;
        for (int r = 0; r < 15; r++) {
            double rate = 2.0 * LANES * CHAINS * steps / fma_seconds(steps) * 1e-9;
            if (rate > best) best = rate;
        }
    } else if (argc == 3 && !strcmp(argv[1], "stream")) {
        size_t n = (strtoull(argv[2], 0, 10) / 4 + 15) / 16 * 16;
        int repeats = 1 + (int)(200000000 / (12 * n));
        for (int r = 0; r < 7; r++) {
            double rate = 12.0 * n * repeats / stream_seconds(n, repeats) * 1e-9;
            if (rate > best) best = rate;
        }
    } else {
        return fprintf(stderr, "usage: peak fma | peak stream BYTES\n"), 2;
    }
    return printf("%.2f\n", best) < 0;
}
