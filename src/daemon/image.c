#include "daemon/image.h"

#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"

#define BUSYBOX_BYTES_MAX (16U << 20)
#define APPLETS_BYTES_MAX (256U << 10)
#define CA_BYTES_MAX      (4U << 20)
#define CA_BUNDLE         "/etc/ssl/certs/ca-certificates.crt"
#define MEND              "apt-get install busybox-static"

struct image_directory {
    const char *path;
    mode_t mode;
};

static const struct image_directory image_directories[] = {
    {"bin", 0755},      {"dev", 0755},        {"etc", 0755},           {"etc/ssl", 0755},  {"etc/ssl/certs", 0755},
    {"home", 0755},     {"lib", 0755},        {"proc", 0555},          {"root", 0700},     {"run", 0755},
    {"sbin", 0755},     {"sys", 0555},        {"tmp", 01777},          {"usr", 0755},      {"usr/bin", 0755},
    {"usr/lib", 0755},  {"usr/local", 0755},  {"usr/local/bin", 0755}, {"usr/sbin", 0755}, {"var", 0755},
    {"var/tmp", 01777}, {"workspace", 01777},
};

static const struct image_file {
    const char *path, *text;
} image_files[] = {
    {"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
    {"etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"},
    {"etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"},
    {"etc/os-release", "ID=warmpool-agent\nNAME=\"warmpool agent\"\nPRETTY_NAME=\"warmpool default agent image\"\n"},
    {"etc/hosts", ""},
    {"etc/hostname", ""},
    {"etc/resolv.conf", ""},
};

/* --- the host's side ------------------------------------------------------------------------------ */

static int file_read(const char *path, size_t limit, struct buffer *out, struct error *err)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "cannot read %s", path);
    for (;;) {
        uint8_t *room = buffer_reserve(out, 65536);
        if (room == NULL)
            return error_set(err, ERROR_NOMEM, "cannot read %s: out of memory", path);
        ssize_t n = read(fd, room, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "cannot read %s", path);
        if (n == 0)
            return 0;
        buffer_commit(out, (size_t)n);
        if (buffer_length(out) > limit)
            return error_set(err, ERROR_LIMIT, "%s is larger than %zu bytes", path, limit);
    }
}

/* A program of this machine's that names no interpreter. */
static bool elf_static(const uint8_t *data, size_t size)
{
    Elf64_Ehdr head;
    if (size < sizeof(head) || memcmp(data, ELFMAG, SELFMAG) != 0 || data[EI_CLASS] != ELFCLASS64)
        return false;
    memcpy(&head, data, sizeof(head));
    if (head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phoff > size ||
        (size - head.e_phoff) / sizeof(Elf64_Phdr) < head.e_phnum)
        return false;
    for (size_t i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr part;
        memcpy(&part, data + head.e_phoff + i * sizeof(part), sizeof(part));
        if (part.p_type == PT_INTERP)
            return false;
    }
    return head.e_phnum > 0;
}

static int pipe_read(int fd, struct buffer *out)
{
    for (;;) {
        uint8_t *room = buffer_reserve(out, 16384);
        if (room == NULL || buffer_length(out) > APPLETS_BYTES_MAX)
            return -1;
        ssize_t n = read(fd, room, 16384);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        buffer_commit(out, (size_t)n);
    }
}

/* What the program answers to --list-full: a path a line. */
static int applets_read(const char *path, struct buffer *out, struct error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_errno(err, errno, "cannot make a pipe");
    _cleanup_close_ int from = ends[0];
    _cleanup_close_ int to = ends[1];
    char program[] = "busybox", option[] = "--list-full";
    char *const argv[] = {program, option, NULL};
    char *const env[] = {NULL};
    posix_spawn_file_actions_t actions;
    int r = posix_spawn_file_actions_init(&actions);
    if (r != 0)
        return error_errno(err, r, "cannot run %s", path);
    r = posix_spawn_file_actions_adddup2(&actions, to, STDOUT_FILENO);
    if (r == 0)
        r = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t pid = -1;
    if (r == 0)
        r = posix_spawn(&pid, path, &actions, NULL, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    if (r != 0)
        return error_errno(err, r, "cannot run %s", path);
    close(to);
    to = -1;
    int failed = pipe_read(from, out), status = 0;
    close(from); /* one that writes on is ended by SIGPIPE */
    from = -1;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return error_errno(err, errno, "cannot wait for %s", path);
    }
    if (failed != 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || buffer_length(out) == 0)
        return error_set(err, ERROR_INVALID, "%s --list-full does not work (" MEND ")", path);
    return 0;
}

