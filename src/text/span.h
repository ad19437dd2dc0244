/* Which bytes of a text came from input. */
#ifndef TN_TEXT_SPAN_H
#define TN_TEXT_SPAN_H

#include <stdbool.h>
#include <stddef.h>

/* A rendered text in pieces: `from_input` marks bytes that came from string values of the messages (or of other input
 * variables marked so), which must never be read as control tokens. */
typedef struct tn_span {
    size_t begin, end; /* bytes of the rendered text */
    bool from_input;
} tn_span;

#endif
