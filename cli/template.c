/* tenon template: renders messages from a JSON file with the chat template. The file holds an array of messages, or
 * an object: its "messages", and every other key a variable of the template. */
#include "engine.h"
#include "out.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

typedef struct input {
    char *messages, *variables; /* JSON, freed with free(); variables may be NULL */
    bool no_generation_prompt;
} input;

static tn_status read_input(const char *path, input *in, tn_error *err) {
    char *text;
    size_t len;
    json_error_t where;
    tn_status status = cli_read_file(path, &text, &len, err);
    if (status) return status;
    json_t *root = json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (!root) return cli_fail(err, TN_ERR_INPUT, "%s: line %d: %s", path, where.line, where.text);
    json_t *messages = json_is_object(root) ? json_object_get(root, "messages") : root;
    if (!json_is_array(messages)) {
        status = cli_fail(err, TN_ERR_INPUT, "%s: neither an array of messages nor an object with one", path);
    } else {
        in->messages = json_dumps(messages, JSON_ENCODE_ANY);
        if (json_is_object(root)) {
            json_t *open = json_object_get(root, "add_generation_prompt");
            in->no_generation_prompt = open && !json_is_true(open);
            json_object_del(root, "add_generation_prompt");
            json_object_del(root, "messages");
            in->variables = json_dumps(root, 0);
        }
    }
    json_decref(root);
    return status;
}

static tn_status render(const cli_engine *e, const input *in, const char *chat_template, tn_error *err) {
    const cli_options *o = e->o;
    tn_chat_options options = {.chat_template = chat_template,
                               .no_generation_prompt = in->no_generation_prompt,
                               .extra_json = in->variables};
    char *text = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    bool want_ids = o->want_ids || o->json;
    tn_status status = tn_chat_render(e->model, NULL, 0, in->messages, &options, &text, want_ids ? &ids : NULL,
                                      want_ids ? &n : NULL, err);
    if (status) return status;
    if (o->json) {
        json_t *answer = json_object();
        json_object_set_new(answer, "text", cli_json_text(text, strlen(text)));
        json_object_set_new(answer, "ids", cli_json_ids(ids, n));
        cli_out_json(answer);
    } else if (o->want_ids) {
        cli_out_ids(ids, n);
    } else {
        fputs(text, stdout);
    }
    tn_free(text);
    tn_free(ids);
    return TN_OK;
}

tn_status cli_template(const cli_options *o, tn_error *err) {
    cli_engine e = {0};
    input in = {0};
    char *chat_template = NULL;
    size_t len;
    tn_status status = read_input(o->file, &in, err);
    if (!status && o->chat_template) status = cli_read_file(o->chat_template, &chat_template, &len, err);
    if (!status) status = cli_open_vocab(&e, o, err);
    if (!status && !chat_template && !tn_has_chat_template(e.model))
        status = cli_fail(err, TN_ERR_INPUT, "%s has no chat template (--chat-template FILE gives one)", o->model);
    if (!status) status = render(&e, &in, chat_template, err);
    cli_close(&e);
    free(chat_template);
    free(in.messages);
    free(in.variables);
    return status;
}
