/* Files in and out of a container.
 *
 * A *tree stream* is what FRAME_FILE frames carry in one direction: records, packed back to back, several to a frame; a
 * record never spans frames. One tree: a single file, link or directory, the *root*, and what is below it.
 *
 *     ENTRY        type, mode, time, size, path, link target. The first names the root: its path is "". All others
 *                  are below it. A DIRECTORY comes before its content; DIRECTORY_DONE comes after it and asks that mode
 *                  and time now be made what they shall stay (until then its owner may write in it).
 *     DATA, HOLE   content of the regular file last announced, from its beginning; together exactly its size
 *     SUM          after each regular file: SHA-256 of its DATA bytes. For a file without holes that is the SHA-256 of
 *                  the file; what lies in holes costs no time, and where they are is covered by END.
 *     SKIP         something that is no file, directory or link, or that vanished, was left out
 *     END          counts, and SHA-256 over all records before it, with the content of DATA left out (SUM has it)
 *     FAIL         the sender gives up: error number, path, text
 *
 * END or FAIL is the last record; its frame, and none before it, has FRAME_FLAG_EOF, so that a relay which looks into
 * nothing knows that the stream is over. Integers are little-endian. A path is relative, of components of 1 to 255
 * bytes that are neither "." nor "..", 4,095 bytes and 512 components at most.
 *
 * Into a container: the daemon sends PUT {destination, name, flags}, then relays the client's FILE frames as WIRE_FILES
 * credit allows (FILES_CREDIT_INITIAL to begin with, counted in payload bytes); the runner answers FILE_RESULT once:
 * when END has arrived and all is verified, or earlier when something is wrong; what still comes is then dropped.
 * Out of it: the daemon sends GET {source, limits}; the runner sends FILE frames as credit allows, until END or FAIL.
 * CANCEL with the transfer's number ends either without an answer. header.task is the number of the task a transfer is
 * for. A connection that breaks ends the transfer.
 *
 * Both ends take the other one for hostile: struct tree_check is what each receiver passes every record through.
 *
 * To integrate (executor, API and CLI): docs/FILES.md, "Relaying". This file knows nothing but libc: the runner links
 * it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/frame.h"
#include "wire/message.h"
#include "wire/sha256.h"

#define FILES_CREDIT_INITIAL (256U * 1024U)
#define FILES_CREDIT_BATCH   (64U * 1024U) /* a receiver must not keep more than this to itself */
#define FILE_PATH_MAX        4095U
#define FILE_NAME_MAX        255U
#define FILE_DEPTH_MAX       512U
#define FILE_ERROR_MAX       4095U                      /* what an errno may be */
#define FILE_RECORD_MAX      (2U * FILE_PATH_MAX + 64U) /* the largest record but DATA */

/* --- names ---------------------------------------------------------------------------------------- */

/* Is it a path that an ENTRY may have ("" is not)? */
bool file_path_valid(const char *path);
/* One component. */
bool file_name_valid(const char *name);
/* May `target` stand in a symbolic link at `path` of a tree that nothing must lead out of? It has to be relative, with
 * ".." only at its beginning and not more often than the link is deep. Wherever the names after that lead, further
 * links included, they lead down from a real directory of the tree: by induction none ever leaves it. (Looking at ".."
 * in the middle as at text would not do: "up/../x" leaves when "up" is a link to something higher.) */
bool file_link_inside(const char *path, const char *target);
/* The name that a copy of `path` has below an existing directory: the last component; "" when the content is meant (the
 * path ends in "/." or is ".", "/" or ".."). False when it is longer than a name may be. */
bool file_base_name(const char *path, char name[FILE_NAME_MAX + 1]);

/* --- records -------------------------------------------------------------------------------------- */

enum file_record_kind {
    RECORD_ENTRY = 1,
    RECORD_DATA,
    RECORD_HOLE,
    RECORD_SUM,
    RECORD_SKIP,
    RECORD_END,
    RECORD_FAIL,
};

enum file_type {
    FILE_REGULAR = 1,
    FILE_DIRECTORY,
    FILE_DIRECTORY_DONE,
    FILE_SYMLINK,
    FILE_HARDLINK, /* link: the path of an earlier regular file of this tree */
    /* of SKIP only: */
    FILE_FIFO,
    FILE_SOCKET,
    FILE_DEVICE,
    FILE_VANISHED,
};

