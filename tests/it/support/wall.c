/* A clock on the wall that is ahead of the true one by the seconds that a file has, for the program this is loaded into. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *ahead;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("OMNI_TEST_WALL");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        ahead = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long told = syscall(SYS_clock_gettime, clock, time);
    if (told == 0 && clock == CLOCK_REALTIME && ahead)
        time->tv_sec += *ahead;
    return (int)told;
}
