/* Help in all its forms, from the table of verbs and the table of options. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include "options.h"

#include <stdio.h>

void cli_print_usage(FILE *to);
void cli_print_help(const cli_verb *verb);

/* tenon help [VERB | --format man|bash|zsh|fish] */
tn_status cli_help(int argc, char **argv, tn_error *err);

#endif
