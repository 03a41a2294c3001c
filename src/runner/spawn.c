/* vfork() and exec. The child shares the parent's memory until its exec, so it writes nothing but its failure, and it
 * runs with every signal blocked until it has put the dispositions back. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/runner.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define PATH_BYTES   4096U

static const char *environment_get(char *const *env, const char *name)
{
    size_t length = strlen(name);
    for (; *env != NULL; env++)
        if (strncmp(*env, name, length) == 0 && (*env)[length] == '=')
            return *env + length + 1;
    return NULL;
}

/* Tries each directory of PATH, as execvp() does, but never a shell. Returns the errno to report. */
static int exec_on_path(char *const *argv, char *const *env)
{
    if (strchr(argv[0], '/') != NULL) {
        execve(argv[0], argv, env);
        return errno;
    }
    const char *path = environment_get(env, "PATH");
    if (path == NULL)
        path = PATH_DEFAULT;
    size_t name = strlen(argv[0]);
    int result = ENOENT;
    for (;;) {
        size_t length = strcspn(path, ":");
        char file[PATH_BYTES];
        if (length + 1 + name + 1 <= sizeof file) {
            memcpy(file, path, length);
            size_t used = length;
            if (length > 0)
                file[used++] = '/';
            memcpy(file + used, argv[0], name + 1);
            execve(file, argv, env);
            if (errno == EACCES)
                result = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG)
                return errno;
        }
        if (path[length] == '\0')
            return result;
        path += length + 1;
    }
}

static void child(const struct runner *runner, const struct spawn_request *request,
                  volatile struct spawn_failure *failure)
{
    const struct sigaction ordinary = {.sa_handler = SIG_DFL};
    sigset_t none;
    sigaction(SIGCHLD, &ordinary, NULL);
    sigaction(SIGPIPE, &ordinary, NULL);
    failure->stage = SPAWN_SETUP;
    setsid();
    if (dup2(request->in, 0) < 0 || dup2(request->out, 1) < 0 || dup2(request->err, 2) < 0)
        goto failed;
    if (request->terminal && ioctl(0, TIOCSCTTY, 0) < 0)
        goto failed;
    if (request->cpu_limit_s != 0) { /* of the child alone: memory is shared until exec, limits are not */
        const struct rlimit limit = {.rlim_cur = request->cpu_limit_s, .rlim_max = request->cpu_limit_s + 1ULL};
        if (setrlimit(RLIMIT_CPU, &limit) < 0)
            goto failed;
    }
    failure->stage = SPAWN_WORKDIR;
    if (request->workdir[0] != '\0' ? chdir(request->workdir) < 0 : runner->cwd_fd >= 0 && fchdir(runner->cwd_fd) < 0)
        goto failed;
    failure->stage = SPAWN_SETUP; /* last, for what is open there may be what was needed until now */
    for (uint32_t i = 0; request->secrets != NULL && i < request->secrets->count; i++)
        if (dup2(request->secrets->fd[i], SECRET_FD_FIRST + (int)i) < 0)
            goto failed;
    failure->stage = SPAWN_EXEC;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    failure->error = exec_on_path(request->argv, request->env);
    _exit(127);
failed:
    failure->error = errno;
    _exit(127);
}

pid_t spawn(const struct runner *runner, const struct spawn_request *request, struct spawn_failure *failure)
{
    volatile struct spawn_failure told = {0};
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t pid = vfork();
    if (pid == 0)
        child(runner, request, &told);
    int error = errno;
    /* The child's dispositions were its own; its mask too. */
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        *failure = (struct spawn_failure){.error = error, .stage = SPAWN_SETUP};
        return -1;
    }
    if (told.error != 0) {
        *failure = (struct spawn_failure){.error = told.error, .stage = told.stage};
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return -1;
    }
    return pid;
}

int spawn_probe(struct runner *runner)
{
    char *const argv[] = {(char *)(uintptr_t)runner->self, "--noop", NULL};
    char *const env[] = {NULL};
    struct spawn_request request = {.workdir = "/",
                                    .argv = argv,
                                    .env = env,
                                    .in = runner->null_fd,
                                    .out = runner->null_fd,
                                    .err = runner->null_fd};
    struct spawn_failure failure;
    pid_t pid = spawn(runner, &request, &failure);
    if (pid < 0)
        return failure.error;
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : ECHILD;
}
