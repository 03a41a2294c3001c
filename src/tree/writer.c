#include "tree/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree/path.h"

#define DIRECTORY_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define TEMPORARY_TRIES 100

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void drop_file(struct tree_writer *writer);

int tree_writer_fail(struct tree_writer *writer, int error, const char *text)
{
    if (writer->error == 0) {
        writer->error = error;
        snprintf(writer->text, sizeof writer->text, "%s", text);
        drop_file(writer);
    }
    return -1;
}

/* --- the destination ------------------------------------------------------------------------------ */

static int open_destination(struct tree_writer *writer, int base, const char *destination, const char *name)
{
    struct stat status;
    bool make = (writer->flags & TREE_MAKE_PARENTS) != 0;
    size_t length, begin = path_last(destination, &length);
    bool must_be_directory = destination[begin + length] != '\0';
    char last[FILE_NAME_MAX + 1];
    if (length > FILE_NAME_MAX)
        return tree_writer_fail(writer, ENAMETOOLONG, "a name in the destination is too long");
    memcpy(last, destination + begin, length);
    last[length] = '\0';
    writer->root_parent = path_descend(base, destination, begin, make);
    if (writer->root_parent < 0 || strcmp(last, "..") == 0)
        return tree_writer_fail(writer, writer->root_parent < 0 ? errno : EINVAL,
                                path_error(writer->root_parent < 0 ? errno : EINVAL));
    bool there = length > 0 && fstatat(writer->root_parent, last, &status, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && S_ISLNK(status.st_mode) && must_be_directory)
        return tree_writer_fail(writer, ELOOP, "the destination is a symbolic link");
    if (there && !S_ISDIR(status.st_mode) && must_be_directory)
        return tree_writer_fail(writer, ENOTDIR, "the destination is not a directory");
    if (!there && must_be_directory && length > 0 && !make && name[0] != '\0')
        return tree_writer_fail(writer, ENOENT, "the destination directory does not exist");
    if ((there && S_ISDIR(status.st_mode)) || (!there && length > 0 && must_be_directory && name[0] != '\0')) {
        int fd = path_enter(writer->root_parent, last, true);
        if (fd < 0)
            return tree_writer_fail(writer, errno, path_error(errno));
        close(writer->root_parent);
        writer->root_parent = fd;
        length = 0;
    }
    /* Into a directory goes the tree under its own name, elsewhere it becomes the destination. */
    snprintf(writer->root_name, sizeof writer->root_name, "%s", length == 0 ? name : last);
    return 0;
}

int tree_writer_open(struct tree_writer *writer, int base, const char *destination, const char *name, uint32_t flags,
                     uint64_t max_entries, uint64_t max_bytes)
{
    tree_check_init(&writer->check, max_entries, max_bytes);
    writer->flags = flags;
    writer->root_parent = writer->root = writer->directory = writer->file = -1;
    writer->root_name[0] = writer->directory_path[0] = writer->path[0] = writer->text[0] = '\0';
    writer->root_made = writer->done = false;
    writer->next_temporary = 0;
    writer->error = 0;
    int result = open_destination(writer, base, destination, name);
    close(base);
    return result;
}

/* --- where an entry goes -------------------------------------------------------------------------- */

/* The directory that the entry at `path` is in, and its name there. -1 with errno. */
static int locate(struct tree_writer *writer, const char *path, const char **name)
{
    if (path[0] == '\0') {
        *name = writer->root_name;
        return writer->root_parent;
    }
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    *name = slash == NULL ? path : slash + 1;
    if (length == 0)
        return writer->root;
    size_t known = strlen(writer->directory_path);
    bool below = writer->directory >= 0 && known <= length && memcmp(writer->directory_path, path, known) == 0;
    if (below && known == length)
        return writer->directory;
    below = below && path[known] == '/';
    int fd = below ? path_descend(writer->directory, path + known + 1, length - known - 1, true)
                   : path_descend(writer->root, path, length, true);
    if (fd < 0)
        return -1;
    close_fd(&writer->directory);
    writer->directory = fd;
    memcpy(writer->directory_path, path, length);
    writer->directory_path[length] = '\0';
    return fd;
}

/* A name that is free, for what shall be renamed. */
static void temporary_name(struct tree_writer *writer)
{
    snprintf(writer->file_temporary, sizeof writer->file_temporary, ".warmpool-%u.part", writer->next_temporary++);
}