struct file_record {
    uint8_t kind; /* enum file_record_kind */
    uint8_t type; /* ENTRY, SKIP: enum file_type */
    uint16_t mode;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint64_t size;       /* ENTRY: of a regular file; HOLE: its length; END: bytes (DATA and holes) of all */
    const char *path;    /* ENTRY, SKIP, FAIL; NUL-terminated, in the buffer */
    const char *link;    /* ENTRY: target; FAIL: text for people */
    const uint8_t *data; /* DATA: bytes; SUM, END: a digest of SHA256_BYTES */
    uint32_t data_size;
    uint32_t error;          /* FAIL: errno */
    uint64_t count, skipped; /* END: entries (DIRECTORY_DONE is none), and SKIPs */
    /* What the decoder adds, for the digest: */
    const uint8_t *bytes; /* the encoded record, DATA's content left out */
    uint32_t bytes_size;
};

/* Reads the record at the beginning of `data`: bytes that it takes, or -1 when it is malformed or not all there. */
ptrdiff_t file_record_decode(const uint8_t *data, size_t size, struct file_record *record);

/* --- sending -------------------------------------------------------------------------------------- */

/* Makes records, with sums and counts, one buffer after another. */
struct tree_encoder {
    struct wire_writer out; /* of the present buffer */
    struct sha256 stream, file;
    uint64_t entries, bytes, skipped;
    bool ended; /* END or FAIL was made */
};

void tree_encoder_init(struct tree_encoder *encoder);
static inline size_t tree_encoder_room(const struct tree_encoder *encoder)
{
    return (size_t)(encoder->out.end - encoder->out.next);
}
/* Each needs FILE_RECORD_MAX bytes of room. */
void tree_encode_entry(struct tree_encoder *encoder, const struct file_record *entry);
void tree_encode_hole(struct tree_encoder *encoder, uint64_t size);
void tree_encode_sum(struct tree_encoder *encoder);
void tree_encode_skip(struct tree_encoder *encoder, enum file_type type, const char *path);
void tree_encode_end(struct tree_encoder *encoder);
void tree_encode_fail(struct tree_encoder *encoder, int error, const char *path, const char *text);
/* Where DATA's content goes, and how much fits (0: none); then commit, with what was put there, not 0. */
uint8_t *tree_encode_data_begin(struct tree_encoder *encoder, size_t *room);
void tree_encode_data_commit(struct tree_encoder *encoder, size_t size);

/* --- receiving ------------------------------------------------------------------------------------ */

/* The grammar of a tree stream, its sums and its limits. */
struct tree_check {
    uint64_t max_entries, max_bytes; /* 0: any; bytes are those of DATA */
    struct sha256 stream, file;
    uint64_t entries, bytes, data_bytes, skipped;
    uint64_t left; /* of the regular file announced */
    bool begun, root_is_directory, in_file, ended, failed;
    uint8_t digest[SHA256_BYTES]; /* after END */
};

void tree_check_init(struct tree_check *check, uint64_t max_entries, uint64_t max_bytes);
/* NULL, or what is wrong. To be asked before the record is acted upon: what it lets through has a valid path, fits
 * the sizes announced and, if SUM or END, agrees with what has come. FAIL gives NULL. */
const char *tree_check_record(struct tree_check *check, const struct file_record *record);

/* --- PUT, GET, FILE_RESULT ------------------------------------------------------------------------ */

#define PUT_MAKE_PARENTS 1U /* directories that lead to the destination are made where they are missing */

struct message_put {
    uint32_t flags;
    const char *destination; /* absolute path in the container */
    const char *name;        /* of the root below an existing directory; "": the root's content goes into it */
};
#define MESSAGE_PUT_BYTES_MAX (FILE_PATH_MAX + FILE_NAME_MAX + 16U)

/* Bytes written, 0 when a string is too long. */
size_t message_put_encode(const struct message_put *message, uint8_t out[MESSAGE_PUT_BYTES_MAX]);
int message_put_decode(const uint8_t *payload, size_t size, struct message_put *message);

struct message_get {
    uint64_t max_bytes, max_entries; /* 0: any; bytes of content, holes left out */
    const char *source;              /* absolute path in the container */
};
#define MESSAGE_GET_BYTES_MAX (FILE_PATH_MAX + 24U)

size_t message_get_encode(const struct message_get *message, uint8_t out[MESSAGE_GET_BYTES_MAX]);
int message_get_decode(const uint8_t *payload, size_t size, struct message_get *message);

struct message_file_result {
    uint32_t error; /* errno, 0: all is there and verified */
    uint64_t entries, bytes;
    uint8_t digest[SHA256_BYTES]; /* that of END; zeros after an error */
    const char *path;             /* of the entry that failed, below the root; "" */
    const char *text;             /* for people; hostile when it comes from a container */
};
#define MESSAGE_FILE_RESULT_BYTES_MAX (FILE_PATH_MAX + 512U)

size_t message_file_result_encode(const struct message_file_result *message,
                                  uint8_t out[MESSAGE_FILE_RESULT_BYTES_MAX]);
int message_file_result_decode(const uint8_t *payload, size_t size, struct message_file_result *message);
