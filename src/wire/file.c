#include "wire/file.h"

#include <string.h>

#define DATA_HEADER_BYTES 5U
#define ENTRY_FIXED_BYTES (1U + 1U + 2U + 8U + 4U + 8U)
#define SUM_BYTES         (1U + SHA256_BYTES)
#define SIZE_LIMIT        ((uint64_t)INT64_MAX) /* what an off_t holds */

/* --- names ---------------------------------------------------------------------------------------- */

static bool component_valid(const char *name, size_t length)
{
    return length > 0 && length <= FILE_NAME_MAX && !(name[0] == '.' && length == 1) &&
           !(name[0] == '.' && name[1] == '.' && length == 2);
}

bool file_name_valid(const char *name)
{
    size_t length = strcspn(name, "/");
    return name[length] == '\0' && component_valid(name, length);
}

bool file_path_valid(const char *path)
{
    unsigned depth = 0;
    if (strlen(path) > FILE_PATH_MAX)
        return false;
    for (;;) {
        size_t length = strcspn(path, "/");
        if (!component_valid(path, length) || ++depth > FILE_DEPTH_MAX)
            return false;
        if (path[length] == '\0')
            return true;
        path += length + 1;
    }
}

bool file_link_inside(const char *path, const char *target)
{
    unsigned depth = 0;
    bool down = false;
    if (path[0] == '\0' || target[0] == '\0' || target[0] == '/')
        return false;
    for (; *path != '\0'; path++)
        depth += *path == '/';
    while (*target != '\0') {
        size_t length = strcspn(target, "/");
        if (length == 2 && target[0] == '.' && target[1] == '.') {
            if (down || depth-- == 0)
                return false;
        } else if (length > 0 && !(length == 1 && target[0] == '.')) {
            down = true;
        }
        target += length;
        target += *target == '/';
    }
    return true;
}

bool file_base_name(const char *path, char name[FILE_NAME_MAX + 1])
{
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    size_t length = end - begin;
    if (length > FILE_NAME_MAX)
        return false;
    if (!component_valid(path + begin, length))
        length = 0;
    memcpy(name, path + begin, length);
    name[length] = '\0';
    return true;
}

/* --- decoding ------------------------------------------------------------------------------------- */

static void get_entry(struct wire_reader *reader, struct file_record *record)
{
    record->type = wire_get_u8(reader);
    record->mode = wire_get_u16(reader);
    record->mtime_s = (int64_t)wire_get_u64(reader);
    record->mtime_ns = wire_get_u32(reader);
    record->size = wire_get_u64(reader);
    record->path = wire_get_string(reader);
    record->link = wire_get_string(reader);
    if (record->type < FILE_REGULAR || record->type > FILE_HARDLINK || record->mtime_ns >= 1000000000U ||
        record->size > SIZE_LIMIT || (record->path[0] != '\0' && !file_path_valid(record->path)) ||
        (record->type != FILE_REGULAR && record->size != 0))
        reader->bad = true;
    bool linked = record->type == FILE_SYMLINK || record->type == FILE_HARDLINK;
    if (linked != (record->link[0] != '\0') || strlen(record->link) > FILE_PATH_MAX ||
        (record->type == FILE_HARDLINK && !file_path_valid(record->link)))
        reader->bad = true;
}

static void get_skip(struct wire_reader *reader, struct file_record *record)
{
    record->type = wire_get_u8(reader);
    record->path = wire_get_string(reader);
    if (record->type < FILE_FIFO || record->type > FILE_VANISHED || !file_path_valid(record->path))
        reader->bad = true;
}

static void get_fail(struct wire_reader *reader, struct file_record *record)
{
    record->error = wire_get_u32(reader);
    record->path = wire_get_string(reader);
    record->link = wire_get_string(reader);
    if (strlen(record->path) > FILE_PATH_MAX || record->error == 0 || record->error > FILE_ERROR_MAX)
        reader->bad = true;
}

static void get_data(struct wire_reader *reader, struct file_record *record)
{
    record->data_size = wire_get_u32(reader);
    record->data = wire_get_bytes(reader, record->data_size);
    if (record->data_size == 0)
        reader->bad = true;
}

