/* A tar stream as a tree stream.
 *
 * libarchive takes a tar that ends between two entries for whole, which a tar that was cut off may well do. So the
 * bytes pass through here on their way to its tar reader, after being decompressed by a reader of their own, and in
 * blocks of 512 wherever a header may stand: it then takes no block more than it needs, and when it says that the
 * archive has ended, the last two blocks it took must be the two zero blocks that end a tar. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files/source_priv.h"

#define BLOCK_BYTES    512U
#define INPUT_BYTES    (64U * 1024U)
#define TRAILING_BYTES (1024U * 1024U) /* of padding after the end that are read over */

struct tar_directory {
    uint16_t length; /* of its path, in tar_source.directory */
    uint16_t mode;
    int64_t mtime_s;
    uint32_t mtime_ns;
};

enum tar_state { TAR_ROOT, TAR_NEXT, TAR_ENTRY, TAR_DATA, TAR_END };

struct tar_source {
    struct tree_source base;
    struct tree_encoder encoder;
    enum tar_state state;
    locale_t locale;
    int fd;
    struct archive *raw, *tar;
    /* decompressed bytes on their way to the tar reader */
    uint8_t file_input[INPUT_BYTES], input[INPUT_BYTES];
    size_t input_at, input_end;
    uint64_t direct;      /* bytes to come that are content: they may go in large pieces */
    unsigned zero_blocks; /* the last blocks given away */
    bool input_over;      /* the tar reader was told that there is no more */
    /* present entry */
    struct file_record entry;
    char path[FILE_PATH_MAX + 1], link[FILE_PATH_MAX + 1];
    bool sparse;
    const uint8_t *block;
    size_t block_size;
    uint64_t at; /* content sent */
    /* directories whose content is being read, outermost first */
    char directory[FILE_PATH_MAX + 1];
    unsigned depth;
    struct tar_directory directories[FILE_DEPTH_MAX];
};

/* --- errors --------------------------------------------------------------------------------------- */

static void fail(struct tar_source *source, const char *name, const char *text)
{
    char quoted[TREE_QUOTE_MAX], quoted_text[TREE_QUOTE_MAX];
    if (name[0] != '\0')
        error_set(&source->base.error, ERROR_INVALID, "the tar's entry \"%s\": %s", tree_quote(quoted, name),
                  tree_quote(quoted_text, text));
    else
        error_set(&source->base.error, ERROR_INVALID, "the tar: %s", tree_quote(quoted_text, text));
    tree_encode_fail(&source->encoder, EBADMSG, name, text);
}

static const char *archive_text(struct archive *archive)
{
    const char *text = archive_error_string(archive);
    return text == NULL ? "it cannot be read" : text;
}

/* --- bytes ---------------------------------------------------------------------------------------- */

