/* Help in all its forms, from the table of verbs and the table of options: -h, a manual page, and completion for three
 * shells. */
#include "help.h"
#include "out.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void cli_print_usage(FILE *to) {
    fprintf(to, "tenon VERB [options]\n\n");
    for (const cli_verb *v = cli_verbs; v->name; v++) fprintf(to, "  %-10s  %s\n", v->name, v->help);
    fprintf(to, "\ntenon VERB -h lists the options of a verb; tenon help --format man|bash|zsh|fish prints a manual "
                "page or a shell's\n"
                "completion; tenon --version tells the version.\n");
}

void cli_print_help(const cli_verb *verb) {
    cli_option_info r;
    printf("tenon %s%s%s [options]: %s\n\n", verb->name, verb->operand ? " " : "", verb->operand ? verb->operand : "",
           verb->help);
    for (size_t i = 0; cli_option_at(verb, i, &r); i++) {
        char left[80];
        snprintf(left, sizeof left, "%s%s%s%s%s", r.name, r.alias ? ", " : "", r.alias ? r.alias : "",
                 r.arg ? " " : "", r.arg ? r.arg : "");
        printf("  %-30s  %s%s\n", left, r.help, r.needed ? " (needed)" : "");
    }
}

/* ---- what a value may be ---- */

/* The words an option takes, with spaces between: its choices, or the rules of fusion. Empty: any, or a file. */
static void words_of(const cli_option_info *r, char *out, size_t cap) {
    size_t n = 0;
    out[0] = 0;
    if (!strcmp(r->name, "--fuse")) {
        n = (size_t)snprintf(out, cap, "all none");
        for (int32_t i = 0; tn_rule_name(i) && n < cap; i++)
            n += (size_t)snprintf(out + n, cap - n, " %s -%s", tn_rule_name(i), tn_rule_name(i));
        return;
    }
    if (!r->arg || !strchr(r->arg, '|') || isupper((unsigned char)r->arg[0])) return;
    for (const char *p = r->arg; *p && n + 1 < cap; p++) { /* "cpu|cuda[:N]": what is in brackets is no word */
        if (*p == '[') p = strchr(p, ']') ? strchr(p, ']') + 1 : p;
        if (!*p) break;
        out[n++] = *p == '|' ? ' ' : *p;
    }
    out[n] = 0;
}

/* What an option's argument is by its name in the table. */
static bool takes_file(const char *arg) {
    return arg && (!strncmp(arg, "FILE", 4) || strstr(arg, ".json") || !strcmp(arg, "PATH"));
}

static bool takes_folder(const char *arg) {
    return arg && !strcmp(arg, "DIR");
}

/* ---- a manual page ---- */

/* Text in roff: what begins a line with a dot, hyphens and backslashes are not to be understood. */
static void roff(const char *s) {
    if (*s == '.' || *s == '\'') fputs("\\&", stdout);
    for (; *s; s++) {
        if (*s == '-')
            fputs("\\-", stdout);
        else if (*s == '\\')
            fputs("\\e", stdout);
        else
            putchar(*s);
    }
}

