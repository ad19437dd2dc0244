/* Statistics of a few measurements: see stats.h. */
#include "stats.h"
#include "out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

cli_spread cli_spread_of(const double *v, size_t n) {
    cli_spread s = {.n = n};
    double squares = 0;
    for (size_t i = 0; i < n; i++) s.mean += v[i] / (double)n;
    for (size_t i = 0; i < n; i++) squares += (v[i] - s.mean) * (v[i] - s.mean);
    if (n > 1) s.deviation = sqrt(squares / (double)(n - 1));
    return s;
}

/* The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's method: each round
 * takes its terms of an even and an odd index. */
static double beta_fraction(double a, double b, double x) {
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m < 500; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double before = f;
        for (int k = 0; k < 2; k++) {
            double term = k ? odd : even;
            d = 1 + term * d;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = 1 + term / c;
            c = fabs(c) < tiny ? tiny : c;
            f *= d * c;
        }
        if (fabs(f - before) <= 1e-14 * fabs(f)) break;
    }
    return f;
}

/* The regularised incomplete beta function I_x(a, b). */
static double beta(double a, double b, double x) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* Student's t, both tails. */
static double student(double t, double freedom) {
    return beta(freedom / 2, 0.5, freedom / (freedom + t * t));
}

double cli_welch(cli_spread a, cli_spread b) {
    if (a.n < 2 || b.n < 2) return NAN;
    double va = a.deviation * a.deviation / (double)a.n, vb = b.deviation * b.deviation / (double)b.n, v = va + vb;
    if (v == 0) return a.mean == b.mean ? 1 : 0;
    double freedom = v * v / (va * va / (double)(a.n - 1) + vb * vb / (double)(b.n - 1));
    return student((a.mean - b.mean) / sqrt(v), freedom);
}

/* ---- pairs ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int by_size(const void *a, const void *b) {
    double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
    return (x > y) - (x < y);
}

static double *sorted(const double *v, size_t n, int (*order)(const void *, const void *)) {
    double *copy = cli_realloc(NULL, n * sizeof *copy);
    memcpy(copy, v, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, order);
    return copy;
}

double cli_median(const double *v, size_t n) {
    if (!n) return NAN;
    double *s = sorted(v, n, by_value), m = (s[(n - 1) / 2] + s[n / 2]) / 2;
    free(s);
    return m;
}

/* The sum of the ranks by size of the positive ones. Equal sizes share their ranks' mean; half of a 0 is positive. */
static double rank_sum(const double *difference, size_t n) {
    double *v = sorted(difference, n, by_size), w = 0;
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && fabs(v[end]) == fabs(v[i]);) end++;
        for (size_t k = i; k < end; k++) w += (v[k] > 0 ? 1 : v[k] == 0 ? 0.5 : 0) * (double)(i + 1 + end) / 2;
    }
    free(v);
    return w;
}

/* Each of the 2^n choices of positive ones is as likely as any other: up to EXACT they are counted by their sums, beyond the sum is
 * about normal, n (n + 1) / 4 +- sqrt(n (n + 1) (2 n + 1) / 24), with 1/2 for its steps. */
double cli_signed_rank(const double *difference, size_t n) {
    enum { EXACT = 40, SUMS = EXACT * (EXACT + 1) / 2 + 1 };
    double count = (double)n, all = count * (count + 1) / 2, w = rank_sum(difference, n), low = fmin(w, all - w);
    if (n > EXACT) {
        double far = fmax(0, all / 2 - low - 0.5);
        return erfc(far / sqrt(count * (count + 1) * (2 * count + 1) / 24) / sqrt(2));
    }
    double ways[SUMS] = {1}, p = 0;
    for (size_t rank = 1; rank <= n; rank++)
        for (size_t sum = rank * (rank + 1) / 2; sum >= rank; sum--) ways[sum] += ways[sum - rank];
    for (size_t sum = 0; (double)sum <= low; sum++) p += ways[sum];
    return fmin(1, 2 * p / exp2(count));
}

cli_ratio cli_paired(const double *a, const double *b, size_t n) {
    double *v = cli_realloc(NULL, n * sizeof *v);
    size_t given = n;
    n = 0;
    for (size_t i = 0; i < given; i++)
        if (a[i] > 0 && b[i] / a[i] > 0 && isfinite(b[i] / a[i])) v[n++] = log(b[i] / a[i]);
    cli_ratio r = {.ratio = exp(cli_median(v, n)), .low = NAN, .high = NAN, .p = NAN, .n = n};
    if (n >= CLI_FEW) {
        size_t k = (size_t)(((double)n + 1) / 2 - 1.96 * sqrt((double)n) / 2); /* from either end */
        double *s = sorted(v, n, by_value);
        r.low = exp(s[k - 1]);
        r.high = exp(s[n - k]);
        r.p = cli_signed_rank(v, n);
        free(s);
    }
    free(v);
    return r;
}

/* ---- verdicts ---- */

void cli_holm(double *p, size_t n) {
    bool *done = cli_realloc(NULL, n * sizeof *done);
    double least = 0;
    size_t left = 0;
    for (size_t i = 0; i < n; i++) {
        done[i] = isnan(p[i]);
        left += !done[i];
    }
    for (; left; left--) { /* the smallest first: it is taken `left` times */
        size_t next = n;
        for (size_t i = 0; i < n; i++)
            if (!done[i] && (next == n || p[i] < p[next])) next = i;
        done[next] = true;
        p[next] = least = fmax(least, fmin(1, (double)left * p[next]));
    }
    free(done);
}

size_t cli_pairs_needed(size_t n_tests) {
    size_t n = CLI_FEW;
    while (ldexp((double)n_tests, 1 - (int)n) >= CLI_CHANCE) n++;
    return n;
}

void cli_holm_paired(double *p, size_t n, size_t n_pairs) {
    size_t n_tests = 0;
    for (size_t i = 0; i < n; i++) n_tests += !isnan(p[i]);
    cli_holm(p, n);
    for (size_t i = 0; i < n && n_pairs < cli_pairs_needed(n_tests); i++) p[i] = NAN;
}

cli_verdict cli_judge(double p, bool worse) {
    if (isnan(p)) return CLI_UNTOLD;
    return p >= CLI_CHANCE ? CLI_NOISE : worse ? CLI_WORSE : CLI_BETTER;
}

const char *cli_verdict_name(cli_verdict v) {
    static const char *const names[] = {"too few runs", "noise", "faster", "SLOWER"};
    return names[v];
}
