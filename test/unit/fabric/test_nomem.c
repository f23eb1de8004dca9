/* SPDX-License-Identifier: BSD-3-Clause */
/* No memory for packets, when they grow: the link goes on with small ones or ends with a sentence, and nobody waits for space for ever. */
#include "ofi_util.h"

#include <errno.h>

TestSuite(ofi_nomem, .timeout = 60);

enum { LARGE = 1 << 20 }; /* bytes that large packets are allocated in */

static int large_left = -1; /* so many are still granted; negative: all */

int posix_memalign(void **p, size_t align, size_t size)
{
    if (size == LARGE && large_left == 0)
        return ENOMEM;
    if (size == LARGE && large_left > 0)
        large_left--;
    *p = aligned_alloc(align, (size + align - 1) / align * align);
    return *p ? 0 : ENOMEM;
}

/* One side streams to the other, until that has n records or one side has given up: true. */
static bool stream_with(int granted, char *why, size_t size)
{
    struct side a, b;
    bool ended;

    large_left = granted;
    setenv("PLAIT_LOG", "none", 1);
    side_create(&b, NULL);
    side_create(&a, NULL);
    sides_meet(&a, &b);
    for (uint64_t until = pli_clock_now() + SOON_NS; !a.failed && !b.failed && b.got < 500;) {
        cr_assert_lt(pli_clock_now(), until, "%llu records came, and nobody said a word", (unsigned long long)b.got);
        side_send(&a, 3000);
        side_poll(&a);
        side_poll(&b);
    }
    ended = a.failed || b.failed;
    snprintf(why, size, "%s", a.failed ? a.text : b.text);
    cr_assert_eq(large_left, 0);
    side_destroy(&a);
    side_destroy(&b);
    side_close_hub(&a);
    side_close_hub(&b);
    return ended;
}

/* Packets stay small then. */
Test(ofi_nomem, the_receiver_has_none)
{
    char why[512];

    cr_assert(!stream_with(0, why, sizeof why), "%s", why);
}

Test(ofi_nomem, the_sender_has_none)
{
    char why[512];

    cr_assert(!stream_with(2, why, sizeof why), "%s", why); /* the receiver's window takes two */
}

Test(ofi_nomem, the_receiver_has_not_enough)
{
    char why[512];

    cr_assert(stream_with(1, why, sizeof why));
    cr_assert_not_null(strstr(why, "no memory for packets"), "%s", why);
}