static la_ssize_t read_fd(struct archive *archive, void *user, const void **data)
{
    struct tar_source *source = user;
    ssize_t got;
    do {
        got = read(source->fd, source->file_input, sizeof source->file_input);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        archive_set_error(archive, errno, "%s", strerror(errno));
    *data = source->file_input;
    return got;
}

/* At least a block in the buffer, unless the end is there. -1 on error. */
static int refill(struct tar_source *source)
{
    size_t left = source->input_end - source->input_at;
    memmove(source->input, source->input + source->input_at, left);
    source->input_at = 0;
    source->input_end = left;
    while (source->input_end < BLOCK_BYTES) {
        la_ssize_t got =
            archive_read_data(source->raw, source->input + source->input_end, sizeof source->input - source->input_end);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        source->input_end += (size_t)got;
    }
    return 0;
}

static bool all_zero(const uint8_t *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

static la_ssize_t read_blocks(struct archive *archive, void *user, const void **data)
{
    struct tar_source *source = user;
    if (source->input_end - source->input_at < BLOCK_BYTES && refill(source) < 0) {
        archive_set_error(archive, EIO, "%s", archive_text(source->raw));
        return -1;
    }
    size_t size = source->input_end - source->input_at, most = BLOCK_BYTES;
    if (source->direct > BLOCK_BYTES)
        most = source->direct < size ? (size_t)source->direct / BLOCK_BYTES * BLOCK_BYTES
                                     : size / BLOCK_BYTES * BLOCK_BYTES;
    if (most >= BLOCK_BYTES && size > most)
        size = most;
    if (size == 0)
        source->input_over = true;
    else if (size == BLOCK_BYTES && all_zero(source->input + source->input_at, size))
        source->zero_blocks++;
    else
        source->zero_blocks = 0;
    source->direct -= size < source->direct ? size : source->direct;
    *data = source->input + source->input_at;
    source->input_at += size;
    return (la_ssize_t)size;
}

/* What follows the end is padding; a compressed stream has its own end behind that, with a sum. */
static const char *drain(struct tar_source *source)
{
    la_ssize_t got;
    size_t drained = 0;
    while ((got = archive_read_data(source->raw, source->input, sizeof source->input)) > 0) {
        drained += (size_t)got;
        if (drained > TRAILING_BYTES)
            return "something follows its end";
    }
    return got < 0 ? archive_text(source->raw) : NULL;
}

/* --- entries -------------------------------------------------------------------------------------- */

/* Strips "./", double and final slashes. NULL, or what is wrong; "" for the root. */
static const char *normalise(const char *name, char path[FILE_PATH_MAX + 1])
{
    size_t used = 0;
    path[0] = '\0';
    if (name[0] == '/')
        return "an absolute name is refused";
    while (*name != '\0') {
        size_t length = strcspn(name, "/");
        bool nothing = length == 0 || (length == 1 && name[0] == '.');
        if (length == 2 && name[0] == '.' && name[1] == '.')
            return "a name with \"..\" is refused";
        if (!nothing) {
            if (used + (used > 0) + length > FILE_PATH_MAX)
                return "the name is too long";
            if (used > 0)
                path[used++] = '/';
            memcpy(path + used, name, length);
            used += length;
            path[used] = '\0';
        }
        name += length;
        name += *name == '/';
    }
    return used == 0 || file_path_valid(path) ? NULL : "the name is too long or too deep";
}

static const char *take_link(struct tar_source *source, const char *target)
{
    if (target == NULL || target[0] == '\0' || strlen(target) > FILE_PATH_MAX)
        return "the link has no target";
    memcpy(source->link, target, strlen(target) + 1);
    return file_link_inside(source->path, target) ? NULL : "a link that leads out of the tree is refused";
}

static const char *take_hardlink(struct tar_source *source, const char *target)
{
    const char *wrong = normalise(target, source->link);
    if (wrong != NULL)
        return "a link that leads out of the tree is refused";
    return source->link[0] == '\0' ? "the link has no target" : NULL;
}

static const char *take_type(struct tar_source *source, struct archive_entry *entry)
{
    struct file_record *record = &source->entry;
    const char *hardlink = archive_entry_hardlink(entry);
    if (hardlink != NULL) {
        record->type = FILE_HARDLINK;
        return take_hardlink(source, hardlink);
    }
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
        record->type = FILE_REGULAR;
        if (!archive_entry_size_is_set(entry) || archive_entry_size(entry) < 0)
            return "the size is missing";
        record->size = (uint64_t)archive_entry_size(entry);
        return NULL;
    case AE_IFDIR:
        record->type = FILE_DIRECTORY;
        return NULL;
    case AE_IFLNK:
        record->type = FILE_SYMLINK;
        return take_link(source, archive_entry_symlink(entry));
    case AE_IFBLK:
    case AE_IFCHR:
        return "a device node is refused";
    case AE_IFIFO:
        return "a FIFO is refused";
    default:
        return "it is neither a file nor a directory nor a link";
    }
}

/* A name in another charset than it says is no fault of the tar's; all else that libarchive warns of is. */
static bool tolerable(struct archive *archive, const char *name)
{
    return name != NULL && strstr(archive_text(archive), "can't be converted") != NULL;
}

static void next_entry(struct tar_source *source)
{
    struct archive_entry *entry;
    source->direct = 0;
    int result = archive_read_next_header(source->tar, &entry);
    if (result == ARCHIVE_EOF) {
        const char *wrong =
            source->input_over || source->zero_blocks < 2 ? "it was cut off: its end is missing" : drain(source);
        if (wrong != NULL)
            fail(source, "", wrong);
        source->state = TAR_END;
        return;
    }
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN) {
        fail(source, "", archive_text(source->tar));
        return;
    }
    const char *name = archive_entry_pathname(entry);
    if (name == NULL || (result == ARCHIVE_WARN && !tolerable(source->tar, name))) {
        fail(source, name == NULL ? "" : name, name == NULL ? "a name cannot be read" : archive_text(source->tar));
        return;
    }
    source->entry = (struct file_record){.mode = archive_entry_perm(entry) & 0777,
                                         .mtime_s = archive_entry_mtime(entry),
                                         .mtime_ns = (uint32_t)(archive_entry_mtime_nsec(entry) % 1000000000),
                                         .path = source->path,
                                         .link = source->link};
    source->link[0] = '\0';
    const char *wrong = normalise(name, source->path);
    if (wrong == NULL)
        wrong = take_type(source, entry);
    if (wrong == NULL && source->path[0] == '\0' && source->entry.type != FILE_DIRECTORY)
        wrong = "its name is empty";
    if (wrong != NULL) {
        fail(source, name, wrong);
        return;
    }
    if (source->path[0] == '\0') /* "./": the root is there already */
        return;
    source->sparse = archive_entry_sparse_count(entry) > 0;
    if (source->entry.type == FILE_REGULAR && !source->sparse)
        source->direct = source->entry.size;
    source->at = 0;
    source->block_size = 0;
    source->state = TAR_ENTRY;
}

