/* A small JSON reader: RFC 8259 without surrogate pairs, at most 64 levels deep. */
#include "json.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

static struct json *value(const char **at, int depth);

static void skip(const char **at) {
    while (**at && strchr(" \t\r\n", **at)) ++*at;
}

static int take(const char **at, char wanted) {
    skip(at);
    if (**at != wanted) return 0;
    ++*at;
    return 1;
}

static size_t put_utf8(char *to, unsigned long code) {
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xC0 | code >> 6);
        to[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    to[0] = (char)(0xE0 | code >> 12);
    to[1] = (char)(0x80 | (code >> 6 & 0x3F));
    to[2] = (char)(0x80 | (code & 0x3F));
    return 3;
}

static char *text(const char **at) {
    if (!take(at, '"')) return NULL;
    const char *end = *at;
    while (*end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
    char *made = malloc((size_t)(end - *at) + 1), *to = made;
    if (!made) return NULL;
    while (**at && **at != '"') {
        char c = *(*at)++;
        if (c != '\\') {
            *to++ = c;
            continue;
        }
        c = *(*at)++;
        if (c == 'u') {
            char hex[5] = {0};
            for (int i = 0; i < 4 && isxdigit((unsigned char)**at); ++i) hex[i] = *(*at)++;
            to += put_utf8(to, strtoul(hex, NULL, 16));
        } else {
            const char *from = "bfnrt", *found = c ? strchr(from, c) : NULL;
            *to++ = found ? "\b\f\n\r\t"[found - from] : c;
        }
    }
    *to = 0;
    if (!take(at, '"')) {
        free(made);
        return NULL;
    }
    return made;
}

static int members(struct json *node, const char **at, int depth) {
    int object = node->kind == JSON_OBJECT;
    char end = object ? '}' : ']';
    struct json **last = &node->first;
    if (take(at, end)) return 1;
    do {
        char *name = object ? text(at) : NULL;
        struct json *member = object && (!name || !take(at, ':')) ? NULL : value(at, depth + 1);
        if (!member) {
            free(name);
            return 0;
        }
        member->name = name;
        *last = member;
        last = &member->next;
    } while (take(at, ','));
    return take(at, end);
}

static int word(const char **at, const char *wanted) {
    size_t length = strlen(wanted);
    if (strncmp(*at, wanted, length)) return 0;
    *at += length;
    return 1;
}

static struct json *value(const char **at, int depth) {
    struct json *node = depth < MAX_DEPTH ? calloc(1, sizeof *node) : NULL;
    int good = 0;
    if (!node) return NULL;
    skip(at);
    if (**at == '"') {
        node->kind = JSON_TEXT;
        good = (node->text = text(at)) != NULL;
    } else if (**at == '{' || **at == '[') {
        node->kind = *(*at)++ == '{' ? JSON_OBJECT : JSON_LIST;
        good = members(node, at, depth);
    } else if (word(at, "true") || word(at, "false")) {
        node->kind = JSON_BOOL;
        node->whole = (*at)[-2] == 'u';
        node->number = (double)node->whole;
        good = 1;
    } else if (word(at, "null")) {
        good = 1;
    } else {
        char *end, *whole_end;
        node->kind = JSON_NUMBER;
        node->number = strtod(*at, &end);
        node->whole = strtoll(*at, &whole_end, 10);
        if (end != whole_end) node->whole = (long long)node->number;
        good = end != *at;
        *at = end;
    }
    if (good) return node;
    json_free(node);
    return NULL;
}

struct json *json_parse(const char *document) {
    struct json *node = value(&document, 0);
    skip(&document);
    if (node && *document) {
        json_free(node);
        return NULL;
    }
    return node;
}

void json_free(struct json *node) {
    while (node) {
        struct json *next = node->next;
        json_free(node->first);
        free(node->text);
        free(node->name);
        free(node);
        node = next;
    }
}

const struct json *json_get(const struct json *object, const char *name) {
    if (!object || object->kind != JSON_OBJECT) return NULL;
    for (const struct json *member = object->first; member; member = member->next)
        if (!strcmp(member->name, name)) return member->kind == JSON_NULL ? NULL : member;
    return NULL;
}

const struct json *json_at(const struct json *list, unsigned number) {
    const struct json *element = list && list->kind == JSON_LIST ? list->first : NULL;
    while (element && number--) element = element->next;
    return element;
}

unsigned json_count(const struct json *list) {
    unsigned count = 0;
    while (json_at(list, count)) ++count;
    return count;
}
