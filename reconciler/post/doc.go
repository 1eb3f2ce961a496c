// Package post posts statuses and comments on the forge and remembers what it has posted.
//
// A [Board] posts only what differs from what stands on the forge. It forgets the old
// content before a post is sent and remembers the new content afterwards: after a crash
// in between, the post is sent again, and it is never taken for sent.
//
// Progress is posted with growing pauses, and answers at once. What stands on the forge
// is read back and posted again where somebody has edited or removed it. A status that
// somebody else sets again and again is answered with growing pauses, unless it is a
// success where AOB has none.
//
// Posts are sent by a queue, so nothing here waits for the forge.
package post
