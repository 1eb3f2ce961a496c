// Package poll reads git and the forge beside the loop.
//
// [Git] reads the refs of the intent repository. [Forge] reads the list of open pull
// requests, and asks what the list does not contain: who may write, how pull requests
// ended, what comments ask for, and which statuses and comments are posted.
//
// A turn uses the last answers, so it never waits for git or the forge. Each question is a job of a queue. A question
// that fails does not delay others, and is asked again after a pause. An answer that has changed wakes the loop. The
// content of webhooks is not trusted: a webhook only makes the loop read.
//
// Comments are read for two commands, "/aob run CODE" and "/aob accept CODE because REASON". The forge and the gates on
// main decide who may give them. If others can edit a comment, AOB asks for confirmation in a comment of its own, and
// the reaction to that comment counts.
package poll
