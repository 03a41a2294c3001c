#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Makes the terminal on stdin raw until terminal_restore() or the end of the process, however that comes about (but for
 * SIGKILL). False when stdin is none. */
bool terminal_raw(void);
void terminal_restore(void);

/* Of the terminal on stdin, stdout or stderr; false when there is none. */
bool terminal_size(uint16_t *rows, uint16_t *columns);
