/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Settings that must fit the options can only be judged by somebody who knows the options, and those of the
 * template are in a variable, in a file. systemd tells the words of ExecStart= before it has put in the
 * variables, and the names of the files; so what it does with both at a start is done here again, as
 * systemd.service(5) and systemd.exec(5) have it: "$NAME" as a whole word is split at blanks, "${NAME}" is
 * put in where it stands.
 *
 * Only four options matter. The others need to be known just so far as to tell which argument is a value:
 * all but FLAGS take one. Like the helper, this stops at "--" or at the first word that is no option. */

#include "command.h"

#define BLANKS " \t\n\r"
#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789"
#define HELPER_NAME "fcgi-pool"
#define WORKERS_MAX 16384U

static const char *const flags[] = { "help", "version", "check", "socket-activation", "allow-root" };

/* --- files --- */

/* Copies what is between quotes to *out and returns what is behind the second one. */
static const char *unquote(const char *s, char quote, char **out) {
        for (; *s && *s != quote; s++) {
                if (quote == '"' && s[0] == '\\' && s[1] == '\n') {
                        s++;
                        continue;
                }
                if (quote == '"' && s[0] == '\\' && s[1] && strchr("\"\\`$", s[1]))
                        s++;
                *(*out)++ = *s;
        }
        return *s ? s + 1 : s;
}

/* Copies the value that begins at s to out, which has room for it; returns the end of its line. */
static const char *parse_value(const char *s, char *out) {
        char *end = out; /* behind the last character that is no blank at the end */

        for (;;) {
                s += strspn(s, " \t\r");
                if (*s != '"' && *s != '\'')
                        break;
                s = unquote(s + 1, *s, &out);
                end = out;
        }
        for (; *s && *s != '\n'; s++) {
                if (s[0] == '\\' && s[1] == '\n') {
                        s++;
                        continue;
                }
                if (s[0] == '\\' && s[1]) {
                        *out++ = *++s;
                        end = out;
                        continue;
                }
                *out++ = *s;
                if (!strchr(BLANKS, *s))
                        end = out;
        }
        *end = '\0';
        return s;
}

int environment_parse(const char *text, char ***strv) {
        for (const char *s = text; *s;) {
                size_t n;
                char *assignment;
                int r;

                s += strspn(s, BLANKS);
                n = strspn(s, NAME_CHARACTERS);
                if (n == 0 || s[n + strspn(s + n, " \t")] != '=') {
                        /* A comment goes on behind a backslash, too. */
                        while (*s && *s != '\n')
                                s += s[0] == '\\' && s[1] ? 2 : 1;
                        continue;
                }
                assignment = calloc(1, strlen(s) + 1);
                if (!assignment)
                        return -ENOMEM;
                memcpy(assignment, s, n);
                assignment[n] = '=';
                s = parse_value(s + n + strspn(s + n, " \t") + 1, assignment + n + 1);
                r = strv_consume(strv, assignment);
                if (r < 0)
                        return r;
        }
        return 0;
}

const char *environment_get(char *const *environment, const char *name, size_t n) {
        const char *value = NULL;

        for (char *const *e = environment; e && *e; e++)
                if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
                        value = *e + n + 1;
        return value;
}

/* --- the words of a command line --- */

