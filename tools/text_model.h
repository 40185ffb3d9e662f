/* text_model.h: what the commands that handle text need of a MODEL: its tokenizer and its chat template's family, from a
 * checkpoint or from a tokenizer.json alone. No weights are touched.
 */
#ifndef GLM_TOOLS_TEXT_MODEL_H
#define GLM_TOOLS_TEXT_MODEL_H

#include "../lib/io/io.h"
#include "../lib/text/text.h"

struct text_model {
    struct mem *mem;
    struct fs fs;
    struct ckpt *ckpt;
    struct tok *tok;         /* NULL: the checkpoint has none */
    enum chat_family family;
};

/* template_name: NULL (what the checkpoint says), "4.5" or "4.7". Where the checkpoint's own text is not known, 4.5 is
 * taken and said so. EXIT_FINE, or the status to exit with, after an error line. */
int text_model_open(struct text_model *t, struct mem *m, const char *path, const char *template_name, bool needs_tok,
    const char *command);
void text_model_close(struct text_model *t);

#endif
