/* SPDX-License-Identifier: BSD-3-Clause */
/* No memory for packets, when they grow: the link ends with a sentence, at whichever side it is, and nobody waits for space for ever. */
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

/* One side streams to the other. */
static void stream_with(int granted)
{
    struct side a, b;
    unsigned sent = 0;

    side_create(&b, NULL);
    side_create(&a, NULL);
    sides_meet(&a, &b);
    large_left = granted;
    for (uint64_t until = pli_clock_now() + SOON_NS; !a.failed && !b.failed;) {
        cr_assert_lt(pli_clock_now(), until, "%u records went, and nobody said a word", sent);
        sent += side_send(&a, 3000) == 0;
        side_poll(&a);
        side_poll(&b);
    }
    cr_assert(large_left == 0);
    cr_assert_not_null(strstr(a.failed ? a.text : b.text, "no memory for packets"), "%s", a.failed ? a.text : b.text);
    side_destroy(&a);
    side_destroy(&b);
    side_close_hub(&a);
    side_close_hub(&b);
}

Test(ofi_nomem, the_receiver_has_none)
{
    stream_with(0);
}

Test(ofi_nomem, the_sender_has_none)
{
    stream_with(2); /* the receiver's window takes two */
}
