/* Slots: a numeric uid and a subnet for each place in a pool. Kernel limits are counted per uid across containers, so
 * no two living containers share one; an index is given out again only after its container is gone. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "executor/internal.h"

#define SUBNET_BITS      29
#define SUBNET_ADDRESSES 8U

static bool bit_get(const uint8_t *bits, uint32_t index)
{
    return (bits[index / 8] >> (index % 8)) & 1;
}

static void bit_set(uint8_t *bits, uint32_t index, bool value)
{
    if (value)
        bits[index / 8] |= (uint8_t)(1U << (index % 8));
    else
        bits[index / 8] &= (uint8_t) ~(1U << (index % 8));
}

int slot_space_init(struct slot_space *space, const struct config *config, uint32_t random, struct error *err)
{
    *space = (struct slot_space){.count = config->uid_count};
    space->subnet_count = 1U << (SUBNET_BITS - config->subnet_prefix);
    /* Daemons side by side begin at different places, so that they seldom try the same subnet. */
    space->subnet_next = random % space->subnet_count;
    space->taken = calloc(space->count / 8 + 1, 1);
    space->subnet_taken = calloc(space->subnet_count / 8 + 1, 1);
    if (space->taken == NULL || space->subnet_taken == NULL) {
        slot_space_free(space);
        return error_set(err, ERROR_NOMEM, "out of memory");
    }
    return 0;
}

void slot_space_free(struct slot_space *space)
{
    free(space->taken);
    free(space->subnet_taken);
    *space = (struct slot_space){0};
}

struct slot *slot_new(struct slot_space *space, const struct config *config, const char *instance, struct error *err)
{
    uint32_t index = 0;
    while (index < space->count && bit_get(space->taken, index))
        index++;
    if (index == space->count) {
        error_set(err, ERROR_LIMIT, "every uid of uidRange is in use (%u); make the range larger", space->count);
        return NULL;
    }
    struct slot *slot = calloc(1, sizeof *slot);
    if (slot == NULL) {
        error_set(err, ERROR_NOMEM, "out of memory");
        return NULL;
    }
    bit_set(space->taken, index, true);
    list_init(&slot->link);
    slot->index = index;
    slot->uid = config->uid_first + index;
    slot->subnet = -1;
    snprintf(slot->network_name, sizeof slot->network_name, "wp-%s-%u", instance, index);
    return slot;
}

void slot_free(struct slot_space *space, struct slot *slot)
{
    slot_release_subnet(space, slot);
    bit_set(space->taken, slot->index, false);
    free(slot);
}

int slot_take_subnet(struct slot_space *space, const struct config *config, struct slot *slot, char cidr[24])
{
    for (uint32_t tried = 0; tried < space->subnet_count && slot->subnet < 0; tried++) {
        uint32_t subnet = (space->subnet_next + tried) % space->subnet_count;
        if (bit_get(space->subnet_taken, subnet))
            continue;
        bit_set(space->subnet_taken, subnet, true);
        slot->subnet = (int32_t)subnet;
        space->subnet_next = (subnet + 1) % space->subnet_count;
    }
    if (slot->subnet < 0)
        return -1;
    struct in_addr address = {.s_addr = htonl(config->subnet_base + (uint32_t)slot->subnet * SUBNET_ADDRESSES)};
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &address, text, sizeof text);
    snprintf(cidr, 24, "%s/%d", text, SUBNET_BITS);
    return 0;
}

void slot_subnet_foreign(struct slot *slot)
{
    slot->subnet = -1;
}

void slot_release_subnet(struct slot_space *space, struct slot *slot)
{
    if (slot->subnet >= 0)
        bit_set(space->subnet_taken, (uint32_t)slot->subnet, false);
    slot->subnet = -1;
}
