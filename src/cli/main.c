#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

const struct verb verbs[] = {
    {"up", verb_up, "[--config F] [--set KEY=VALUE ...] [--foreground] [--timeout T]",
     "starts the daemon and waits until its pools are warm",
     "Builds the default image when it is absent. Where a daemon answers already, says so.\n"
     "--set takes any key of `warmpool config docs`; lists are comma-separated."},
    {"down", verb_down, "[--timeout T] [--force]", "lets running tasks end, stops the daemon, leaves nothing behind",
     "Tasks that still run after T (60s; 0: no limit) are ended. --force does not wait for tasks."},
    {"run", verb_run, "TYPE [OPTION...] -- COMMAND [ARG...]", "runs a task in a warm container of agent type TYPE",
     "  -i                 passes stdin to the command\n"
     "  -t                 gives it a terminal; with -i, yours (-it for both)\n"
     "  -e NAME=VALUE      sets a variable (again for more)\n"
     "  --secret NAME=VALUE, NAME=@FILE\n"
     "                     a secret, as a sealed memory file whose path the task finds in $WARMPOOL_SECRET_NAME; @- "
     "is stdin\n"
     "  --secret-env NAME=VALUE, NAME=@FILE\n"
     "                     the same as the variable NAME\n"
     "  --timeout T        ends the task after T (500ms, 30s, 5m; 0: never)\n"
     "  --kill-timeout T   between SIGTERM and SIGKILL\n"
     "  --workdir DIR      instead of /workspace\n"
     "  --priority P       critical, high, normal, low or background\n"
     "  --queue-timeout T  waits at most T for a container\n"
     "  --retry N          tries again so often when its container fails before it began\n"
     "  --idempotent       may also be tried again when that fails later and nothing of it was seen yet\n"
     "  --fresh            a container that never served another task\n"
     "  --id ID            a name of your own for the task\n"
     "  --copy-in SRC:DST  copies a file or directory of this machine into the container first; SRC - is a tar on "
     "stdin\n"
     "  --copy-out SRC:DST copies one of the container to this machine afterwards; DST - is a tar on stdout\n"
     "  --artifact PATH    puts the content of a file, or of a directory's files, into the ExecutionResult\n"
     "  --json             prints the ExecutionResult instead of the output\n\n"
     "Ctrl-C ends the task's whole process tree; a second one does not wait. Exits with the command's code; 124 timed "
     "out, 125 warmpool or\n"
     "the engine failed, 126 cannot execute, 127 not found, 128+N killed by signal N (137 with \"out of memory\" when "
     "that was why)."},
    {"lease", verb_lease, "TYPE [--ttl T] [--hold] [--fresh] [--priority P] [--queue-timeout T] [--json]",
     "keeps a container for several tasks, and prints the lease's id",
     "Tasks in it (`warmpool exec`) share files and background processes. It ends by `warmpool release`, when it was "
     "not "
     "used for its time\n"
     "to live (--ttl; leaseTtl by default), or, with --hold, when this command ends. Its container is then reset."},
    {"exec", verb_run, "LEASE [OPTION...] -- COMMAND [ARG...]", "runs a task in a lease's container",
     "Options and exit codes are those of `warmpool run`. What it leaves running lives until the lease ends. One task "
     "runs "
     "at a time,\n"
     "others wait for it."},
    {"cp", verb_cp, "SRC LEASE:PATH | LEASE:PATH DST",
     "copies files and directories into a lease's container, or out of it",
     "As `warmpool run --copy-in` and `--copy-out`: a relative PATH is below /workspace; - is a tar on stdin or "
     "stdout."},
    {"renew", verb_renew, "LEASE [--ttl T] [--json]", "begins a lease's time to live anew, or changes it", ""},
    {"release", verb_release, "LEASE [--json]", "ends a lease, and what runs in it", ""},
    {"leases", verb_leases, "[--json]", "the leases", ""},
    {"status", verb_status, "[--json]", "the daemon, the engine and the pools", ""},
    {"ps", verb_ps, "[--json]", "the containers", ""},
    {"events", verb_events, "[--type T,...] [--agent-type TYPE] [--since ID] [-n COUNT] [--no-follow] [--json]",
     "what happens, as it happens",
     "  --type T,...       only events of these types (docs/EVENTS.md lists them)\n"
     "  --agent-type TYPE  only those of this agent type\n"
     "  --since ID         goes on after an event that was seen before\n"
     "  -n COUNT           ends after so many\n"
     "  --no-follow        shows those that the daemon still keeps (with --since: those after it) and ends\n"
     "  --json             one JSON object a line\n\n"
     "After a connection that broke it goes on where it was. Ctrl-C ends it with 0, a daemon that stops with 125."},
    {"metrics", verb_metrics, "[--json]", "what has been counted", ""},
    {"scale", verb_scale, "TYPE N|auto [--json]", "pins a pool's size; auto hands it back to the scaler", ""},
    {"warm", verb_warm, "TYPE N [--json]", "waits until N containers are warm, without pinning the size", ""},
    {"refresh", verb_refresh, "TYPE|CONTAINER [--json]",
     "replaces a container, or all of a pool: at once when idle, after its task when busy", ""},
    {"pause", verb_pool, "TYPE [--json]", "lets the tasks of an agent type wait", ""},
    {"resume", verb_pool, "TYPE [--json]", "lets them run again; opens a pool that was drained", ""},
    {"drain", verb_pool, "TYPE [--json]", "takes no new tasks, waits for the others, removes the pool's containers",
     ""},
    {"reload", verb_reload, "[--json]", "reads the configuration file again: all of it or, when it is wrong, nothing",
     ""},
    {"image", verb_delegate, "build [--tag T] | pull REF", "makes the default agent image, or pulls one", ""},
    {"doctor", verb_delegate, "[--json]", "checks engine, permissions, image, kernel limits", ""},
    {"config", verb_delegate, "check FILE | show | docs", "checks and shows configuration", ""},
    {NULL, NULL, NULL, NULL, NULL},
};

