// Package outbox tells experiment trackers about trainings and releases, beside the loop.
//
// [Outbox.Note] is called in each turn. It derives what a tracker should show from what the turn has observed, and
// writes it into the ledger: a record for each training, and one for each model with releases. It calls nobody.
//
// [Outbox.Run] sends the records that a tracker does not have yet, one tracker beside the other, oldest training first
// and models last. A record that was sent is noted in the ledger with its digest. After a crash, or when a tracker was
// away, the records that are not noted are sent. The tracker compares, so a second time changes nothing.
//
// A tracker is a mirror. Nothing that it answers, or does not answer, changes what AOB decides or posts. It is shown
// as a line in aob status. If the ledger is lost, the records of open pull requests and of main are derived again.
package outbox
