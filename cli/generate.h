/* A prompt in, an answer out: the loop that run and chat share. */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include "engine.h"

#include <signal.h>

/* Why an answer ended; zero: it goes on. */
typedef enum cli_stop {
    CLI_STOP_NOT,
    CLI_STOP_END,  /* a token that ends a text */
    CLI_STOP_TEXT, /* --stop */
    CLI_STOP_LENGTH,
    CLI_STOP_CONTEXT,
    CLI_STOP_USER,
} cli_stop;

/* The likeliest tokens at each place of an answer, as tn_top_logprobs() gives them. */
typedef struct cli_ranking {
    int32_t k; /* so many at each place */
    int32_t *ids;
    float *logprobs;
    float *chosen; /* logprob of the token that was generated */
} cli_ranking;

/* Zero is empty. */
typedef struct cli_answer {
    int32_t *ids; /* what was generated, with the tokens that ended it */
    size_t n;
    char *text; /* zero-terminated, without control tokens and stop text; NULL where there is no vocabulary */
    size_t len, shown;
    cli_ranking ranking; /* with --logprobs */
    cli_stop stop;
    size_t n_fed; /* prompt tokens that were not in the cache */
    double prompt_seconds, seconds;
} cli_answer;

typedef struct cli_prompt {
    const int32_t *ids;
    size_t n;
    size_t cached;                           /* so many of them are in the cache already; less than n */
    bool show;                               /* stream the text to stdout */
    const volatile sig_atomic_t *interrupts; /* ends the answer when not 0; may be NULL */
} cli_prompt;

/* Appends to an empty answer; what was said before an error stays in it. */
tn_status cli_generate(cli_engine *e, tn_sampler *sampler, const cli_prompt *prompt, cli_answer *a, tn_error *err);
void cli_answer_free(cli_answer *a);

/* What id adds to a text in which it follows `before`: a tokenizer may treat the first token of a text in its own way.
 * Control tokens are written out when `special`. Freed with tn_free(). */
tn_status cli_piece(const cli_engine *e, int32_t before, int32_t id, bool special, char **text, size_t *len,
                    tn_error *err);

const char *cli_stop_name(cli_stop stop);
/* How long prompt and answer took, as users of llama.cpp know it, on stderr. */
void cli_note_timings(const cli_engine *e, const cli_answer *a);

#endif
