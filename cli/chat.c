/* A conversation on a terminal. Each turn renders all of it; what the cache holds of that stays there, the rest is
 * fed. Ctrl-C stops an answer or clears a line; a second one, with nothing said in between, leaves. */
#include "chat.h"
#include "generate.h"
#include "out.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

static volatile sig_atomic_t g_interrupts; /* since the last line was entered */
static int g_pipe[2]; /* a byte for each of them, so that waiting for a key can wait for it too */

static void on_interrupt(int signal) {
    (void)signal;
    int before = errno;
    if (g_interrupts < 2) g_interrupts++;
    if (write(g_pipe[1], "", 1) < 0) g_interrupts = 2; /* full: somebody means it */
    errno = before;
}

typedef struct chat {
    cli_engine *e;
    tn_sampler *sampler;
    const char *chat_template;
    tn_message *messages; /* contents are ours */
    size_t n_messages;
    int32_t *held; /* the tokens in the cache */
    size_t n_held;
} chat;

/* ---- the line editor ---- */

static char *prompt_text(EditLine *line) {
    (void)line;
    static char text[] = "> ";
    return text;
}

/* 1 and a byte of stdin, 0 at its end, -1 (EINTR) after an interrupt. */
static int read_byte(char *byte) {
    struct pollfd wait[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = g_pipe[0], .events = POLLIN}};
    while (poll(wait, 2, -1) < 0 && errno == EINTR) {
    }
    if (wait[1].revents) {
        errno = EINTR;
        return -1;
    }
    return (int)read(STDIN_FILENO, byte, 1);
}

/* Reads one character; libedit's own reader would go on after an interrupt. */
static int read_character(EditLine *line, wchar_t *c) {
    (void)line;
    mbstate_t state = {0};
    for (;;) {
        char byte;
        int n = read_byte(&byte);
        if (n <= 0) return n;
        if (!byte) return 0; /* what a Ctrl-D becomes that was typed while an answer was written */
        size_t used = mbrtowc(c, &byte, 1, &state);
        if (used == (size_t)-2) continue; /* more to come */
        if (used != (size_t)-1) return 1;
        state = (mbstate_t){0};
    }
}

/* A line without its newline, NULL when the user leaves. Owned by the editor. */
static const char *read_line(chat *c, EditLine *line, size_t *len) {
    for (;;) {
        char bytes[64];
        while (read(g_pipe[0], bytes, sizeof bytes) > 0) {
        } /* these have been counted */
        if (g_interrupts >= 2) return NULL;
        int n = 0;
        errno = 0;
        const char *text = el_gets(line, &n);
        int why = errno;
        if (text && n > 0) {
            g_interrupts = 0;
            *len = (size_t)n - (text[n - 1] == '\n');
            if (*len) return text;
            continue;
        }
        putchar('\n');
        fflush(stdout);
        if (why != EINTR) return NULL;
        if (g_interrupts < 2) cli_note(c->e->o, "(Ctrl-C again leaves)");
    }
}

static EditLine *open_line_editor(History **lines) {
    if (!setlocale(LC_CTYPE, "C.UTF-8")) setlocale(LC_CTYPE, "");
    EditLine *line = el_init("tenon", stdin, isatty(STDOUT_FILENO) ? stdout : stderr, stderr);
    *lines = history_init();
    if (!line || !*lines) return NULL;
    HistEvent event;
    history(*lines, &event, H_SETSIZE, 100);
    el_set(line, EL_PROMPT, prompt_text);
    el_set(line, EL_EDITOR, "emacs");
    el_set(line, EL_HIST, history, *lines);
    el_set(line, EL_GETCFN, read_character);
    /* keys typed while an answer is written wait for the editor; shown at once they (^C!) would stand in the answer */
    el_set(line, EL_SETTY, "-x", "-echo", NULL);
    return line;
}

/* ---- the conversation ---- */

/* A model may say what is no UTF-8; no message may hold it. */
static void add_message(chat *c, const char *role, const char *text, size_t len) {
    size_t n_clean;
    c->messages = cli_realloc(c->messages, (c->n_messages + 1) * sizeof *c->messages);
    c->messages[c->n_messages++] = (tn_message){role, cli_utf8_clean(text, len, &n_clean)};
}

/* Leaves in the cache what is a beginning of ids, the last one excepted: its logits are wanted. */
static tn_status keep_common(chat *c, const int32_t *ids, size_t n, tn_error *err) {
    size_t keep = 0;
    while (keep < c->n_held && keep + 1 < n && c->held[keep] == ids[keep]) keep++;
    if (keep == c->n_held) return TN_OK;
    tn_status status = tn_sequence_cut(c->e->session, 0, (int32_t)keep, err);
    if (status == TN_ERR_USAGE) { /* a state that cannot be cut is made anew */
        keep = 0;
        status = tn_sequence_cut(c->e->session, 0, 0, err);
    }
    c->n_held = keep;
    return status;
}