static void man_option(const cli_option_info *r) {
    const char *names[] = {r->name, r->alias};
    puts(".TP");
    for (int i = 0; i < 2 && names[i]; i++) {
        fputs(i ? ", \\fB" : "\\fB", stdout);
        roff(names[i]);
        fputs("\\fR", stdout);
    }
    if (r->arg) {
        fputs(" \\fI", stdout);
        roff(r->arg);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    roff(r->help);
    puts(r->needed ? " (needed)" : "");
}

/* Whether an option is shown once for all verbs: the same row of the table serves several of them. */
static bool is_common(const cli_option_info *option) {
    cli_option_info r;
    int verbs = 0;
    for (const cli_verb *v = cli_verbs; v->name; v++)
        for (size_t i = 0; cli_option_at(v, i, &r); i++) verbs += r.help == option->help;
    return verbs > 3;
}

static void man_verb(const cli_verb *v) {
    cli_option_info r;
    printf(".SS tenon %s", v->name);
    if (v->operand) printf(" \\fI%s\\fR", v->operand);
    putchar('\n');
    roff(v->help);
    puts(".");
    for (size_t i = 0; cli_option_at(v, i, &r); i++)
        if (!is_common(&r)) man_option(&r);
    puts(".PP\nAnd of the common options:");
    for (size_t i = 0; cli_option_at(v, i, &r); i++) {
        if (!is_common(&r)) continue;
        fputs("\\fB", stdout);
        roff(r.name);
        puts("\\fR");
    }
}

/* Of two rows for one name, say -p, each has its turn. */
static void man_common(void) {
    const char *seen[100];
    int n = 0;
    cli_option_info r;
    puts(".SH COMMON OPTIONS");
    for (const cli_verb *v = cli_verbs; v->name; v++)
        for (size_t i = 0; cli_option_at(v, i, &r); i++) {
            bool known = !is_common(&r) || n == sizeof seen / sizeof *seen;
            for (int k = 0; k < n; k++) known |= seen[k] == r.help;
            if (known) continue;
            seen[n++] = r.help;
            man_option(&r);
        }
}

static const char *const examples[][2] = {
    {"an answer", "tenon run -m model.gguf -p 'Why is the sky blue?' -n 100"},
    {"what was fused, as a page", "tenon explain -m model.gguf --format html > plan.html"},
    {"where the time goes, fused beside unfused", "tenon profile -m model.gguf -p 0 -n 64 --compare"},
    {"a regression since yesterday?",
     "tenon bench -m model.gguf -o json > new.json && tenon bench --compare old.json new.json"},
    {"is a GPU right?", "tenon verify --ops -b webgpu && tenon verify -m model.gguf -b webgpu"},
};

static void print_man(void) {
    static const struct {
        tn_status code;
        const char *what;
    } codes[] = {
        {TN_OK, "fine"},
        {TN_ERR_CHECK,
         "a check failed: verify found a difference beyond its bound, bench \\-\\-compare a regression"},
        {TN_ERR_USAGE, "an option or argument makes no sense"},
        {TN_ERR_INPUT, "a file or a text is bad"},
        {TN_ERR_UNAVAILABLE, "a device or a library is not there"},
        {TN_ERR_INTERNAL, "a bug in tenon"},
        {TN_ERR_RESOURCES, "out of memory, or the device was lost"},
    };
    printf(".TH TENON 1 \"\" \"tenon %s\" \"User Commands\"\n.SH NAME\ntenon \\- run large language models from GGUF "
           "files\n",
           tn_version());
    puts(".SH SYNOPSIS\n.B tenon\n.I verb\n[\\fIoptions\\fR]\n.SH DESCRIPTION\n"
         "Data goes to the standard output, talk to the standard error. Options that llama.cpp's tools have too bear "
         "the same names, but for \\-b, the backend.\n.SH VERBS");
    for (const cli_verb *v = cli_verbs; v->name; v++) man_verb(v);
    man_common();
    puts(".SH EXAMPLES");
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        printf(".TP\n%s\n", examples[i][0]);
        roff(examples[i][1]);
        putchar('\n');
    }
    puts(".SH EXIT STATUS");
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        printf(".TP\n.B %d\n%s\n", codes[i].code, codes[i].what);
}

/* ---- bash ---- */

static void bash_values(const cli_verb *v) {
    cli_option_info r;
    for (size_t i = 0; cli_option_at(v, i, &r); i++) {
        char words[1500];
        words_of(&r, words, sizeof words);
        if (!*words && !takes_file(r.arg) && !takes_folder(r.arg)) continue;
        printf("        %s:%s", v->name, r.name);
        if (r.alias) printf("|%s:%s", v->name, r.alias);
        if (*words) /* of a list, its last word */
            printf(") COMPREPLY=($(compgen -P \"${now%%\"${now##*,}\"}\" -W '%s' -- \"${now##*,}\")); return;;\n",
                   words);
        else
            printf(") COMPREPLY=($(compgen -%c -- \"$now\")); return;;\n", takes_file(r.arg) ? 'f' : 'd');
    }
}

static void print_bash(void) {
    cli_option_info r;
    puts("# bash completion for tenon, made by `tenon help --format bash`\n"
         "_tenon() {\n"
         "    local now=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
         "    COMPREPLY=()\n"
         "    if [ \"$COMP_CWORD\" = 1 ]; then");
    printf("        COMPREPLY=($(compgen -W '");
    for (const cli_verb *v = cli_verbs; v->name; v++) printf("%s ", v->name);
    puts("help --help --version' -- \"$now\")); return\n"
         "    fi\n"
         "    case $verb:$before in\n"
         "        help:--format) COMPREPLY=($(compgen -W 'man bash zsh fish' -- \"$now\")); return;;");
    for (const cli_verb *v = cli_verbs; v->name; v++) bash_values(v);
    puts("    esac\n"
         "    local options=--format\n"
         "    case $verb in");
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        printf("        %s) options='", v->name);
        for (size_t i = 0; cli_option_at(v, i, &r); i++)
            printf("%s%s%s ", r.name, r.alias ? " " : "", r.alias ? r.alias : "");
        puts("';;");
    }
    puts("    esac\n"
         "    case $now in\n"
         "        -*) COMPREPLY=($(compgen -W \"$options\" -- \"$now\"));;\n"
         "        *) COMPREPLY=($(compgen -f -- \"$now\"));;\n"
         "    esac\n"
         "}\n"
         "complete -o filenames -F _tenon tenon");
}

