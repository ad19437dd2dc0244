/* tenon tokenize: text to ids on one line, or with --decode ids to text. */
#include "engine.h"
#include "out.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

static tn_status decode(const cli_engine *e, tn_error *err) {
    const cli_options *o = e->o;
    char *text = NULL;
    size_t len = 0;
    tn_status status = tn_detokenize(e->model, o->decode.v, o->decode.n, true, &text, &len, err);
    if (status) return status;
    if (o->json) {
        json_t *answer = json_object();
        json_object_set_new(answer, "text", cli_json_text(text, len));
        cli_out_json(answer);
    } else {
        fwrite(text, 1, len, stdout);
        putchar('\n');
    }
    tn_free(text);
    return TN_OK;
}

static void print_json(const cli_engine *e, const int32_t *ids, size_t n) {
    json_t *answer = json_object(), *pieces = json_array();
    for (size_t i = 0; i < n; i++) {
        const char *piece = tn_token_text(e->model, ids[i]);
        json_array_append_new(pieces, piece ? cli_json_text(piece, strlen(piece)) : json_null());
    }
    json_object_set_new(answer, "ids", cli_json_ids(ids, n));
    json_object_set_new(answer, "pieces", pieces);
    cli_out_json(answer);
}

static tn_status encode(const cli_engine *e, tn_error *err) {
    const cli_options *o = e->o;
    char *file = NULL;
    size_t len = o->prompt ? strlen(o->prompt) : 0, n = 0;
    int32_t *ids = NULL;
    tn_status status = o->prompt ? TN_OK : cli_read_file(o->file ? o->file : "-", &file, &len, err);
    if (status) return status;
    tn_tokenize_options options = {.no_bos = o->no_bos, .no_special = o->no_special};
    status = tn_tokenize(e->model, o->prompt ? o->prompt : file, len, &options, &ids, &n, err);
    if (!status && o->json)
        print_json(e, ids, n);
    else if (!status)
        cli_out_ids(ids, n);
    tn_free(ids);
    free(file);
    return status;
}

tn_status cli_tokenize(const cli_options *o, tn_error *err) {
    if (!!o->prompt + !!o->file + !!o->decode.n > 1)
        return cli_fail(err, TN_ERR_USAGE, "tokenize takes one of -p, -f and --decode");
    if (o->decode.n && (o->no_bos || o->no_special))
        return cli_fail(err, TN_ERR_USAGE, "--no-bos and --no-special make no sense with --decode");
    cli_engine e = {0};
    tn_status status = cli_open_vocab(&e, o, err);
    if (!status) status = o->decode.n ? decode(&e, err) : encode(&e, err);
    cli_close(&e);
    return status;
}
