/* A small JSON reader for the stand-in of NVML: one document becomes a tree, freed as a whole. */
#ifndef LOTABOTS_JSON_H
#define LOTABOTS_JSON_H

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT };

struct json {
    enum json_kind kind;
    double number;      /* of a number; 0 or 1 of a boolean */
    long long whole;    /* the same as a whole number, exact up to 63 bits */
    char *text;         /* of a text, in UTF-8 */
    char *name;         /* of a member of an object */
    struct json *first; /* of a list or an object */
    struct json *next;
};

/* The tree of one document, or NULL where it is none. */
struct json *json_parse(const char *text);
void json_free(struct json *node);

/* The member of an object, or NULL; also for a NULL object and for JSON null. */
const struct json *json_get(const struct json *object, const char *name);
/* The n-th element of a list, or NULL. */
const struct json *json_at(const struct json *list, unsigned number);
unsigned json_count(const struct json *list);

#endif