static void get_end(struct wire_reader *reader, struct file_record *record)
{
    record->count = wire_get_u64(reader);
    record->size = wire_get_u64(reader);
    record->skipped = wire_get_u64(reader);
    record->data = wire_get_bytes(reader, SHA256_BYTES);
}

ptrdiff_t file_record_decode(const uint8_t *data, size_t size, struct file_record *record)
{
    struct wire_reader reader = {.next = data, .end = data + size};
    *record = (struct file_record){.kind = wire_get_u8(&reader), .path = "", .link = "", .bytes = data};
    switch (record->kind) {
    case RECORD_ENTRY:
        get_entry(&reader, record);
        break;
    case RECORD_DATA:
        get_data(&reader, record);
        break;
    case RECORD_HOLE:
        record->size = wire_get_u64(&reader);
        reader.bad = reader.bad || record->size == 0 || record->size > SIZE_LIMIT;
        break;
    case RECORD_SUM:
        record->data = wire_get_bytes(&reader, SHA256_BYTES);
        break;
    case RECORD_SKIP:
        get_skip(&reader, record);
        break;
    case RECORD_END:
        get_end(&reader, record);
        break;
    case RECORD_FAIL:
        get_fail(&reader, record);
        break;
    default:
        return -1;
    }
    if (reader.bad)
        return -1;
    record->bytes_size = record->kind == RECORD_DATA ? DATA_HEADER_BYTES : (uint32_t)(reader.next - data);
    return reader.next - data;
}

/* --- sending -------------------------------------------------------------------------------------- */

void tree_encoder_init(struct tree_encoder *encoder)
{
    memset(encoder, 0, sizeof *encoder);
    sha256_init(&encoder->stream);
    sha256_init(&encoder->file);
}

/* What was written since `from` goes into the digest. */
static void note(struct tree_encoder *encoder, const uint8_t *from)
{
    sha256_update(&encoder->stream, from, (size_t)(encoder->out.next - from));
}

void tree_encode_entry(struct tree_encoder *encoder, const struct file_record *entry)
{
    const uint8_t *from = encoder->out.next;
    wire_put_u8(&encoder->out, RECORD_ENTRY);
    wire_put_u8(&encoder->out, entry->type);
    wire_put_u16(&encoder->out, entry->mode);
    wire_put_u64(&encoder->out, (uint64_t)entry->mtime_s);
    wire_put_u32(&encoder->out, entry->mtime_ns);
    wire_put_u64(&encoder->out, entry->size);
    wire_put_string(&encoder->out, entry->path);
    wire_put_string(&encoder->out, entry->link == NULL ? "" : entry->link);
    note(encoder, from);
    encoder->entries += entry->type != FILE_DIRECTORY_DONE;
    if (entry->type == FILE_REGULAR)
        sha256_init(&encoder->file);
}

void tree_encode_hole(struct tree_encoder *encoder, uint64_t size)
{
    const uint8_t *from = encoder->out.next;
    wire_put_u8(&encoder->out, RECORD_HOLE);
    wire_put_u64(&encoder->out, size);
    note(encoder, from);
    encoder->bytes += size;
}

uint8_t *tree_encode_data_begin(struct tree_encoder *encoder, size_t *room)
{
    size_t whole = tree_encoder_room(encoder);
    const size_t around = DATA_HEADER_BYTES + SUM_BYTES;
    *room = whole > around ? whole - around : 0;
    return encoder->out.next + DATA_HEADER_BYTES;
}

void tree_encode_data_commit(struct tree_encoder *encoder, size_t size)
{
    const uint8_t *from = encoder->out.next;
    wire_put_u8(&encoder->out, RECORD_DATA);
    wire_put_u32(&encoder->out, (uint32_t)size);
    note(encoder, from);
    sha256_update(&encoder->file, encoder->out.next, size);
    encoder->out.next += size;
    encoder->bytes += size;
}

void tree_encode_sum(struct tree_encoder *encoder)
{
    const uint8_t *from = encoder->out.next;
    uint8_t digest[SHA256_BYTES];
    sha256_final(&encoder->file, digest);
    wire_put_u8(&encoder->out, RECORD_SUM);
    wire_put_bytes(&encoder->out, digest, sizeof digest);
    note(encoder, from);
}

