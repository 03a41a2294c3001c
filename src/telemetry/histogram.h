/* Durations in buckets that grow by an eighth of a power of two: percentiles within 9 %, memory and cost fixed,
 * whatever the number of samples. Microseconds. */
#pragma once

#include <stdint.h>

#define HISTOGRAM_BUCKETS 320U /* 8 per power of two up to 2^40 us */

struct histogram {
    uint64_t count, sum_us, max_us;
    uint32_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value_us);

/* The value below which `fraction` (0..1) of the samples lie, in microseconds; NaN without samples. */
double histogram_quantile_us(const struct histogram *histogram, double fraction);

/* NaN without samples. */
double histogram_mean_us(const struct histogram *histogram);
