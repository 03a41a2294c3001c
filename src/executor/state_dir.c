/* The state directory: who this instance is, its lock, and a directory per container that is bind-mounted read-only at
 * /.warmpool. Nothing is ever locked inside a container's directory: a task could hold such a lock. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "executor/internal.h"

/* The runner's bytes, embedded by the build (embed.sh). */
extern const unsigned char warmpool_runner_begin[], warmpool_runner_end[];

static int make_directories(const char *path, struct error *err)
{
    _cleanup_free_ char *copy = strdup(path);
    if (copy == NULL)
        return error_set(err, ERROR_NOMEM, "out of memory");
    for (char *slash = strchr(copy + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(copy, 0755) < 0 && errno != EEXIST)
            return error_errno(err, errno, "making the directory %s", copy);
        if (slash == NULL)
            return 0;
        *slash = '/';
    }
}

static int write_all(int fd, const void *data, size_t size)
{
    const uint8_t *next = data;
    while (size > 0) {
        ssize_t written = write(fd, next, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        next += written;
        size -= (size_t)written;
    }
    return 0;
}

/* Written beside and renamed: a reader never sees half a file, and a running runner keeps its own. */
static int write_file(int dir_fd, const char *name, const void *data, size_t size, mode_t mode, struct error *err)
{
    char temporary[64];
    snprintf(temporary, sizeof temporary, "%s.new", name);
    unlinkat(dir_fd, temporary, 0);
    _cleanup_close_ int fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_errno(err, errno, "making %s in the state directory", name);
    if (write_all(fd, data, size) < 0 || fchmod(fd, mode) < 0)
        return error_errno(err, errno, "writing %s in the state directory", name);
    if (renameat(dir_fd, temporary, dir_fd, name) < 0)
        return error_errno(err, errno, "renaming %s in the state directory", name);
    return 0;
}

/* What carries another name in the engine would never be cleaned up. */
static int check_instance(const struct state_dir *state, const char *wanted, struct error *err)
{
    if (!agent_type_valid(state->instance)) /* the same rule */
        return error_set(err, ERROR_INVALID,
                         "%s/instance does not hold the name of an instance ([a-z0-9][a-z0-9-]{0,%d}); restore it, or "
                         "remove it to begin anew",
                         state->path, INSTANCE_MAX - 1);
    if (wanted[0] != '\0' && strcmp(state->instance, wanted) != 0)
        return error_set(err, ERROR_CONFLICT,
                         "instance: the state directory %s belongs to the instance %s, not to %s; choose another "
                         "stateDir, or remove it when nothing of %s is left in the engine",
                         state->path, state->instance, wanted, state->instance);
    return 0;
}

static int read_instance(struct state_dir *state, const char *wanted, struct error *err)
{
    _cleanup_close_ int fd = openat(state->fd, "instance", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        ssize_t got = read(fd, state->instance, INSTANCE_MAX);
        state->instance[got > 0 ? got : 0] = '\0';
        return check_instance(state, wanted, err);
    }
    if (errno != ENOENT)
        return error_errno(err, errno, "reading %s/instance", state->path);
    unsigned char random[INSTANCE_BYTES / 2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return error_errno(err, errno, "getting random bytes");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(state->instance + 2 * i, 3, "%02x", random[i]);
    if (wanted[0] != '\0')
        snprintf(state->instance, sizeof state->instance, "%s", wanted);
    return write_file(state->fd, "instance", state->instance, strlen(state->instance), 0644, err);
}

static void remove_container_files(int containers_fd, const char *name)
{
    _cleanup_close_ int fd = openat(containers_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    DIR *directory = fdopendir(fd);
    if (directory == NULL)
        return;
    int inner = fd;
    fd = -1; /* consumed by the stream */
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(inner, entry->d_name, 0);
    closedir(directory);
    unlinkat(containers_fd, name, AT_REMOVEDIR);
}

static void remove_old_containers(int containers_fd)
{
    int fd = fcntl(containers_fd, F_DUPFD_CLOEXEC, 0);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    rewinddir(directory);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        if (entry->d_name[0] != '.')
            remove_container_files(containers_fd, entry->d_name);
    closedir(directory);
}

static int lock_directory(struct state_dir *state, struct error *err)
{
    state->lock_fd = openat(state->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (state->lock_fd < 0)
        return error_errno(err, errno, "opening %s/lock", state->path);
    if (flock(state->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return error_set(
                err, ERROR_CONFLICT,
                "the state directory %s is in use by another warmpool; stop that one or choose another with "
                "stateDir",
                state->path);
        return error_errno(err, errno, "locking %s/lock", state->path);
    }
    return 0;
}

int state_dir_open(struct state_dir *state, const char *path, const char *instance, struct error *err)
{
    *state = (struct state_dir){.fd = -1, .lock_fd = -1, .containers_fd = -1};
    if (make_directories(path, err) < 0)
        return -1;
    state->path = strdup(path);
    state->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (state->path == NULL || state->fd < 0) {
        error_errno(err, errno, "opening the state directory %s", path);
        goto failed;
    }
    if (lock_directory(state, err) < 0 || read_instance(state, instance, err) < 0)
        goto failed;
    size_t size = (size_t)(warmpool_runner_end - warmpool_runner_begin);
    /* Execute-only makes PID 1 non-dumpable: tasks of the same uid can neither trace nor read it. */
    if (write_file(state->fd, "runner", warmpool_runner_begin, size, 0711, err) < 0)
        goto failed;
    if (mkdirat(state->fd, "containers", 0700) < 0 && errno != EEXIST) {
        error_errno(err, errno, "making %s/containers", path);
        goto failed;
    }
    state->containers_fd = openat(state->fd, "containers", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (state->containers_fd < 0) {
        error_errno(err, errno, "opening %s/containers", path);
        goto failed;
    }
    remove_old_containers(state->containers_fd);
    return 0;
failed:
    state_dir_close(state);
    return -1;
}

void state_dir_close(struct state_dir *state)
{
    if (state->containers_fd >= 0)
        close(state->containers_fd);
    if (state->lock_fd >= 0)
        close(state->lock_fd);
    if (state->fd >= 0)
        close(state->fd);
    free(state->path);
    *state = (struct state_dir){.fd = -1, .lock_fd = -1, .containers_fd = -1};
}

static int copy_runner(int dir_fd, struct error *err)
{
    size_t size = (size_t)(warmpool_runner_end - warmpool_runner_begin);
    return write_file(dir_fd, "runner", warmpool_runner_begin, size, 0711, err);
}

int state_dir_container_new(struct state_dir *state, const char *name, uint32_t uid, struct error *err)
{
    if (mkdirat(state->containers_fd, name, 0755) < 0)
        return error_errno(err, errno, "making the directory of container %s", name);
    _cleanup_close_ int fd = openat(state->containers_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_errno(err, errno, "opening the directory of container %s", name);
    /* One inode for all containers, so that its pages are shared. */
    if (linkat(state->fd, "runner", fd, "runner", 0) < 0 && copy_runner(fd, err) < 0)
        return -1;
    if (uid != 0) {
        char text[512];
        int length = snprintf(text, sizeof text,
                              "root:x:0:0:root:/root:/sbin/nologin\n"
                              "nobody:x:65534:65534:nobody:/:/sbin/nologin\n"
                              "swarm:x:%u:%u:swarm:/workspace:/bin/sh\n",
                              uid, uid);
        if (write_file(fd, "passwd", text, (size_t)length, 0644, err) < 0)
            return -1;
        length = snprintf(text, sizeof text, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nswarm:x:%u:\n", uid);
        if (write_file(fd, "group", text, (size_t)length, 0644, err) < 0)
            return -1;
    }
    int result = fd;
    fd = -1; /* consumed */
    return result;
}

void state_dir_container_remove(struct state_dir *state, const char *name)
{
    remove_container_files(state->containers_fd, name);
}