void tree_encode_skip(struct tree_encoder *encoder, enum file_type type, const char *path)
{
    const uint8_t *from = encoder->out.next;
    wire_put_u8(&encoder->out, RECORD_SKIP);
    wire_put_u8(&encoder->out, (uint8_t)type);
    wire_put_string(&encoder->out, path);
    note(encoder, from);
    encoder->skipped++;
}

void tree_encode_end(struct tree_encoder *encoder)
{
    uint8_t digest[SHA256_BYTES];
    sha256_final(&encoder->stream, digest);
    wire_put_u8(&encoder->out, RECORD_END);
    wire_put_u64(&encoder->out, encoder->entries);
    wire_put_u64(&encoder->out, encoder->bytes);
    wire_put_u64(&encoder->out, encoder->skipped);
    wire_put_bytes(&encoder->out, digest, sizeof digest);
    encoder->ended = true;
}

/* Text is cut, never a path. */
static void put_text(struct wire_writer *writer, const char *text, size_t most)
{
    size_t size = strnlen(text, most);
    wire_put_u32(writer, (uint32_t)size);
    wire_put_bytes(writer, text, size);
    wire_put_u8(writer, 0);
}

void tree_encode_fail(struct tree_encoder *encoder, int error, const char *path, const char *text)
{
    wire_put_u8(&encoder->out, RECORD_FAIL);
    wire_put_u32(&encoder->out, (uint32_t)error);
    put_text(&encoder->out, path, FILE_PATH_MAX);
    put_text(&encoder->out, text, FILE_PATH_MAX);
    encoder->ended = true;
}

/* --- receiving ------------------------------------------------------------------------------------ */

void tree_check_init(struct tree_check *check, uint64_t max_entries, uint64_t max_bytes)
{
    memset(check, 0, sizeof *check);
    check->max_entries = max_entries;
    check->max_bytes = max_bytes;
    sha256_init(&check->stream);
}

static const char *check_entry(struct tree_check *check, const struct file_record *record)
{
    if (check->in_file)
        return "an entry begins before the file before it is complete";
    if (!check->begun &&
        (record->path[0] != '\0' || record->type == FILE_DIRECTORY_DONE || record->type == FILE_HARDLINK))
        return "the stream does not begin with the root of its tree";
    if (check->begun && !check->root_is_directory)
        return "something follows a root that is no directory";
    if (check->begun && record->path[0] == '\0' && record->type != FILE_DIRECTORY_DONE)
        return "the root comes a second time";
    if (record->type != FILE_DIRECTORY_DONE && check->max_entries != 0 && check->entries == check->max_entries)
        return "there are more entries than allowed";
    if (!check->begun)
        check->root_is_directory = record->type == FILE_DIRECTORY;
    check->begun = true;
    check->entries += record->type != FILE_DIRECTORY_DONE;
    if (record->type == FILE_REGULAR) {
        check->in_file = true;
        check->left = record->size;
        sha256_init(&check->file);
    }
    return NULL;
}

static const char *check_content(struct tree_check *check, const struct file_record *record)
{
    uint64_t size = record->kind == RECORD_DATA ? record->data_size : record->size;
    if (!check->in_file || size > check->left)
        return "content comes that was not announced";
    if (record->kind == RECORD_DATA) {
        if (check->max_bytes != 0 && size > check->max_bytes - check->data_bytes)
            return "there are more bytes than allowed";
        check->data_bytes += size;
        sha256_update(&check->file, record->data, record->data_size);
    }
    check->left -= size;
    check->bytes += size;
    return NULL;
}

static const char *check_sum(struct tree_check *check, const struct file_record *record)
{
    uint8_t digest[SHA256_BYTES];
    if (!check->in_file || check->left != 0)
        return "a file is shorter than announced";
    sha256_final(&check->file, digest);
    check->in_file = false;
    return memcmp(digest, record->data, sizeof digest) == 0 ? NULL
                                                            : "a file's content does not have the sum it came with";
}

static const char *check_end(struct tree_check *check, const struct file_record *record)
{
    if (!check->begun || check->in_file)
        return "the stream ends too early";
    struct sha256 stream = check->stream;
    sha256_final(&stream, check->digest);
    check->ended = true;
    if (record->count != check->entries || record->size != check->bytes || record->skipped != check->skipped ||
        memcmp(check->digest, record->data, sizeof check->digest) != 0)
        return "what has come does not have the counts and the sum that were sent with it";
    return NULL;
}

