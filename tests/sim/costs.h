#pragma once

/* Prints TAP: nanoseconds of a pool's operations with 10, 1,000 and 100,000 containers or waiting tasks. Fails when one
 * of them costs more than one and a half times as much. */
int costs(void);
