# The project's runner, compiled by an agent: plain gcc and glibc in place of the build's musl-gcc.
# Run in the directory that src/ is in.
CFLAGS := -std=gnu17 -Os -Wall -Wextra -D_GNU_SOURCE -DWARMPOOL_VERSION='"example"' -Isrc -ffunction-sections -fdata-sections
SOURCES := $(wildcard src/runner/*.c src/tree/*.c src/wire/*.c)
OBJECTS := $(SOURCES:.c=.o)

runner: $(OBJECTS)
	$(CC) -static -s -Wl,--gc-sections -o $@ $^

$(OBJECTS): $(wildcard src/*/*.h)
