/* Values as JSON, in the style of Python's json.dumps. */
#include "text/jinja.h"

#include <math.h>
#include <stdio.h>

static void emit_z(tn_jinja *c, const char *z) {
    tn_jinja_emit(c, z, NULL, strlen(z));
}

static unsigned decode(const char *p, size_t n) {
    unsigned cp = (unsigned char)*p;
    if (n > 1) cp &= 0x7fu >> n;
    for (size_t i = 1; i < n; i++) cp = cp << 6 | ((unsigned char)p[i] & 0x3f);
    return cp;
}

static void emit_char(tn_jinja *c, const char *p, const unsigned char *mark, size_t n, bool ascii) {
    static const char named[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    char out[16] = {'\\'};
    for (const char *e = named; *e; e += 2) {
        if (*p == *e) {
            out[1] = e[1];
            unsigned char both[2] = {mark ? *mark : 0, mark ? *mark : 0};
            tn_jinja_emit(c, out, both, 2);
            return;
        }
    }
    unsigned cp = decode(p, n);
    if (cp < 32 || (ascii && cp > 126)) {
        if (cp > 0xffff) {
            snprintf(out, sizeof out, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10), 0xdc00 + (cp & 0x3ff));
        } else {
            snprintf(out, sizeof out, "\\u%04x", cp);
        }
        emit_z(c, out);
    } else {
        tn_jinja_emit(c, p, mark, n);
    }
}

static void emit_string(tn_jinja *c, tn_jval s, bool ascii) {
    emit_z(c, "\"");
    for (size_t i = 0, n; i < s.n && !c->status; i += n) {
        n = tn_utf8_step(s.p + i, s.n - i);
        emit_char(c, s.p + i, s.mark ? s.mark + i : NULL, n, ascii);
    }
    emit_z(c, "\"");
}

static void newline(tn_jinja *c, const tn_json_style *style, int level) {
    if (style->indent < 0) return;
    emit_z(c, "\n");
    for (int i = 0; i < style->indent * level && !c->status; i++) emit_z(c, " ");
}

static void emit_list(tn_jinja *c, const tn_jlist *l, const tn_json_style *style, int level) {
    emit_z(c, "[");
    for (size_t i = 0; i < l->n && !c->status; i++) {
        if (i) tn_jinja_emit(c, style->between_items.p, NULL, style->between_items.n);
        newline(c, style, level + 1);
        tn_jinja_emit_json(c, l->v[i], style, level + 1);
    }
    if (l->n) newline(c, style, level);
    emit_z(c, "]");
}

static void emit_key(tn_jinja *c, tn_jval key, const tn_json_style *style) {
    if (key.kind == TN_J_STR) {
        emit_string(c, key, style->ascii);
    } else { /* numbers, true, false and null become strings */
        size_t at = c->text.n;
        tn_jinja_emit_json(c, key, style, 0);
        emit_string(c, tn_jinja_take(c, at), style->ascii);
    }
}

/* The entry with the least key after `last` (NULL: the least of all), for sorted output. */
static const tn_jentry *next_sorted(tn_jinja *c, const tn_jdict *d, const tn_jentry *last) {
    const tn_jentry *best = NULL;
    for (size_t i = 0; i < d->n && tn_jinja_work(c, 1); i++) {
        const tn_jentry *e = d->v + i;
        if (last && tn_jinja_order(c, e->key, last->key) <= 0) continue;
        if (!best || tn_jinja_order(c, e->key, best->key) < 0) best = e;
    }
    return best;
}

static void emit_dict(tn_jinja *c, const tn_jdict *d, const tn_json_style *style, int level) {
    const tn_jentry *e = NULL;
    emit_z(c, "{");
    for (size_t i = 0; i < d->n && !c->status; i++) {
        e = style->sort_keys ? next_sorted(c, d, e) : d->v + i;
        if (!e) break;
        if (i) tn_jinja_emit(c, style->between_items.p, NULL, style->between_items.n);
        newline(c, style, level + 1);
        emit_key(c, e->key, style);
        tn_jinja_emit(c, style->after_key.p, NULL, style->after_key.n);
        tn_jinja_emit_json(c, e->value, style, level + 1);
    }
    if (d->n) newline(c, style, level);
    emit_z(c, "}");
}

void tn_jinja_emit_json(tn_jinja *c, tn_jval v, const tn_json_style *style, int level) {
    if (tn_jinja_enter(c)) {
        switch (v.kind) {
        case TN_J_NONE: emit_z(c, "null"); break;
        case TN_J_BOOL: emit_z(c, v.b ? "true" : "false"); break;
        case TN_J_INT: tn_jinja_emit_value(c, v); break;
        case TN_J_FLOAT:
            if (isfinite(v.f)) {
                tn_jinja_emit_value(c, v);
            } else {
                emit_z(c, isnan(v.f) ? "NaN" : v.f > 0 ? "Infinity" : "-Infinity");
            }
            break;
        case TN_J_STR: emit_string(c, v, style->ascii); break;
        case TN_J_LIST:
        case TN_J_TUPLE: emit_list(c, v.list, style, level); break;
        case TN_J_DICT: emit_dict(c, v.dict, style, level); break;
        default: tn_jinja_fail(c, "'%s' cannot be written as JSON", tn_jinja_type_name(v));
        }
    }
    c->depth--;
}
