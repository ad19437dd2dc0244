/* Chat templates: an interpreter for the part of Jinja that models use, bounded in steps, depth and output. */
#ifndef TN_TEXT_TEMPLATE_H
#define TN_TEXT_TEMPLATE_H

#include "base/error.h"
#include "base/str.h"
#include "text/span.h"

#include <jansson.h>

typedef struct tn_template tn_template;

/* Parses; an error names the line. */
tn_status tn_template_open(tn_template **out, tn_str source, tn_error *err);
void tn_template_close(tn_template **t);

typedef struct tn_rendered {
    tn_buf text;
    tn_span *spans; /* in order, covering the text */
    size_t n_spans;
} tn_rendered;
void tn_rendered_free(tn_rendered *r);

/* Renders with the given variables (a JSON object: messages, add_generation_prompt, bos_token, eos_token, tools,
 * ...). Strings anywhere below the top-level keys "messages" (except the "role" of a message) and "tools" are input.
 */
tn_status tn_template_render(const tn_template *t, const json_t *variables, tn_rendered *out, tn_error *err);

#endif
