/*
 * huffman: pack a file with a canonical Huffman code, or unpack it with -d; from standard input to standard output.
 *
 * A packed file is the length of the text (four bytes, low byte first), the code length of each of the 256 byte values,
 * and the codes, highest bit first. Lengths alone define a canonical code: shorter codes come first, and codes of one
 * length are numbered in the order of their values.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES = 256, NODES = 2 * VALUES, LONGEST = 32 };

struct node {
    uint64_t weight;
    int parent;
};

static unsigned char *read_all(FILE *file, size_t *size)
{
    size_t room = 1 << 16, used = 0, got;
    unsigned char *data = malloc(room);

    while (data && (got = fread(data + used, 1, room - used, file)) > 0) {
        used += got;
        if (used == room) {
            unsigned char *more = realloc(data, room *= 2);
            if (!more)
                free(data);
            data = more;
        }
    }
    *size = used;
    return data;
}

/* Merge the two lightest trees until one is left; the depth of a leaf is the length of its code. */
static void code_lengths(const uint64_t weight[VALUES], unsigned char length[VALUES])
{
    struct node nodes[NODES];
    int alive[NODES], living = 0, count = VALUES;

    memset(length, 0, VALUES);
    for (int value = 0; value < VALUES; value++) {
        nodes[value] = (struct node){weight[value], -1};
        if (weight[value])
            alive[living++] = value;
    }
    if (living == 1)
        length[alive[0]] = 1;
    while (living > 1) {
        int pair[2];
        for (int n = 0; n < 2; n++) {
            int lightest = 0;
            for (int place = 1; place < living; place++)
                if (nodes[alive[place]].weight < nodes[alive[lightest]].weight)
                    lightest = place;
            pair[n] = alive[lightest];
            alive[lightest] = alive[--living];
        }
        nodes[count] = (struct node){nodes[pair[0]].weight + nodes[pair[1]].weight, -1};
        nodes[pair[0]].parent = nodes[pair[1]].parent = count;
        alive[living++] = count++;
    }
    for (int value = 0; value < VALUES; value++)
        for (int up = nodes[value].parent; weight[value] && up >= 0; up = nodes[up].parent)
            length[value]++;
}

static void canonical_codes(const unsigned char length[VALUES], uint32_t code[VALUES])
{
    uint32_t next = 0;

    for (int bits = 1; bits <= LONGEST; bits++, next <<= 1)
        for (int value = 0; value < VALUES; value++)
            if (length[value] == bits)
                code[value] = next++;
}

static int pack(const unsigned char *text, size_t size)
{
    uint64_t weight[VALUES] = {0};
    unsigned char length[VALUES];
    uint32_t code[VALUES];
    unsigned bits = 0, byte = 0;

    for (size_t n = 0; n < size; n++)
        weight[text[n]]++;
    code_lengths(weight, length);
    canonical_codes(length, code);
    for (int shift = 0; shift < 32; shift += 8)
        putchar((int)(size >> shift & 255));
    fwrite(length, 1, VALUES, stdout);
    for (size_t n = 0; n < size; n++)
        for (int bit = length[text[n]] - 1; bit >= 0; bit--) {
            byte = byte << 1 | (code[text[n]] >> bit & 1);
            if (++bits == 8) {
                putchar((int)byte);
                bits = byte = 0;
            }
        }
    if (bits)
        putchar((int)(byte << (8 - bits)));
    return ferror(stdout);
}

static int unpack(const unsigned char *data, size_t size)
{
    const unsigned char *length = data + 4, *at = data + 4 + VALUES;
    uint32_t code[VALUES], left = 0, sofar = 0;
    int bits = 0;

    if (size < 4 + VALUES)
        return 1;
    for (int n = 3; n >= 0; n--)
        left = left << 8 | data[n];
    canonical_codes(length, code);
    for (; left && at < data + size; at++)
        for (int bit = 7; bit >= 0 && left; bit--) {
            sofar = sofar << 1 | (*at >> bit & 1);
            if (++bits > LONGEST)
                return 1; /* no code is as long as this: the file is damaged */
            for (int value = 0; value < VALUES; value++)
                if (length[value] == bits && code[value] == sofar) {
                    putchar(value);
                    left--;
                    sofar = 0;
                    bits = 0;
                    break;
                }
        }
    return left != 0 || ferror(stdout);
}

int main(int argc, char **argv)
{
    size_t size;
    unsigned char *data = read_all(stdin, &size);
    int failed = !data || size > UINT32_MAX;

    if (!failed)
        failed = argc > 1 && strcmp(argv[1], "-d") == 0 ? unpack(data, size) : pack(data, size);
    free(data);
    if (failed)
        fputs("huffman: the input is damaged, too large, or the output cannot be written\n", stderr);
    return failed;
}
