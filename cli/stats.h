/* What a handful of measurements says: mean, deviation, and whether two sets differ by more than chance. */
#ifndef CLI_STATS_H
#define CLI_STATS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cli_spread {
    double mean, deviation; /* of the sample; 0 where there is only one value */
    size_t n;
} cli_spread;

cli_spread cli_spread_of(const double *v, size_t n);

/* A difference counts where chance alone makes one like it less often than this. */
#define CLI_CHANCE 0.05

/* Welch's test (1947), for sets that were measured apart: the chance that two samples of one mean lie as far apart as these, on
 * either side. NaN where one of them has fewer than two values. */
double cli_welch(cli_spread a, cli_spread b);

/* The middle of n values. */
double cli_median(const double *v, size_t n);

/* Wilcoxon's signed-rank test (1945) of n differences of pairs: the chance that differences which are as often below as above 0
 * lie as far to one side as these. One that is far out counts no more than the largest of the others. */
double cli_signed_rank(const double *difference, size_t n);

/* b over a, where b[i] was measured next to a[i]: what moves both, as depth or a busy machine does, is not in it. A pair of which one
 * is not above 0 (a clock too coarse) is left out. */
typedef struct cli_ratio {
    double ratio;     /* the median of the pairs' ratios; NaN where there is none */
    double low, high; /* where it lies but for CLI_CHANCE: the ratios of that rank (binomial) */
    double p;         /* of the signed ranks of the ratios' logarithms */
    size_t n;         /* pairs that count; of fewer than CLI_FEW only the ratio is known, the rest is NaN */
} cli_ratio;
enum { CLI_FEW = 6 }; /* five pairs may all lie on one side with a chance of 1 in 16 */
cli_ratio cli_paired(const double *a, const double *b, size_t n);

/* Many tests at once (Holm 1979): raises the chances so that with all of them together one in 1/CLI_CHANCE such sets has a
 * false alarm. NaN stays. */
void cli_holm(double *p, size_t n);

/* Signed ranks of n pairs that all lie on one side have a chance of 2 in 2^n: so many pairs it takes for one of n_tests to count. */
size_t cli_pairs_needed(size_t n_tests);
/* Holm's correction of tests of n_pairs pairs each; with too few pairs for so many tests all are NaN. */
void cli_holm_paired(double *p, size_t n, size_t n_pairs);

typedef enum cli_verdict { CLI_UNTOLD, CLI_NOISE, CLI_BETTER, CLI_WORSE } cli_verdict;
cli_verdict cli_judge(double p, bool worse);
const char *cli_verdict_name(cli_verdict v);

#endif
