#include "wire/frame.h"

static uint32_t get_u32(const uint8_t *in)
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static void put_u32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t header_check(const uint8_t *header)
{
    uint32_t hash = 2166136261U;
    for (int i = 0; i < 12; i++)
        hash = (hash ^ header[i]) * 16777619U;
    return hash;
}

uint32_t frame_payload_max(uint8_t type)
{
    switch (type) {
    case FRAME_SYNC:
        return 128;
    case FRAME_CREDIT:
    case FRAME_SIGNAL:
    case FRAME_CANCEL:
    case FRAME_PING:
    case FRAME_PONG:
    case FRAME_WINCH:
        return 64;
    case FRAME_RUN:
        return FRAME_RUN_MAX;
    case FRAME_STDIN:
    case FRAME_STDOUT:
    case FRAME_STDERR:
    case FRAME_FILE:
        return FRAME_DATA_MAX;
    case FRAME_PUT:
    case FRAME_GET:
    case FRAME_FILE_RESULT:
        return 8192;
    case FRAME_HELLO:
    case FRAME_RECEIPT:
    case FRAME_EXIT:
    case FRAME_LOG:
        return 2048;
    case FRAME_RESULT:
        return FRAME_RESULT_MAX;
    default:
        return 0;
    }
}

bool frame_type_known(uint8_t type)
{
    return (type >= FRAME_SYNC && type <= FRAME_FILE) || (type >= FRAME_HELLO && type <= FRAME_FILE_RESULT) ||
           type == FRAME_RESULT;
}

const char *frame_type_name(uint8_t type)
{
    static const char *const low[] = {"?",     "SYNC", "RUN", "STDIN", "CREDIT", "SIGNAL", "CANCEL",
                                      "RESET", "PING", "ACK", "WINCH", "PUT",    "GET",    "FILE"};
    static const char *const high[] = {"HELLO", "STDOUT", "STDERR", "EXIT", "RECEIPT", "PONG", "LOG", "FILE_RESULT"};
    if (type <= FRAME_FILE)
        return low[type];
    if (type >= FRAME_HELLO && type <= FRAME_FILE_RESULT)
        return high[type - FRAME_HELLO];
    return type == FRAME_RESULT ? "RESULT" : "?";
}

void frame_encode_header(uint8_t header[FRAME_HEADER_BYTES], uint8_t type, uint8_t flags, uint32_t task,
                         uint32_t length)
{
    header[0] = FRAME_MAGIC & 0xff;
    header[1] = FRAME_MAGIC >> 8;
    header[2] = type;
    header[3] = flags;
    put_u32(header + 4, length);
    put_u32(header + 8, task);
    put_u32(header + 12, header_check(header));
}

ptrdiff_t frame_size(const uint8_t *data, size_t size)
{
    if (size < FRAME_HEADER_BYTES)
        return 0;
    uint32_t length = get_u32(data + 4);
    bool sound = data[0] == (FRAME_MAGIC & 0xff) && data[1] == FRAME_MAGIC >> 8 &&
                 get_u32(data + 12) == header_check(data) && frame_type_known(data[2]) &&
                 length <= frame_payload_max(data[2]);
    return sound ? (ptrdiff_t)(FRAME_HEADER_BYTES + length) : -1;
}

ptrdiff_t frame_decode(const uint8_t *data, size_t size, struct frame *frame)
{
    ptrdiff_t whole = frame_size(data, size);
    if (whole <= 0 || (size_t)whole > size)
        return whole < 0 ? -1 : 0;
    *frame = (struct frame){.type = data[2],
                            .flags = data[3],
                            .length = get_u32(data + 4),
                            .task = get_u32(data + 8),
                            .payload = data + FRAME_HEADER_BYTES};
    return whole;
}