/* --- records -------------------------------------------------------------------------------------- */

static bool inside_present_directory(const struct tar_source *source)
{
    if (source->depth == 0)
        return true;
    size_t length = source->directories[source->depth - 1].length;
    return strncmp(source->path, source->directory, length) == 0 && source->path[length] == '/';
}

static void leave_directory(struct tar_source *source)
{
    const struct tar_directory *directory = &source->directories[--source->depth];
    source->directory[directory->length] = '\0';
    struct file_record record = {.type = FILE_DIRECTORY_DONE,
                                 .mode = directory->mode,
                                 .mtime_s = directory->mtime_s,
                                 .mtime_ns = directory->mtime_ns,
                                 .path = source->directory,
                                 .link = ""};
    tree_encode_entry(&source->encoder, &record);
}

static void put_entry(struct tar_source *source)
{
    const struct file_record *record = &source->entry;
    if (!inside_present_directory(source)) {
        leave_directory(source);
        return;
    }
    tree_encode_entry(&source->encoder, record);
    source->state = record->type == FILE_REGULAR ? TAR_DATA : TAR_NEXT;
    if (record->type != FILE_DIRECTORY)
        return;
    size_t length = strlen(source->path);
    memcpy(source->directory, source->path, length + 1);
    source->directories[source->depth++] = (struct tar_directory){
        .length = (uint16_t)length, .mode = record->mode, .mtime_s = record->mtime_s, .mtime_ns = record->mtime_ns};
}

static void end_file(struct tar_source *source)
{
    tree_encode_sum(&source->encoder);
    source->state = TAR_NEXT;
}

/* The next block of content; a hole before it, or the end, is sent. */
static void next_block(struct tar_source *source)
{
    const void *data;
    size_t size;
    la_int64_t offset;
    uint64_t left = source->entry.size - source->at;
    int result = archive_read_data_block(source->tar, &data, &size, &offset);
    if (result == ARCHIVE_EOF) {
        if (left > 0 && !source->sparse) {
            fail(source, source->path, "it is shorter than announced");
            return;
        }
        if (left > 0)
            tree_encode_hole(&source->encoder, left);
        end_file(source);
        return;
    }
    if (result != ARCHIVE_OK) {
        fail(source, source->path, archive_text(source->tar));
        return;
    }
    if (size == 0)
        return;
    uint64_t hole = (uint64_t)offset - source->at;
    if (offset < 0 || (uint64_t)offset < source->at || hole > left || size > left - hole) {
        fail(source, source->path, "its content does not fit its size");
        return;
    }
    if (hole > 0)
        tree_encode_hole(&source->encoder, hole);
    source->at += hole;
    source->block = data;
    source->block_size = size;
}

