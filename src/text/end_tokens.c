#include "text/end_tokens.h"

/* What a well-known text means. FIM_* are for filling in the middle: of each kind one token counts, and the first three
 * of them end a generation. */
typedef enum role { ENDS, FIM_PAD, FIM_REPO, FIM_SEP, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE, PLAIN } role;

static const struct {
    const char *text;
    role role;
} known[] = {
    {"<|eot_id|>", ENDS},
    {"<|im_end|>", ENDS},
    {"<|end|>", ENDS},
    {"<|return|>", ENDS},
    {"<|call|>", ENDS},
    {"<|flush|>", ENDS},
    {"<|calls|>", ENDS},
    {"<end_of_turn>", ENDS},
    {"<|endoftext|>", ENDS},
    {"</s>", ENDS},
    {"<|eom_id|>", ENDS},
    {"<EOT>", ENDS},
    {"_<EOT>", ENDS},
    {"[EOT]", ENDS},
    {"[EOS]", ENDS},
    {"<|end_of_text|>", ENDS},
    {"<end_of_utterance>", ENDS},
    {"<eos>", ENDS},
    {"<turn|>", ENDS},
    {"<|tool_response>", ENDS},
    {"<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     ENDS},
    {"[e~[", ENDS},
    {"<|fim_pad|>", FIM_PAD},
    {"<fim-pad>", FIM_PAD},
    {"<fim_pad>", FIM_PAD},
    {"<PAD>", FIM_PAD},
    {"[PAD]", FIM_PAD},
    {"<|fim_repo|>", FIM_REPO},
    {"<|repo_name|>", FIM_REPO},
    {"<fim-repo>", FIM_REPO},
    {"<REPO>", FIM_REPO},
    {"<reponame>", FIM_REPO},
    {"<|file_sep|>", FIM_SEP},
    {"<|fim_prefix|>", FIM_PREFIX},
    {"<fim-prefix>", FIM_PREFIX},
    {"<fim_prefix>", FIM_PREFIX},
    {"<PRE>", FIM_PREFIX},
    {"<|fim_suffix|>", FIM_SUFFIX},
    {"<fim-suffix>", FIM_SUFFIX},
    {"<fim_suffix>", FIM_SUFFIX},
    {"<SUF>", FIM_SUFFIX},
    {"<|fim_middle|>", FIM_MIDDLE},
    {"<fim-middle>", FIM_MIDDLE},
    {"<fim_middle>", FIM_MIDDLE},
    {"<MID>", FIM_MIDDLE},
    /* part of what the model says, though the file calls them control tokens */
    {"<|channel|>", PLAIN},
    {"<|message|>", PLAIN},
    {"<|start|>", PLAIN},
    {"<|constrain|>", PLAIN},
};

/* Keys that name a token of a role; one in the file is used instead of the known texts. */
static const struct {
    const char *key;
    role role;
} keys[] = {
    {"tokenizer.ggml.eos_token_id", ENDS},         {"tokenizer.ggml.eot_token_id", ENDS},
    {"tokenizer.ggml.eom_token_id", ENDS},         {"tokenizer.ggml.fim_pad_token_id", FIM_PAD},
    {"tokenizer.ggml.fim_rep_token_id", FIM_REPO}, {"tokenizer.ggml.fim_sep_token_id", FIM_SEP},
};

const char *tn_end_token_key(size_t i) {
    return i < sizeof keys / sizeof *keys ? keys[i].key : NULL;
}

static int32_t find(const tn_vocab *v, const char *text) {
    return tn_vocab_find(v, tn_str_of(text));
}

/* The id, where the token ends a generation. */
static int32_t find_end(const tn_vocab *v, const char *text) {
    int32_t id = find(v, text);
    return id >= 0 && v->flags[id] & TN_TOKEN_ENDS ? id : -1;
}

/* A token that only looks like an end beside others. */
static void unmark(tn_vocab *v, const char *text, tn_token_type type) {
    int32_t id = find_end(v, text);
    if (id < 0) return;
    v->flags[id] &= (uint8_t)~TN_TOKEN_ENDS;
    v->type[id] = (uint8_t)type;
}

void tn_vocab_mark_ends(tn_vocab *v, const tn_gguf *g) {
    bool have[PLAIN + 1] = {false};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint32_t id;
        if (!tn_gguf_get_u32(g, keys[i].key, &id) || id >= (uint32_t)v->n) continue;
        v->flags[id] |= TN_TOKEN_ENDS;
        have[keys[i].role] = keys[i].role != ENDS;
    }
    if (v->eos >= 0) v->flags[v->eos] |= TN_TOKEN_ENDS;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        role r = known[i].role;
        int32_t id = find(v, known[i].text);
        if (id < 0 || have[r]) continue;
        v->type[id] = r == PLAIN ? TN_TOKEN_USER : TN_TOKEN_CONTROL;
        if (r <= FIM_SEP) v->flags[id] |= TN_TOKEN_ENDS;
        have[r] = r != ENDS && r != PLAIN;
    }
    bool calls = find_end(v, "<|call|>") >= 0 || find_end(v, "<|calls|>") >= 0;
    bool returns = find_end(v, "<|return|>") >= 0 || find_end(v, "<|flush|>") >= 0;
    if (calls && returns) unmark(v, "<|end|>", TN_TOKEN_USER);
    if (find_end(v, "<|tool_response>") >= 0) unmark(v, "</s>", TN_TOKEN_NORMAL);
}
