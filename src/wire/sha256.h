/* SHA-256 (FIPS 180-4). Uses the processor's SHA instructions where it has them. Knows nothing but libc: the runner
 * links it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32U

struct sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes so far */
    uint8_t block[64];
};

void sha256_init(struct sha256 *sha);
void sha256_update(struct sha256 *sha, const void *data, size_t size);
/* The digest; `sha` is then used up. */
void sha256_final(struct sha256 *sha, uint8_t digest[SHA256_BYTES]);
