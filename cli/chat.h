/* A conversation on a terminal. */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include "engine.h"

/* Until the user leaves. A conversation that has filled the context is dropped for a fresh one. chat_template: NULL for the model's own. */
tn_status cli_chat(cli_engine *e, tn_sampler *sampler, const char *chat_template, tn_error *err);

#endif
