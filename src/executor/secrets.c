/* A task's secrets from the request to RUN. All of them are together in the job's memory, which is wiped with its end.
 */
#include "base/secret.h"

#include <stdio.h>
#include <string.h>

#include "executor/internal.h"

#define PATH_ENTRY "WARMPOOL_SECRET_%s=/proc/self/fd/%d"
#define FD_ENTRY   "WARMPOOL_SECRETFD_%s=%d"
#define NUMBERS    8U /* bytes, at most, of a descriptor and the NUL */

/* Is `name` a variable that the request sets? */
static bool is_set(const struct task_request *request, const char *name)
{
    size_t length = strlen(name);
    for (const char *const *entry = request->env; entry != NULL && *entry != NULL; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return true;
    return false;
}

static int check_one(const struct task_request *request, size_t at, struct error *err)
{
    const struct task_secret *secret = &request->secrets[at];
    const char *name = secret->name != NULL ? secret->name : "";
    const char *wrong = secret->value == NULL && secret->size > 0
                            ? "must have a value"
                            : secret_wrong(name, secret->value, secret->size, secret->as_env);
    if (wrong != NULL)
        return error_set(err, ERROR_INVALID, "secret %zu, \"%.64s\", %s", at + 1, name, wrong);
    for (size_t i = 0; i < at; i++)
        if (strcmp(request->secrets[i].name, name) == 0)
            return error_set(err, ERROR_INVALID, "there are two secrets \"%s\"", name);
    char path[sizeof PATH_ENTRY + SECRET_NAME_MAX], fd[sizeof FD_ENTRY + SECRET_NAME_MAX];
    snprintf(path, sizeof path, "WARMPOOL_SECRET_%s", name);
    snprintf(fd, sizeof fd, "WARMPOOL_SECRETFD_%s", name);
    if (secret->as_env ? is_set(request, name) : is_set(request, path) || is_set(request, fd))
        return error_set(err, ERROR_INVALID, "the secret \"%s\" and env set the same variable", name);
    return 0;
}

int secrets_check(const struct task_request *request, struct secrets_measure *measure, struct error *err)
{
    *measure = (struct secrets_measure){0};
    if (request->secret_count > SECRETS_MAX)
        return error_set(err, ERROR_INVALID, "there are %zu secrets; a task may have %u", request->secret_count,
                         SECRETS_MAX);
    if (request->secret_count > 0 && request->files_only)
        return error_set(err, ERROR_INVALID, "secrets are for a command, and there is none");
    for (size_t i = 0; i < request->secret_count; i++) {
        const struct task_secret *secret = &request->secrets[i];
        if (check_one(request, i, err) < 0)
            return -1;
        size_t length = strlen(secret->name);
        measure->variables += secret->as_env ? 1 : 2;
        measure->bytes += secret->size + (secret->as_env ? length + 2 : 0);
        if (secret->as_env)
            continue;
        measure->files++;
        measure->name_bytes += sizeof PATH_ENTRY + sizeof FD_ENTRY + 2 * (length + NUMBERS);
    }
    return 0;
}

static void copy_file(struct job *job, const struct task_secret *secret, const char **env, char **names)
{
    int fd = SECRET_FD_FIRST + (int)job->secret_count;
    env[0] = *names;
    *names += sprintf(*names, PATH_ENTRY, secret->name, fd) + 1;
    env[1] = *names;
    *names += sprintf(*names, FD_ENTRY, secret->name, fd) + 1;
    job->secret_count++;
}

void secrets_copy(struct job *job, const struct task_request *request, size_t count, char *array, char *names,
                  char *memory)
{
    const char **env = job->env + count;
    char *next = memory;
    job->secrets = (struct message_secret *)(void *)array;
    job->secret_memory = memory;
    for (size_t i = 0; i < request->secret_count; i++) {
        const struct task_secret *secret = &request->secrets[i];
        if (secret->as_env) {
            *env++ = next;
            next += sprintf(next, "%s=", secret->name);
        } else {
            job->secrets[job->secret_count] = (struct message_secret){.value = next, .size = (uint32_t)secret->size};
            copy_file(job, secret, env, &names);
            env += 2;
        }
        if (secret->size > 0)
            memcpy(next, secret->value, secret->size);
        next += secret->size;
        if (secret->as_env)
            *next++ = '\0';
    }
    *env = NULL;
    job->secret_bytes = (size_t)(next - memory);
}

void secrets_wipe(struct job *job)
{
    if (job->secret_bytes > 0)
        explicit_bzero(job->secret_memory, job->secret_bytes);
}
