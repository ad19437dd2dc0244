/* tenon VERB: finds the verb, reads its options, runs it, tells a failure in one line. */
#include "help.h"
#include "options.h"
#include "out.h"
#include "verbs.h"

#include <stdio.h>
#include <string.h>

const cli_verb cli_verbs[] = {
    {"run", RUN, cli_run, NULL, "answer a prompt, or chat"},
    {"logits", LOGITS, cli_logits, NULL, "write a model's logits for given tokens"},
    {"tokenize", TOKENIZE, cli_tokenize, NULL, "text to tokens, and back"},
    {"template", TEMPLATE, cli_template, NULL, "render messages with the chat template"},
    {"inspect", INSPECT, cli_inspect, "FILE", "what is in a GGUF file, and whether this build can run it"},
    {"explain", EXPLAIN, cli_explain, NULL, "what was fused and why, the kernels chosen, the memory plan"},
    {"verify", VERIFY, cli_verify, NULL, "fused against unfused, backend against reference"},
    {"perplexity", PERPLEXITY, cli_perplexity, NULL,
     "how well a model predicts a text, as llama-perplexity counts it"},
    {"bench", BENCH, cli_bench, NULL, "tokens a second, as llama-bench measures them"},
    {"profile", PROFILE, cli_profile, NULL, "where the time of a step goes, launch by launch"},
    {"quantize", QUANTIZE, cli_quantize, "IN OUT TYPE", "write a model's file anew, with weights of fewer bits"},
    {"synth", SYNTH, cli_synth, "PRESET", "a model of a published shape with random weights, for measurements"},
    {"doctor", DOCTOR, cli_doctor, NULL, "which backends, libraries and devices are here"},
    {0},
};

static tn_status run_verb(const cli_verb *verb, int argc, char **argv, tn_error *err) {
    cli_options o;
    tn_status status = cli_parse(verb, argc, argv, &o, err);
    if (!status) {
        if (o.help)
            cli_print_help(verb);
        else
            status = verb->run(&o, err);
    }
    cli_options_free(&o);
    return status;
}

static tn_status run(int argc, char **argv, tn_error *err) {
    if (argc < 2) {
        cli_print_usage(stderr);
        return TN_ERR_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "help")) return cli_help(argc - 2, argv + 2, err);
    if (!strcmp(word, "-h") || !strcmp(word, "--help")) return cli_help(0, NULL, err);
    if (!strcmp(word, "--version")) {
        printf("tenon %s\n", tn_version());
        return TN_OK;
    }
    for (const cli_verb *v = cli_verbs; v->name; v++)
        if (!strcmp(word, v->name)) return run_verb(v, argc - 2, argv + 2, err);
    return cli_fail(err, TN_ERR_USAGE, "unknown verb '%s' (tenon -h lists them)", word);
}

int main(int argc, char **argv) {
    tn_error err = {0};
    tn_status status = run(argc, argv, &err);
    if (cli_out_flush() && !status) status = cli_fail(&err, TN_ERR_RESOURCES, "cannot write to stdout");
    if (status && err.text[0]) cli_tell_error(&err);
    return status;
}
