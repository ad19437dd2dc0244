/* Output helpers: see out.h. */
#include "out.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

tn_status cli_fail(tn_error *err, tn_status code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    err->code = code;
    return code;
}

void *cli_realloc(void *p, size_t bytes) {
    p = realloc(p, bytes ? bytes : 1);
    if (!p) {
        fprintf(stderr, "tenon: out of memory\n");
        exit(TN_ERR_RESOURCES);
    }
    return p;
}

/* ---- talk ---- */

/* The line of progress. Work that is short needs none, and a line that changes more often cannot be read. */
static struct {
    bool running, shown;
    double begun, written; /* seconds */
    int percent, width;    /* of the line */
} g_progress;

static void clear_progress(void) {
    if (g_progress.shown) fprintf(stderr, "\r%*s\r", g_progress.width, "");
    g_progress.shown = false;
}

/* "writing [#######       ]  50 %, 3 s left": written over the last line, and over what of that is longer. */
static void write_progress(const char *what, double done, double seconds) {
    enum { BAR = 24 };
    char left[40] = "", line[160];
    int filled = (int)(BAR * done);
    if (done > 0.01) snprintf(left, sizeof left, ", %.0f s left", seconds * (1 - done) / done);
    int n = snprintf(line, sizeof line, "%.80s [%.*s%*s] %3d %%%s", what, filled, "########################",
                     BAR - filled, "", (int)(100 * done), left);
    fprintf(stderr, "\r%s%*s", line, n < g_progress.width ? g_progress.width - n : 0, "");
    g_progress.width = n;
}

void cli_show_progress(const cli_options *o, const char *what, double done) {
    double now = cli_seconds();
    int percent = (int)(100 * done);
    if (o->quiet || !isatty(STDERR_FILENO)) return;
    if (done >= 1) {
        clear_progress();
        g_progress.running = false;
        return;
    }
    if (!g_progress.running) g_progress.begun = now;
    g_progress.running = true;
    if (now - g_progress.begun < 0.3) return;
    if (g_progress.shown && (percent == g_progress.percent || now - g_progress.written < 0.1)) return;
    write_progress(what, done, now - g_progress.begun);
    g_progress.shown = true;
    g_progress.percent = percent;
    g_progress.written = now;
}

void cli_tell_error(const tn_error *err) {
    clear_progress();
    fprintf(stderr, "tenon: %s\n", err->text);
}

void cli_note(const cli_options *o, const char *format, ...) {
    if (o->quiet) return;
    clear_progress();
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* ---- data ---- */

static void write_stdout(void *data, const char *text, size_t len) {
    (void)data;
    fwrite(text, 1, len, stdout);
}

tn_sink cli_stdout_sink(void) {
    return (tn_sink){.write = write_stdout};
}

void cli_out_json(json_t *value) {
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(value);
}

bool cli_out_flush(void) {
    return fflush(stdout) != 0 || ferror(stdout);
}

void cli_out_ids(const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? " " : "", ids[i]);
    putchar('\n');
}

/* Bytes of the character that a lead byte opens; 1 where it opens none. */
static size_t utf8_length(unsigned char lead) {
    return lead >= 0xf0 && lead < 0xf8 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xc0 && lead < 0xe0 ? 2 : 1;
}

size_t cli_utf8_complete(const char *s, size_t n) {
    size_t back = 1; /* looks for the lead byte of a last character that is cut short */
    while (back <= 3 && back <= n && ((unsigned char)s[n - back] & 0xc0) == 0x80) back++;
    if (back > 3 || back > n) return n;
    return utf8_length((unsigned char)s[n - back]) > back ? n - back : n;
}

/* Length of the valid character at s, 0 where there is none. */
static size_t utf8_valid(const unsigned char *s, size_t n) {
    size_t len = utf8_length(s[0]);
    if (len > n || (len == 1 && s[0] >= 0x80)) return 0;
    uint32_t c = len == 1 ? s[0] : s[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

char *cli_utf8_clean(const char *s, size_t n, size_t *n_clean) {
    char *clean = cli_realloc(NULL, 3 * n + 1);
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        size_t len = utf8_valid((const unsigned char *)s + i, n - i);
        memcpy(clean + used, len ? s + i : "\xef\xbf\xbd", len ? len : 3);
        used += len ? len : 3;
        i += len ? len : 1;
    }
    clean[used] = 0;
    *n_clean = used;
    return clean;
}

json_t *cli_json_text(const char *s, size_t n) {
    size_t n_clean;
    char *clean = cli_utf8_clean(s, n, &n_clean);
    json_t *text = json_stringn(clean, n_clean);
    free(clean);
    return text;
}

json_t *cli_json_ids(const int32_t *ids, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    return list;
}

tn_status cli_read_file(const char *path, char **text, size_t *len, tn_error *err) {
    bool is_stdin = !strcmp(path, "-");
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    if (!f) return cli_fail(err, TN_ERR_INPUT, "%s: %s", path, strerror(errno));
    char *p = NULL;
    size_t n = 0, cap = 0, got = 1;
    while (got > 0) {
        if (cap - n < 4096) p = cli_realloc(p, cap = 2 * cap + 65536);
        got = fread(p + n, 1, cap - n - 1, f);
        n += got;
    }
    tn_status status = TN_OK;
    if (ferror(f)) status = cli_fail(err, TN_ERR_INPUT, "%s: %s", is_stdin ? "stdin" : path, strerror(errno));
    if (!is_stdin) fclose(f);
    if (status) {
        free(p);
        return status;
    }
    p[n] = 0;
    *text = p;
    *len = n;
    return TN_OK;
}

double cli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
