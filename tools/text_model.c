/* text_model.c: see text_model.h. */
#include "text_model.h"
#include "report.h"

#include <string.h>

static int set_family(struct text_model *t, const char *name, const char *command)
{
    size_t size = 0;
    const char *text = ckpt_template(t->ckpt, &size);
    bool known = true;

    t->family = text ? chat_detect(text, size, &known) : CHAT_45;
    if (name)
        t->family = strcmp(name, "4.7") == 0 ? CHAT_47 : CHAT_45;
    else if (!known)
        report_note(command, "%s: the chat template is none of the family's; treated as 4.5 (--template chooses)",
            ckpt_path(t->ckpt));
    return EXIT_FINE;
}

static int open_tokenizer(struct text_model *t, bool needed, const char *command)
{
    const struct hparams *hp = ckpt_hparams(t->ckpt);
    struct vocab_source vocab = ckpt_vocab(t->ckpt);
    glm_error err = GLM_ERROR_INIT;

    if (vocab.kind == VOCAB_NONE && needed)
        return report_failed(command, "%s: there is no tokenizer here; put tokenizer.json beside the weights",
            ckpt_path(t->ckpt));
    if (vocab.kind != VOCAB_NONE && tok_open(t->mem, &vocab, hp ? hp->n_vocab : 0, &t->tok, &err))
        return report_error(command, &err);
    return EXIT_FINE;
}

int text_model_open(struct text_model *t, struct mem *m, const char *path, const char *template_name, bool needs_tok,
    const char *command)
{
    struct ckpt_options how = { .weights = GLM_WEIGHTS_NONE, .fs = &t->fs };
    glm_error err = GLM_ERROR_INIT;
    int status;

    *t = (struct text_model){ .mem = m };
    if (template_name && strcmp(template_name, "4.5") != 0 && strcmp(template_name, "4.7") != 0)
        return report_usage(command, "--template: \"%s\" is neither 4.5 nor 4.7", template_name);
    fs_init(&t->fs, NULL);
    if (ckpt_open(m, path, &how, &t->ckpt, &err))
        return report_error(command, &err);
    status = open_tokenizer(t, needs_tok, command);
    if (status == EXIT_FINE)
        status = set_family(t, template_name, command);
    if (status != EXIT_FINE)
        text_model_close(t);
    return status;
}

void text_model_close(struct text_model *t)
{
    tok_close(t->tok);
    ckpt_close(t->ckpt);
    t->tok = NULL;
    t->ckpt = NULL;
}
