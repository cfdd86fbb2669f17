/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The helper signals and watches processes of its own user: it needs no capability at all. What workers
 * were promised waits in our permitted and inheritable sets, where it has no effect, until the child raises
 * it in its ambient set.
 *
 * The bounding set shrinks only with CAP_SETPCAP, which a unit with User= does not leave us; that is no
 * loss, since without capabilities and with no_new_privs nothing can regain one. For uid 0 execve(2) grants
 * all of the bounding set; there no_new_privs limits the grant to what was permitted before, and the
 * reduced bounding set says the same to everything that looks. Root means any of the real, effective and
 * saved user id: each is a way back.
 *
 * The kernel may know fewer capabilities than libcap (the name parses, but it is permitted to nobody) or
 * more: the sets are built from nothing rather than cleared bit by bit, and the bounding set is walked
 * until the kernel says EINVAL.
 *
 * capabilities(7): a capability can be added to the inheritable set if it is permitted and bounding, to the
 * ambient set if it is permitted and inheritable. */

#include <ctype.h>
#include <sys/prctl.h>

#include "privileges.h"

#define CAPABILITY_BITS 64U
#define SEPARATORS ", \t\n"

static void cap_free_string(char **name) {
        if (*name)
                (void) cap_free(*name);
}

static void cap_free_set(cap_t *set) {
        if (*set)
                (void) cap_free(*set);
}

/* The names in mask as "CAP_A<separator>CAP_B", cut short if they do not fit. */
static void format_mask(uint64_t mask, char separator, char *buffer, size_t size) {
        size_t n = 0;

        assert(size > 0);

        for (unsigned i = 0; i < CAPABILITY_BITS; i++) {
                _cleanup_(cap_free_string) char *name = NULL;

                if (!(mask & (UINT64_C(1) << i)))
                        continue;

                name = cap_to_name((cap_value_t) i);
                if (n > 0 && n < size - 1)
                        buffer[n++] = separator;
                for (const char *p = name ?: "?"; *p && n < size - 1; p++)
                        buffer[n++] = (char) toupper((unsigned char) *p);
        }
        buffer[n] = '\0';
}

static bool has_capability(cap_t set, cap_value_t capability, cap_flag_t flag) {
        cap_flag_value_t value = CAP_CLEAR;

        return cap_get_flag(set, capability, flag, &value) >= 0 && value == CAP_SET;
}

/* The bits of mask that are not in our permitted set. */
static uint64_t mask_not_permitted(cap_t set, uint64_t mask) {
        for (unsigned i = 0; i < CAPABILITY_BITS; i++)
                if (has_capability(set, (cap_value_t) i, CAP_PERMITTED))
                        mask &= ~(UINT64_C(1) << i);

        return mask;
}

/* Sets *ret_value from a name of n characters, with or without "CAP_". */
static int capability_from_name(const char *name, size_t n, cap_value_t *ret_value) {
        bool prefixed = n >= strlen("cap_") && strncasecmp(name, "cap_", strlen("cap_")) == 0;
        char lower[64];
        cap_value_t value;
        int k;

        /* Always with the prefix: without, libcap takes numbers too. */
        k = snprintf(lower, sizeof(lower), "%s%.*s", prefixed ? "" : "cap_", (int) n, name);
        if (k < 0 || (size_t) k >= sizeof(lower))
                return -EINVAL;
        for (char *p = lower; *p; p++) {
                if (!isalnum((unsigned char) *p) && *p != '_') /* where libcap would stop reading */
                        return -EINVAL;
                *p = (char) tolower((unsigned char) *p);
        }

        if (cap_from_name(lower, &value) < 0 || value < 0 || (unsigned) value >= CAPABILITY_BITS)
                return -EINVAL;

        *ret_value = value;
        return 0;
}

int capabilities_parse(const char *s, uint64_t *ret_mask, const char **ret_bad) {
        uint64_t mask = 0;
        size_t n;

        assert(s);
        assert(ret_mask);

        for (s += strspn(s, SEPARATORS); *s; s += n, s += strspn(s, SEPARATORS)) {
                cap_value_t value;

                n = strcspn(s, SEPARATORS);
                if (n >= CAPABILITY_BITS || capability_from_name(s, n, &value) < 0) {
                        if (ret_bad)
                                *ret_bad = s;
                        return -EINVAL;
                }
                mask |= UINT64_C(1) << value;
        }

        *ret_mask = mask;
        return 0;
}