static void put_data(struct tar_source *source)
{
    if (source->block_size == 0) {
        next_block(source);
        return;
    }
    size_t room;
    uint8_t *out = tree_encode_data_begin(&source->encoder, &room);
    if (room > source->block_size)
        room = source->block_size;
    memcpy(out, source->block, room);
    source->block += room;
    source->block_size -= room;
    source->at += room;
    tree_encode_data_commit(&source->encoder, room);
}

static void put_end(struct tar_source *source)
{
    if (source->depth > 0)
        leave_directory(source);
    else
        tree_encode_end(&source->encoder);
}

static void put_root(struct tar_source *source)
{
    struct file_record root = {.type = FILE_DIRECTORY, .mode = 0755, .path = "", .link = ""};
    tree_encode_entry(&source->encoder, &root);
    source->state = TAR_NEXT;
}

static size_t tar_read(struct tree_source *base, uint8_t *out, size_t size, bool *ended)
{
    static void (*const steps[])(struct tar_source * source) = {
        [TAR_ROOT] = put_root, [TAR_NEXT] = next_entry, [TAR_ENTRY] = put_entry,
        [TAR_DATA] = put_data, [TAR_END] = put_end,
    };
    struct tar_source *source = (struct tar_source *)base;
    struct tree_encoder *encoder = &source->encoder;
    locale_t before = source->locale == (locale_t)0 ? (locale_t)0 : uselocale(source->locale);
    encoder->out = (struct wire_writer){.next = out, .end = out + size};
    while (!encoder->ended && tree_encoder_room(encoder) >= FILE_RECORD_MAX)
        steps[source->state](source);
    if (before != (locale_t)0)
        uselocale(before);
    *ended = encoder->ended;
    return (size_t)(encoder->out.next - out);
}

/* --- begin and end -------------------------------------------------------------------------------- */

static void tar_free(struct tree_source *base)
{
    struct tar_source *source = (struct tar_source *)base;
    archive_read_free(source->tar);
    archive_read_free(source->raw);
    if (source->locale != (locale_t)0)
        freelocale(source->locale);
    free(source);
}

static const struct tree_source_ops tar_ops = {.read = tar_read, .free = tar_free};

static int open_archives(struct tar_source *source, struct error *err)
{
    struct archive_entry *entry;
    archive_read_support_filter_gzip(source->raw);
    archive_read_support_filter_zstd(source->raw);
    archive_read_support_format_raw(source->raw);
    archive_read_support_format_empty(source->raw);
    if (archive_read_open(source->raw, source, NULL, read_fd, NULL) != ARCHIVE_OK ||
        archive_read_next_header(source->raw, &entry) != ARCHIVE_OK) {
        if (archive_errno(source->raw) == 0)
            return error_set(err, ERROR_INVALID, "the tar: it is empty");
        return error_set(err, ERROR_INVALID, "the tar: %s", archive_text(source->raw));
    }
    archive_read_support_format_tar(source->tar);
    if (archive_read_open(source->tar, source, NULL, read_blocks, NULL) != ARCHIVE_OK)
        return error_set(err, ERROR_INVALID, "the tar: %s", archive_text(source->tar));
    return 0;
}

struct tree_source *tree_source_tar(int fd, struct error *err)
{
    struct tar_source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    source->base.ops = &tar_ops;
    source->base.totals = &source->encoder;
    source->fd = fd;
    source->raw = archive_read_new();
    source->tar = archive_read_new();
    source->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); /* for names in pax headers */
    tree_encoder_init(&source->encoder);
    if (source->raw == NULL || source->tar == NULL)
        error_set(err, ERROR_NOMEM, "out of memory");
    else if (open_archives(source, err) == 0)
        return &source->base;
    return tree_source_free(&source->base);
}
