/* Statistics of a few measurements: see stats.h. */
#include "stats.h"

#include <math.h>

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

double cli_welch(cli_spread a, cli_spread b) {
    if (a.n < 2 || b.n < 2) return NAN;
    double va = a.deviation * a.deviation / (double)a.n, vb = b.deviation * b.deviation / (double)b.n, v = va + vb;
    if (v == 0) return a.mean == b.mean ? 1 : 0;
    double t = (a.mean - b.mean) / sqrt(v);
    double freedom = v * v / (va * va / (double)(a.n - 1) + vb * vb / (double)(b.n - 1));
    return beta(freedom / 2, 0.5, freedom / (freedom + t * t)); /* Student's t, both tails */
}

cli_verdict cli_judge(cli_spread a, cli_spread b) {
    double p = cli_welch(a, b);
    if (isnan(p)) return CLI_UNTOLD;
    return p >= CLI_CHANCE ? CLI_NOISE : b.mean < a.mean ? CLI_WORSE : CLI_BETTER;
}

const char *cli_verdict_name(cli_verdict v) {
    static const char *const names[] = {"too few runs", "noise", "faster", "SLOWER"};
    return names[v];
}