/* Drops what is not in mask from the bounding set, if set, our capabilities, allows us to. */
static int bounding_set_reduce(cap_t set, uint64_t mask) {
        const cap_value_t setpcap = CAP_SETPCAP;

        if (!has_capability(set, CAP_SETPCAP, CAP_PERMITTED))
                return 0;

        if (!has_capability(set, CAP_SETPCAP, CAP_EFFECTIVE) &&
            (cap_set_flag(set, CAP_EFFECTIVE, 1, &setpcap, CAP_SET) < 0 || cap_set_proc(set) < 0))
                return -errno;

        for (unsigned i = 0; i < CAPABILITY_BITS; i++) {
                int bound = prctl(PR_CAPBSET_READ, (unsigned long) i, 0UL, 0UL, 0UL);

                if (bound < 0) /* the kernel knows no more */
                        break;
                if (bound > 0 && !(mask & (UINT64_C(1) << i)) &&
                    prctl(PR_CAPBSET_DROP, (unsigned long) i, 0UL, 0UL, 0UL) < 0)
                        return -errno;
        }

        return 0;
}

/* Makes mask the permitted and inheritable set; the effective and the ambient one are empty then. What is so
 * already is left alone: a unit without capabilities may well forbid capset(2), too (@privileged). */
static int capabilities_keep(cap_t held, uint64_t mask) {
        _cleanup_(cap_free_set) cap_t set = NULL;

        set = cap_init();
        if (!set)
                return -errno;

        for (unsigned i = 0; i < CAPABILITY_BITS; i++) {
                cap_value_t value = (cap_value_t) i;

                if (!(mask & (UINT64_C(1) << i)))
                        continue;
                if (cap_set_flag(set, CAP_PERMITTED, 1, &value, CAP_SET) < 0 ||
                    cap_set_flag(set, CAP_INHERITABLE, 1, &value, CAP_SET) < 0)
                        return -errno;
        }

        if (cap_reset_ambient() < 0)
                return -errno;
        if (cap_compare(held, set) != 0 && cap_set_proc(set) < 0)
                return -errno;

        return 0;
}

static int refuse_missing(uint64_t missing, Problem *ret_problem) {
        char wanted[192], remedy[192];

        format_mask(missing, ',', wanted, sizeof(wanted));
        format_mask(missing, ' ', remedy, sizeof(remedy));
        return problem_set(ret_problem, EXIT_STATUS_NO_PERMISSION, -EPERM,
                           "--worker-capabilities=%s: not in our permitted set, "
                           "add AmbientCapabilities=%s to the unit", wanted, remedy);
}

static bool is_root(void) {
        uid_t real, effective, saved;

        return getresuid(&real, &effective, &saved) < 0 || real == 0 || effective == 0 || saved == 0;
}

int privileges_drop(uint64_t worker_mask, bool allow_root, Problem *ret_problem) {
        _cleanup_(cap_free_set) cap_t set = NULL;
        uint64_t missing;
        int r;

        if (!allow_root && is_root())
                return problem_set(ret_problem, EXIT_STATUS_NO_PERMISSION, -EPERM,
                                   "refusing to run as root: use User= in the unit, "
                                   "or --allow-root to run workers as root");

        set = cap_get_proc();
        if (!set)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -errno,
                                   "cannot read our capabilities: %m");

        missing = mask_not_permitted(set, worker_mask);
        if (missing != 0)
                return refuse_missing(missing, ret_problem);

        r = bounding_set_reduce(set, worker_mask);
        if (r >= 0)
                r = capabilities_keep(set, worker_mask);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "cannot drop capabilities: %s",
                                   strerror(-r));

        if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -errno, "cannot set no_new_privs: %m");

        return 0;
}

int privileges_raise_ambient(uint64_t worker_mask) {
        for (unsigned i = 0; i < CAPABILITY_BITS; i++)
                if ((worker_mask & (UINT64_C(1) << i)) &&
                    prctl(PR_CAP_AMBIENT, (unsigned long) PR_CAP_AMBIENT_RAISE, (unsigned long) i,
                          0UL, 0UL) < 0)
                        return -errno;

        return 0;
}
