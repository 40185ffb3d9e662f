/* tools.h: the subcommands of glm45. Each gets its own name as argv[0] and its arguments behind it, and returns an exit
 * status: 0 fine, 1 failed, 2 wrongly called.
 */
#ifndef GLM_TOOLS_TOOLS_H
#define GLM_TOOLS_TOOLS_H

int chat_main(int argc, char **argv);
int complete_main(int argc, char **argv);
int infill_main(int argc, char **argv);
int inspect_main(int argc, char **argv);
int synth_main(int argc, char **argv);
int bench_main(int argc, char **argv);
int tokenize_main(int argc, char **argv);
int render_main(int argc, char **argv);
int constrain_main(int argc, char **argv);
int parse_main(int argc, char **argv);
int logits_main(int argc, char **argv);

#endif