/* ---- zsh ---- */

/* Text inside '...[...]', where brackets and colons have a meaning. */
static void zsh_text(const char *s) {
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:\\", *s))
            printf("\\%c", *s);
        else
            putchar(*s);
    }
}

static void zsh_option(const cli_option_info *r, const char *name) {
    char words[1500];
    words_of(r, words, sizeof words);
    printf("            '*%s[", name);
    zsh_text(r->help);
    putchar(']');
    for (int i = 0; i < r->n_values; i++) {
        putchar(':');
        zsh_text(r->arg);
        putchar(':');
        if (*words)
            printf("(%s)", words);
        else if (takes_file(r->arg))
            fputs("_files", stdout);
        else if (takes_folder(r->arg))
            fputs("_files -/", stdout);
    }
    puts("' \\");
}

static void print_zsh(void) {
    cli_option_info r;
    puts("#compdef tenon\n"
         "# zsh completion for tenon, made by `tenon help --format zsh`\n"
         "_tenon() {\n"
         "    local -a verbs\n"
         "    verbs=(");
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        printf("        '%s:", v->name);
        zsh_text(v->help);
        puts("'");
    }
    puts("        'help:options, a manual page, completion'\n"
         "    )\n"
         "    if (( CURRENT == 2 )); then\n"
         "        _describe verb verbs\n"
         "        return\n"
         "    fi\n"
         "    local verb=$words[2]\n"
         "    shift words\n"
         "    (( CURRENT-- ))\n"
         "    case $verb in\n"
         "        help) _arguments '--format[]:format:(man bash zsh fish)';;");
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        printf("        %s) _arguments \\\n", v->name);
        for (size_t i = 0; cli_option_at(v, i, &r); i++) {
            zsh_option(&r, r.name);
            if (r.alias) zsh_option(&r, r.alias);
        }
        puts("            '*:file:_files';;");
    }
    puts("    esac\n"
         "}\n"
         "_tenon \"$@\"");
}

/* ---- fish ---- */

/* Text inside '...'. */
static void fish_text(const char *s) {
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\') putchar('\\');
        putchar(*s);
    }
}

/* -s for -m, -l for --model, -o for -ngl. */
static void fish_name(const char *name) {
    if (name[1] == '-')
        printf(" -l %s", name + 2);
    else
        printf(" -%c %s", name[2] ? 'o' : 's', name + 1);
}

static void print_fish(void) {
    cli_option_info r;
    puts("# fish completion for tenon, made by `tenon help --format fish`\n"
         "complete -c tenon -n __fish_use_subcommand -f\n"
         "complete -c tenon -n __fish_use_subcommand -a help -d 'options, a manual page, completion'\n"
         "complete -c tenon -n '__fish_seen_subcommand_from help' -l format -x -a 'man bash zsh fish'");
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        printf("complete -c tenon -n __fish_use_subcommand -a %s -d '", v->name);
        fish_text(v->help);
        puts("'");
        for (size_t i = 0; cli_option_at(v, i, &r); i++) {
            char words[1500];
            words_of(&r, words, sizeof words);
            printf("complete -c tenon -n '__fish_seen_subcommand_from %s'", v->name);
            fish_name(r.name);
            if (r.alias) fish_name(r.alias);
            if (r.arg) fputs(takes_file(r.arg) ? " -r" : " -x", stdout);
            if (*words) printf(" -a '%s'", words);
            if (takes_folder(r.arg)) fputs(" -a '(__fish_complete_directories)'", stdout);
            fputs(" -d '", stdout);
            fish_text(r.help);
            puts("'");
        }
    }
}

/* ---- the verb ---- */

tn_status cli_help(int argc, char **argv, tn_error *err) {
    static const struct {
        const char *name;
        void (*print)(void);
    } formats[] = {{"man", print_man}, {"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    if (!argc || (argc == 1 && (!strcmp(argv[0], "-h") || !strcmp(argv[0], "--help")))) {
        cli_print_usage(stdout);
        return TN_OK;
    }
    if (argc == 1)
        for (const cli_verb *v = cli_verbs; v->name; v++)
            if (!strcmp(argv[0], v->name)) {
                cli_print_help(v);
                return TN_OK;
            }
    if (argc == 2 && !strcmp(argv[0], "--format"))
        for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
            if (!strcmp(argv[1], formats[i].name)) {
                formats[i].print();
                return TN_OK;
            }
    return cli_fail(err, TN_ERR_USAGE, "help takes a verb, or --format man, bash, zsh or fish");
}
