/* Emptying a directory that somebody hostile has filled. Whatever has content is emptied in place: its plain entries
 * are unlinked, its subdirectories are renamed upwards into the root, where a later pass meets them. So depth costs no
 * descriptors and no stack, and a tree of any shape goes in time linear in its entries. Nothing runs meanwhile: every
 * process was killed before. What is mounted inside is not the container's and stays as it is. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runner/runner.h"

struct entry { /* of getdents64() */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

struct wipe {
    int root;
    dev_t device; /* the root's */
    uint64_t removed, deadline_us;
    unsigned next_name; /* of what is moved into the root */
};

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Mode 000 keeps its owner out: made passable first. Never through a link, and not into another mount. */
static int open_directory(const struct wipe *wipe, int parent, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    struct stat status;
    int fd = openat(parent, name, flags);
    if (fd < 0 && errno == EACCES) {
        if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(status.st_mode) ||
            status.st_dev != wipe->device || fchmodat(parent, name, 0700, 0) < 0)
            return -1;
        fd = openat(parent, name, flags);
    }
    if (fd < 0 || (fstat(fd, &status) == 0 && status.st_dev == wipe->device))
        return fd;
    close(fd);
    return -1;
}

static bool remove_entry(struct wipe *wipe, int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0 ||
        ((errno == EISDIR || errno == EPERM) && unlinkat(parent, name, AT_REMOVEDIR) == 0)) {
        wipe->removed++;
        return true;
    }
    return false;
}

static bool move_up(struct wipe *wipe, int parent, const char *name)
{
    /* A directory that changes its parent must be writable itself. */
    int fd = open_directory(wipe, parent, name);
    if (fd < 0)
        return false;
    fchmod(fd, 0700);
    close(fd);
    for (int tries = 0; tries < 1000; tries++) {
        char target[24];
        snprintf(target, sizeof target, ".wp%u", wipe->next_name++);
        if (renameat(parent, name, wipe->root, target) == 0)
            return true;
        if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR && errno != EISDIR)
            return false;
    }
    return false;
}

/* Calls `act` on each entry until a pass finds none or gets nowhere. */
static void each_entry(struct wipe *wipe, int directory,
                       bool (*act)(struct wipe *wipe, int directory, const char *name))
{
    _Alignas(8) char names[8192];
    bool progress = true;
    while (progress && now_us() < wipe->deadline_us) {
        progress = false;
        lseek(directory, 0, SEEK_SET);
        for (;;) {
            long got = syscall(SYS_getdents64, directory, names, sizeof names);
            if (got <= 0)
                break;
            for (long at = 0; at < got;) {
                struct entry *entry = (struct entry *)(void *)(names + at);
                at += entry->size;
                if (!is_dot(entry->name) && act(wipe, directory, entry->name))
                    progress = true;
            }
            if (now_us() >= wipe->deadline_us)
                return;
        }
    }
}

static bool empty_or_lift(struct wipe *wipe, int directory, const char *name)
{
    return remove_entry(wipe, directory, name) || move_up(wipe, directory, name);
}

static bool remove_from_root(struct wipe *wipe, int root, const char *name)
{
    if (remove_entry(wipe, root, name))
        return true;
    int directory = open_directory(wipe, root, name);
    if (directory < 0)
        return false;
    fchmod(directory, 0700);
    each_entry(wipe, directory, empty_or_lift);
    close(directory);
    return remove_entry(wipe, root, name);
}

uint64_t wipe_directory(int directory, uint64_t deadline_us)
{
    struct wipe wipe = {.root = directory, .deadline_us = deadline_us};
    struct stat status;
    if (fstat(directory, &status) < 0)
        return 0; /* and the receipt tells what is left */
    wipe.device = status.st_dev;
    each_entry(&wipe, directory, remove_from_root);
    return wipe.removed;
}
