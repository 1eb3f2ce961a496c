// Package turn contains what the parts of the loop share: the clock, the log, the list of
// failures, and when the next turn is due and why.
//
// A [Turn] has two parts. Troubles are failures, each with the time of its first occurrence: the status shows them, and
// the log repeats each with growing pauses. The schedule is when the next turn is due: every request for a turn has a
// reason, which the log shows with the steps of the turn. A [Signal] wakes a waiting goroutine.
package turn
