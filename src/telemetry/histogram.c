#include "telemetry/histogram.h"

#include <math.h>

/* Values below 8 have a bucket each; above, three bits after the leading one choose among eight. */
static unsigned bucket_of(uint64_t value)
{
    if (value < 8)
        return (unsigned)value;
    unsigned power = 63U - (unsigned)__builtin_clzll(value);
    unsigned index = (power - 2) * 8 + (unsigned)((value >> (power - 3)) & 7U);
    return index < HISTOGRAM_BUCKETS ? index : HISTOGRAM_BUCKETS - 1;
}

static double bucket_low(unsigned index)
{
    if (index < 8)
        return index;
    return ldexp(8.0 + index % 8, (int)(index / 8) - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value_us)
{
    histogram->count++;
    histogram->sum_us += value_us;
    if (value_us > histogram->max_us)
        histogram->max_us = value_us;
    histogram->bucket[bucket_of(value_us)]++;
}

double histogram_quantile_us(const struct histogram *histogram, double fraction)
{
    if (histogram->count == 0)
        return NAN;
    double wanted = fraction * (double)histogram->count;
    double seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        double here = histogram->bucket[i];
        if (here == 0 || seen + here < wanted) {
            seen += here;
            continue;
        }
        double low = bucket_low(i), high = bucket_low(i + 1);
        double value = low + (high - low) * (wanted - seen) / here;
        return value < (double)histogram->max_us ? value : (double)histogram->max_us;
    }
    return (double)histogram->max_us;
}

double histogram_mean_us(const struct histogram *histogram)
{
    return histogram->count == 0 ? NAN : (double)histogram->sum_us / (double)histogram->count;
}
