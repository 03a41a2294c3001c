/* warmpoold: the executor and the API in one process; and the verbs that need configuration or an engine, but no
 * daemon. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/verbs.h"

static const struct {
    const char *name;
    int (*run)(int argc, char *argv[]);
    const char *help;
} verbs[] = {
    {"serve", verb_serve, "runs the daemon in the foreground"},
    {"image", verb_image, "image build [--tag T] | pull REF: makes the default agent image, or pulls one"},
    {"doctor", verb_doctor, "checks engine, permissions, image and kernel limits"},
    {"config", verb_config, "config check FILE | show | docs"},
    {"pack", verb_pack, "pack SRC: files, or with - a tar from stdin, as frames to stdout"},
    {"unpack", verb_unpack, "unpack DST: frames from stdin as files, or with - as a tar to stdout"},
};

static void usage(FILE *out)
{
    fprintf(out, "usage: warmpoold VERB [OPTION...]\n\n");
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        fprintf(out, "  %-8s %s\n", verbs[i].name, verbs[i].help);
    fprintf(out, "\n`warmpoold VERB --help` says more. Most people use `warmpool up`.\n");
}

int main(int argc, char *argv[])
{
    mallopt(M_ARENA_MAX, 1); /* one thread does the work */
    mallopt(M_TRIM_THRESHOLD, 256 * 1024);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("warmpoold %s\n", WARMPOOL_VERSION);
        return 0;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    fprintf(stderr, "warmpoold: there is no verb \"%s\"\n\n", argv[1]);
    usage(stderr);
    return 2;
}