/* Notes what the cache holds now: a beginning of prompt and answer. */
static void hold(chat *c, const int32_t *ids, size_t n, const cli_answer *a) {
    c->held = cli_realloc(c->held, (n + a->n) * sizeof *c->held);
    memcpy(c->held, ids, n * sizeof *ids);
    if (a->n) memcpy(c->held + n, a->ids, a->n * sizeof *a->ids);
    c->n_held = (size_t)tn_sequence_length(c->e->session, 0);
}

/* Messages that every conversation begins with. */
static size_t n_opening(const chat *c) {
    return c->e->o->system ? 1 : 0;
}

/* Forgets what was said, all but the system message and the last `keep` messages. */
static void start_anew(chat *c, size_t keep) {
    size_t first = n_opening(c), last = c->n_messages - keep;
    for (size_t i = first; i < last; i++) free((char *)c->messages[i].content);
    memmove(c->messages + first, c->messages + last, keep * sizeof *c->messages);
    c->n_messages = first + keep;
}

static void note_full(const chat *c) {
    cli_note(
        c->e->o,
        "The context of %d tokens is full (-c N gives more). What was said is dropped; a fresh conversation begins.",
        c->e->info.n_ctx);
}

/* The tokens of the conversation. One that has outgrown the context goes on with its last message alone, and *n is 0
 * where that is too long itself. */
static tn_status render(chat *c, int32_t **ids, size_t *n, tn_error *err) {
    tn_chat_options options = {.chat_template = c->chat_template};
    int32_t n_ctx = c->e->info.n_ctx;
    for (;;) {
        tn_status status = tn_chat_render(c->e->model, c->messages, c->n_messages, NULL, &options, NULL, ids, n, err);
        if (status || *n <= (size_t)n_ctx) return status;
        tn_free(*ids);
        *ids = NULL;
        if (c->n_messages == n_opening(c) + 1) break;
        note_full(c);
        start_anew(c, 1);
    }
    cli_note(c->e->o, "this message is too long: %zu tokens, and the context is of %d (-c N gives more)", *n, n_ctx);
    start_anew(c, 0);
    *n = 0;
    return TN_OK;
}

/* One turn. */
static tn_status take_turn(chat *c, tn_error *err) {
    int32_t *ids = NULL;
    size_t n = 0;
    cli_answer a = {0};
    tn_status status = render(c, &ids, &n, err);
    if (status || !n) goto done;
    status = keep_common(c, ids, n, err);
    if (status) goto done;
    cli_prompt prompt = {.ids = ids, .n = n, .cached = c->n_held, .show = true, .interrupts = &g_interrupts};
    status = cli_generate(c->e, c->sampler, &prompt, &a, err);
    puts("");
    fflush(stdout);
    if (status) goto done;
    hold(c, ids, n, &a);
    add_message(c, "assistant", a.text ? a.text : "", a.len);
    if (c->e->o->verbose) cli_note_timings(c->e, &a);
    if (a.stop == CLI_STOP_CONTEXT) {
        note_full(c);
        start_anew(c, 0);
    }
done:
    cli_answer_free(&a);
    tn_free(ids);
    return status;
}

static tn_status converse(chat *c, EditLine *line, History *lines, tn_error *err) {
    tn_status status = TN_OK;
    size_t len;
    const char *text;
    while (!status && (text = read_line(c, line, &len))) {
        HistEvent event;
        history(lines, &event, H_ENTER, text);
        add_message(c, "user", text, len);
        status = take_turn(c, err);
    }
    return status;
}

/* From the first prompt until the user leaves. */
static tn_status sit_down(chat *c, tn_error *err) {
    struct sigaction ours = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART}, before;
    History *lines = NULL;
    EditLine *line = open_line_editor(&lines);
    tn_status status = TN_OK;
    if (!line) return cli_fail(err, TN_ERR_RESOURCES, "cannot read lines from this terminal");
    if (pipe2(g_pipe, O_CLOEXEC | O_NONBLOCK)) {
        status = cli_fail(err, TN_ERR_RESOURCES, "cannot make a pipe: %s", strerror(errno));
    } else {
        sigaction(SIGINT, &ours, &before);
        cli_note(c->e->o, "Ctrl-C stops an answer, Ctrl-D leaves.");
        status = converse(c, line, lines, err);
        sigaction(SIGINT, &before, NULL);
        close(g_pipe[0]);
        close(g_pipe[1]);
    }
    history_end(lines);
    el_end(line);
    return status;
}

tn_status cli_chat(cli_engine *e, tn_sampler *sampler, const char *chat_template, tn_error *err) {
    if (!chat_template && !tn_has_chat_template(e->model))
        return cli_fail(err, TN_ERR_USAGE,
                        "a chat needs a chat template, and the model has none (-p TEXT prompts it)");
    chat c = {.e = e, .sampler = sampler, .chat_template = chat_template};
    if (e->o->system) add_message(&c, "system", e->o->system, strlen(e->o->system));
    tn_status status = sit_down(&c, err);
    cli_note_memory(e);
    for (size_t i = 0; i < c.n_messages; i++) free((char *)c.messages[i].content);
    free(c.messages);
    free(c.held);
    return status;
}