/* --- the archive ---------------------------------------------------------------------------------- */

struct image_tar {
    struct archive *archive;
    struct buffer *out;
};

static la_ssize_t on_write(struct archive *archive, void *user, const void *data, size_t size)
{
    struct image_tar *tar = user;
    buffer_append(tar->out, data, size);
    if (!tar->out->failed)
        return (la_ssize_t)size;
    archive_set_error(archive, ENOMEM, "out of memory");
    return -1;
}

/* Times are all 0 and owners all root: the same input makes the same image. */
static int tar_entry(struct image_tar *tar, const char *path, mode_t type, mode_t mode, const char *link,
                     const void *data, size_t size, struct error *err)
{
    struct archive_entry *entry = archive_entry_new();
    if (entry == NULL)
        return error_set(err, ERROR_NOMEM, "cannot make the image: out of memory");
    archive_entry_set_pathname(entry, path);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, mode);
    archive_entry_set_uid(entry, 0);
    archive_entry_set_gid(entry, 0);
    archive_entry_set_mtime(entry, 0, 0);
    archive_entry_set_size(entry, (la_int64_t)size);
    if (link != NULL)
        archive_entry_set_symlink(entry, link);
    int r = archive_write_header(tar->archive, entry);
    if (r == ARCHIVE_OK && size > 0 && archive_write_data(tar->archive, data, size) != (la_ssize_t)size)
        r = ARCHIVE_FATAL;
    archive_entry_free(entry);
    if (r == ARCHIVE_OK)
        return 0;
    const char *words = archive_error_string(tar->archive);
    return error_set(err, ERROR_SYSTEM, "cannot make the image: %s: %s", path, words != NULL ? words : "failed");
}

static bool applet_valid(const char *path)
{
    size_t length = strlen(path);
    if (length == 0 || length > 90 || path[0] == '/' || path[length - 1] == '/' || strstr(path, "..") != NULL)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (path[i] <= ' ' || path[i] > '~')
            return false;
    }
    /* Its directory must be one of ours. */
    const char *slash = strrchr(path, '/');
    for (size_t i = 0; slash != NULL && i < sizeof(image_directories) / sizeof(image_directories[0]); i++) {
        const char *directory = image_directories[i].path;
        if (strlen(directory) == (size_t)(slash - path) && strncmp(directory, path, strlen(directory)) == 0)
            return true;
    }
    return false;
}

static int tar_applets(struct image_tar *tar, char *text, struct error *err)
{
    char *rest = NULL;
    for (char *path = strtok_r(text, "\n", &rest); path != NULL; path = strtok_r(NULL, "\n", &rest)) {
        if (!applet_valid(path) || strcmp(path, "bin/busybox") == 0)
            continue;
        if (tar_entry(tar, path, AE_IFLNK, 0777, "/bin/busybox", NULL, 0, err) < 0)
            return -1;
    }
    return 0;
}

