// Package turn is what the parts of the loop share: the clock, the log, the list of
// what does not work, and when the next turn is due and why.
//
// A [Turn] keeps two things. Troubles are failures, each with the time of its first
// occurrence: the status shows them, and the log repeats one with growing pauses. The
// schedule is when the next turn is due: every request for a turn names its reason, and
// the log shows it beside the steps of the turn. A [Signal] wakes a waiting goroutine.
package turn
