/*
 * ringlog: keep the last lines of a log in a file of fixed size.
 *
 *     sensor | ringlog /var/log/humidity.ring 65536
 *     ringlog --dump /var/log/humidity.ring
 *
 * The file begins with a header that says where the next byte goes. Lines are written with the header last, so that
 * after a power cut at most the line that was being written is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x474c4e52u
#define LINE_MAX_BYTES 4096

struct header {
    uint32_t magic;
    uint32_t capacity;
    uint32_t next;
    uint32_t wrapped;
};

struct ring {
    int file;
    struct header head;
};

static int fail(const char *what, const char *path)
{
    fprintf(stderr, "ringlog: %s %s: %s\n", what, path, strerror(errno));
    return -1;
}

static int write_at(int file, const void *data, size_t size, off_t offset)
{
    const char *from = data;

    while (size > 0) {
        ssize_t written = pwrite(file, from, size, offset);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        from += written;
        offset += written;
        size -= (size_t)written;
    }
    return 0;
}

static int ring_open(struct ring *ring, const char *path, uint32_t capacity)
{
    struct stat about;

    ring->file = open(path, capacity ? O_RDWR | O_CREAT : O_RDONLY, 0644);
    if (ring->file < 0)
        return fail("cannot open", path);
    if (fstat(ring->file, &about) < 0)
        return fail("cannot look at", path);
    if (about.st_size == 0 && capacity) {
        ring->head = (struct header){MAGIC, capacity, 0, 0};
        if (ftruncate(ring->file, (off_t)(sizeof ring->head + capacity)) < 0)
            return fail("cannot reserve", path);
        return write_at(ring->file, &ring->head, sizeof ring->head, 0);
    }
    if (pread(ring->file, &ring->head, sizeof ring->head, 0) != (ssize_t)sizeof ring->head
        || ring->head.magic != MAGIC || ring->head.next > ring->head.capacity) {
        errno = EINVAL;
        return fail("no ring log:", path);
    }
    return 0;
}

static int ring_append(struct ring *ring, const char *line, uint32_t length)
{
    uint32_t left = ring->head.capacity - ring->head.next;
    uint32_t first = length < left ? length : left;

    if (length > ring->head.capacity)
        return 0; /* it would overwrite its own beginning */
    if (write_at(ring->file, line, first, (off_t)(sizeof ring->head + ring->head.next)) < 0)
        return -1;
    if (first < length) {
        if (write_at(ring->file, line + first, length - first, sizeof ring->head) < 0)
            return -1;
        ring->head.wrapped = 1;
        ring->head.next = length - first;
    } else {
        ring->head.next += length;
    }
    return write_at(ring->file, &ring->head, sizeof ring->head, 0);
}

static int ring_dump(const struct ring *ring)
{
    uint32_t capacity = ring->head.capacity;
    uint32_t size = ring->head.wrapped ? capacity : ring->head.next;
    uint32_t start = ring->head.wrapped ? ring->head.next : 0;
    int inside_line = !ring->head.wrapped;
    char *data = malloc(capacity);

    if (!data || pread(ring->file, data, capacity, sizeof ring->head) != (ssize_t)capacity) {
        free(data);
        return -1;
    }
    for (uint32_t n = 0; n < size; n++) {
        char byte = data[(start + n) % capacity];
        if (inside_line)
            putchar(byte);
        else if (byte == '\n')
            inside_line = 1; /* the oldest line has lost its beginning */
    }
    free(data);
    return ferror(stdout) ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct ring ring;
    char line[LINE_MAX_BYTES];

    if (argc == 3 && strcmp(argv[1], "--dump") == 0)
        return ring_open(&ring, argv[2], 0) < 0 || ring_dump(&ring) < 0;
    if (argc != 3 || atol(argv[2]) < LINE_MAX_BYTES) {
        fprintf(stderr, "usage: ringlog FILE BYTES (at least %d), or ringlog --dump FILE\n", LINE_MAX_BYTES);
        return 2;
    }
    if (ring_open(&ring, argv[1], (uint32_t)atol(argv[2])) < 0)
        return 1;
    while (fgets(line, sizeof line, stdin))
        if (ring_append(&ring, line, (uint32_t)strlen(line)) < 0)
            return fail("cannot write to", argv[1]) != 0;
    return 0;
}
