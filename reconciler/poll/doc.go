// Package poll reads git and the forge beside the loop.
//
// [Git] observes the refs of the intent repository. [Forge] reads the list of open pull
// requests and asks everything that the list does not say: who may write, how pull
// requests ended, what comments ask for, and which statuses and comments are posted.
//
// A turn works with the last answers, so it never waits for git or the forge. Each
// question waits in a queue, fails alone, and is asked again after a pause of its own.
// An answer that is news wakes the loop. Nothing that a webhook says is believed: it
// only makes the loop read.
//
// Comments are read for two commands, "/aob run CODE" and "/aob accept CODE because
// REASON". Who may give them is decided by the forge and by the gates on main. Where
// others can edit a comment, AOB asks back in a comment of its own, and the reaction to
// that comment is what counts.
package poll
