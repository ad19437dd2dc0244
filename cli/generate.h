/* A prompt in, an answer out: the loop that run and chat share. */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include "engine.h"

#include <signal.h>

typedef enum cli_stop { CLI_STOP_END, CLI_STOP_LENGTH, CLI_STOP_CONTEXT, CLI_STOP_USER } cli_stop;

/* Zero is empty. */
typedef struct cli_answer {
    int32_t *ids; /* what was generated, the token that ended it included */
    size_t n;
    char *text; /* zero-terminated, without control tokens; NULL where there is no vocabulary */
    size_t len, shown;
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

const char *cli_stop_name(cli_stop stop);
/* How long prompt and answer took, as users of llama.cpp know it, on stderr; where the context is full, that too. */
void cli_note_answer(const cli_engine *e, const cli_answer *a);

#endif
