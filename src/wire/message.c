#include "wire/message.h"

#include <stdio.h>
#include <string.h>

/* --- writer and reader ---------------------------------------------------------------------------- */

static void put_le(struct wire_writer *writer, uint64_t value, size_t size)
{
    if ((size_t)(writer->end - writer->next) < size) {
        writer->overflow = true;
        writer->next = writer->end;
        return;
    }
    for (size_t i = 0; i < size; i++)
        *writer->next++ = (uint8_t)(value >> (8 * i));
}

void wire_put_u8(struct wire_writer *writer, uint8_t value)
{
    put_le(writer, value, 1);
}

void wire_put_u16(struct wire_writer *writer, uint16_t value)
{
    put_le(writer, value, 2);
}

void wire_put_u32(struct wire_writer *writer, uint32_t value)
{
    put_le(writer, value, 4);
}

void wire_put_u64(struct wire_writer *writer, uint64_t value)
{
    put_le(writer, value, 8);
}

void wire_put_bytes(struct wire_writer *writer, const void *data, size_t size)
{
    if ((size_t)(writer->end - writer->next) < size) {
        writer->overflow = true;
        writer->next = writer->end;
        return;
    }
    if (size > 0)
        memcpy(writer->next, data, size);
    writer->next += size;
}

void wire_put_string(struct wire_writer *writer, const char *text)
{
    size_t size = strlen(text);
    wire_put_u32(writer, (uint32_t)size);
    wire_put_bytes(writer, text, size + 1);
}

const uint8_t *wire_get_bytes(struct wire_reader *reader, size_t size)
{
    if (reader->bad || (size_t)(reader->end - reader->next) < size) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *bytes = reader->next;
    reader->next += size;
    return bytes;
}

