/* A conversation on a terminal. */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include "engine.h"

/* Until the user leaves or the context is full. chat_template: NULL for the model's own. */
tn_status cli_chat(cli_engine *e, tn_sampler *sampler, const char *chat_template, tn_error *err);

#endif
