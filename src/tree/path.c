#include "tree/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/file.h"

#define DIRECTORY_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

int path_enter(int parent, const char *name, bool make)
{
    int fd = openat(parent, name, DIRECTORY_FLAGS);
    if (fd >= 0 || errno != ENOENT || !make)
        return fd;
    if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
        return -1;
    return openat(parent, name, DIRECTORY_FLAGS);
}

static int enter_component(int parent, const char *component, size_t size, bool make)
{
    char name[FILE_NAME_MAX + 1];
    if (size > FILE_NAME_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, component, size);
    name[size] = '\0';
    if (strcmp(name, "..") == 0) {
        errno = EINVAL;
        return -1;
    }
    return path_enter(parent, size == 0 ? "." : name, make);
}

int path_descend(int from, const char *path, size_t length, bool make)
{
    int fd = openat(from, ".", DIRECTORY_FLAGS);
    const char *end = path + length;
    while (fd >= 0 && path < end) {
        size_t size = strcspn(path, "/");
        if (size > (size_t)(end - path))
            size = (size_t)(end - path);
        if (size > 0) {
            int next = enter_component(fd, path, size, make);
            int error = errno;
            close(fd);
            errno = error;
            fd = next;
        }
        path += size + 1;
    }
    return fd;
}

size_t path_last(const char *path, size_t *length)
{
    size_t end = strlen(path);
    while (end > 0 && (path[end - 1] == '/' || (path[end - 1] == '.' && (end == 1 || path[end - 2] == '/'))))
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    *length = end - begin;
    return begin;
}

const char *path_error(int error)
{
    switch (error) {
    case ENOTDIR:
    case ELOOP:
        return "a file or a symbolic link stands where a directory has to be";
    case ENOENT:
        return "a directory that leads to it does not exist";
    case EINVAL:
        return "\"..\" is not allowed there";
    default:
        return "a directory that leads to it cannot be entered";
    }
}
