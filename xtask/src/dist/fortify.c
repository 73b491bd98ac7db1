/* What Debian's unwinder, which is compiled for glibc, asks for and musl does not have. */
#include <stdarg.h>
#include <stdio.h>

int __fprintf_chk(FILE *to, int level, const char *format, ...)
{
    (void)level;
    va_list arguments;
    va_start(arguments, format);
    int written = vfprintf(to, format, arguments);
    va_end(arguments);
    return written;
}