static uint64_t get_le(struct wire_reader *reader, size_t size)
{
    const uint8_t *bytes = wire_get_bytes(reader, size);
    uint64_t value = 0;
    for (size_t i = 0; bytes != NULL && i < size; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

uint8_t wire_get_u8(struct wire_reader *reader)
{
    return (uint8_t)get_le(reader, 1);
}

uint16_t wire_get_u16(struct wire_reader *reader)
{
    return (uint16_t)get_le(reader, 2);
}

uint32_t wire_get_u32(struct wire_reader *reader)
{
    return (uint32_t)get_le(reader, 4);
}

uint64_t wire_get_u64(struct wire_reader *reader)
{
    return get_le(reader, 8);
}

const char *wire_get_string(struct wire_reader *reader)
{
    uint32_t size = wire_get_u32(reader);
    const uint8_t *bytes = size == UINT32_MAX ? NULL : wire_get_bytes(reader, (size_t)size + 1);
    if (bytes == NULL || bytes[size] != 0 || memchr(bytes, 0, size) != NULL) {
        reader->bad = true;
        return "";
    }
    return (const char *)bytes;
}

int wire_reader_end(const struct wire_reader *reader)
{
    return reader->bad || reader->next != reader->end ? -1 : 0;
}

static struct wire_reader reader_of(const uint8_t *payload, size_t size)
{
    return (struct wire_reader){.next = payload, .end = payload + size};
}

static struct wire_writer writer_of(uint8_t *out, size_t size)
{
    return (struct wire_writer){.next = out, .end = out + size};
}

/* --- SYNC ------------------------------------------------------------------------------------------- */

void message_sync_encode(const struct message_sync *message, uint8_t out[MESSAGE_SYNC_BYTES])
{
    struct wire_writer writer = writer_of(out, MESSAGE_SYNC_BYTES);
    wire_put_u16(&writer, message->version);
    wire_put_bytes(&writer, message->marker, SYNC_MARKER_BYTES);
    wire_put_u32(&writer, message->task);
    for (int i = 0; i < 2; i++) {
        wire_put_u64(&writer, message->received[i]);
        wire_put_u64(&writer, message->granted[i]);
    }
}

static void get_marker(struct wire_reader *reader, uint8_t marker[SYNC_MARKER_BYTES])
{
    const uint8_t *bytes = wire_get_bytes(reader, SYNC_MARKER_BYTES);
    if (bytes != NULL)
        memcpy(marker, bytes, SYNC_MARKER_BYTES);
}

int message_sync_decode(const uint8_t *payload, size_t size, struct message_sync *message)
{
    struct wire_reader reader = reader_of(payload, size);
    *message = (struct message_sync){.version = wire_get_u16(&reader)};
    get_marker(&reader, message->marker);
    message->task = wire_get_u32(&reader);
    for (int i = 0; i < 2; i++) {
        message->received[i] = wire_get_u64(&reader);
        message->granted[i] = wire_get_u64(&reader);
    }
    return wire_reader_end(&reader);
}

/* --- RUN -------------------------------------------------------------------------------------------- */

static size_t strings_size(const char *const strings[], uint32_t *count)
{
    size_t size = 0;
    *count = 0;
    for (; strings != NULL && strings[*count] != NULL; (*count)++)
        size += 4 + strlen(strings[*count]) + 1;
    return size;
}

#define RUN_FIXED_BYTES (6U * 4U + 2U * 2U + 3U * 4U)

static size_t secrets_size(const struct message_run *message)
{
    size_t size = 0;
    for (uint32_t i = 0; i < message->secretc; i++)
        size += 4 + (size_t)message->secret_list[i].size;
    return size;
}

size_t message_run_size(const struct message_run *message, const char *const argv[], const char *const env[])
{
    uint32_t count;
    return RUN_FIXED_BYTES + 4 + strlen(message->workdir) + 1 + strings_size(argv, &count) + strings_size(env, &count) +
           secrets_size(message);
}

void message_run_encode(const struct message_run *message, const char *const argv[], const char *const env[],
                        uint8_t *out, size_t size)
{
    struct wire_writer writer = writer_of(out, size);
    uint32_t argc, envc;
    strings_size(argv, &argc);
    strings_size(env, &envc);
    wire_put_u32(&writer, message->flags);
    wire_put_u32(&writer, message->timeout_ms);
    wire_put_u32(&writer, message->kill_timeout_ms);
    wire_put_u32(&writer, message->credit_stdout);
    wire_put_u32(&writer, message->credit_stderr);
    wire_put_u32(&writer, message->cpu_limit_s);
    wire_put_u16(&writer, message->rows);
    wire_put_u16(&writer, message->columns);
    wire_put_string(&writer, message->workdir);
    wire_put_u32(&writer, argc);
    wire_put_u32(&writer, envc);
    wire_put_u32(&writer, message->secretc);
    for (uint32_t i = 0; i < argc; i++)
        wire_put_string(&writer, argv[i]);
    for (uint32_t i = 0; i < envc; i++)
        wire_put_string(&writer, env[i]);
    for (uint32_t i = 0; i < message->secretc; i++) {
        wire_put_u32(&writer, message->secret_list[i].size);
        wire_put_bytes(&writer, message->secret_list[i].value, message->secret_list[i].size);
    }
}

struct message_secret wire_get_secret(struct wire_reader *reader)
{
    uint32_t size = wire_get_u32(reader);
    if (size > SECRET_BYTES_MAX)
        reader->bad = true;
    const uint8_t *value = wire_get_bytes(reader, size);
    return (struct message_secret){.value = value, .size = value == NULL ? 0 : size};
}

int message_run_decode(const uint8_t *payload, size_t size, struct message_run *message)
{
    struct wire_reader reader = reader_of(payload, size);
    *message = (struct message_run){0};
    message->flags = wire_get_u32(&reader);
    message->timeout_ms = wire_get_u32(&reader);
    message->kill_timeout_ms = wire_get_u32(&reader);
    message->credit_stdout = wire_get_u32(&reader);
    message->credit_stderr = wire_get_u32(&reader);
    message->cpu_limit_s = wire_get_u32(&reader);
    message->rows = wire_get_u16(&reader);
    message->columns = wire_get_u16(&reader);
    message->workdir = wire_get_string(&reader);
    message->argc = wire_get_u32(&reader);
    message->envc = wire_get_u32(&reader);
    message->secretc = wire_get_u32(&reader);
    if (message->argc == 0 || message->secretc > SECRETS_MAX || message->argc > RUN_STRINGS_MAX ||
        message->envc > RUN_STRINGS_MAX ||
        (message->flags & ~(RUN_FLAG_STDIN | RUN_FLAG_KEEP_BACKGROUND | RUN_FLAG_TERMINAL)) != 0)
        return -1;
    message->argv = reader;
    for (uint32_t i = 0; i < message->argc && !reader.bad; i++)
        wire_get_string(&reader);
    message->env = reader;
    for (uint32_t i = 0; i < message->envc && !reader.bad; i++) {
        const char *entry = wire_get_string(&reader);
        const char *equals = strchr(entry, '=');
        if (equals == NULL || equals == entry)
            reader.bad = true;
    }
    message->secrets = reader;
    for (uint32_t i = 0; i < message->secretc && !reader.bad; i++)
        wire_get_secret(&reader);
    return wire_reader_end(&reader);
}

/* --- CREDIT ----------------------------------------------------------------------------------------- */

void message_credit_encode(const struct message_credit *message, uint8_t out[MESSAGE_CREDIT_BYTES])
{
    struct wire_writer writer = writer_of(out, MESSAGE_CREDIT_BYTES);
    wire_put_u8(&writer, message->stream);
    wire_put_u32(&writer, message->bytes);
}

int message_credit_decode(const uint8_t *payload, size_t size, struct message_credit *message)
{
    struct wire_reader reader = reader_of(payload, size);
    message->stream = wire_get_u8(&reader);
    message->bytes = wire_get_u32(&reader);
    return message->stream > WIRE_FILES ? -1 : wire_reader_end(&reader);
}

/* --- WINCH ------------------------------------------------------------------------------------------ */

void message_winch_encode(const struct message_winch *message, uint8_t out[MESSAGE_WINCH_BYTES])
{
    struct wire_writer writer = writer_of(out, MESSAGE_WINCH_BYTES);
    wire_put_u16(&writer, message->rows);
    wire_put_u16(&writer, message->columns);
}

int message_winch_decode(const uint8_t *payload, size_t size, struct message_winch *message)
{
    struct wire_reader reader = reader_of(payload, size);
    message->rows = wire_get_u16(&reader);
    message->columns = wire_get_u16(&reader);
    return wire_reader_end(&reader);
}

/* --- RECEIPT ---------------------------------------------------------------------------------------- */

size_t receipt_encode(const struct receipt *receipt, uint8_t out[RECEIPT_BYTES_MAX])
{
    struct wire_writer writer = writer_of(out, RECEIPT_BYTES_MAX);
    for (unsigned i = 0; i < RECEIPT_FIELDS; i++)
        wire_put_u64(&writer, receipt->field[i]);
    uint32_t mounts = receipt->mount_count < RECEIPT_MOUNTS_MAX ? receipt->mount_count : RECEIPT_MOUNTS_MAX;
    wire_put_u32(&writer, mounts);
    for (uint32_t i = 0; i < mounts; i++) {
        wire_put_u64(&writer, receipt->mount[i].entries);
        wire_put_u64(&writer, receipt->mount[i].free_blocks);
        wire_put_u64(&writer, receipt->mount[i].free_inodes);
    }
    wire_put_u64(&writer, receipt->time_wait);
    wire_put_u64(&writer, receipt->killed);
    wire_put_u64(&writer, receipt->removed);
    wire_put_u64(&writer, receipt->reset_us);
    return (size_t)(writer.next - out);
}

static void get_receipt(struct wire_reader *reader, struct receipt *receipt)
{
    memset(receipt, 0, sizeof *receipt);
    for (unsigned i = 0; i < RECEIPT_FIELDS; i++)
        receipt->field[i] = wire_get_u64(reader);
    receipt->mount_count = wire_get_u32(reader);
    if (receipt->mount_count > RECEIPT_MOUNTS_MAX) {
        receipt->mount_count = 0;
        reader->bad = true;
    }
    for (uint32_t i = 0; i < receipt->mount_count; i++) {
        receipt->mount[i].entries = wire_get_u64(reader);
        receipt->mount[i].free_blocks = wire_get_u64(reader);
        receipt->mount[i].free_inodes = wire_get_u64(reader);
    }
    receipt->time_wait = wire_get_u64(reader);
    receipt->killed = wire_get_u64(reader);
    receipt->removed = wire_get_u64(reader);
    receipt->reset_us = wire_get_u64(reader);
}

int receipt_decode(const uint8_t *payload, size_t size, struct receipt *receipt)
{
    struct wire_reader reader = reader_of(payload, size);
    get_receipt(&reader, receipt);
    return wire_reader_end(&reader);
}

const char *receipt_field_name(enum receipt_field field)
{
    static const char *const names[RECEIPT_FIELDS] = {"processes", "sysv_shm", "sysv_sem", "sysv_msg",    "tcp", "udp",
                                                      "raw",       "unix",     "netlink",  "descriptors", "self"};
    return (unsigned)field < RECEIPT_FIELDS ? names[field] : "?";
}

static bool differs(uint64_t fresh, uint64_t now, const char *name, char *text, size_t size)
{
    if (fresh == now)
        return false;
    snprintf(text, size, "%s: now %llu, fresh %llu", name, (unsigned long long)now, (unsigned long long)fresh);
    return true;
}

bool receipt_differs(const struct receipt *baseline, const struct receipt *now, char *text, size_t text_size)
{
    for (unsigned i = 0; i < RECEIPT_FIELDS; i++)
        if (differs(baseline->field[i], now->field[i], receipt_field_name(i), text, text_size))
            return true;
    if (differs(baseline->mount_count, now->mount_count, "mounts", text, text_size))
        return true;
    for (uint32_t i = 0; i < now->mount_count; i++) {
        char name[48];
        snprintf(name, sizeof name, "mount %u entries", i + 1);
        if (differs(baseline->mount[i].entries, now->mount[i].entries, name, text, text_size))
            return true;
        snprintf(name, sizeof name, "mount %u free blocks", i + 1);
        if (differs(baseline->mount[i].free_blocks, now->mount[i].free_blocks, name, text, text_size))
            return true;
        snprintf(name, sizeof name, "mount %u free inodes", i + 1);
        if (differs(baseline->mount[i].free_inodes, now->mount[i].free_inodes, name, text, text_size))
            return true;
    }
    return false;
}

/* --- HELLO ------------------------------------------------------------------------------------------ */

size_t message_hello_encode(const struct message_hello *message, uint8_t out[MESSAGE_HELLO_BYTES_MAX])
{
    struct wire_writer writer = writer_of(out, MESSAGE_HELLO_BYTES_MAX);
    wire_put_u16(&writer, message->version);
    wire_put_bytes(&writer, message->marker, SYNC_MARKER_BYTES);
    wire_put_u8(&writer, message->flags);
    wire_put_u8(&writer, message->task_state);
    wire_put_u32(&writer, message->task);
    wire_put_u32(&writer, message->generation);
    wire_put_u64(&writer, message->resumed[0]);
    wire_put_u64(&writer, message->resumed[1]);
    wire_put_u64(&writer, message->stdin_received);
    wire_put_u64(&writer, message->stdin_consumed);
    size_t used = (size_t)(writer.next - out);
    return used + receipt_encode(&message->baseline, out + used);
}

int message_hello_decode(const uint8_t *payload, size_t size, struct message_hello *message)
{
    struct wire_reader reader = reader_of(payload, size);
    message->version = wire_get_u16(&reader);
    get_marker(&reader, message->marker);
    message->flags = wire_get_u8(&reader);
    message->task_state = wire_get_u8(&reader);
    message->task = wire_get_u32(&reader);
    message->generation = wire_get_u32(&reader);
    message->resumed[0] = wire_get_u64(&reader);
    message->resumed[1] = wire_get_u64(&reader);
    message->stdin_received = wire_get_u64(&reader);
    message->stdin_consumed = wire_get_u64(&reader);
    get_receipt(&reader, &message->baseline);
    return message->task_state > HELLO_TASK_EXITED ? -1 : wire_reader_end(&reader);
}

/* --- EXIT ------------------------------------------------------------------------------------------- */

void message_exit_encode(const struct message_exit *message, uint8_t out[MESSAGE_EXIT_BYTES])
{
    struct wire_writer writer = writer_of(out, MESSAGE_EXIT_BYTES);
    wire_put_u8(&writer, message->outcome);
    wire_put_u8(&writer, message->spawn_stage);
    wire_put_u8(&writer, message->peak_source);
    wire_put_u8(&writer, message->exit_code);
    wire_put_u32(&writer, message->signal);
    wire_put_u32(&writer, message->spawn_errno);
    wire_put_u32(&writer, message->killed);
    wire_put_u64(&writer, message->wall_us);
    wire_put_u64(&writer, message->spawn_us);
    wire_put_u64(&writer, message->user_us);
    wire_put_u64(&writer, message->system_us);
    wire_put_u64(&writer, message->cgroup_cpu_us);
    wire_put_u64(&writer, message->peak_bytes);
    wire_put_u64(&writer, message->disk_bytes);
    wire_put_u64(&writer, message->network_bytes);
}

int message_exit_decode(const uint8_t *payload, size_t size, struct message_exit *message)
{
    struct wire_reader reader = reader_of(payload, size);
    message->outcome = wire_get_u8(&reader);
    message->spawn_stage = wire_get_u8(&reader);
    message->peak_source = wire_get_u8(&reader);
    message->exit_code = wire_get_u8(&reader);
    message->signal = wire_get_u32(&reader);
    message->spawn_errno = wire_get_u32(&reader);
    message->killed = wire_get_u32(&reader);
    message->wall_us = wire_get_u64(&reader);
    message->spawn_us = wire_get_u64(&reader);
    message->user_us = wire_get_u64(&reader);
    message->system_us = wire_get_u64(&reader);
    message->cgroup_cpu_us = wire_get_u64(&reader);
    message->peak_bytes = wire_get_u64(&reader);
    message->disk_bytes = wire_get_u64(&reader);
    message->network_bytes = wire_get_u64(&reader);
    bool sound = message->outcome > EXIT_UNKNOWN && message->outcome <= EXIT_NOT_STARTED &&
                 message->spawn_stage <= SPAWN_EXEC && message->peak_source <= PEAK_CGROUP && message->signal <= 64;
    return sound ? wire_reader_end(&reader) : -1;
}

/* --- PONG ------------------------------------------------------------------------------------------- */

void message_pong_encode(const struct message_pong *message, uint8_t out[MESSAGE_PONG_BYTES])
{
    struct wire_writer writer = writer_of(out, MESSAGE_PONG_BYTES);
    wire_put_u64(&writer, message->nonce);
    wire_put_u32(&writer, message->spawn_errno);
    wire_put_u32(&writer, message->spawn_us);
    wire_put_u64(&writer, message->memory_bytes);
    wire_put_u64(&writer, message->memory_limit);
    wire_put_u64(&writer, message->pids);
    wire_put_u64(&writer, message->pids_limit);
}

int message_pong_decode(const uint8_t *payload, size_t size, struct message_pong *message)
{
    struct wire_reader reader = reader_of(payload, size);
    message->nonce = wire_get_u64(&reader);
    message->spawn_errno = wire_get_u32(&reader);
    message->spawn_us = wire_get_u32(&reader);
    message->memory_bytes = wire_get_u64(&reader);
    message->memory_limit = wire_get_u64(&reader);
    message->pids = wire_get_u64(&reader);
    message->pids_limit = wire_get_u64(&reader);
    return wire_reader_end(&reader);
}

/* --- RESULT ----------------------------------------------------------------------------------------- */

size_t message_result_size(const struct message_result *message)
{
    return 4 + 4 + strlen(message->message) + 1 + 4 + strlen(message->json) + 1;
}

void message_result_encode(const struct message_result *message, uint8_t *out, size_t size)
{
    struct wire_writer writer = writer_of(out, size);
    wire_put_u32(&writer, message->exit_code);
    wire_put_string(&writer, message->message);
    wire_put_string(&writer, message->json);
}

int message_result_decode(const uint8_t *payload, size_t size, struct message_result *message)
{
    struct wire_reader reader = reader_of(payload, size);
    message->exit_code = wire_get_u32(&reader);
    message->message = wire_get_string(&reader);
    message->json = wire_get_string(&reader);
    return wire_reader_end(&reader);
}