/* Splits s at blanks outside of quotes and appends the words to *strv. */
static int append_split(char ***strv, const char *s) {
        for (s += strspn(s, BLANKS); *s; s += strspn(s, BLANKS)) {
                char *word, *out, quote = '\0';

                word = out = malloc(strlen(s) + 1);
                if (!word)
                        return -ENOMEM;
                for (; *s && (quote || !strchr(BLANKS, *s)); s++) {
                        if (s[0] == '\\' && s[1])
                                *out++ = *++s;
                        else if (quote ? *s == quote : *s == '"' || *s == '\'')
                                quote = quote ? '\0' : *s;
                        else
                                *out++ = *s;
                }
                *out = '\0';
                if (strv_consume(strv, word) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* The value of "${NAME}" at s, "" if it is not set, and what is behind; NULL if there is no such thing at
 * s. */
static const char *variable_at(const char *s, char *const *environment, const char **ret_behind) {
        size_t n;

        if (s[0] != '$' || s[1] != '{')
                return NULL;
        n = strspn(s + 2, NAME_CHARACTERS);
        if (s[2 + n] != '}')
                return NULL;
        *ret_behind = s + 3 + n;
        return environment_get(environment, s + 2, n) ?: "";
}

/* Appends the word s with each ${NAME} replaced and "$$" as "$". */
static int append_replaced(char ***strv, const char *s, char *const *environment) {
        size_t size = 1;
        char *word, *out;
        const char *behind, *value;

        for (const char *p = s; *p; p = value ? behind : p + 1) {
                value = variable_at(p, environment, &behind);
                size += value ? strlen(value) : 1;
        }
        word = out = malloc(size);
        if (!word)
                return -ENOMEM;
        for (const char *p = s; *p; p = behind) {
                value = variable_at(p, environment, &behind);
                if (value) {
                        out = stpcpy(out, value);
                        continue;
                }
                behind = p + (p[0] == '$' && p[1] == '$' ? 2 : 1);
                *out++ = *p;
        }
        *out = '\0';
        return strv_consume(strv, word);
}

static int expand(char *const *argv, char *const *environment, char ***ret_words) {
        _cleanup_strv_free_ char **words = NULL;
        int r = 0;

        for (char *const *a = argv; *a && r >= 0; a++) {
                if ((*a)[0] == '$' && (*a)[1] != '{' && (*a)[1] != '$')
                        r = append_split(&words, environment_get(environment, *a + 1, strlen(*a + 1)) ?: "");
                else
                        r = append_replaced(&words, *a, environment);
        }
        if (r < 0)
                return r;
        *ret_words = TAKE_PTR(words);
        return 0;
}

/* --- the options --- */

/* The place behind the helper's own name in words, or NULL. */
static char *const *find_options(char *const *words) {
        for (char *const *w = words; w && *w && !streq(*w, "--"); w++) {
                const char *slash = strrchr(*w, '/');

                if (streq(slash ? slash + 1 : *w, HELPER_NAME))
                        return w + 1;
        }
        return NULL;
}

bool command_is_helper(char *const *argv) {
        return find_options(argv);
}

/* N or MIN:MAX or auto, as the helper has it; 0 for what it would refuse. */
static unsigned parse_workers(const char *s, unsigned n_cpus) {
        unsigned long min, max;
        char *end;

        if (streq(s, "auto"))
                return MIN_OF(n_cpus, WORKERS_MAX);
        if (*s < '0' || *s > '9')
                return 0;
        min = max = strtoul(s, &end, 10);
        if (*end == ':' && end[1] >= '0' && end[1] <= '9')
                max = strtoul(end + 1, &end, 10);
        return *end != '\0' || max < min || max > WORKERS_MAX ? 0 : (unsigned) max;
}

#define SURGE_DEFAULT 25UL /* in a hundred */

/* N or N%, of all workers, as the helper has it; the default for what it would refuse. */
static unsigned count_surge(const char *s, unsigned n_workers) {
        unsigned long n = SURGE_DEFAULT;
        char *end = NULL;

        if (s && *s >= '0' && *s <= '9')
                n = strtoul(s, &end, 10);
        if (!end || (*end != '\0' && !streq(end, "%"))) {
                n = SURGE_DEFAULT;
                end = NULL;
        }
        if (!end || *end == '%')
                n = MIN_OF(n, 100UL) * n_workers / 100;
        return (unsigned) MAX_OF(MIN_OF(n, (unsigned long) n_workers), 1UL);
}

static bool is_flag(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(flags); i++)
                if (streq(flags[i], name))
                        return true;
        return false;
}

/* Applies the option name, with its value or "". */
static int apply(Command *command, const char *name, const char *value, unsigned n_cpus) {
        if (streq(name, "workers"))
                command->n_workers = parse_workers(value, n_cpus);
        else if (streq(name, "allow-root"))
                command->allow_root = true;
        else if (streq(name, "listener"))
                return free_and_strdup(&command->listener, value);
        else if (streq(name, "retire"))
                return free_and_strdup(&command->retire, value);
        return 0;
}

static int read_options(char *const *options, unsigned n_cpus, Command *command) {
        const char *surge = NULL;

        for (char *const *o = options; *o && (*o)[0] == '-' && (*o)[1] && !streq(*o, "--"); o++) {
                _cleanup_free_ char *name = NULL;
                const char *value = NULL;
                int r;

                if ((*o)[1] == '-') {
                        name = strndup(*o + 2, strcspn(*o + 2, "="));
                        value = strchr(*o, '=');
                        value = value ? value + 1 : NULL;
                } else {
                        name = strdup((*o)[1] == 'w' ? "workers" : "help");
                        value = (*o)[1] == 'w' && (*o)[2] ? *o + 2 : NULL;
                }
                if (!name)
                        return -ENOMEM;
                if (!value && !is_flag(name) && o[1] && !streq(o[1], "--"))
                        value = *++o;
                if (streq(name, "surge"))
                        surge = value;
                r = apply(command, name, value ?: "", n_cpus);
                if (r < 0)
                        return r;
        }
        command->n_surge = count_surge(surge, command->n_workers);
        return 0;
}

int command_parse(char *const *argv, char *const *environment, unsigned n_cpus, Command *ret_command) {
        _cleanup_(command_done) Command command = { .known = true };
        _cleanup_strv_free_ char **words = NULL;
        char *const *options;
        int r;

        r = expand(argv, environment, &words);
        if (r < 0)
                return r;
        options = find_options(words);
        if (!options)
                return -EINVAL;
        command.n_workers = parse_workers("auto", n_cpus);
        r = read_options(options, n_cpus, &command);
        if (r < 0)
                return r;

        *ret_command = command;
        command = (Command) {};
        return 0;
}

void command_done(Command *command) {
        free(command->listener);
        free(command->retire);
        *command = (Command) {};
}