static const char *check_any(struct tree_check *check, const struct file_record *record)
{
    if (check->ended)
        return "something follows the end";
    switch (record->kind) {
    case RECORD_ENTRY:
        return check_entry(check, record);
    case RECORD_DATA:
    case RECORD_HOLE:
        return check_content(check, record);
    case RECORD_SUM:
        return check_sum(check, record);
    case RECORD_SKIP:
        check->skipped++;
        return check->in_file || !check->root_is_directory ? "an entry is skipped where none can be" : NULL;
    case RECORD_END:
        return check_end(check, record);
    default:
        check->ended = true;
        return NULL;
    }
}

const char *tree_check_record(struct tree_check *check, const struct file_record *record)
{
    const char *wrong = check->failed ? "the stream was refused before" : check_any(check, record);
    check->failed = wrong != NULL;
    sha256_update(&check->stream, record->bytes, record->bytes_size);
    return wrong;
}

/* --- PUT, GET, FILE_RESULT ------------------------------------------------------------------------ */

static size_t written(const struct wire_writer *writer, const uint8_t *out)
{
    return writer->overflow ? 0 : (size_t)(writer->next - out);
}

size_t message_put_encode(const struct message_put *message, uint8_t out[MESSAGE_PUT_BYTES_MAX])
{
    struct wire_writer writer = {.next = out, .end = out + MESSAGE_PUT_BYTES_MAX};
    wire_put_u32(&writer, message->flags);
    wire_put_string(&writer, message->destination);
    wire_put_string(&writer, message->name);
    return written(&writer, out);
}

int message_put_decode(const uint8_t *payload, size_t size, struct message_put *message)
{
    struct wire_reader reader = {.next = payload, .end = payload + size};
    message->flags = wire_get_u32(&reader);
    message->destination = wire_get_string(&reader);
    message->name = wire_get_string(&reader);
    if ((message->flags & ~PUT_MAKE_PARENTS) != 0 || message->destination[0] != '/' ||
        strlen(message->destination) > FILE_PATH_MAX || (message->name[0] != '\0' && !file_name_valid(message->name)))
        return -1;
    return wire_reader_end(&reader);
}

size_t message_get_encode(const struct message_get *message, uint8_t out[MESSAGE_GET_BYTES_MAX])
{
    struct wire_writer writer = {.next = out, .end = out + MESSAGE_GET_BYTES_MAX};
    wire_put_u64(&writer, message->max_bytes);
    wire_put_u64(&writer, message->max_entries);
    wire_put_string(&writer, message->source);
    return written(&writer, out);
}

int message_get_decode(const uint8_t *payload, size_t size, struct message_get *message)
{
    struct wire_reader reader = {.next = payload, .end = payload + size};
    message->max_bytes = wire_get_u64(&reader);
    message->max_entries = wire_get_u64(&reader);
    message->source = wire_get_string(&reader);
    if (message->source[0] != '/' || strlen(message->source) > FILE_PATH_MAX)
        return -1;
    return wire_reader_end(&reader);
}

size_t message_file_result_encode(const struct message_file_result *message, uint8_t out[MESSAGE_FILE_RESULT_BYTES_MAX])
{
    struct wire_writer writer = {.next = out, .end = out + MESSAGE_FILE_RESULT_BYTES_MAX};
    wire_put_u32(&writer, message->error);
    wire_put_u64(&writer, message->entries);
    wire_put_u64(&writer, message->bytes);
    wire_put_bytes(&writer, message->digest, SHA256_BYTES);
    put_text(&writer, message->path, FILE_PATH_MAX);
    put_text(&writer, message->text, 400);
    return written(&writer, out);
}

int message_file_result_decode(const uint8_t *payload, size_t size, struct message_file_result *message)
{
    struct wire_reader reader = {.next = payload, .end = payload + size};
    message->error = wire_get_u32(&reader);
    message->entries = wire_get_u64(&reader);
    message->bytes = wire_get_u64(&reader);
    const uint8_t *digest = wire_get_bytes(&reader, SHA256_BYTES);
    if (digest != NULL)
        memcpy(message->digest, digest, SHA256_BYTES);
    message->path = wire_get_string(&reader);
    message->text = wire_get_string(&reader);
    return wire_reader_end(&reader);
}
