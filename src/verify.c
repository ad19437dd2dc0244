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

tn_status tn_check_case(tn_check *c, tn_status status, const char *where, const tn_error *err) {
    if (status == TN_OK || status == TN_ERR_RESOURCES) return status;
    tn_check_fail(c, "%s: %s", where, err->text);
    return TN_OK;
}

static bool same_shape(tn_check *c, const tn_table *got, const tn_table *want, const char *where) {
    if (got->rows == want->rows && got->cols == want->cols && got->rows > 0) return true;
    tn_check_fail(c, "%s: %d x %d results, %d x %d expected", where, got->rows, got->cols, want->rows, want->cols);
    return false;
}

/* sum (got - want)^2, sum want^2 and the largest difference, of n results from `from` on. */
typedef struct sums {
    double error, power, most;
    size_t at;
} sums;

static sums add_up(const tn_table *got, const tn_table *want, size_t from, size_t n, float zero) {
    sums s = {.most = -1};
    for (size_t i = from; i < from + n; i++) {
        float g = fabsf(got->p[i]) < zero ? 0 : got->p[i], w = fabsf(want->p[i]) < zero ? 0 : want->p[i];
        double d = (double)g - (double)w, e = isnan(d) ? INFINITY : fabs(d);
        s.error += d * d;
        s.power += (double)w * (double)w;
        if (e > s.most) {
            s.most = e;
            s.at = i;
        }
    }
    return s;
}

static double nmse_of(const sums *s) {
    return s->error == 0 ? 0 : s->error / s->power;
}

/* Whether x comes nearer to its bound than y does to its own; what is not a number comes nearest. */
static bool nearer(double x, double x_bound, double y, double y_bound) {
    return y_bound == 0 || !(x / x_bound <= y / y_bound);
}

void tn_check_near(tn_check *c, const tn_table *got, const tn_table *want, const tn_near *near, const char *where) {
    if (!same_shape(c, got, want, where)) return;
    size_t cols = (size_t)got->cols, grain = (size_t)near->grain;
    sums all = {0}, worst = {0};
    double part = 0, part_bound = TN_PART * near->bound;
    for (size_t row = 0; row < (size_t)got->rows; row++)
        for (size_t col = 0, n; col < cols; col += n) {
            n = grain > 1 && cols - col < 2 * grain ? cols - col : grain; /* the last part has what is left over */
            sums s = add_up(got, want, row * cols + col, n, near->zero);
            all.error += s.error;
            all.power += s.power;
            double of_this = nmse_of(&s);
            if (row + col > 0 && (isnan(part) || of_this <= part)) continue;
            part = of_this;
            worst = s;
        }
    char text[300];
    double nmse = nmse_of(&all);
    snprintf(text, sizeof text, "%s: row %zu, column %zu is %.9g, not %.9g", where, worst.at / cols, worst.at % cols,
             (double)got->p[worst.at], (double)want->p[worst.at]);
    if (nearer(nmse, near->bound, c->nmse, c->bound)) {
        c->nmse = nmse;
        c->bound = near->bound;
    }
    if (nearer(part, part_bound, c->part, c->part_bound)) {
        c->part = part;
        c->part_bound = part_bound;
        memcpy(c->worst, text, sizeof text);
    }
    if (!(nmse <= near->bound)) tn_check_fail(c, "nmse %.2g, bound %.2g: %s", nmse, near->bound, text);
    if (!(part <= part_bound)) tn_check_fail(c, "nmse of a part %.2g, bound %.2g: %s", part, part_bound, text);
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
    if (c->part > 0) tn_buf_printf(&b, ", of a part %.2g (bound %.2g)", c->part, c->part_bound);
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
        json_t *j = json_pack("{ss si si si ss so so so so ss sb ss}", "check", c->name, "cases", c->cases, "fused",
                              c->fused, "refused", c->refused, "refusal", c->refusal, "nmse", number(c->nmse),
                              "bound", number(c->bound), "part", number(c->part), "part_bound", number(c->part_bound),
                              "worst", c->worst, "ok", !failed, "failure", c->failure);
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
