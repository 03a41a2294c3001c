#include "tree/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct entry { /* of getdents64() */
    uint64_t inode;
    int64_t offset; /* where the next one is */
    unsigned short size;
    unsigned char type;
    char name[];
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void tree_reader_open(struct tree_reader *reader, int parent, const char *name, uint64_t max_bytes,
                      uint64_t max_entries)
{
    tree_encoder_init(&reader->encoder);
    reader->max_bytes = max_bytes;
    reader->max_entries = max_entries;
    reader->data_bytes = 0;
    reader->parent = parent;
    memcpy(reader->name, name, strlen(name) + 1);
    reader->begun = false;
    reader->error = 0;
    reader->text = "";
    reader->depth = 0;
    reader->path_length = 0;
    reader->path[0] = '\0';
    reader->file = -1;
    reader->entries_at = reader->entries_end = 0;
}

void tree_reader_close(struct tree_reader *reader)
{
    close_fd(&reader->parent);
    close_fd(&reader->file);
    while (reader->depth > 0)
        close_fd(&reader->levels[--reader->depth].fd);
}

static void fail(struct tree_reader *reader, int error, const char *text)
{
    reader->error = error;
    reader->text = text;
    tree_encode_fail(&reader->encoder, error, reader->path, text);
    tree_reader_close(reader);
}

/* --- entries -------------------------------------------------------------------------------------- */

static void encode_entry(struct tree_reader *reader, enum file_type type, const struct stat *status, const char *link)
{
    struct file_record record = {.type = (uint8_t)type,
                                 .mode = status->st_mode & 0777,
                                 .mtime_s = status->st_mtim.tv_sec,
                                 .mtime_ns = (uint32_t)status->st_mtim.tv_nsec,
                                 .size = type == FILE_REGULAR ? (uint64_t)status->st_size : 0,
                                 .path = reader->path,
                                 .link = link};
    tree_encode_entry(&reader->encoder, &record);
}

/* What is gone since it was seen is left out, but for the root. */
static void vanished_or_fail(struct tree_reader *reader, const char *text)
{
    int error = errno;
    if (reader->path_length > 0 && (error == ENOENT || error == ELOOP || error == ENOTDIR))
        tree_encode_skip(&reader->encoder, FILE_VANISHED, reader->path);
    else
        fail(reader, error, text);
}

static void begin_file(struct tree_reader *reader, int directory, const char *name)
{
    struct stat status;
    /* Not blocking: it may have become a FIFO since. */
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        vanished_or_fail(reader, "cannot open it");
        close_fd(&fd);
        return;
    }
    if (!S_ISREG(status.st_mode)) {
        close(fd);
        errno = ENOENT;
        vanished_or_fail(reader, "it became something else");
        return;
    }
    reader->file = fd;
    reader->file_size = (uint64_t)status.st_size;
    reader->file_at = reader->extent_end = 0;
    reader->sparse = (uint64_t)status.st_blocks * 512U < reader->file_size;
    if (!reader->sparse)
        reader->extent_end = reader->file_size;
    encode_entry(reader, FILE_REGULAR, &status, "");
}

static void begin_directory(struct tree_reader *reader, int directory, const char *name, size_t parent_length)
{
    struct stat status;
    if (reader->depth > FILE_DEPTH_MAX) {
        fail(reader, ENAMETOOLONG, "it is nested too deeply");
        return;
    }
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        vanished_or_fail(reader, "cannot open the directory");
        close_fd(&fd);
        return;
    }
    lseek(fd, 0, SEEK_SET);
    reader->levels[reader->depth++] =
        (struct tree_reader_level){.fd = fd, .path_length = (uint16_t)parent_length, .offset = 0};
    reader->entries_at = reader->entries_end = 0;
    encode_entry(reader, FILE_DIRECTORY, &status, "");
}

static void send_link(struct tree_reader *reader, int directory, const char *name, const struct stat *status)
{
    char target[FILE_PATH_MAX + 2];
    ssize_t length = readlinkat(directory, name, target, sizeof target);
    if (length < 0) {
        if (errno == EINVAL) /* became something else */
            errno = ENOENT;
        vanished_or_fail(reader, "cannot read the link");
        return;
    }
    if (length == 0 || length > (ssize_t)FILE_PATH_MAX) {
        fail(reader, ENAMETOOLONG, "the link's target is too long");
        return;
    }
    target[length] = '\0';
    encode_entry(reader, FILE_SYMLINK, status, target);
}

static void begin_entry(struct tree_reader *reader, int directory, const char *name, size_t parent_length)
{
    struct stat status;
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        vanished_or_fail(reader, "cannot look at it");
        return;
    }
    if (reader->max_entries != 0 && reader->encoder.entries == reader->max_entries) {
        fail(reader, E2BIG, "there are more entries than allowed");
        return;
    }
    enum file_type special = FILE_DEVICE;
    switch (status.st_mode & S_IFMT) {
    case S_IFREG:
        begin_file(reader, directory, name);
        return;
    case S_IFDIR:
        begin_directory(reader, directory, name, parent_length);
        return;
    case S_IFLNK:
        send_link(reader, directory, name, &status);
        return;
    case S_IFIFO:
        special = FILE_FIFO;
        break;
    case S_IFSOCK:
        special = FILE_SOCKET;
        break;
    default:
        break;
    }
    if (reader->path_length == 0)
        fail(reader, EINVAL, "it is neither a file nor a directory nor a link");
    else
        tree_encode_skip(&reader->encoder, special, reader->path);
}

/* --- directories ---------------------------------------------------------------------------------- */

