// Package view shows people what the loop does: it writes AOB's comment on a
// pull request, and it answers the API of the commands.
//
// [Comment] renders the report of a pull request as Markdown. [Source] answers
// the API from a [Snapshot], which is what the last turn observed and decided.
// [Requests] holds what people ask of the loop through the API.
//
// The package decides nothing. Text from outside (names, comments, errors of
// runs) is escaped before it is shown. A snapshot is never changed, so answers
// do not wait for a turn.
package view