static const char *failed_text(int error)
{
    switch (error) {
    case EISDIR:
    case ENOTEMPTY:
        return "a directory is in its place";
    case ENOTDIR:
    case ELOOP:
        return "a file or a symbolic link is in its place";
    case ENOSPC:
    case EDQUOT:
        return "no space is left there";
    default:
        return "cannot be made";
    }
}

static int failed(struct tree_writer *writer)
{
    int error = errno;
    return tree_writer_fail(writer, error, failed_text(error));
}

static struct timespec mtime_of(const struct file_record *record)
{
    return (struct timespec){.tv_sec = record->mtime_s, .tv_nsec = record->mtime_ns};
}

/* --- regular files -------------------------------------------------------------------------------- */

static int file_directory(struct tree_writer *writer, const char **name)
{
    return locate(writer, writer->path, name);
}

static void drop_file(struct tree_writer *writer)
{
    const char *name;
    if (writer->file < 0)
        return;
    close_fd(&writer->file);
    unlinkat(file_directory(writer, &name), writer->file_temporary, 0);
}

static int begin_file(struct tree_writer *writer, const struct file_record *record, int directory, const char *name)
{
    if (name[0] == '\0')
        return tree_writer_fail(writer, EISDIR, "the content of a directory was expected, a file came");
    for (int i = 0; i < TEMPORARY_TRIES && writer->file < 0; i++) {
        temporary_name(writer);
        writer->file = openat(directory, writer->file_temporary,
                              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (writer->file < 0 && errno != EEXIST)
            break;
    }
    if (writer->file < 0)
        return failed(writer);
    writer->file_entry = *record; /* its strings go, its numbers are wanted */
    writer->file_at = writer->file_end = 0;
    return 0;
}

static int write_data(struct tree_writer *writer, const struct file_record *record)
{
    const uint8_t *next = record->data;
    size_t left = record->data_size;
    while (left > 0) {
        ssize_t written = pwrite(writer->file, next, left, (off_t)writer->file_at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            errno = written == 0 ? EIO : errno;
            return failed(writer);
        }
        writer->file_at += (uint64_t)written;
        next += written;
        left -= (size_t)written;
    }
    writer->file_end = writer->file_at;
    return 0;
}

static int finish_file(struct tree_writer *writer)
{
    const char *name;
    struct stat status;
    const struct file_record *entry = &writer->file_entry;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime_of(entry)};
    int directory = file_directory(writer, &name);
    if (writer->file_end < entry->size && ftruncate(writer->file, (off_t)entry->size) < 0)
        return failed(writer);
    if (fchmod(writer->file, entry->mode & 0777) < 0)
        return failed(writer);
    futimens(writer->file, times); /* a time that this file system cannot keep harms nothing */
    if (fstat(writer->file, &status) < 0 || (uint64_t)status.st_size != entry->size)
        return tree_writer_fail(writer, EIO, "it does not have the size that was written");
    if (renameat(directory, writer->file_temporary, directory, name) < 0)
        return failed(writer);
    int closed = close(writer->file);
    writer->file = -1;
    if (closed < 0 && errno != EINTR)
        return failed(writer);
    return 0;
}

/* --- other entries -------------------------------------------------------------------------------- */

static int make_directory(struct tree_writer *writer, const struct file_record *record, int parent, const char *name)
{
    bool is_root = record->path[0] == '\0';
    bool made = name[0] != '\0' && mkdirat(parent, name, 0700 | (record->mode & 0777)) == 0;
    if (!made && name[0] != '\0' && errno != EEXIST)
        return failed(writer);
    if (!is_root && made)
        return 0;
    int fd = openat(parent, name[0] == '\0' ? "." : name, DIRECTORY_FLAGS);
    if (fd < 0)
        return failed(writer);
    if (is_root) {
        writer->root = fd;
        writer->root_made = made;
    } else {
        close(fd);
    }
    return 0;
}

/* The attributes that a directory keeps. A root that was there before us keeps its own. */
static int finish_directory(struct tree_writer *writer, const struct file_record *record, int parent, const char *name)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime_of(record)};
    bool is_root = record->path[0] == '\0';
    if (is_root && !writer->root_made)
        return 0;
    int fd = is_root ? openat(writer->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                     : openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return failed(writer);
    int changed = fchmod(fd, record->mode & 0777);
    int error = errno;
    futimens(fd, times);
    close(fd);
    errno = error;
    return changed < 0 && error != EPERM ? failed(writer) : 0; /* EPERM: it was there, and is somebody else's */
}

