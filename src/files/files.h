/* The host's side of file transfer: trees of this machine's disk, and tar streams, as tree streams (wire/file.h), and
 * back. Plain blocking I/O in bounded memory, whatever the sizes: for a client process or a worker thread, never for
 * the daemon's loop. Tar streams and tree streams are taken for hostile; the paths given by the caller are trusted and
 * may contain links. */
#pragma once

#include "base/error.h"
#include "wire/file.h"

/* --- sources: something becomes a tree stream ------------------------------------------------------ */

struct tree_source;

/* A file, directory or link; a final link is sent as a link unless the path ends in "/" or "/.". Files with holes stay
 * so. NULL with an error when it cannot be opened. */
struct tree_source *tree_source_disk(const char *path, struct error *err);

/* A tar stream (ustar, pax, GNU; plain, gzip or zstd) from `fd`, which stays the caller's and is read to its end. Its
 * entries are the content of a directory. Absolute names, "..", links that lead out, devices, and a stream that ends
 * anywhere but after its two zero blocks are errors. */
struct tree_source *tree_source_tar(int fd, struct error *err);

/* Fills `out` (FRAME_DATA_MAX bytes do; at least FILE_RECORD_MAX) with whole records: their bytes, 0 at the end. When
 * it fails, the last record is FAIL, so that the other end knows, and `*ended` says that nothing follows. */
size_t tree_source_read(struct tree_source *source, uint8_t *out, size_t size, bool *ended);

/* At the end: 0, or -1 and why it failed. */
int tree_source_result(const struct tree_source *source, struct error *err);
const struct tree_encoder *tree_source_totals(const struct tree_source *source);

/* Returns NULL; NULL is allowed. */
struct tree_source *tree_source_free(struct tree_source *source);

/* --- sinks: a tree stream becomes something -------------------------------------------------------- */

struct tree_sink;

struct tree_limits {
    uint64_t max_bytes, max_entries; /* of content and of entries; 0: any */
};

/* Below `destination`, as cp does (docs/FILES.md); `name` is the root's name there, "" when its content is meant:
 * file_base_name() of the source. Nothing is written outside of it, whatever comes; symbolic links that would lead out
 * of the tree are an error; a file has its name only when its sum was right. */
struct tree_sink *tree_sink_disk(const char *destination, const char *name, const struct tree_limits *limits,
                                 struct error *err);

/* A tar stream (pax where ustar does not do) to `fd`, which stays the caller's. Entries are below `name`, or bare when
 * it is "". After an error the tar has no end, so that whoever reads it knows. Holes become zeros. */
struct tree_sink *tree_sink_tar(int fd, const char *name, const struct tree_limits *limits, struct error *err);

/* The payload of one FILE frame. -1 from the first error on; a FAIL from the sender is one. */
int tree_sink_feed(struct tree_sink *sink, const uint8_t *records, size_t size, struct error *err);

/* END has come, all sums and counts were right, and all is written. */
bool tree_sink_done(const struct tree_sink *sink);
const struct tree_check *tree_sink_totals(const struct tree_sink *sink);

/* Returns NULL; NULL is allowed. What is not done is given up. */
struct tree_sink *tree_sink_free(struct tree_sink *sink);

/* --- names in messages ----------------------------------------------------------------------------- */

#define TREE_QUOTE_MAX 256U

/* Text that may come from a container, made fit for a terminal: control characters, and bytes that are not UTF-8,
 * become \xNN; cut at the end where it is long. Returns `out`. */
const char *tree_quote(char out[TREE_QUOTE_MAX], const char *text);