const struct verb *verb_find(const char *name)
{
    for (const struct verb *verb = verbs; verb->name != NULL; verb++)
        if (strcmp(verb->name, name) == 0)
            return verb;
    return NULL;
}

void verb_usage(const struct verb *verb)
{
    printf("usage: warmpool [--socket PATH] %s %s\n\n%s.\n", verb->name, verb->arguments, verb->help);
    if (verb->detail[0] != '\0')
        printf("\n%s\n", verb->detail);
}

static void usage(FILE *out)
{
    fprintf(out, "usage: warmpool [--socket PATH] VERB [ARG...]\n\n");
    for (const struct verb *verb = verbs; verb->name != NULL; verb++)
        fprintf(out, "  %-9s %s\n", verb->name, verb->help);
    fprintf(out, "\n`warmpool VERB --help` says more. The socket is --socket, $WARMPOOL_SOCKET, or %s.\n",
            geteuid() == 0 ? "/run/warmpool/api.sock" : "$XDG_RUNTIME_DIR/warmpool/api.sock");
}

int failed(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("warmpool: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
    va_end(args);
    return EXIT_FAILED;
}

int misused(const struct cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "warmpool %s: ", cli->argv[0]);
    vfprintf(stderr, format, args);
    fprintf(stderr, "; see warmpool %s --help\n", cli->argv[0]);
    va_end(args);
    return EXIT_FAILED;
}

static char *default_socket(void)
{
    const char *given = getenv("WARMPOOL_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    char *path = NULL;
    if (given != NULL && given[0] != '\0')
        return strdup(given);
    if (geteuid() == 0)
        return strdup("/run/warmpool/api.sock");
    if (runtime != NULL && runtime[0] == '/')
        return asprintf(&path, "%s/warmpool/api.sock", runtime) < 0 ? NULL : path;
    return asprintf(&path, "/tmp/warmpool-%u/api.sock", (unsigned)geteuid()) < 0 ? NULL : path;
}

/* A relative path would mean another place to the daemon. */
static char *absolute(const char *path)
{
    char *whole = NULL;
    if (path[0] == '/')
        return strdup(path);
    char *here = getcwd(NULL, 0);
    if (here == NULL || asprintf(&whole, "%s/%s", here, path) < 0)
        whole = NULL;
    free(here);
    return whole;
}

int main(int argc, char *argv[])
{
    struct cli cli = {.program = argv[0]};
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "--socket") == 0) {
        cli.socket = absolute(argv[2]);
        at = 3;
    }
    if (at >= argc) {
        usage(stderr);
        return EXIT_FAILED;
    }
    if (strcmp(argv[at], "--version") == 0) {
        printf("warmpool %s\n", WARMPOOL_VERSION);
        return 0;
    }
    if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "help") == 0) {
        const struct verb *about = at + 1 < argc ? verb_find(argv[at + 1]) : NULL;
        if (about != NULL)
            verb_usage(about);
        else
            usage(stdout);
        return 0;
    }
    const struct verb *verb = verb_find(argv[at]);
    if (verb == NULL) {
        failed("there is no verb \"%s\"", argv[at]);
        usage(stderr);
        return EXIT_FAILED;
    }
    if (cli.socket == NULL)
        cli.socket = default_socket();
    cli.argc = argc - at;
    cli.argv = argv + at;
    /* The daemon is looked for beside this program, later and from another directory. */
    char *program = strchr(argv[0], '/') != NULL ? absolute(argv[0]) : NULL;
    if (program != NULL)
        cli.program = program;
    int code = verb->run(&cli);
    free(program);
    free(cli.socket);
    return code;
}