static int make_symlink(struct tree_writer *writer, const struct file_record *record, int directory, const char *name)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime_of(record)};
    if ((writer->flags & TREE_LINKS_INSIDE) != 0 && !file_link_inside(record->path, record->link))
        return tree_writer_fail(writer, EPERM, "a symbolic link that leads out of the tree is refused");
    if (name[0] == '\0')
        return tree_writer_fail(writer, EISDIR, "the content of a directory was expected, a link came");
    if (symlinkat(record->link, directory, name) < 0) {
        if (errno != EEXIST)
            return failed(writer);
        int made = -1;
        for (int i = 0; i < TEMPORARY_TRIES && made < 0; i++) {
            temporary_name(writer);
            made = symlinkat(record->link, directory, writer->file_temporary);
            if (made < 0 && errno != EEXIST)
                break;
        }
        if (made < 0)
            return failed(writer);
        if (renameat(directory, writer->file_temporary, directory, name) < 0) {
            failed(writer);
            unlinkat(directory, writer->file_temporary, 0);
            return -1;
        }
    }
    utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int make_hardlink(struct tree_writer *writer, const struct file_record *record, int directory, const char *name)
{
    struct stat target, present;
    const char *slash = strrchr(record->link, '/');
    const char *target_name = slash == NULL ? record->link : slash + 1;
    int from = path_descend(writer->root, record->link, slash == NULL ? 0 : (size_t)(slash - record->link), false);
    if (from < 0 || fstatat(from, target_name, &target, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(target.st_mode)) {
        close_fd(&from);
        return tree_writer_fail(writer, ENOENT, "a hard link to something that is no earlier file of the tree");
    }
    int result = linkat(from, target_name, directory, name, 0);
    if (result < 0 && errno == EEXIST && fstatat(directory, name, &present, AT_SYMLINK_NOFOLLOW) == 0) {
        if (present.st_dev == target.st_dev && present.st_ino == target.st_ino)
            result = 0;
        else if (unlinkat(directory, name, 0) == 0)
            result = linkat(from, target_name, directory, name, 0);
    }
    int error = errno;
    close(from);
    errno = error;
    return result < 0 ? failed(writer) : 0;
}

static int make_entry(struct tree_writer *writer, const struct file_record *record)
{
    const char *name;
    memcpy(writer->path, record->path, strlen(record->path) + 1);
    int directory = locate(writer, record->path, &name);
    if (directory < 0)
        return tree_writer_fail(writer, errno, path_error(errno));
    switch (record->type) {
    case FILE_REGULAR:
        return begin_file(writer, record, directory, name);
    case FILE_DIRECTORY:
        return make_directory(writer, record, directory, name);
    case FILE_DIRECTORY_DONE:
        return finish_directory(writer, record, directory, name);
    case FILE_SYMLINK:
        return make_symlink(writer, record, directory, name);
    default:
        return make_hardlink(writer, record, directory, name);
    }
}

/* --- the stream ----------------------------------------------------------------------------------- */

static int take(struct tree_writer *writer, const struct file_record *record)
{
    const char *wrong = tree_check_record(&writer->check, record);
    if (wrong != NULL) {
        tree_writer_fail(writer, EBADMSG, wrong);
        if (record->kind == RECORD_ENTRY)
            memcpy(writer->path, record->path, strlen(record->path) + 1);
        return -1;
    }
    switch (record->kind) {
    case RECORD_ENTRY:
        return make_entry(writer, record);
    case RECORD_DATA:
        return write_data(writer, record);
    case RECORD_HOLE:
        writer->file_at += record->size;
        return 0;
    case RECORD_SUM:
        return finish_file(writer);
    case RECORD_END:
        writer->done = true;
        return 0;
    case RECORD_FAIL:
        tree_writer_fail(writer, (int)record->error, record->link);
        memcpy(writer->path, record->path, strlen(record->path) + 1);
        return -1;
    default:
        return 0;
    }
}

int tree_writer_feed(struct tree_writer *writer, const uint8_t *records, size_t size)
{
    while (size > 0 && writer->error == 0) {
        struct file_record record;
        ptrdiff_t taken = file_record_decode(records, size, &record);
        if (taken < 0)
            return tree_writer_fail(writer, EBADMSG, "the stream is damaged");
        if (take(writer, &record) < 0)
            return -1;
        records += taken;
        size -= (size_t)taken;
    }
    return writer->error == 0 ? 0 : -1;
}

void tree_writer_close(struct tree_writer *writer)
{
    drop_file(writer);
    close_fd(&writer->root_parent);
    close_fd(&writer->root);
    close_fd(&writer->directory);
}