static int tar_skeleton(struct image_tar *tar, struct error *err)
{
    for (size_t i = 0; i < sizeof(image_directories) / sizeof(image_directories[0]); i++) {
        const struct image_directory *directory = &image_directories[i];
        if (tar_entry(tar, directory->path, AE_IFDIR, directory->mode, NULL, NULL, 0, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof(image_files) / sizeof(image_files[0]); i++) {
        const struct image_file *file = &image_files[i];
        if (tar_entry(tar, file->path, AE_IFREG, 0644, NULL, file->text, strlen(file->text), err) < 0)
            return -1;
    }
    return tar_entry(tar, "var/run", AE_IFLNK, 0777, "/run", NULL, 0, err);
}

/* TLS needs these; an image without is as good for all else. */
static int tar_certificates(struct image_tar *tar, struct error *err)
{
    _cleanup_buffer_ struct buffer bundle = {0};
    if (file_read(CA_BUNDLE, CA_BYTES_MAX, &bundle, NULL) < 0)
        return 0;
    return tar_entry(tar, &CA_BUNDLE[1], AE_IFREG, 0644, NULL, buffer_data(&bundle), buffer_length(&bundle), err);
}

static int tar_fill(struct image_tar *tar, const struct buffer *busybox, char *applets, struct error *err)
{
    if (archive_write_set_format_ustar(tar->archive) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(tar->archive, 0) != ARCHIVE_OK ||
        archive_write_open(tar->archive, tar, NULL, on_write, NULL) != ARCHIVE_OK)
        return error_set(err, ERROR_SYSTEM, "cannot make the image: %s", archive_error_string(tar->archive));
    if (tar_skeleton(tar, err) < 0 || tar_certificates(tar, err) < 0 ||
        tar_entry(tar, "bin/busybox", AE_IFREG, 0755, NULL, buffer_data(busybox), buffer_length(busybox), err) < 0 ||
        tar_applets(tar, applets, err) < 0)
        return -1;
    if (archive_write_close(tar->archive) != ARCHIVE_OK)
        return error_set(err, ERROR_SYSTEM, "cannot make the image: %s", archive_error_string(tar->archive));
    return 0;
}

int image_tar_build_from(const char *path, struct buffer *out, struct error *err)
{
    _cleanup_buffer_ struct buffer busybox = {0}, applets = {0};
    if (access(path, F_OK) < 0)
        return error_set(err, ERROR_NOT_FOUND, "the default image is made of %s, which is not there: " MEND, path);
    if (file_read(path, BUSYBOX_BYTES_MAX, &busybox, err) < 0)
        return -1;
    if (!elf_static(buffer_data(&busybox), buffer_length(&busybox)))
        return error_set(err, ERROR_INVALID, "the default image needs a static busybox, and %s is not one: " MEND,
                         path);
    if (applets_read(path, &applets, err) < 0)
        return -1;
    char *text = buffer_text(&applets);
    struct image_tar tar = {.archive = archive_write_new(), .out = out};
    if (text == NULL || tar.archive == NULL) {
        archive_write_free(tar.archive);
        return error_set(err, ERROR_NOMEM, "cannot make the image: out of memory");
    }
    int r = tar_fill(&tar, &busybox, text, err);
    archive_write_free(tar.archive);
    return r;
}

int image_tar_build(struct buffer *out, struct error *err)
{
    return image_tar_build_from(IMAGE_BUSYBOX, out, err);
}

/* --- import --------------------------------------------------------------------------------------- */

struct image_job {
    struct buffer tar;
    struct error error; /* of building the tar */
    engine_id_fn *done;
    void *user;
};

static void on_imported(void *user, const char *id, const struct error *error)
{
    struct image_job *job = user;
    buffer_free(&job->tar);
    if (job->error.code != ERROR_NONE)
        error = &job->error;
    job->done(job->user, error == NULL ? id : NULL, error);
    free(job);
}

void image_build(struct engine *engine, const char *tag, engine_id_fn *done, void *user)
{
    static const char *const changes[] = {
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "WORKDIR /workspace",
        "CMD [\"/bin/sh\"]",
        NULL,
    };
    struct image_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        struct error error = ERROR_INIT;
        error_set(&error, ERROR_NOMEM, "build image %s: out of memory", tag);
        done(user, NULL, &error);
        return;
    }
    job->done = done;
    job->user = user;
    /* An empty archive is refused by the engine interface, later, as an answer must come: with our own words then. */
    if (image_tar_build(&job->tar, &job->error) < 0) {
        error_prefix(&job->error, "build image %s", tag);
        buffer_free(&job->tar);
    }
    engine_image_import(engine, job->tar.memory != NULL ? buffer_data(&job->tar) : NULL, buffer_length(&job->tar), tag,
                        changes, on_imported, job);
}
