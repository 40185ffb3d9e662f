/* tools.h: the subcommands of glm45. Each gets its own name as argv[0] and its arguments behind it, and returns an exit
 * status: 0 fine, 1 failed, 2 wrongly called.
 */
#ifndef GLM_TOOLS_TOOLS_H
#define GLM_TOOLS_TOOLS_H

int synth_main(int argc, char **argv);

#endif
