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

/* Welch's test (1947): the chance that two samples of one mean lie as far apart as these, on either side. NaN where one of them has
 * fewer than two values. */
double cli_welch(cli_spread a, cli_spread b);

/* A difference counts where chance alone makes one like it less often than this. */
#define CLI_CHANCE 0.05

/* What b is to a, more being better, in a word. */
typedef enum cli_verdict { CLI_UNTOLD, CLI_NOISE, CLI_BETTER, CLI_WORSE } cli_verdict;
cli_verdict cli_judge(cli_spread a, cli_spread b);
const char *cli_verdict_name(cli_verdict v);

#endif
