/* What leaves the program: data to stdout, talk to stderr, errors for main to tell. Also memory that cannot fail. */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include "options.h"

#include <jansson.h>
#include <stdio.h>

/* Fills err and returns code. */
tn_status cli_fail(tn_error *err, tn_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Ends the program with 71 where there is no memory. */
void *cli_realloc(void *p, size_t bytes);

/* A line on stderr, unless -q was given. */
void cli_note(const cli_options *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Why the program ends, as a line on stderr. */
void cli_tell_error(const tn_error *err);
/* How much of some work is done (0..1), as a bar on stderr that is written over and goes away at the end: on a
 * terminal only, unless -q was given, and only while the work takes longer than a moment. */
void cli_show_progress(const cli_options *o, const char *what, double done);

tn_sink cli_stdout_sink(void);
void cli_out_json(json_t *value); /* prints with a newline and lets go of value */
bool cli_out_flush(void);         /* true where something could not be written */
void cli_out_ids(const int32_t *ids, size_t n);

/* How many of the bytes are whole characters or can never become one: what may be shown already. */
size_t cli_utf8_complete(const char *s, size_t n);
/* A copy in which bytes that are not UTF-8 are U+FFFD; zero-terminated, freed with free(). */
char *cli_utf8_clean(const char *s, size_t n, size_t *n_clean);
json_t *cli_json_text(const char *s, size_t n); /* likewise */
json_t *cli_json_ids(const int32_t *ids, size_t n);

/* A whole file, or stdin for "-", zero-terminated; freed with free(). */
tn_status cli_read_file(const char *path, char **text, size_t *len, tn_error *err);

double cli_seconds(void); /* a clock that only goes forward */

#endif
