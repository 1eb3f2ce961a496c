// Package post posts statuses and comments on the forge and stores what it has posted.
//
// A [Board] posts only what differs from the present content on the forge. It clears the
// stored content before a post is sent and stores the new content afterwards. After a
// crash in between, the post is sent again; it is never treated as sent.
//
// Progress is posted with growing pauses, and results at once. Posts are read back, and posted again if somebody has
// edited or removed them. If somebody else sets a status again and again, AOB answers with growing pauses, unless
// theirs is a success and AOB's is not.
//
// A queue sends the posts, so nothing here waits for the forge.
package post
