/* tn_verify: fused against unfused, backend against reference. This file has the report and the comparisons; what is
 * compared is in verify_rules.c (the patterns are the specification), verify_ops.c and verify_model.c. */
#include "verify.h"

#include "base/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- checks ---- */

void tn_check_fail(tn_check *c, const char *format, ...) {
    if (c->failure[0]) return; /* the first one is the news */
    va_list args;
    va_start(args, format);
    vsnprintf(c->failure, sizeof c->failure, format, args);
    va_end(args);
}

static bool same_shape(tn_check *c, const tn_table *got, const tn_table *want, const char *where) {
    if (got->rows == want->rows && got->cols == want->cols && got->rows > 0) return true;
    tn_check_fail(c, "%s: %d x %d results, %d x %d expected", where, got->rows, got->cols, want->rows, want->cols);
    return false;
}

void tn_check_near(tn_check *c, const tn_table *got, const tn_table *want, double bound, const char *where) {
    if (!same_shape(c, got, want, where)) return;
    size_t n = (size_t)got->rows * (size_t)got->cols, worst = 0;
    double error = 0, power = 0, most = -1;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got->p[i] - (double)want->p[i], e = isnan(d) ? INFINITY : fabs(d);
        error += d * d;
        power += (double)want->p[i] * (double)want->p[i];
        if (e > most) {
            most = e;
            worst = i;
        }
    }
    double nmse = error == 0 ? 0 : error / power;
    char text[300];
    snprintf(text, sizeof text, "%s: row %zu, column %zu is %.9g, not %.9g", where, worst / (size_t)got->cols,
             worst % (size_t)got->cols, (double)got->p[worst], (double)want->p[worst]);
    if (c->bound == 0 || !(nmse / bound <= c->nmse / c->bound)) {
        c->nmse = nmse;
        c->bound = bound;
        memcpy(c->worst, text, sizeof text);
    }
    if (!(nmse <= bound)) tn_check_fail(c, "nmse %.2g, bound %.2g: %s", nmse, bound, text);
}

void tn_check_equal(tn_check *c, const tn_table *got, const tn_table *want, const char *where) {
    if (!same_shape(c, got, want, where)) return;
    for (size_t i = 0; i < (size_t)got->rows * (size_t)got->cols; i++) {
        if (memcmp(&got->p[i], &want->p[i], sizeof(float)) == 0) continue;
        tn_check_fail(c, "not the same bits: %s: row %zu, column %zu is %.9g, not %.9g", where, i / (size_t)got->cols,
                      i % (size_t)got->cols, (double)got->p[i], (double)want->p[i]);
        return;
    }
}

/* ---- report ---- */

static void put(const tn_report *r, const char *text) {
    r->out.write(r->out.data, text, strlen(text));
}

static void put_text(const tn_report *r, const tn_check *c) {
    tn_buf b = {0};
    tn_buf_printf(&b, "%-4s %-56s", c->failure[0] ? "FAIL" : "ok", c->name);
    if (c->fused || c->refused) tn_buf_printf(&b, " fused %d of %d", c->fused, c->fused + c->refused);
    tn_buf_printf(&b, " %d cases, nmse %.2g (bound %.2g)", c->cases, c->nmse, c->bound);
    if (c->drift)
        tn_buf_printf(&b, "; KL divergence %.2g, at most %.2g; likeliest token the same at %.2f %%", c->kl,
                      c->kl_most, 100 * c->same_top);
    if (c->refused) tn_buf_printf(&b, "; refused: %s", c->refusal);
    if (c->failure[0])
        tn_buf_printf(&b, "; %s", c->failure);
    else if (c->nmse > 0)
        tn_buf_printf(&b, "; worst: %s", c->worst);
    tn_buf_char(&b, '\n');
    if (b.p) r->out.write(r->out.data, b.p, b.n);
    tn_buf_free(&b);
}

/* NaN and infinity are not JSON: a result that is neither is null. */
static json_t *number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static void put_json(const tn_report *r, json_t *object) {
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    put(r, r->n ? "," : "[");
    put(r, text ? text : "null");
    free(text);
    json_decref(object);
}

void tn_report_check(tn_report *r, const tn_check *c) {
    bool failed = c->failure[0] != 0;
    if (!r->json) {
        put_text(r, c);
    } else {
        json_t *j = json_pack("{ss si si si ss so so ss sb ss}", "check", c->name, "cases", c->cases, "fused",
                              c->fused, "refused", c->refused, "refusal", c->refusal, "nmse", number(c->nmse),
                              "bound", number(c->bound), "worst", c->worst, "ok", !failed, "failure", c->failure);
        if (j && c->drift) {
            json_object_set_new(j, "kl", number(c->kl));
            json_object_set_new(j, "kl_most", number(c->kl_most));
            json_object_set_new(j, "same_top", number(c->same_top));
        }
        put_json(r, j);
    }
    r->n++;
    r->n_failed += failed;
}

tn_status tn_report_end(tn_report *r, tn_error *err) {
    if (r->json) {
        put_json(r, json_pack("{si si sb}", "checks", r->n, "failed", r->n_failed, "ok", r->n_failed == 0));
        put(r, "]\n");
    } else {
        char line[80];
        snprintf(line, sizeof line, "%s: %d checks, %d failed\n", r->n_failed ? "FAIL" : "ok", r->n, r->n_failed);
        put(r, line);
    }
    if (r->n_failed == 0) return TN_OK;
    return tn_fail(err, TN_ERR_CHECK, "%d of %d checks failed", r->n_failed, r->n);
}

/* ---- entry ---- */

tn_status tn_verify(const tn_verify_options *o, tn_sink out, tn_error *err) {
    tn_report report = {.out = out, .json = o->json};
    tn_verify_rigs rigs = {0};
    tn_status status = TN_OK;
    if (o->what == TN_VERIFY_MODEL) {
        if (!o->path) return tn_fail(err, TN_ERR_USAGE, "which model is to be verified?");
        status = (o->text ? tn_verify_drift : tn_verify_model)(&report, o, err);
    } else {
        tn_device_options device = {.threads = o->threads, .webgpu_lib = o->webgpu_lib};
        status = tn_rig_open_with(&rigs.device, o->backend ? o->backend : "cpu", &device, err);
        if (status == TN_OK) status = tn_rig_open(&rigs.reference, "cpu:ref", o->threads, err);
        if (status == TN_OK)
            status = (o->what == TN_VERIFY_RULES ? tn_verify_rules : tn_verify_ops)(&report, &rigs, NULL, err);
    }
    if (status == TN_OK) status = tn_report_end(&report, err);
    tn_rig_close(&rigs.device);
    tn_rig_close(&rigs.reference);
    return status;
}
