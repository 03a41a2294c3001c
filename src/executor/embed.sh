#!/bin/sh
# Prints assembly that embeds a file: embed.sh FILE SYMBOL. The checksum makes the output change with the content.
set -eu
printf '/* %s */\n' "$(cksum < "$1")"
printf '    .section .rodata\n    .balign 16\n'
printf '    .globl %s_begin, %s_end\n    .hidden %s_begin, %s_end\n' "$2" "$2" "$2" "$2"
printf '%s_begin:\n    .incbin "%s"\n%s_end:\n    .byte 0\n' "$2" "$1" "$2"
printf '    .section .note.GNU-stack,"",%%progbits\n'