static void leave_directory(struct tree_reader *reader)
{
    struct stat status;
    struct tree_reader_level *level = &reader->levels[--reader->depth];
    if (fstat(level->fd, &status) == 0)
        encode_entry(reader, FILE_DIRECTORY_DONE, &status, "");
    close_fd(&level->fd);
    reader->path_length = level->path_length;
    reader->path[reader->path_length] = '\0';
    reader->entries_at = reader->entries_end = 0;
    if (reader->depth > 0)
        lseek(reader->levels[reader->depth - 1].fd, reader->levels[reader->depth - 1].offset, SEEK_SET);
}

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static void next_entry(struct tree_reader *reader)
{
    struct tree_reader_level *level = &reader->levels[reader->depth - 1];
    if (reader->entries_at >= reader->entries_end) {
        reader->entries_end = syscall(SYS_getdents64, level->fd, reader->entries, sizeof reader->entries);
        reader->entries_at = 0;
        if (reader->entries_end < 0)
            fail(reader, errno, "cannot read the directory");
        else if (reader->entries_end == 0)
            leave_directory(reader);
        return;
    }
    const struct entry *entry = (const struct entry *)(const void *)(reader->entries + reader->entries_at);
    reader->entries_at += entry->size;
    level->offset = entry->offset;
    if (is_dot(entry->name))
        return;
    size_t parent_length = reader->path_length, length = strlen(entry->name);
    size_t separator = parent_length > 0;
    if (length > FILE_NAME_MAX || parent_length + separator + length > FILE_PATH_MAX) {
        fail(reader, ENAMETOOLONG, "a path below it is too long");
        return;
    }
    if (separator)
        reader->path[parent_length] = '/';
    memcpy(reader->path + parent_length + separator, entry->name, length + 1);
    reader->path_length = parent_length + separator + length;
    const char *name = reader->path + parent_length + separator;
    unsigned depth = reader->depth;
    begin_entry(reader, level->fd, name, parent_length);
    if (reader->depth == depth && reader->file < 0) { /* nothing to go on with */
        reader->path_length = parent_length;
        reader->path[parent_length] = '\0';
    }
}

/* --- content -------------------------------------------------------------------------------------- */

static void end_file(struct tree_reader *reader)
{
    struct stat status;
    if (fstat(reader->file, &status) < 0 || (uint64_t)status.st_size < reader->file_size) {
        fail(reader, EIO, "it was cut while it was read");
        return;
    }
    tree_encode_sum(&reader->encoder);
    close_fd(&reader->file);
    const char *slash = strrchr(reader->path, '/');
    reader->path_length = slash == NULL ? 0 : (size_t)(slash - reader->path);
    reader->path[reader->path_length] = '\0';
}

/* Finds the next stretch of data and sends the hole before it. False: a hole was sent. */
static bool find_extent(struct tree_reader *reader)
{
    off_t begin = lseek(reader->file, (off_t)reader->file_at, SEEK_DATA);
    if (begin < 0 && errno != ENXIO) { /* not known here: all is data */
        reader->extent_end = reader->file_size;
        return true;
    }
    uint64_t data = begin < 0 || (uint64_t)begin > reader->file_size ? reader->file_size : (uint64_t)begin;
    if (data > reader->file_at) {
        tree_encode_hole(&reader->encoder, data - reader->file_at);
        reader->file_at = data;
        reader->extent_end = data;
        return false;
    }
    off_t end = lseek(reader->file, (off_t)data, SEEK_HOLE);
    reader->extent_end = end <= (off_t)data || (uint64_t)end > reader->file_size ? reader->file_size : (uint64_t)end;
    return true;
}

static void read_file(struct tree_reader *reader)
{
    if (reader->file_at == reader->file_size) {
        end_file(reader);
        return;
    }
    if (reader->file_at == reader->extent_end && !find_extent(reader))
        return;
    size_t room;
    uint8_t *out = tree_encode_data_begin(&reader->encoder, &room);
    if (room > reader->extent_end - reader->file_at)
        room = (size_t)(reader->extent_end - reader->file_at);
    ssize_t got = pread(reader->file, out, room, (off_t)reader->file_at);
    if (got < 0 && errno == EINTR)
        return;
    if (got <= 0) {
        fail(reader, got < 0 ? errno : EIO, got < 0 ? "cannot read it" : "it was cut while it was read");
        return;
    }
    reader->data_bytes += (uint64_t)got;
    if (reader->max_bytes != 0 && reader->data_bytes > reader->max_bytes) {
        fail(reader, EFBIG, "there are more bytes than allowed");
        return;
    }
    tree_encode_data_commit(&reader->encoder, (size_t)got);
    reader->file_at += (uint64_t)got;
}

static void begin_root(struct tree_reader *reader)
{
    reader->begun = true;
    begin_entry(reader, reader->parent, reader->name[0] == '\0' ? "." : reader->name, 0);
    close_fd(&reader->parent);
}

size_t tree_reader_read(struct tree_reader *reader, uint8_t *out, size_t size)
{
    struct tree_encoder *encoder = &reader->encoder;
    encoder->out = (struct wire_writer){.next = out, .end = out + size};
    while (!encoder->ended && tree_encoder_room(encoder) >= FILE_RECORD_MAX) {
        if (!reader->begun)
            begin_root(reader);
        else if (reader->file >= 0)
            read_file(reader);
        else if (reader->depth > 0)
            next_entry(reader);
        else
            tree_encode_end(encoder);
    }
    return (size_t)(encoder->out.next - out);
}
