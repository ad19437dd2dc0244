/* tenon logits: runs given tokens and writes the logits of the last position, or of all, as little-endian f32. */
#include "engine.h"
#include "out.h"
#include "verbs.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    FILE *f;
    const char *path;
    uint32_t *row; /* one row as it is written */
    size_t n_vocab;
} writer;

static tn_status write_row(writer *w, const float *logits, size_t at, tn_error *err) {
    if (!logits) return cli_fail(err, TN_ERR_INTERNAL, "a row of logits is missing");
    memcpy(w->row, logits, w->n_vocab * sizeof *w->row);
    for (size_t i = 0; i < w->n_vocab; i++) w->row[i] = htole32(w->row[i]);
    long offset = (long)(at * w->n_vocab * sizeof *w->row);
    /* rows mostly come in order, so that what cannot seek (a pipe) will do too */
    if ((ftell(w->f) != offset && fseek(w->f, offset, SEEK_SET) && errno != ESPIPE) ||
        fwrite(w->row, sizeof *w->row, w->n_vocab, w->f) != w->n_vocab)
        return cli_fail(err, TN_ERR_INPUT, "%s: %s", w->path, strerror(errno));
    return TN_OK;
}

/* Feeds ids [first, first + n) to every sequence, token by token in turn. */
static tn_status step(cli_engine *e, size_t first, size_t n, tn_error *err) {
    const cli_options *o = e->o;
    size_t n_seq = (size_t)o->n_seq, n_tokens = n * n_seq;
    int32_t *ids = cli_realloc(NULL, n_tokens * sizeof *ids), *seqs = cli_realloc(NULL, n_tokens * sizeof *seqs);
    for (size_t i = 0; i < n_tokens; i++) {
        ids[i] = o->ids.v[first + i / n_seq];
        seqs[i] = (int32_t)(i % n_seq);
    }
    tn_batch batch = {.ids = ids, .seqs = seqs, .n_tokens = (int32_t)n_tokens};
    tn_status status = tn_step(e->session, &batch, err);
    free(ids);
    free(seqs);
    return status;
}

/* Sequence after sequence in the file, each with one row or a row for each token. */
static tn_status write_logits(cli_engine *e, size_t chunk, writer *w, tn_error *err) {
    const cli_options *o = e->o;
    size_t n_seq = (size_t)o->n_seq, n = o->ids.n;
    tn_status status = TN_OK;
    for (size_t first = 0; first < n && !status; first += chunk) {
        size_t now = n - first < chunk ? n - first : chunk;
        status = step(e, first, now, err);
        for (size_t s = 0; s < n_seq && o->all; s++)
            for (size_t i = 0; i < now && !status; i++)
                status = write_row(w, tn_logits(e->session, (int32_t)(i * n_seq + s)), s * n + first + i, err);
    }
    for (size_t s = 0; s < n_seq && !o->all && !status; s++)
        status = write_row(w, tn_logits(e->session, (int32_t)s), s, err);
    return status;
}

tn_status cli_logits(const cli_options *o, tn_error *err) {
    cli_engine e = {0};
    writer w = {.path = o->output};
    cli_session_wish wish = cli_default_wish(o);
    wish.n_seq = o->n_seq;
    wish.all_logits = o->all;
    tn_status status = cli_open_model(&e, o, &wish, err);
    if (!status) status = cli_open_session(&e, &wish, err);
    if (!status && o->ids.n > (size_t)e.info.n_ctx)
        status = cli_fail(err, TN_ERR_INPUT, "too many tokens: %zu, and the context (-c) is of %d", o->ids.n,
                          e.info.n_ctx);
    if (!status && !(w.f = fopen(o->output, "wb")))
        status = cli_fail(err, TN_ERR_INPUT, "%s: %s", o->output, strerror(errno));
    if (!status) {
        w.n_vocab = (size_t)e.about.n_vocab;
        w.row = cli_realloc(NULL, w.n_vocab * sizeof *w.row);
        status = write_logits(&e, (size_t)(o->chunk ? o->chunk : e.info.n_ubatch), &w, err);
    }
    if (w.f && fclose(w.f) && !status) status = cli_fail(err, TN_ERR_INPUT, "%s: %s", o->output, strerror(errno));
    if (!status) cli_note_memory(&e);
    free(w.row);
    cli_close(&e);
    return status;
}
