/* Preloaded into a program (LD_PRELOAD), makes one of its calls on files below some folders fail.  Used by shim.py.
   FAULT_FOLDERS: absolute folders, ":" between them.  FAULT_COUNT: a file of 8 bytes, in which all processes count the
   calls.  FAULT_LOG: a file that gets a line for each call: its number, "w" or "r", its name, the path.
   FAULT_N: the number of the call that fails; 0 or none: no call fails.  FAULT_ERROR: its errno.
   FAULT_LASTS: if 1, all later calls that write fail, too, as on a full disk.
   FAULT_MATCH: only paths that hold this text count.  FAULT_SIGNAL: instead of failing, the call sends this signal. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

static long number(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }

static int counts(const char *path) {
    const char *folder = getenv("FAULT_FOLDERS"), *match = getenv("FAULT_MATCH");
    while (folder && *folder && (!match || strstr(path, match))) {
        size_t length = strcspn(folder, ":");
        if (length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length])) return 1;
        folder += length + (folder[length] == ':');
    }
    return 0;
}

/* Whether the call `name`, which writes ('w') or reads ('r') `path`, is to fail: then errno is set. */
static int fails(char kind, const char *name, const char *path) {
    static volatile long *count;
    int before = errno, fd;
    char whole[2 * PATH_MAX], line[3 * PATH_MAX];
    if (path[0] != '/' && getcwd(whole, PATH_MAX)) {
        strncat(strcat(whole, "/"), path, PATH_MAX - 2);
        path = whole;
    }
    if (!counts(path)) { errno = before; return 0; }
    if (!count) {
        fd = syscall(SYS_openat, AT_FDCWD, getenv("FAULT_COUNT"), O_RDWR, 0);
        count = mmap(0, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (syscall(SYS_close, fd) || count == MAP_FAILED) abort();
    }
    long this = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST), wanted = number("FAULT_N");
    fd = syscall(SYS_openat, AT_FDCWD, getenv("FAULT_LOG"), O_WRONLY | O_APPEND, 0);
    syscall(SYS_write, fd, line, (size_t)snprintf(line, sizeof line, "%ld %c %s %s\n", this, kind, name, path));
    syscall(SYS_close, fd);
    int now = wanted && (this == wanted || (kind == 'w' && this > wanted && number("FAULT_LASTS")));
    if (now && number("FAULT_SIGNAL")) now = kill(getpid(), number("FAULT_SIGNAL"));
    errno = now ? (int)number("FAULT_ERROR") : before;
    return now;
}

static int fails_on(char kind, const char *name, int fd) {
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    path[length < 0 ? 0 : length] = 0;
    return path[0] == '/' && fails(kind, name, path);
}

static char kind_of(int flags) { return (flags & O_ACCMODE) == O_RDONLY ? 'r' : 'w'; }
static int mode_of(int flags, va_list rest) { return flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; }

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE va_list rest; va_start(rest, flags); int mode = mode_of(flags, rest); va_end(rest)
#define OPEN(name) int name(const char *path, int flags, ...) { MODE; \
    return fails(kind_of(flags), #name, path) ? -1 : NEXT(name)(path, flags, mode); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { MODE; \
    return folder == AT_FDCWD && fails(kind_of(flags), #name, path) ? -1 : NEXT(name)(folder, path, flags, mode); }
#define FOPEN(name) FILE *name(const char *path, const char *mode) { \
    return fails(strpbrk(mode, "wa+") ? 'w' : 'r', #name, path) ? 0 : NEXT(name)(path, mode); }
#define ON(type, name, kind, fd, failed, parameters, arguments) type name parameters { \
    return fails_on(kind, #name, fd) ? failed : NEXT(name) arguments; }

OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) FOPEN(fopen) FOPEN(fopen64)
ON(ssize_t, write, 'w', fd, -1, (int fd, const void *data, size_t size), (fd, data, size))
ON(ssize_t, pwrite, 'w', fd, -1, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
ON(ssize_t, pwrite64, 'w', fd, -1, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
ON(ssize_t, read, 'r', fd, -1, (int fd, void *data, size_t size), (fd, data, size))
ON(ssize_t, pread64, 'r', fd, -1, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
ON(int, fsync, 'w', fd, -1, (int fd), (fd))
ON(size_t, fwrite, 'w', fileno(f), 0, (const void *data, size_t size, size_t n, FILE *f), (data, size, n, f))
ON(int, fflush, 'w', f ? fileno(f) : -1, EOF, (FILE *f), (f))
ON(ssize_t, sendfile, 'w', to, -1, (int to, int from, off_t *at, size_t size), (to, from, at, size))
ON(ssize_t, sendfile64, 'w', to, -1, (int to, int from, off64_t *at, size_t size), (to, from, at, size))
int rename(const char *from, const char *to) { return fails('w', "rename", to) ? -1 : NEXT(rename)(from, to); }
int fclose(FILE *f) {  /* closes the file all the same, as the real one does */
    int failed = fails_on(fcntl(fileno(f), F_GETFL) & O_ACCMODE ? 'w' : 'r', "fclose", fileno(f)), error = errno;
    int closed = NEXT(fclose)(f);
    return failed ? errno = error, EOF : closed;
}
